"""Who coordinates lines of peers: hears who is free, says who trains what, puts together what comes of it.

A round begins with the weights that the last one led to. Whoever is free is in a line; what everyone trained
is fetched, joined and measured (`joining`), and published as the next beginning. All of a round is in one
message, so that any other member can take it up.
"""

import math
from hashlib import sha256
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from p2ptrain.core import limits
from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.blocks import Block
from p2ptrain.core.effects import Accuse, Effect, Note, Publish, Send
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Fetched, FetchFailed, Layer, LearnFailed, Published
from p2ptrain.core.intake import Intake
from p2ptrain.core.joining import JOINT, Joining
from p2ptrain.core.joining import Part as Piece
from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Number, Offer
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import BlobId, PeerId, Seconds
from p2ptrain.strategies.pipeline.lineup import Line, Worker, line_up

DEADLINE_S = (60.0, 600.0)
"""A round ends after the usual time, but not before the first and at the latest after the second (guess)."""

SLACK = 3.0
"""And not before so many times as long as computing should take (guess)."""

LINES_MAX = 512
WAITS_MAX = 3
"""So many times a message that was lost is waited for at the beginning (guess)."""

ROUND_MAX = 2**53
BASE, JOINED = "lead:base", "lead:joint"

Size = Annotated[int, Meta(ge=0, le=limits.BLOB_BYTES_MAX)]


class Part(Struct, frozen=True):
    """A place in a line, as `Stage` wants it. name: of the line: only those meet who mean the same one."""

    name: str
    steps: int
    block: Block
    before: PeerId | None
    after: PeerId | None


class Round(Message, frozen=True):
    """A coordinator says who trains what, from which weights; without lines: these are the newest."""

    term: Natural
    round: Natural
    base: BlobName
    size_bytes: BlobBytes
    lines: Annotated[tuple[Line, ...], Meta(max_length=LINES_MAX)] = ()

    def part(self, peer: PeerId) -> "Part | None":
        """Return what a peer is to do."""
        for line in self.lines:
            peers = [place.peer for place in line.places]
            if peer in peers:
                at, around = peers.index(peer), [None, *peers, None]
                name = sha256(msgspec.msgpack.encode((self.round, self.base, line))).hexdigest()[:32]
                block = (line.places[at].first, line.places[at].last)
                return Part(name, line.steps, block, around[at], around[at + 2])
        return None

    @property
    def peers(self) -> list[PeerId]:
        """All that have a part."""
        return [place.peer for line in self.lines for place in line.places]


class Ready(Message, frozen=True):
    """I am free; and this came of my part in the last round that I know, if I had one.

    round, base: the last that I know, and its weights.
    step: own optimiser steps in all.
    taken: steps in that round.
    pace: seconds that a step with all layers takes here; 0: not known.
    piece, piece_bytes, loss: my layers, and what I measured on the weights that they were part of.
    """

    term: Natural
    round: Natural = 0
    step: Natural = 0
    base: BlobName | None = None
    base_bytes: Size = 0
    taken: Natural = 0
    pace: Number = 0.0
    piece: BlobName | None = None
    piece_bytes: Size = 0
    loss: Number = 0.0

    def of(self, term: int) -> "Ready":
        """Say the same in a term."""
        return replace(self, term=term)


def offered(blob: BlobId | None, size_bytes: int, loss: float = math.inf) -> Offer | None:
    """Return what a message names, if it does."""
    return Offer(blob, size_bytes, loss) if blob is not None and size_bytes else None


