"""Points on the line through own weights and a mean, own + t (mean - own), and in which order they are tried.

t = 2 reflects the own weights through the mean, 3 expands, 1.5 and 0.5 contract; 1 is the mean itself.
Source: ALGORITHMS 2.2, 4.2.
"""

import math
from enum import StrEnum

from msgspec import Struct

from p2ptrain.core.types import Ref, Slot

SURE = 0.5
"""A point counts as better if it is so by this many standard errors of the difference (ALGORITHMS 2.2)."""


class Ladder(StrEnum):
    """In which order points of the line are tried."""

    SIMPLEX = "simplex"
    """Reflection first, as Nelder and Mead: keeps peers that started differently apart."""
    LINE = "line"
    """The best of four: for weights from a common start, or that were averaged before."""


class Line(Struct):
    """What is known of one line.

    gain: so much lower must the loss of a better point be at least.
    losses: by t, those of 0 and 1 among them.
    errors: standard error of the difference to the loss of 0, on the same examples; NaN where not known.
    """

    ladder: Ladder
    gain: float
    losses: dict[float, float] = {}
    errors: dict[float, float] = {}

    def is_better(self, t: float) -> bool:
        """Say whether a point is better than the own weights, and not by chance."""
        error = self.errors.get(t, math.nan)
        needed = max(self.gain, SURE * error) if math.isfinite(error) else self.gain
        return self.losses.get(t, math.inf) < self.losses[0.0] - needed

    def next(self, lowest: float) -> tuple[float, ...]:
        """Return the t to measure now; none: enough is known. lowest: loss that the chain met."""
        if self.ladder is Ladder.LINE:
            return () if 2.0 in self.losses else (0.5, 1.5, 2.0)
        if 2.0 not in self.losses:
            return (2.0,)
        if len(self.losses) > 3:
            return ()
        if self.is_better(2.0):
            return (3.0,) if self.losses[2.0] < lowest else ()
        return (1.5, 0.5)

    def best(self) -> float:
        """Return the t to go to; 0: stay."""
        far = self.losses.get(3.0, math.inf) < self.losses.get(2.0, math.inf)
        order = (3.0 if far else 2.0, 1.5, 0.5) if self.ladder is Ladder.SIMPLEX else self._by_loss()
        return next(filter(self.is_better, order), 0.0)

    def _by_loss(self) -> tuple[float, ...]:
        return (min(self.losses, key=lambda t: (self.losses[t], t)),)


def slot_at(t: float) -> Slot:
    """Return where the weights of a point are kept."""
    return Slot(Ref(f"at-{t:g}"))
