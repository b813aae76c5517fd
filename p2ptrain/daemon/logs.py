"""The log file: one line an event, local time, at most six files of 10 MB."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
FILE_BYTES_MAX = 10_000_000
FILES_KEPT = 5

logger = logging.getLogger("p2ptrain")

QUIET = ("saved", "averaged", "exchange_failed", "peer_down", "fetch_failed")
"""What happens all the time: kept for those who ask, not shown in the foreground."""


def open_log(path: Path, *, console: bool) -> None:
    """Write to the file, and to the terminal what an owner may want to see."""
    file = RotatingFileHandler(path, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, delay=True)
    file.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(file)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if console:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        terminal.setLevel(logging.INFO)
        logger.addHandler(terminal)


def close_log() -> None:
    """Let go of the files."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
