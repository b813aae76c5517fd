"""Greedy soup: one result after the other is averaged in, as long as the loss does not rise.

Never worse than the best single one on the examples it is measured on. It helps where results descend
from each other, and is refused by the measurement where they do not. Source: Wortsman 2022, ALGORITHMS 2.7.
"""

import math

from p2ptrain.core.effects import Combine, Effect, Evaluate
from p2ptrain.core.types import BlobId, Ref, Slot

POTS = (Slot(Ref("soup-a")), Slot(Ref("soup-b")))
"""The next mixture is made in the pot that the last good one is not in."""


class Soup:
    """The best result so far.

    ref: its weights.
    loss: as measured last; inf before that.
    why: what it is, in words.
    others: whose results are in it, besides the own; `is_own` says whether that is.
    """

    def __init__(self, first: Ref) -> None:
        self.ref = first
        self.loss = math.inf
        self.why = "the own result is the best known"
        self.is_own = True
        self.others: tuple[str, ...] = ()
        self._parts = 1

    @property
    def is_mixed(self) -> bool:
        """Whether it is of several results."""
        return self.ref in POTS

    def taste(self, tag: str, other: BlobId) -> list[Effect]:
        """Measure the soup, another result, and both together, on the same examples."""
        pot = self._pot()
        share = 1 / (self._parts + 1)
        mix = Combine(tag, pot, ((1 - share, self.ref), (share, other)))
        return [mix, Evaluate(tag, (self.ref, other, pot))]

    def judge(self, other: BlobId, name: str, losses: tuple[float, ...]) -> None:
        """Keep what did best; ties change nothing."""
        own, alone, mixed = (loss if math.isfinite(loss) else math.inf for loss in losses)
        self.loss = own
        if mixed < min(own, alone):
            self.ref, self.loss, self._parts = self._pot(), mixed, self._parts + 1
            self.why = f"the mean of {self._parts} results is better than each"
            self.others = (*self.others, name)
        elif alone < own:
            self.ref, self.loss, self._parts = other, alone, 1
            self.why = f"the result of {name} is the best"
            self.is_own, self.others = False, (name,)

    def _pot(self) -> Slot:
        return POTS[1] if self.ref == POTS[0] else POTS[0]
