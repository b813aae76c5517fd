"""What the parts of the data hold in each round, where they change.

A part is a row of places, each for an example of some class. Places take turns: in every round some are dealt
anew, and those of one turn always at once, from a pool of their own. So what a place holds follows from the
round in which it was dealt last, and every round costs the same, one sort: who comes at round 5,000 replays
nothing. The price: what a part keeps is not chosen by chance in each round, it is what came last. With keep =
1/2 two random halves take turns.
"""

import math

import torch
from torch import Tensor

from p2ptrain.learn.randomness import permutation

NEVER = 0
"""The turn of places that keep what they had in round 0."""

ALWAYS = 1
"""The turn of places that are dealt anew every round."""

FIRST = 2
"""The first of the turns that go round."""


def ranks(values: Tensor) -> Tensor:
    """Return how many equal values stand before each one: int64, shape (count,)."""
    order = values.argsort(stable=True)
    row, numbers = values[order], torch.arange(len(values))
    begins = torch.where(row == row.roll(1), 0, numbers)
    before = torch.empty_like(order)
    before[order] = numbers - begins.cummax(0).values
    return before


def turns(rank: Tensor, size: Tensor, keep: float) -> Tensor:
    """Return the turns of places, so that each part keeps exactly floor(keep * size) of them a round.

    With r = ceil(keep / (1 - keep)) there are r + 1 turns that go round, of which r are kept. What does not
    divide by r, fewer than r places, is never dealt again.

    Args:
        rank: which place of its part each one is.
        size: how many places that part has.
        keep: below 1.
    """
    others = max(1, math.ceil(keep / (1 - keep) - 1e-9))
    kept = (keep * size.double() + 1e-9).floor().long()
    width = torch.minimum(kept // others, size - kept)
    rank = rank - (kept - others * width)
    going_round = FIRST + rank // width.clamp(min=1)
    turn = torch.where(rank < (others + 1) * width, going_round, ALWAYS)
    return torch.where(rank < 0, NEVER, turn)


class Places:
    """Places to be filled from a universe of examples.

    Args:
        key: of the randomness: who draws together has the same.
        kinds: class of each place, shape (places,).
        turns: turn of each place.
        is_shown: the places that are asked for.
        universe: class of each example, shape (examples,); of each class at least as many as places.
    """

    def __init__(
        self, key: tuple[int, ...], kinds: Tensor, turns: Tensor, is_shown: Tensor, universe: Tensor
    ) -> None:
        self._key, self._universe, self._is_shown = key, universe, is_shown
        self._going_round = max(0, int(turns.max()) + 1 - FIRST)
        pools = _allot(key, universe, kinds, turns)
        self._decks: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for turn in turns.bincount().nonzero().flatten().tolist():
            places = (turns == turn).nonzero().squeeze(1)
            places = places[kinds[places].argsort(stable=True)]
            wanted = kinds[places].bincount(minlength=int(universe.max()) + 1)
            self._decks[turn] = (pools == turn).nonzero().squeeze(1), places, wanted
        self._round = -1
        self._filled = torch.empty(0)

    def filled(self, round_: int) -> Tensor:
        """Return the examples in the places that are asked for, in a round: int64, all different."""
        if round_ != self._round:
            held = torch.empty(len(self._is_shown), dtype=torch.int64)
            for turn, (pool, places, wanted) in self._decks.items():
                dealt = pool[permutation(len(pool), "deal", *self._key, turn, self._dealt(turn, round_))]
                kinds = self._universe[dealt]
                dealt = dealt[ranks(kinds) < wanted[kinds]]
                held[places] = dealt[self._universe[dealt].argsort(stable=True)]
            self._round, self._filled = round_, held[self._is_shown]
        return self._filled

    def _dealt(self, turn: int, round_: int) -> int:
        """Return the last round in which places of this turn were dealt anew."""
        if turn in (NEVER, ALWAYS):
            return round_ if turn == ALWAYS else 0
        return max(0, round_ - (round_ - (turn - FIRST)) % self._going_round)


def _allot(key: tuple[int, ...], universe: Tensor, kinds: Tensor, turns: Tensor) -> Tensor:
    """Return the turn whose pool each example belongs to: of each class in proportion to the places."""
    count = int(turns.max()) + 1
    of_kind = universe.bincount()
    wanted = torch.zeros(len(of_kind), count, dtype=torch.int64)
    wanted.view(-1).index_add_(0, kinds * count + turns, torch.ones_like(kinds))
    places = wanted.sum(1, keepdim=True)
    ends = wanted.cumsum(1) * of_kind[:, None] // places.clamp(min=1)
    ends[:, -1] = of_kind
    begins = of_kind.cumsum(0) - of_kind
    shuffled = permutation(len(universe), "pools", *key)
    shuffled = shuffled[universe[shuffled].argsort(stable=True)]
    pools = torch.empty_like(universe)
    flat = (begins[:, None] + ends).flatten()
    pools[shuffled] = torch.searchsorted(flat, torch.arange(len(universe)), right=True) % count
    return pools
