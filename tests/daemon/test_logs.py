"""Whatever a peer says, one event is one line of the log, and the terminal hears nothing of it."""

import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2ptrain.core.effects import Note
from p2ptrain.daemon.driver import describe
from p2ptrain.daemon.logs import close_log, logger, open_log, visible

HOSTILE = [
    "x\n2026-11-20 12:00:00,000 INFO    the owner paused it",
    "no\nspace",
    "x\r\x1b[2J\x1b]0;title\x07",
    "x\u2028y\x85z\x0b\x0c",
    "\u202egnp.exe",
    "\x00\x7f\x9b31m",
    "%s %d %n {0} ${jndi:ldap://x}",
    "a" * 100_000,
]
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +\S")

pytestmark = pytest.mark.attack


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    return terminal


@pytest.fixture
def log(tmp_path: Path, terminal: io.StringIO) -> Iterator[Path]:
    before = logger.level, logger.propagate
    open_log(tmp_path / "daemon.log", console=True)
    yield tmp_path / "daemon.log"
    close_log()
    logger.setLevel(before[0])
    logger.propagate = before[1]


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
def test_an_event_is_a_line(said: str, log: Path, terminal: io.StringIO) -> None:
    logger.info("%s", describe(Note("peer_down", {"peer": "k3f7q2xw", "reason": said})))
    logger.info("a peer called %s came", said)
    logging.getLogger("p2ptrain.net.http").error("Error handling request from %s", said)
    for written in (log.read_text(encoding="utf-8"), terminal.getvalue()):
        assert len(written.splitlines()) == written.count("\n") == 3
        assert all(one.isprintable() for one in written.replace("\n", ""))
    assert all(LINE.match(line) for line in log.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
def test_a_traceback_cannot_look_like_an_event(said: str, log: Path) -> None:
    try:
        raise ValueError(said)
    except ValueError:
        logger.exception("it failed")
    first, *others = log.read_text(encoding="utf-8").splitlines()
    assert LINE.match(first)
    assert len(others) >= 3
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_halves_of_characters_can_be_written() -> None:
    assert visible("a\udcff\ud800") == r"a\udcff\ud800"
