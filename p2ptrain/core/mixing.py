"""Robust mixing: whose weights are let in, and how far they may move ours.

A single test of a mixture misses a fifth of the attacks; a running average of its effect finds nearly
all and costs honest peers almost nothing. Source: ALGORITHMS 2.7, 4.6.
"""

import math
from statistics import median

from msgspec import Struct

SCORES_MAX = 256
"""Peers whose effect is remembered."""

DISTANCES_MAX = 16
"""The usual length of a move is the median of that many (guess)."""

PAST = 0.6
"""Weight of the past in the running averages."""

WORSE_MAX = 0.05
"""A peer is refused when mixing with it raises the loss by more than this share, on average."""

OUTLIER_FACTOR = 1.3
HELPS = -0.02
"""Refused too: a loss among the worst quarter and above 1.3 medians, unless mixing lowers the loss by 2 %."""

LENGTH_FACTOR = 2.0
"""No move is longer than this many times the usual one (guess; 2.7 takes the median over many peers)."""


class Score(Struct, frozen=True):
    """Running averages for one peer: what mixing with it does to the loss, and its own loss here."""

    effect: float
    loss: float


class Mixing(Struct):
    """Scores by peer and the recent distances. Survives restarts and reconnects."""

    scores: dict[str, Score] = {}
    distances: list[float] = []

    def accepts(self, peer: str, own: float, mixed: float, alone: float) -> bool:
        """Take one measurement in and say whether the peer's weights may be mixed in.

        Args:
            peer: its name for ever.
            own: loss of the own weights on held-out examples.
            mixed: loss of the mixture on the same examples.
            alone: loss of the peer's weights on the same examples.
        """
        if not (math.isfinite(own) and math.isfinite(mixed) and math.isfinite(alone)):
            return False
        effect = (mixed - own) / (abs(own) + 0.05)
        old = self.scores.pop(peer, None)
        if old is not None:
            effect = PAST * old.effect + (1 - PAST) * effect
            alone = PAST * old.loss + (1 - PAST) * alone
        score = self.scores[peer] = Score(effect, alone)
        if len(self.scores) > SCORES_MAX:
            del self.scores[next(iter(self.scores))]
        return effect <= WORSE_MAX and not self._stands_out(score)

    def share(self, distance: float) -> float:
        """Return the share of the way to go, so that no move is much longer than usual."""
        usual = median(self.distances) if len(self.distances) >= 3 else distance
        self.distances = [*self.distances[1 - DISTANCES_MAX :], distance]
        return min(1.0, LENGTH_FACTOR * usual / distance) if distance > 0 else 1.0

    def _stands_out(self, score: Score) -> bool:
        losses = sorted(other.loss for other in self.scores.values())
        if len(losses) < 3:
            return False
        quartile = losses[(3 * len(losses)) // 4]
        outlier = score.loss >= quartile and score.loss > OUTLIER_FACTOR * median(losses)
        return outlier and score.effect > HELPS
