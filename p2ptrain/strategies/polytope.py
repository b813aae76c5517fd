"""Distributed Nelder-Mead polytope: chains pass from peer to peer with a mean of weights and the losses met.

Whom a chain reaches, and whose loss is worse than those of others that it met, looks along the line from
its own weights through the mean for a better point, on its own held-out data:

    w(t) = own + t (mean - own)     t = 2 reflects, 3 expands, 1.5 and 0.5 contract, 1 is the mean itself

It takes a better one over, adds its weights to the mean, mean <- mean + (w - mean) / n, and sends the chain
on. A chain ends after so many hops; who hears of none for long begins one. Exact form, defaults and what was
measured: source 000, ALGORITHMS 2.2, 4.2, 5.
"""

import math
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from p2ptrain.core import keep, law
from p2ptrain.core.effects import (
    Accuse,
    Adopt,
    Combine,
    Effect,
    Evaluate,
    Fresh,
    Note,
    OptimizerState,
    Publish,
    Send,
)
from p2ptrain.core.ending import Ending
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import (
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    Published,
    Trained,
    TrainerReady,
)
from p2ptrain.core.ladder import Ladder, Line, slot_at
from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Number, Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.rhythm import Rhythm
from p2ptrain.core.strategy import Context, Event, Told
from p2ptrain.core.types import OWN, BlobId, PeerId, Ref, Seconds, Slot, short

BASE = Slot(Ref("base"))

MET_MAX = 32
"""So many losses a chain remembers, the last ones (ALGORITHMS P3)."""

SEEN_MAX = 256
"""Chains that are recognised, the latest (guess)."""

COUNT_MAX = 1000

