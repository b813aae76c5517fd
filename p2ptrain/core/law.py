"""Whom to address next, so that information reaches all members as evenly as possible.

The law `expo`: with members sorted and i the own place among n, the k-th address is
members[i + 2^(k mod L)], L = ceil(log2 n). For a fixed k this is a permutation: everyone receives
exactly one. Over L turns everyone hears from L different members. Source: ALGORITHMS 1.3, after the
one-peer exponential graph (Ying 2021); measured there to spread in half the time of a random choice.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from random import Random

from p2ptrain.core.types import PeerId

PROBE_EVERY = 17
"""Every so many turns an unreachable peer is tried again (guess). A prime larger than `turns` of any
swarm: a number that both divide would meet the same few addresses for ever."""

Usable = Callable[[PeerId], bool]


def turns(count: int) -> int:
    """Number of turns after which the law repeats: ceil(log2 n), at least 1."""
    return max(1, (count - 1).bit_length())


def expo(members: Sequence[PeerId], me: PeerId, turn: int, usable: Usable) -> PeerId | None:
    """Return the address of this turn, or the next usable one after it.

    Args:
        members: sorted, with or without `me`.
        me: the own id.
        turn: grows by one with each address asked.
        usable: says whether a member can be addressed now.
    """
    count = len(members)
    if count == 0:
        return None
    start = bisect_left(members, me) + (1 << (turn % turns(count)))
    first = members[start % count]
    if first != me and usable(first):
        return first
    for offset in range(1, count):
        peer = members[(start + offset) % count]
        if peer != me and usable(peer):
            return peer
    return None


class Deck:
    """A shuffled round robin: all members in an order by lot, then in another one."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: list[PeerId] = []

    def draw(self, members: Sequence[PeerId], me: PeerId, rng: Random, usable: Usable) -> PeerId | None:
        """Return the next usable member that had no turn in this round."""
        for _ in range(2):
            while self._left:
                peer = self._left.pop()
                if usable(peer):
                    return peer
            self._left = [peer for peer in members if peer != me]
            rng.shuffle(self._left)
        return None


def uniform(members: Sequence[PeerId], me: PeerId, rng: Random, usable: Usable) -> PeerId | None:
    """Return any usable member with equal chance: the law to compare others with."""
    candidates = [peer for peer in members if peer != me and usable(peer)]
    return rng.choice(candidates) if candidates else None
