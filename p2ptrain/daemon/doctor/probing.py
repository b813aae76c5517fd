"""Starts the process that looks at torch, and reads what it found before patience ended."""

import contextlib
import subprocess
import sys
import time

import msgspec
from msgspec.structs import replace

from p2ptrain.core.text import clean
from p2ptrain.core.types import Seconds
from p2ptrain.learn.process.equipment import Equipment, Stage, Wanted

PATIENCE_S: Seconds = 8.0
"""From the start on. Importing torch takes 1 to 3 s (measured, 2026-11-20), a cold disk longer."""

WORDS_CHARS_MAX = 300


class Probing:
    """A look at torch under way.

    Args:
        wanted: what to look at.
        command: starts it.
    """

    def __init__(
        self,
        wanted: Wanted,
        command: tuple[str, ...] = (sys.executable, "-m", "p2ptrain.learn.process.probe"),
    ) -> None:
        self._ends = time.monotonic() + PATIENCE_S
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its last words say why
            self._process.stdin.write(msgspec.json.encode(wanted))
            self._process.stdin.close()
        self._process.stdin = None

    def finish(self) -> Equipment:
        """Wait for the end, but not for ever; what died or hung left what it found before."""
        try:
            out, err = self._process.communicate(timeout=max(0.0, self._ends - time.monotonic()))
            late = False
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, err = self._process.communicate()
            late = True
        found = Equipment()
        for line in out.splitlines():
            found = msgspec.json.decode(line, type=Equipment)
        if late or self._process.returncode == 0:
            return found
        return _with_trouble(found, _last_words(err, self._process.returncode))


def _with_trouble(found: Equipment, words: str) -> Equipment:
    """Say of the stage that came next why it failed."""
    if found.stage < Stage.DEVICES:
        return replace(found, trouble=words)
    blamed = f"{words}\nthe task's own program failed: ask whoever wrote it"
    if found.stage is Stage.DEVICES:
        return replace(found, task_trouble=blamed)
    return replace(found, data_trouble=blamed)


def _last_words(err: bytes, code: int) -> str:
    """Return the error itself: the last line of a traceback."""
    lines = err.decode(errors="replace").strip().splitlines()
    return clean(lines[-1], WORDS_CHARS_MAX) if lines else f"it ended with code {code}"
