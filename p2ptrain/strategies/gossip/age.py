"""How much two weights count beside each other: alike, unless one has far fewer steps behind it.

Who comes late, or from a fresh start, would drag the others half of the way back. Weighing by what was
trained on is source 3.1's (Decoupled DiLoCo); that it begins only where ages differ much is a guess, so that
equal peers meet in the exact middle (ALGORITHMS 2.6, A1).
"""

RATIO_MAX = 9.0
"""Nobody moves by less than a tenth of the way, or by more than nine (guess)."""

AGE_MAX = 2**53
"""What a message can say."""


class Age:
    """Of the own weights, in optimiser steps: a step takes the same number of examples on every peer.

    Args:
        slack: ages that differ by no more are alike.
        alike_from: and so are those from this share of the other's on; 0: all are.

    more: how much older they are than the own steps make them.
    """

    __slots__ = ("_alike_from", "_slack", "more")

    def __init__(self, slack: int, alike_from: float) -> None:
        self._slack, self._alike_from = slack, alike_from
        self.more = 0.0

    def at(self, step: int) -> int:
        """Return the age after so many own steps."""
        return min(max(0, round(step + self.more)), AGE_MAX)

    def ratio(self, own: int, theirs: int) -> float:
        """Say how often theirs counts, the own counting once. Both sides come to the same."""
        young, old = sorted((own, theirs))
        if old - young <= self._slack or young >= self._alike_from * old:
            return 1.0
        return min(max(theirs / max(own, 1), 1 / RATIO_MAX), RATIO_MAX)

    def mix(self, own: int, theirs: int, share: float) -> None:
        """Weights of that age were mixed in, with that share: of a mixture, the mean. It is a claim."""
        self.more += share * (self._believed(own, theirs) - own)

    def take_over(self, step: int, theirs: int) -> None:
        """Others' weights were adopted after so many own steps."""
        self.more = float(self._believed(step, theirs) - step)

    def _believed(self, own: int, theirs: int) -> float:
        return min(theirs, RATIO_MAX * max(own, self._slack))