class Foreman:
    """One node's work while it coordinates.

    Args:
        term: see `Lease`.
        layers: of the net.
        stages, round_steps, examples, tolerance: see the settings of `pipeline`.
        wait_s: whoever was not heard at the beginning is waited for, and after a failure all rest.

    Attributes:
        plan: the round under way; None before the first.
        cannot: weights cannot be written here: another has to coordinate.
    """

    def __init__(
        self,
        now: Seconds,
        term: int,
        layers: tuple[Layer, ...],
        *,
        stages: int,
        round_steps: int,
        examples: int,
        tolerance: float,
        wait_s: Seconds,
    ) -> None:
        self.plan: Round | None = None
        self.cannot = False
        self._term, self._layers = term, layers
        self._costs = [layer.cost for layer in layers]
        self._stages, self._round_steps = stages, round_steps
        self._examples, self._tolerance, self._wait_s = examples, tolerance, wait_s
        self._ready: dict[PeerId, Ready] = {}
        self._counted: dict[PeerId, None] = {}
        self._base: Offer | None = None
        self._asked: Offer | None = None
        self._lost: dict[BlobId, None] = {}
        self._joining: Joining | None = None
        self._intake: Intake[Piece] = Intake()
        self._writing = False
        self._loss = math.inf
        self._arrivals = Arrivals(*DEADLINE_S)
        self._since = now
        self._rests_until = now + wait_s

    def take_up(self, ctx: Context, plan: Round) -> list[Effect]:
        """Go on with a round that another began, if its weights are here."""
        if not plan.lines or not ctx.holds(plan.base):
            return []
        self._base = offered(plan.base, plan.size_bytes)
        return self._open(ctx, replace(plan, term=self._term))

    # -- what members say --------------------------------------------------------------------------

    def hear(self, ctx: Context, sender: PeerId, ready: Ready) -> list[Effect]:
        """Somebody is free. Who says so twice, or does not know the round, did not hear of it."""
        again = self._ready.get(sender) == ready
        self._ready[sender] = ready
        plan, effects = self.plan, list[Effect]()
        if plan is not None and sender != ctx.me and (again or ready.round < plan.round):
            effects.append(Send(sender, plan))
        return [*effects, *self._count(ctx, sender, ready), *self.go_on(ctx)]

    def _count(self, ctx: Context, sender: PeerId, ready: Ready) -> list[Effect]:
        """Note what came of somebody's part, and fetch it."""
        plan = self.plan
        part = plan.part(sender) if plan is not None else None
        if plan is None or part is None or ready.round < plan.round or sender in self._counted:
            return []
        self._counted[sender] = None
        if ready.round > plan.round:
            return []  # another coordinated meanwhile
        self._arrivals.add(ctx.now - self._since)
        block, taken = part.block, min(ready.taken, part.steps)
        offer = offered(ready.piece, ready.piece_bytes, ready.loss)
        if not taken or offer is None or ready.base != plan.base or block[1] > len(self._layers):
            return []
        return self._intake.add(ctx, sender, offer, Piece(sender, block, offer, taken))

    # -- a round -----------------------------------------------------------------------------------

    def go_on(self, ctx: Context) -> list[Effect]:
        """Take the next step if it is time: called whenever something came, and once in a while."""
        joining = self._joining
        if self.cannot or self._writing or ctx.paused or (joining is not None and joining.is_judging):
            return []
        if joining is None:
            return [] if ctx.now < self._rests_until else self._gather(ctx)
        effects = self._intake.go_on(ctx)
        peers = self.plan.peers if self.plan else []
        missing = [peer for peer in peers if peer not in self._counted]
        late = ctx.now - self._since > max(self._arrivals.deadline_s, SLACK * self._expected_s())
        awaited = any(is_there(ctx, peer) for peer in missing) or not self._intake.is_empty
        if awaited and not late:
            return effects
        for peer in missing:
            self._ready.pop(peer, None)  # it has to say again that it is free
        self._intake.clear()
        if joining.parts:
            return [*effects, *joining.judge()]
        if self.plan is not None and any(one.round > self.plan.round for one in self._ready.values()):
            self._base = None  # there are newer weights
        self._rest(ctx)
        return effects

    def _expected_s(self) -> Seconds:
        """How long the slowest line computes, if its peers do so one after the other."""
        lines = self.plan.lines if self.plan else ()
        paces = {peer: ready.pace for peer, ready in self._ready.items()}
        times = (line.steps * max(paces.get(place.peer, 0.0) for place in line.places) for line in lines)
        return min(max(times, default=0.0), DEADLINE_S[1])

    def _rest(self, ctx: Context) -> None:
        self._joining, self._rests_until = None, ctx.now + self._wait_s

    def _gather(self, ctx: Context) -> list[Effect]:
        """Begin, the first time when everybody is heard or has been waited for."""
        unheard = any(peer not in self._ready and is_there(ctx, peer) for peer in ctx.partners())
        if self.plan is None and unheard and ctx.now < self._since + WAITS_MAX * self._wait_s:
            return []
        if self._base is not None:
            return self._begin(ctx)
        return self._find_base(ctx) if self._asked is None else []

    def go_back(self, ctx: Context, best: Offer | None) -> None:
        """The weights that this round began with are no good: begin the next with the own best ones."""
        if self._base is not None:
            self._lost[self._base.blob] = None
        self._base = best if best is not None and ctx.holds(best.blob) else None
        self._loss = math.inf

    def _find_base(self, ctx: Context) -> list[Effect]:
        """Begin with the newest weights that anybody knows of; if there are none, with the own."""
        known = [
            (ready.round, peer, offer)
            for peer, ready in self._ready.items()
            if (peer == ctx.me or ctx.trusts(peer))
            and (offer := offered(ready.base, ready.base_bytes)) is not None
            and offer.blob not in self._lost
        ]
        if not known:
            self._writing = True
            return [Publish(BASE)]
        _, peer, self._asked = max(known, key=lambda found: found[:2])
        return [ctx.fetch(peer, self._asked)]

    def _begin(self, ctx: Context) -> list[Effect]:
        """Put everybody who is free into a line; say so too when nobody is left."""
        steps, before, base = ctx.manifest.steps, self.plan, self._base
        assert base is not None
        workers = [
            Worker(peer, (steps or ROUND_MAX) - ready.step, max(ready.pace, 0.0))
            for peer, ready in sorted(self._ready.items())
            if is_there(ctx, peer) and not 0 < steps <= ready.step
        ]
        if not workers and before is not None and not before.lines:
            return []
        rounds = [ready.round for ready in self._ready.values()]
        number = max([*rounds, before.round if before else 0])
        lines = line_up(workers[:LINES_MAX], self._costs, self._stages, self._round_steps, number)
        number = min(number + 1, ROUND_MAX)
        return self._open(ctx, Round(self._term, number, base.blob, base.size_bytes, tuple(lines)))

    def _open(self, ctx: Context, plan: Round) -> list[Effect]:
        """Tell everybody."""
        assert self._base is not None
        self.plan, self._since, self._counted = plan, ctx.now, {}
        effects: list[Effect] = [Send(peer, plan) for peer in ctx.partners() if ctx.trusts(peer)]
        if not plan.lines:
            return effects
        self._joining = Joining(
            f"lead:{plan.term}:{plan.round}",
            self._layers,
            self._base,
            search=False,
            examples=self._examples,
            tolerance=self._tolerance,
        )
        return [*effects, *self._joining.begin()]

    # -- weights -----------------------------------------------------------------------------------

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Take in an answer to what was asked here."""
        joining, asked = self._joining, self._asked
        match event:
            case Fetched(blob=blob) if asked is not None and asked.blob == blob:
                self._base, self._asked, self._loss = asked, None, math.inf
            case FetchFailed(blob=blob) if asked is not None and asked.blob == blob:
                self._lost[blob], self._asked = None, None
                self._rest(ctx)
            case Fetched(blob=blob) if wanted := self._intake.take(blob):
                added = joining.add(wanted.what) if joining is not None and not joining.is_judging else []
                return [*added, *self.go_on(ctx)]
            case FetchFailed(blob=blob):
                self._intake.fail(ctx, blob)  # it is tried again in a while
                return []
            case Published(tag=tag) if tag in (BASE, JOINED) and self._writing:
                self._writing = False
                self._base = Offer(event.blob, event.size_bytes, self._loss)
            case LearnFailed(tag=tag) if tag in (BASE, JOINED):
                self._writing, self.cannot = False, True
            case Evaluated() | LearnFailed() if joining is not None and joining.is_judging:
                return [*joining.answer(event), *self._conclude(ctx, joining)]
            case _:
                return []
        return self.go_on(ctx)

    def _conclude(self, ctx: Context, joining: Joining) -> list[Effect]:
        """The result is measured: it is where the next round begins, or that begins where this one did."""
        verdict, plan = joining.verdict, self.plan
        if verdict is None and not joining.is_lost:
            return []
        number = plan.round if plan else 0
        if verdict is None or not verdict.share:
            self._rest(ctx)
            self._base = None if joining.is_lost else self._base
            return [Note("round_lost", {"round": number, "parts": len(joining.parts)})]
        self._joining, self._writing, self._loss = None, True, verdict.loss
        fields = {"round": number, "parts": len(joining.parts), "loss": verdict.loss}
        return [*_accused(joining), Note("joined", fields), Publish(JOINED, JOINT)]


def _accused(joining: Joining) -> list[Effect]:
    false = joining.verdict.false if joining.verdict else ()
    return [Accuse(peer, Offence.FALSE_CLAIM, detail) for peer, detail in false]


def is_there(ctx: Context, peer: PeerId) -> bool:
    """Say whether a peer, or this node itself, could take part now."""
    entry = ctx.ledger.of(peer)
    if entry is not None and entry.report.message.finished:
        return False
    return peer == ctx.me or (ctx.is_partner(peer) and ctx.trusts(peer))
