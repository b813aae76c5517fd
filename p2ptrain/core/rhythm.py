"""How often something usually comes, and whether it has been silent for long."""

from p2ptrain.core.types import Seconds

PAST = 0.7
"""Weight of the past in the usual interval (guess)."""


class Rhythm:
    """Of one kind of event. heard: when it came last, or when waiting for it began."""

    __slots__ = ("_usual", "heard")

    def __init__(self) -> None:
        self.heard: Seconds = 0.0
        self._usual: Seconds = 0.0

    def hear(self, now: Seconds) -> None:
        """It came."""
        gap, self.heard = now - self.heard, now
        self._usual = PAST * self._usual + (1 - PAST) * gap if self._usual else gap

    def is_silent(self, now: Seconds, times: float, least_s: Seconds) -> bool:
        """Say whether it has not come for so many times the usual interval, which is at least so long."""
        return now - self.heard > times * max(self._usual, least_s)