PeerName = Annotated[bytes, Meta(min_length=32, max_length=32)]
Positive = Annotated[float, Meta(gt=0.0)]
Steps = Annotated[int, Meta(ge=1)]


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults: ALGORITHMS 5 unless said otherwise.

    ladder: `line` for a common start, `simplex` where everyone starts elsewhere.
    round_steps: optimiser steps between two hops of chains here.
    hops: after so many a chain ends; 0: the number of members, at most 16; with `simplex` 4.
    worse_than: a move is tried if this share of those met has a lower loss; by default 0 (`line`) or .5.
    newest: the last weights count so much in the mean, or its share; by default .5 (`line`) or 0.
    examples: held-out examples on which points are compared.
    broken: a mean whose loss is above this many times the own, plus one, ends the chain.
    gain: so much lower must the loss be, and by half a standard error of the difference.
    held: so many chains wait here at most; the older ones end.
    silence: who hears of no chain for so many times the usual interval begins one.
    lr_spread: peers draw their learning rate factor from exp(U(-lr_spread, lr_spread)).
    report_s, settle_s, fresh_s, tolerance: as in `gossip` and `restart`.
    """

    ladder: Ladder = Ladder.LINE
    round_steps: Steps = 50
    hops: Annotated[int, Meta(ge=0, le=1000)] = 0
    worse_than: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    newest: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    examples: Steps = 128
    broken: Positive = 3.0
    gain: Positive = 1e-4
    held: Annotated[int, Meta(ge=1, le=16)] = 2
    silence: Positive = 3.0
    lr_spread: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    report_s: Positive = 2.0
    settle_s: Annotated[float, Meta(ge=0.0)] = 20.0
    fresh_s: Positive = 45.0
    tolerance: Annotated[float, Meta(ge=0.0)] = 0.10


class Met(Struct, frozen=True, array_like=True):
    """A peer that the chain passed, and its loss there."""

    peer: PeerName
    loss: Number


class Chain(Message, frozen=True):
    """A mean of weights, on its way.

    origin, number: who began it, and its name there.
    hop: so many peers passed it on. count: so many weights are in the mean.
    mean, size_bytes: to be fetched from the sender.
    met: the last peers, the latest at the end.
    """

    origin: PeerName
    number: Natural
    hop: Natural
    count: Annotated[int, Meta(ge=1, le=COUNT_MAX)]
    mean: BlobName
    size_bytes: BlobBytes
    met: Annotated[tuple[Met, ...], Meta(max_length=MET_MAX)] = ()


MESSAGES: tuple[type[Message], ...] = (Chain,)


class Phase(StrEnum):
    """Where a run stands."""

    RUN = "training, and moving through the means of chains"
    SETTLE = "own steps done, waiting for the others"
    DONE = "done"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.RUN, "own steps done"): Phase.SETTLE,
    (Phase.SETTLE, "best result chosen"): Phase.DONE,
}


class Visit(Struct):
    """The chain that is looked at here.

    line: from the own weights, t = 0, through the mean, t = 1.
    taken: the t that is gone to; 0: none.
    """

    chain: Chain
    sender: PeerId
    line: Line
    asked: tuple[float, ...] = ()
    taken: float = 0.0


class Strategy:
    """One peer of the polytope."""

    def __init__(self, config: Config) -> None:
        simplex = config.ladder is Ladder.SIMPLEX
        self._config = config
        self._worse_than = (0.5 if simplex else 0.0) if config.worse_than is None else config.worse_than
        self._newest = (0.0 if simplex else 0.5) if config.newest is None else config.newest
        self._phase = Phase.RUN
        self._own = Progress()
        self._ending = Ending(config.settle_s, config.fresh_s, config.tolerance)
        self._measured = False
        self._held: list[Visit] = []
        self._visit: Visit | None = None
        self._visits = 0
        self._may_visit = False
        self._seen: dict[tuple[bytes, int], int] = {}
        self._turn = 0
        self._rhythm = Rhythm()
        self._round_began: Seconds = 0.0

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Train from the common start or an own one, or go on from the checkpoint."""
        self._own.resume(ctx, ready)
        self._rhythm.heard = self._round_began = ctx.now
        self._turn = ctx.rng.randrange(64)
        return [*(self._begin(ctx) if ready.step == 0 else []), *self._next_round(ctx)]

    def memory(self) -> bytes:
        """Keep the best offer and the learning rate."""
        return self._own.memory()

    def activity(self) -> str:
        """Say what goes on."""
        if self._visit is not None:
            return f"looking at a chain from {short(self._visit.sender)}"
        return str(self._phase)

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event."""
        if self._phase is Phase.SETTLE and not isinstance(event, Trained):
            return self._settle(ctx, event)
        match event:
            case Trained() if self._phase is Phase.RUN:
                self._own.take(event)
                return self._next_round(ctx)
            case Evaluated(tag="own"):
                return self._on_own_loss(ctx, event)
            case Published(tag=keep.TAG) | LearnFailed(tag=keep.TAG):
                return self._on_kept(event)
            case Told(sender=sender, message=Chain() as chain) if self._phase is Phase.RUN:
                return self._on_chain(ctx, sender, chain)
            case Fetched(blob=blob) if self._awaits(blob):
                return self._look((0.0, 1.0), first=True)
            case FetchFailed(blob=blob) if self._awaits(blob):
                return self._end_visit(ctx)
            case Evaluated() if event.tag == self._tag("look") and self._visit is not None:
                return self._on_looked(ctx, self._visit, event)
            case LearnFailed() if event.tag in (self._tag("look"), self._tag("move"), self._tag("mean")):
                return self._end_visit(ctx)
            case Published() if event.tag == self._tag("mean") and self._visit is not None:
                return self._pass_on(ctx, self._visit, event)
            case Published() if event.tag.startswith("chain:"):
                return self._send_new(ctx, event)
            case _:
                return []

    # -- the own training --------------------------------------------------------------------------

    def _begin(self, ctx: Context) -> list[Effect]:
        """Go to the first point: the common one is where the trainer is already."""
        spread = self._config.lr_spread
        self._own.lr_scale = math.exp(ctx.rng.uniform(-spread, spread))
        if self._config.ladder is Ladder.SIMPLEX:
            return [Fresh(ctx.rng.getrandbits(32), self._own.lr_scale)]
        return [Fresh(ctx.manifest.seed, self._own.lr_scale)] if spread else []

    def _next_round(self, ctx: Context) -> list[Effect]:
        """Look at a chain that waits, or begin one; then train on."""
        if self._own.is_done(ctx):
            self._phase, self._visit = PHASES[self._phase, "own steps done"], None
            return self._own.look("last")
        round_s, self._round_began = ctx.now - self._round_began, ctx.now
        self._may_visit = True
        effects: list[Effect] = []
        if self._own.is_due(ctx.now, self._config.report_s):
            effects += self._own.look("own")
        effects += self._visit_next(ctx)
        if self._rhythm.is_silent(ctx.now, self._config.silence, round_s) and self._own.step:
            effects += self._begin_chain(ctx)
        return [*effects, self._own.train(ctx, self._config.round_steps)]

    def _on_own_loss(self, ctx: Context, event: Evaluated) -> list[Effect]:
        if self._own.measure(event):
            return self._own.propose() or self._own.tell()
        return self._recover(ctx) if self._phase is Phase.RUN else []

    def _on_kept(self, event: Published | LearnFailed) -> list[Effect]:
        self._own.keep.on_written(event)
        return self._own.tell()

    def _recover(self, ctx: Context) -> list[Effect]:
        """Training diverged: go back to the last weights that were good, and more carefully."""
        own = self._own
        own.be_careful()
        note = Note("diverged", {"step": own.step, "lr_scale": own.lr_scale})
        if own.keep.offer is None:
            return [note, Fresh(ctx.rng.getrandbits(32), own.lr_scale)]
        return [note, Adopt("back", own.keep.offer.blob, OptimizerState.RESET, own.lr_scale)]

    # -- a chain comes -----------------------------------------------------------------------------

    def _on_chain(self, ctx: Context, sender: PeerId, chain: Chain) -> list[Effect]:
        name = (chain.origin, chain.number)
        if not ctx.trusts(sender) or chain.hop <= self._seen.pop(name, -1) or chain.hop >= self._hops(ctx):
            return []
        self._seen[name] = chain.hop
        if len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._rhythm.hear(ctx.now)
        visit = Visit(chain, sender, Line(self._config.ladder, self._config.gain))
        self._held = [*self._held, visit][-self._config.held :]
        return self._visit_next(ctx)

    def _visit_next(self, ctx: Context) -> list[Effect]:
        """Fetch the mean of the chain that waits longest: one a round, so that training comes in between."""
        if self._visit is not None or not self._may_visit or not self._held or not self._own.step:
            return []
        self._may_visit = False
        self._visits += 1
        self._visit = self._held.pop(0)
        chain = self._visit.chain
        return [ctx.fetch(self._visit.sender, Offer(chain.mean, chain.size_bytes, 0.0))]

    def _awaits(self, blob: BlobId) -> bool:
        return self._visit is not None and self._visit.chain.mean == blob and not self._visit.asked

    def _tag(self, what: str) -> str:
        """Name what is asked on this visit: answers to an earlier one mean nothing."""
        return f"{what}:{self._visits}"

    # -- along the line ----------------------------------------------------------------------------

    def _look(self, ts: tuple[float, ...], *, first: bool = False) -> list[Effect]:
        """Measure points of the line from the weights of the beginning of this visit."""
        visit = self._visit
        assert visit is not None
        visit.asked, mean, tag = ts, visit.chain.mean, self._tag("look")
        effects: list[Effect] = [Combine(tag, BASE, ((1.0, OWN),))] if first else []
        effects += [Combine(tag, slot_at(t), ((1 - t, BASE), (t, mean))) for t in ts if t not in (0.0, 1.0)]
        refs = (BASE, *(self._at(t) for t in ts if t))
        return [*effects, Evaluate(tag, refs, examples_max=self._config.examples)]

    def _at(self, t: float) -> Ref:
        assert self._visit is not None
        return {0.0: BASE, 1.0: self._visit.chain.mean}.get(t, slot_at(t))

    def _on_looked(self, ctx: Context, visit: Visit, event: Evaluated) -> list[Effect]:
        asked = [t for t in visit.asked if t]
        if len(event.losses) != 1 + len(asked):
            return []  # an answer to what was asked before, once more
        losses = [loss if math.isfinite(loss) else math.inf for loss in event.losses]
        visit.line.losses |= dict(zip((0.0, *asked), losses, strict=True))
        visit.line.errors |= dict(zip((0.0, *asked), event.differences, strict=False))
        own, mean = visit.line.losses[0.0], visit.line.losses[1.0]
        if own == math.inf:
            return self._end_visit(ctx)
        if mean > self._bearable(own):
            return [*self._break(visit, own, mean), *self._end_visit(ctx), *self._begin_chain(ctx)]
        others = {met.peer: met.loss for met in visit.chain.met if met.peer != ctx.me}
        better = sum([loss < own for loss in others.values()])
        if better < math.ceil(self._worse_than * len(others)):
            return self._extend(visit)
        if more := visit.line.next(min(others.values(), default=math.inf)):
            return self._look(more)
        return [*self._move(visit), *self._extend(visit)]

    def _bearable(self, loss: float) -> float:
        return self._config.broken * abs(loss) + 1

    def _break(self, visit: Visit, own: float, mean: float) -> list[Effect]:
        """Weights from a common start have good means: who looked at this one before knew that it is none."""
        note = Note("chain_broken", {"from": short(visit.sender), "mean": mean, "loss": own})
        theirs = [met.loss for met in visit.chain.met if met.peer == visit.sender]
        if self._config.ladder is Ladder.SIMPLEX or not theirs or mean <= self._bearable(theirs[-1]):
            return [note]
        detail = f"passed a mean of loss {mean:.4g} on, its own being {theirs[-1]:.4g}"
        return [note, Accuse(visit.sender, Offence.FALSE_CLAIM, detail)]

    def _move(self, visit: Visit) -> list[Effect]:
        """Take a better point over; what training did meanwhile is kept."""
        t, losses = visit.line.best(), visit.line.losses
        if not t:
            return []
        visit.taken = t
        fields = {"t": t, "from": short(visit.sender), "before": losses[0.0], "loss": losses[t]}
        note = Note("moved", fields | {"step": self._own.step})
        step = ((1.0, OWN), (t, visit.chain.mean), (-t, BASE))
        if t <= 1:
            return [note, Combine(self._tag("move"), OWN, step)]
        there = slot_at(t)
        adopt = Adopt(self._tag("move"), there, OptimizerState.RESET)
        return [note, Combine(self._tag("move"), there, step), adopt]

    # -- the chain goes on -------------------------------------------------------------------------

    def _extend(self, visit: Visit) -> list[Effect]:
        """Add the own weights to the mean; the base is not needed any more."""
        chain = visit.chain
        share = max(1 / (chain.count + 1), self._newest)
        mean = Combine(self._tag("mean"), BASE, ((1 - share, chain.mean), (share, self._at(visit.taken))))
        return [mean, Publish(self._tag("mean"), BASE)]

    def _pass_on(self, ctx: Context, visit: Visit, event: Published) -> list[Effect]:
        chain = visit.chain
        met = [*chain.met, Met(ctx.me, visit.line.losses[visit.taken])][-MET_MAX:]
        longer = replace(
            chain,
            hop=chain.hop + 1,
            count=min(chain.count + 1, COUNT_MAX),
            mean=event.blob,
            size_bytes=event.size_bytes,
            met=tuple(met),
        )
        note = Note("chain_met", {"from": short(visit.sender), "hop": longer.hop, "moved": visit.taken})
        if longer.hop >= self._hops(ctx):
            return [note, *self._end_visit(ctx), *self._begin_chain(ctx)]
        return [note, *self._send(ctx, longer), *self._end_visit(ctx)]

    def _send(self, ctx: Context, chain: Chain) -> list[Effect]:
        """Send it to the next address that it did not meet lately."""
        members = ctx.membership.trainers
        lately = dict.fromkeys(met.peer for met in chain.met[-(len(members) // 2) :])
        self._turn += 1

        def usable(peer: PeerId) -> bool:
            return ctx.is_partner(peer) and ctx.trusts(peer)

        to = law.expo(members, ctx.me, self._turn, lambda peer: usable(peer) and peer not in lately)
        to = to or law.expo(members, ctx.me, self._turn, usable)
        self._seen[chain.origin, chain.number] = chain.hop
        return [Send(to, chain)] if to else []

    def _begin_chain(self, ctx: Context) -> list[Effect]:
        """Begin one from the own weights, if there is anybody to send it to."""
        self._rhythm.heard = ctx.now
        if not math.isfinite(self._own.loss) or not ctx.partners():
            return []
        return [Publish(f"chain:{ctx.rng.getrandbits(48)}")]

    def _send_new(self, ctx: Context, event: Published) -> list[Effect]:
        if self._phase is not Phase.RUN or not math.isfinite(self._own.loss):
            return []
        number = int(event.tag.removeprefix("chain:"))
        met = (Met(ctx.me, self._own.loss),)
        chain = Chain(ctx.me, number, 0, 1, event.blob, event.size_bytes, met)
        return [Note("chain_begun"), *self._send(ctx, chain)]

    def _end_visit(self, ctx: Context) -> list[Effect]:
        self._visit = None
        return self._visit_next(ctx)

    def _hops(self, ctx: Context) -> int:
        if self._config.hops:
            return self._config.hops
        simplex = self._config.ladder is Ladder.SIMPLEX
        return 4 if simplex else max(2, min(16, len(ctx.membership.trainers)))

    # -- the end -----------------------------------------------------------------------------------

    def _settle(self, ctx: Context, event: Event) -> list[Effect]:
        match event:
            case Evaluated(tag="own" | "last"):
                self._measured = event.tag == "last"
                return [*self._on_own_loss(ctx, event), *self._choose(ctx)]
            case Published(tag=keep.TAG) | LearnFailed(tag=keep.TAG):
                return [*self._on_kept(event), *self._choose(ctx)]
        effects = self._ending.handle(ctx, event, self._own)
        if self._ending.is_over:
            self._phase = PHASES[self._phase, "best result chosen"]
        return effects

    def _choose(self, ctx: Context) -> list[Effect]:
        """Look at the results of others once the own is measured and written."""
        ready = self._measured and not self._own.keep.is_writing
        return self._ending.begin(ctx, self._own) if ready else []
