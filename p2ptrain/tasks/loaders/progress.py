"""Shows on stderr how far something long is: a bar for people, a few lines for a log."""

import sys
import time
from types import TracebackType

WIDTH = 30
REDRAW_S = 0.1
LINES = 4
"""So many lines in a log that nobody watches."""


class Progress:
    """Of `total` units, such as bytes; 0: nobody knows how many. Use it in a `with`."""

    def __init__(self, what: str, total: int, unit: str = "") -> None:
        self._what = what
        self._total = total
        self._unit = unit
        self._begun = time.monotonic()
        self._first: int | None = None
        self._shown = -1.0
        self._live = sys.stderr is not None and sys.stderr.isatty()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and self._shown >= 0:
            self._write("\n")

    def at(self, done: int) -> None:
        """Say how much is done. What was there at the first call counts as no work."""
        if self._first is None:
            self._first = done
        share = done / self._total if self._total else 0.0
        if self._live:
            now = time.monotonic()
            if now - self._shown >= REDRAW_S or done == self._total:
                self._shown = now
                filled = round(WIDTH * min(share, 1.0))
                bar = "#" * filled + "." * (WIDTH - filled)
                self._write(f"\r{self._what} [{bar}] {self._amount(done)}{self._remaining(done)}\x1b[K")
        elif int(share * LINES) > self._shown:
            self._shown = int(share * LINES)
            self._write(f"{self._what}: {self._amount(done)}\n")

    def _amount(self, done: int) -> str:
        if self._unit:
            return f"{done:,} of {self._total:,} {self._unit}" if self._total else f"{done:,} {self._unit}"
        return f"{done / 1e6:.1f} of {self._total / 1e6:.1f} MB" if self._total else f"{done / 1e6:.1f} MB"

    def _remaining(self, done: int) -> str:
        worked = done - (self._first or 0)
        if not self._total or worked <= 0:
            return ""
        return f", {(time.monotonic() - self._begun) * (self._total - done) / worked:.0f} s left"

    @staticmethod
    def _write(text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
