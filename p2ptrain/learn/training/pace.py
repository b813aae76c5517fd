"""How much of the time the device works, so that the owner can use it too."""

from p2ptrain.core.types import Seconds

SLICE_S: Seconds = 0.03
"""Commands wait for training at most this long and a step. Guess: shorter than people notice."""

TICK_S: Seconds = 0.1
"""Work and rest alternate about so fast: a screen that stutters this briefly can be used. Guess."""


class Pace:
    """Says how long to work and how long to rest.

    Args:
        duty: share of the time that is worked, above 0.
    """

    def __init__(self, duty: float) -> None:
        self._duty = duty
        self._owed: Seconds = 0.0

    @property
    def rests(self) -> bool:
        """Whether the device rests at all."""
        return self._duty < 1

    @property
    def slice_s(self) -> Seconds:
        """Work so long at a time."""
        return min(SLICE_S, TICK_S * self._duty) if self.rests else SLICE_S

    @property
    def owed(self) -> Seconds:
        """Rest so long before the next work."""
        return self._owed if self._owed >= TICK_S * (1 - self._duty) else 0.0

    def change(self, duty: float) -> None:
        """Work another share of the time from now on."""
        self._duty, self._owed = duty, 0.0

    def worked(self, seconds: Seconds) -> None:
        """Note some work: rest is owed for it, however long a step took."""
        self._owed += seconds * (1 / self._duty - 1)

    def rested(self, seconds: Seconds) -> None:
        """Note some rest."""
        self._owed = max(0.0, self._owed - seconds)
