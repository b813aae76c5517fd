"""The log file: one line an event, local time, at most six files of 10 MB.

Whatever a peer's words are, they cannot begin a line nor speak to the terminal.
"""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
FILE_BYTES_MAX = 10_000_000
FILES_KEPT = 5

logger = logging.getLogger("p2ptrain")

QUIET = ("saved", "averaged", "exchange_failed", "peer_down", "fetch_failed")
"""What happens all the time: kept for those who ask, not shown in the foreground."""


class OneLine(logging.Formatter):
    """Shows what cannot be printed as an escape; only the lines of a traceback stay lines, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Write the line of an event."""
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Write a traceback."""
        return "\n".join("    " + visible(line) for line in super().formatException(ei).split("\n"))


def visible(text: str) -> str:
    """Replace line ends, colours and all else that is not printed by escapes."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in text
    )


def open_log(path: Path, *, console: bool) -> None:
    """Write to the file, and to the terminal what an owner may want to see."""
    file = RotatingFileHandler(path, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, delay=True)
    file.setFormatter(OneLine(FORMAT))
    logger.addHandler(file)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if console:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setFormatter(OneLine("%(asctime)s %(message)s", "%H:%M:%S"))
        terminal.setLevel(logging.INFO)
        logger.addHandler(terminal)


def close_log() -> None:
    """Let go of the files."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
