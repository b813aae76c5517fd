"""Who averages with whom, and when: the coordinator's side of rings.

Members that took their steps say that they are ready; a ring is formed when all are that still train, or
when the usual time is over and there are enough. Whoever was silent in a ring is not waited for before it
speaks again. If a ring failed, and nobody knows because of whom, its members come into smaller ones, apart
from the others: so who breaks every ring is alone before long. Nobody is put together with whom it avoids.
"""

import math
from collections.abc import Iterator
from hashlib import sha256
from itertools import pairwise

from msgspec import Struct

from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.effects import Effect, Send
from p2ptrain.core.lease import AHEAD_MAX
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.strategies.allreduce.words import COUNT_BITS, Call, Outcome, Place, Ready, Ring

LATE_MAX = 2
"""Who missed so many rings in a row is not waited for."""

CALL_EVERY_S: Seconds = 5.0
"""Who is missing is called so often at most (guess)."""

TURN_MAX = 2**52
"""What everybody may still count to."""


class Placed(Struct, frozen=True):
    """The last ring of a member, and when it was formed."""

    ring: Ring
    at: Seconds


class Coordinator:
    """What one node knows of those that turn to it.

    Args:
        ring_max: more members form several rings.
        quorum: so large a share of those that are waited for is enough when the time is over.
        least_s: the first that is ready waits for others so long at least.
        times: how long rounds usually take here.

    is_asked: whether anybody waits.
    """

    def __init__(self, ring_max: int, quorum: float, least_s: Seconds, times: Arrivals) -> None:
        self._ring_max, self._quorum, self._least_s, self._times = ring_max, quorum, least_s, times
        self._ready: dict[PeerId, Ready] = {}
        self._placed: dict[PeerId, Placed] = {}
        self._late: dict[PeerId, int] = {}
        self._silent: dict[PeerId, None] = {}
        self._doubts: dict[PeerId, int] = {}
        self._turn = 0
        self._since: Seconds = 0.0
        self._formed: Seconds = 0.0
        self._called: Seconds = -math.inf

    @property
    def is_asked(self) -> bool:
        """Whether anybody waits for a ring."""
        return bool(self._ready)

    def clear(self) -> None:
        """Somebody else coordinates."""
        self._ready.clear()

    def take(self, ctx: Context, sender: PeerId, ready: Ready, term: int) -> list[Effect]:
        """A member is ready, or says so again: then it is told that it is heard, or again of its ring."""
        known, placed = self._ready.get(sender), self._placed.get(sender)
        if placed is not None and (place := _place_of(placed.ring, sender)) is not None:
            if place.number == ready.number:
                return [Send(sender, placed.ring)] if placed.ring.term == term and sender != ctx.me else []
            if _is_older(ready.number, place.number):
                return []
        if known is not None and known.number == ready.number:
            return [Send(sender, Call(term))] if sender != ctx.me else []
        if known is not None and _is_older(ready.number, known.number):
            return []
        if not self._ready:
            self._since = ctx.now
        self._ready[sender] = ready
        if self._turn < ready.turn <= self._turn + AHEAD_MAX:
            self._turn = ready.turn
        self._silent.pop(sender, None)
        if placed is not None and ready.turn == placed.ring.turn:
            self._learn(ctx, ready, placed)
        return []

    def _learn(self, ctx: Context, ready: Ready, placed: Placed) -> None:
        """Take in what came of the ring before."""
        group = placed.ring.group
        if ready.outcome is Outcome.WELL:
            self._times.add(ctx.now - placed.at)
            for peer in group:
                self._doubts.pop(peer, None)
        elif ready.silent is not None and ready.silent in group:
            self._silent[PeerId(ready.silent)] = None

    # -- when --------------------------------------------------------------------------------------

    def is_due(self, ctx: Context, still: list[PeerId]) -> bool:
        """Say whether to form rings now; `still`: who trains, as far as is known, perhaps with this node."""
        waiting = self._waiting(ctx)
        if not waiting:
            return False
        expected = [peer for peer in still if self._is_waited_for(peer)]
        if all(peer in self._ready for peer in expected):
            return True
        patience_s = self._times.deadline_s
        is_new = self._formed < self._since - patience_s  # then it is not known when the others began
        until = max(self._since + self._least_s, (self._since if is_new else self._formed) + patience_s)
        enough = len(waiting) >= max(2, self._quorum * len(expected))
        return ctx.now >= (until if enough else until + patience_s)

    def call(self, ctx: Context, still: list[PeerId], term: int) -> list[Effect]:
        """Tell those that are missing who waits for them: they may not know, or turn to somebody else."""
        away = [peer for peer in still if peer not in self._ready and peer != ctx.me and ctx.trusts(peer)]
        patient = ctx.now >= self._since + self._least_s
        missing = [peer for peer in away if patient or not self._is_waited_for(peer)]
        if not missing or ctx.now < self._called + CALL_EVERY_S:
            return []
        self._called = ctx.now
        return [Send(peer, Call(term)) for peer in missing]

    def _is_waited_for(self, peer: PeerId) -> bool:
        return peer not in self._silent and self._late.get(peer, 0) < LATE_MAX

    def _waiting(self, ctx: Context) -> list[PeerId]:
        return [peer for peer in self._ready if peer == ctx.me or (ctx.trusts(peer) and ctx.is_partner(peer))]

    # -- who with whom -----------------------------------------------------------------------------

    def evidence(self) -> list[tuple[PeerId, Offer]]:
        """Name the contributions that may be looked at before the next ring, if one went wrong."""
        suspects = dict.fromkeys(peer for ring in self._gone_wrong() for peer in ring.group)
        return [
            (peer, Offer(ready.shown.blob, ready.shown.size_bytes, 0.0))
            for peer, ready in self._ready.items()
            if peer in suspects and ready.shown is not None
        ]

    def _gone_wrong(self) -> list[Ring]:
        """Return the rings of which most that are here again say so, and not because of whom."""
        voices: dict[str, tuple[Ring, list[bool]]] = {}
        for peer, ready in self._ready.items():
            placed = self._placed.get(peer)
            if placed is not None and ready.turn == placed.ring.turn:
                bad = ready.outcome is not Outcome.WELL and ready.silent is None
                voices.setdefault(placed.ring.name, (placed.ring, []))[1].append(bad)
        return [ring for ring, bad in voices.values() if 2 * sum(bad) > len(bad)]

    def form(self, ctx: Context, still: list[PeerId], term: int) -> list[Ring]:
        """Put who is ready into rings, and forget that they were."""
        self._doubt(ctx)
        waiting = self._waiting(ctx)
        for peer in still:
            self._late[peer] = 0 if peer in self._ready else self._late.get(peer, 0) + 1
        self._turn = min(self._turn + 1, TURN_MAX)
        self._formed = ctx.now
        rings = [self._make(ctx, group, term) for group in self._groups(ctx, waiting)]
        for ring in rings:
            for peer in ring.group:
                self._placed[peer] = Placed(ring, ctx.now)
        self._ready.clear()
        return rings

    def _doubt(self, ctx: Context) -> None:
        """A ring failed: if none of it was found out, all of it are doubted."""
        for ring in self._gone_wrong():
            if all(peer == ctx.me or ctx.trusts(peer) for peer in ring.group):
                for peer in ring.group:
                    self._doubts[peer] = self._doubts.get(peer, 0) + 1

    def _groups(self, ctx: Context, waiting: list[PeerId]) -> Iterator[list[PeerId]]:
        salt = ctx.rng.getrandbits(64)
        order = sorted(waiting, key=lambda peer: sha256(b"%d " % salt + peer).digest())
        doubted = [peer for peer in order if peer in self._doubts]
        clean = [peer for peer in order if peer not in self._doubts]
        for part in (clean, *_cut(doubted, 2)):
            for group in self._apart(part):
                yield from _cut(group, -(-len(group) // self._ring_max))
        for peer in doubted if len(doubted) <= 2 else ():  # who is alone now may try again later
            self._doubts[peer] -= 1
            if self._doubts[peer] <= 0:
                del self._doubts[peer]

    def _apart(self, peers: list[PeerId]) -> list[list[PeerId]]:
        """Put nobody together with whom it avoids; whoever is avoided most goes last, and may end alone."""
        avoids = {peer: dict.fromkeys(self._ready[peer].avoids) for peer in peers}
        quarrels = {
            peer: [other for other in peers if other in avoids[peer] or peer in avoids[other]]
            for peer in peers
        }
        groups: list[list[PeerId]] = []
        for peer in sorted(peers, key=lambda peer: len(quarrels[peer])):
            fitting = (group for group in groups if not any(other in quarrels[peer] for other in group))
            group = next(fitting, None)
            if group is None:
                groups.append([peer])
            else:
                group.append(peer)
        return groups

    def _make(self, ctx: Context, group: list[PeerId], term: int) -> Ring:
        places = ((peer, self._ready[peer]) for peer in group)
        members = tuple(Place(peer, ready.number, ready.shown) for peer, ready in places)
        return Ring(term, self._turn, f"{ctx.rng.getrandbits(128):032x}", members)


def _cut(peers: list[PeerId], count: int) -> Iterator[list[PeerId]]:
    """Cut a list into so many parts, as equal as can be; none is empty."""
    bounds = [len(peers) * at // count for at in range(count + 1)] if count else [0]
    yield from (peers[begin:end] for begin, end in pairwise(bounds) if begin < end)


def _place_of(ring: Ring, peer: PeerId) -> Place | None:
    return next((place for place in ring.members if place.peer == peer), None)


def _is_older(one: int, other: int) -> bool:
    """Say whether a contribution came before another of the same run of the program."""
    return one >> COUNT_BITS == other >> COUNT_BITS and one < other
