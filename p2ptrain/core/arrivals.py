"""How long answers usually take, and so how long to wait for the next: deadlines that adapt.

Fixed ones are wrong in both directions, on a fast line as on a slow one (ALGORITHMS 3.1).
"""

from collections import deque
from statistics import median

from p2ptrain.core.types import Seconds

REMEMBERED = 32
DEVIATIONS = 3.0
"""Both of ALGORITHMS 2.4."""

SLACK = 1.25
"""Where all take the same time, one that takes a little longer is not late yet (guess)."""


class Arrivals:
    """Times that answers took.

    Args:
        least_s, most_s: no deadline is outside of these; before the first answer it is `most_s`.
    """

    __slots__ = ("_least_s", "_most_s", "_times")

    def __init__(self, least_s: Seconds, most_s: Seconds) -> None:
        self._least_s, self._most_s = least_s, most_s
        self._times: deque[Seconds] = deque(maxlen=REMEMBERED)

    def add(self, seconds: Seconds) -> None:
        """An answer took so long."""
        self._times.append(seconds)

    @property
    def usual_s(self) -> Seconds | None:
        """The middle of the last answers; None before the first."""
        return median(self._times) if self._times else None

    @property
    def deadline_s(self) -> Seconds:
        """Who takes longer than this is late: median + 3 median deviations, and a little slack."""
        usual = self.usual_s
        if usual is None:
            return self._most_s
        deviation = median(abs(time - usual) for time in self._times)
        return min(max(self._least_s, SLACK * usual + DEVIATIONS * deviation), self._most_s)
