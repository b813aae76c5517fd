"""Robust mixing: whose weights are let in, and how far they may move ours.

A single test of a mixture misses a fifth of the attacks; a running average of its effect finds nearly
all and costs honest peers almost nothing. Source: ALGORITHMS 2.7, 4.6; what is left out and why:
docs/decisions/0007.
"""

import math
from statistics import quantiles

from msgspec import Struct

PEERS_MAX = 256
"""Peers whose effect is remembered."""

DISTANCES_MAX = 16
"""So many moves are remembered to know what is usual (guess)."""

PAST = 0.6
"""Weight of the past in the running averages."""

WORSE_MAX = 0.05
"""A peer is refused when mixing with it raises the loss by more than this share, on average."""

LENGTH_FACTOR = 2.0
"""No move is longer than this many times the upper quartile of the recent ones (guess).

2.7 takes the median over the peers of one round. Here the first exchange of a round is far and the next are
near: the median over time would cut the one that matters.
"""


class Mixing(Struct):
    """What mixing with each peer does to the loss, on average, and the recent distances.

    effects: relative change of the loss, by peer; survives restarts and reconnects.
    """

    effects: dict[str, float] = {}
    distances: list[float] = []

    def accepts(self, peer: str, own: float, mixed: float) -> bool:
        """Take one measurement in and say whether the peer's weights may be mixed in.

        Args:
            peer: its name for ever.
            own: loss of the own weights on held-out examples.
            mixed: loss of the mixture on the same examples.
        """
        if not (math.isfinite(own) and math.isfinite(mixed)):
            return False
        effect = (mixed - own) / (abs(own) + 0.05)
        past = self.effects.pop(peer, effect)
        effect = self.effects[peer] = PAST * past + (1 - PAST) * effect
        if len(self.effects) > PEERS_MAX:
            del self.effects[next(iter(self.effects))]
        return effect <= WORSE_MAX

    def welcomes(self, peer: str) -> bool:
        """Say whether nothing known speaks against the peer's weights."""
        return self.effects.get(peer, 0.0) <= WORSE_MAX

    def share(self, distance: float) -> float:
        """Return the share of the way to go, so that no move is much longer than usual."""
        usual = quantiles(self.distances, n=4)[2] if len(self.distances) >= 3 else distance
        self.distances = [*self.distances[1 - DISTANCES_MAX :], distance]
        return min(1.0, LENGTH_FACTOR * usual / distance) if distance > 0 else 1.0
