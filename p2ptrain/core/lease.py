"""Who coordinates: of each term one member, whom everybody finds by the same law; the next, when it is gone.

The coordinator of a term is the living member with the smallest hash of (seed, term, id) (ALGORITHMS 2.3).
Whoever does not hear of it for long goes to the next term. What a coordinator says carries its term: a
higher one always counts, and of two in one term the one with the smaller hash, so that after a partition
one of them is left.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256

from p2ptrain.core.strategy import Context
from p2ptrain.core.types import PeerId, Seconds

AHEAD_MAX = 1000
"""A term so far ahead of the own is a lie: else one message would use up all terms (guess)."""

Fit = Callable[[PeerId], bool]


def anybody(_: PeerId) -> bool:
    """Every member may coordinate."""
    return True


class Lease:
    """What one node knows of it.

    term: counts coordinators, from 0.
    holder: who coordinates, as far as is known here; None before `renew` or `watch`.
    heard: when the holder last spoke, or the term began here.
    """

    __slots__ = ("heard", "holder", "term")

    def __init__(self) -> None:
        self.term = 0
        self.holder: PeerId | None = None
        self.heard: Seconds = 0.0

    def renew(self, ctx: Context, sender: PeerId, term: int) -> bool:
        """A trusted peer speaks as the coordinator of a term: say whether it is one."""
        if not self.term <= term <= self.term + AHEAD_MAX:
            return False
        older = self.holder if term == self.term else None
        if older is not None and older != sender and _place(ctx, term, older) < _place(ctx, term, sender):
            return False
        self.term, self.holder, self.heard = term, sender, ctx.now
        return True

    def follow(self, term: int) -> None:
        """A trusted peer knows of a later term: `watch` finds out who coordinates it."""
        if self.term < term <= self.term + AHEAD_MAX:
            self.term, self.holder = term, None

    def watch(self, ctx: Context, patience_s: Seconds, fit: Fit = anybody) -> bool:
        """Go to the next term if the holder is gone, or silent for so long; say if it is this node now.

        fit: says whether a peer could coordinate; if nobody could, all do.
        """
        if self.holder is None:
            self._pass_to(ctx, self.term, fit)
        elif not (_is_candidate(ctx, self.holder) and fit(self.holder)) or (
            self.holder != ctx.me and ctx.now - self.heard > patience_s
        ):
            self._pass_to(ctx, self.term + 1, fit)
        return self.holder == ctx.me

    def _pass_to(self, ctx: Context, term: int, fit: Fit) -> None:
        candidates = [ctx.me, *filter(ctx.trusts, ctx.partners())]
        self.term, self.heard = term, ctx.now
        self.holder = min(filter(fit, candidates), key=lambda peer: _place(ctx, term, peer), default=None)
        if self.holder is None:
            self.holder = min(candidates, key=lambda peer: _place(ctx, term, peer))


def _is_candidate(ctx: Context, peer: PeerId) -> bool:
    return peer == ctx.me or (ctx.is_partner(peer) and ctx.trusts(peer))


def _place(ctx: Context, term: int, peer: PeerId) -> bytes:
    return _hash(ctx.manifest.seed, term, peer)


@lru_cache(maxsize=4096)
def _hash(seed: int, term: int, peer: PeerId) -> bytes:
    return sha256(b"%d %d " % (seed, term) + peer).digest()
