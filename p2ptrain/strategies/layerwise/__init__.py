"""Layers trained at once by different peers: each takes a block from common weights, then all are joined.

A round: the coordinator names the common weights and gives everyone a block of layers; each measures the
weights, trains its block on its own data for some steps, and offers these layers only; the coordinator joins
what came, compares the whole with the weights before, leaves out what makes it worse, and names the next
common weights. Several peers on one block are averaged, and stand in for each other. In mode `local` a block
lowers a loss of its own through a head of its own, so that nothing behind it has to be computed: this is
what makes rounds shorter than training whole. In mode `global` it lowers the loss of the whole net, the
other layers standing still, and a search along the line finds how far to go.

Who coordinates is decided by a law of terms (core/lease.py); a new coordinator asks everybody for the newest
weights and goes on from them, with the layers that are trained already. A peer that is alone trains whole.
Exact form, defaults and what was measured: source 001, ALGORITHMS 2.3, 3.4, 4.3.
"""

import math
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from p2ptrain.core import keep
from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.effects import Adopt, Effect, Fresh, Note, OptimizerState, Send, SetTimer, Train
from p2ptrain.core.ending import Ending
from p2ptrain.core.inputs import (
    Evaluated,
    Layer,
    LearnFailed,
    PeerDown,
    Published,
    TimerFired,
    Trained,
    TrainerReady,
)
from p2ptrain.core.lease import AHEAD_MAX, Lease
from p2ptrain.core.messages import Message, Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event, Told
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.strategies.layerwise.coordinating import Coordinator, Plan, is_block
from p2ptrain.strategies.layerwise.messages import Assign, Here, Lead, Result, delivery_of
from p2ptrain.strategies.layerwise.roster import STEPS_MAX
from p2ptrain.strategies.layerwise.succession import Newest
from p2ptrain.strategies.layerwise.worker import PHASES, Phase, Work, Worker, left_of

ALONE_STEPS = 50
TURNS = 4
NEVER = 2**31
"""Rounds before everyone moves on (guess), and more than there are."""

SLACK = 1.5
"""Who told a result asks again when the answer takes this many times as long as usual (guess)."""

ASK_DOUBLINGS = 3
"""Who waits for work asks less and less often, up to 8 times the first wait (guess)."""

Steps = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0.0)]

__all__ = ["MESSAGES", "PHASES", "Config", "Phase", "Strategy"]


class Mode(StrEnum):
    """Which loss a block lowers."""

    LOCAL = "local"
    GLOBAL = "global"


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults: ALGORITHMS 5 unless said otherwise.

    mode: `local`: a block lowers a loss of its own; `global`: that of the whole net.
    round_steps: optimiser steps of a round; 0: so many that what comes in between takes no longer than they
        do, 16 to 64. Who is slow takes fewer.
    group: so many layers make a block, where there are peers for all blocks.
    turns: after so many rounds everyone moves on to the next block, so that all of the data come to it; 0: 4
        where each peer has a part of the data, else never: then it only costs (measured, LOG.md).
    quorum: at the deadline this share of the layers must be back.
    replicas: so many peers' results of one block are averaged; those of others stand in (guess).
    examples: held-out examples on which weights are compared (guess).
    tolerance: common weights may be worse than those before by this share, and a claim be wrong.
    wait_s: so long is waited for somebody else, before a peer trains alone (guess).
    patience_s: a coordinator that is silent for so long, or for twice the usual time, is replaced (guess).
    deadline_s: of a round at most, and as long as nobody was back yet (guess).
    ask_again_s: who waits asks again after this: messages get lost (guess).
    report_s, settle_s, fresh_s: as in `gossip` and `restart`.
    """

    mode: Mode = Mode.LOCAL
    round_steps: Annotated[int, Meta(ge=0)] = 0
    group: Steps = 2
    turns: Annotated[int, Meta(ge=0)] = 0
    quorum: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.75
    replicas: Steps = 4
    examples: Steps = 256
    tolerance: Annotated[float, Meta(ge=0.0)] = 0.10
    wait_s: Annotated[float, Meta(ge=0.0)] = 5.0
    patience_s: Positive = 10.0
    deadline_s: Positive = 60.0
    ask_again_s: Positive = 1.0
    report_s: Positive = 2.0
    settle_s: Annotated[float, Meta(ge=0.0)] = 20.0
    fresh_s: Positive = 45.0


MESSAGES: tuple[type[Message], ...] = (Lead, Here, Assign, Result)


class Memory(Struct, frozen=True):
    """What survives a restart of the program."""

    keep: Offer | None
    lr_scale: float
    term: int
    newest: Newest | None


class Strategy:
    """One peer: a worker, and the coordinator in its terms."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._own = Progress()
        self._ending = Ending(config.settle_s, config.fresh_s, config.tolerance)
        self._measured = False
        self._lease = Lease()
        self._latest = (0, 0)
        self._waits = Arrivals(config.ask_again_s, config.deadline_s)
        self._waiting_since = self._ask_at = self._hold_until = self._company = 0.0
        self._asked = 0
        self._steps_max = config.round_steps or STEPS_MAX
        self._build((), 1)

    def _build(self, layers: tuple[Layer, ...], parts: int) -> None:
        """A net that is not known in layers is one."""
        self._layers = layers or (Layer((), 1.0),)
        plan = plan_of(self._config, parts)
        self._worker = Worker(self._own, self._layers, plan, self._config.report_s)
        self._coordinator = Coordinator(plan, self._layers, lambda ctx: left_of(ctx, self._own))

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Look for the others, or go on from the checkpoint."""
        self._own.take(ready)
        self._build(ready.layers, ctx.manifest.parts)
        worker = self._worker
        if ready.memory:
            memory = msgspec.msgpack.decode(ready.memory, type=Memory)
            self._own.lr_scale, self._lease.term = memory.lr_scale, memory.term
            self._own.keep = keep.Keep(ctx.best_kept(memory.keep))
            newest = memory.newest
            worker.newest = newest if newest and ctx.holds(newest.offer.blob) else None
            worker.number = newest.number if newest else 0
        self._waiting_since = self._company = ctx.now
        return self._tick(ctx)

    def memory(self) -> bytes:
        """Keep the best offer, the learning rate, the term, and the newest common weights."""
        own, newest = self._own, self._worker.newest
        return msgspec.msgpack.encode(Memory(own.keep.offer, own.lr_scale, self._lease.term, newest))

    def activity(self) -> str:
        """Say what goes on."""
        joins = "; joining everybody's layers" if self._coordinator.is_active else ""
        return f"{self._worker.phase}{joins}"

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event."""
        worker = self._worker
        match event:
            case _ if worker.phase is Phase.DONE:
                return []
            case TimerFired(key="tick"):
                return self._tick(ctx)
            case Told(sender=sender, message=message):
                return self._on_told(ctx, sender, message) if ctx.trusts(sender) else []
            case PeerDown(peer=peer) if peer == self._lease.holder and worker.phase is Phase.WAIT:
                return [SetTimer("tick", 0.0)]
            case _ if worker.phase is Phase.SETTLE:
                effects = self._settle(ctx, event)
            case _:
                effects = self._on_own_work(ctx, event)
        return [*effects, *self._coordinated(ctx, self._coordinator.handle(ctx, event))]

    def _on_own_work(self, ctx: Context, event: Event) -> list[Effect]:
        worker = self._worker
        before = worker.phase
        if isinstance(event, Trained):
            self._own.take(event)
            if worker.phase is Phase.ALONE:
                worker.turn("steps taken")
        match event:
            case Evaluated(tag="own"):
                effects = self._on_own_loss(ctx, event)
            case Published(tag=keep.TAG) | LearnFailed(tag=keep.TAG):
                effects = self._on_kept(event)
            case _:
                effects = worker.handle(ctx, event)
        is_free = worker.phase is Phase.WAIT and before is not Phase.WAIT
        return [*effects, *(self._wait(ctx, before) if is_free else [])]

    # -- time --------------------------------------------------------------------------------------

    def _tick(self, ctx: Context) -> list[Effect]:
        """Whatever was lost is asked for again, and whoever is gone is replaced."""
        effects: list[Effect] = [SetTimer("tick", self._config.ask_again_s)]
        worker, coordinator = self._worker, self._coordinator
        if self._is_paused(ctx):
            return effects
        if companions := self._companions(ctx):
            self._company = ctx.now
            patience_s = self._patience_s() if worker.phase is Phase.WAIT else math.inf
            if not self._lease.watch(ctx, patience_s, lambda peer: self._is_fit(ctx, peer)):
                coordinator.close()
            else:
                effects += coordinator.open(ctx, worker.newest, worker.number, companions)
        effects += [Send(peer, Lead(self._lease.term)) for peer in coordinator.asked]
        effects += self._coordinated(ctx, coordinator.tick(ctx))
        return [*effects, *(self._seek(ctx) if worker.phase is Phase.WAIT else [])]

    def _is_paused(self, ctx: Context) -> bool:
        entry = ctx.ledger.of(ctx.me)
        return entry is not None and entry.report.message.paused

    def _is_fit(self, ctx: Context, peer: PeerId) -> bool:
        """Say whether a peer could coordinate."""
        if peer == ctx.me:
            return not self._coordinator.cannot_write
        entry = ctx.ledger.of(peer)
        return ctx.is_partner(peer) and not (entry and entry.report.message.finished)

    def _companions(self, ctx: Context) -> list[PeerId]:
        return [peer for peer in ctx.partners() if ctx.trusts(peer) and self._is_fit(ctx, peer)]

    def _patience_s(self) -> Seconds:
        usual = self._waits.usual_s
        most = 3 * self._config.patience_s if usual is None else 2 * self._waits.deadline_s
        return max(self._config.patience_s, most)

    # -- what others say ---------------------------------------------------------------------------

    def _on_told(self, ctx: Context, sender: PeerId, message: Message) -> list[Effect]:
        match message:
            case Lead() if self._lease.renew(ctx, sender, message.term):
                self._coordinator.close()
                result = [Send(sender, self._result())] if self._worker.result else []
                return [Send(sender, self._here(ctx)), *result]
            case Assign() if self._lease.renew(ctx, sender, message.term):
                self._coordinator.close()
                return self._on_assign(ctx, sender, message)
            case Here() | Result() if self._is_asked(ctx, message.term):
                return self._on_asked(ctx, sender, message)
            case _:
                return []

    def _is_asked(self, ctx: Context, term: int) -> bool:
        """Say whether this peer coordinates that term: who speaks of a later one found the others gone."""
        lease = self._lease
        if lease.term < term <= lease.term + AHEAD_MAX and self._is_fit(ctx, ctx.me):
            lease.term, lease.holder, lease.heard = term, ctx.me, ctx.now
        return lease.holder == ctx.me

    def _on_asked(self, ctx: Context, sender: PeerId, message: Here | Result) -> list[Effect]:
        worker, coordinator = self._worker, self._coordinator
        effects: list[Effect] = []
        if not coordinator.is_active:
            effects += coordinator.open(ctx, worker.newest, worker.number, self._companions(ctx))
            effects += [Send(peer, Lead(self._lease.term)) for peer in coordinator.asked]
        if isinstance(message, Here):
            newest = Newest(message.round, message.newest) if message.newest else None
            effects += coordinator.hear(ctx, sender, message.left, newest)
        elif is_block((message.begin, message.end), self._layers) and message.steps > 0:
            effects += coordinator.take(ctx, delivery_of(sender, message, self._steps_max))
        return self._coordinated(ctx, effects)

    def _coordinated(self, ctx: Context, effects: list[Effect]) -> list[Effect]:
        """Tell everybody what the coordinator wants, this peer too."""
        effects, term = [*effects], self._lease.term
        for to, newest, block, steps in self._coordinator.take_orders():
            offer = newest.offer
            assign = Assign(term, newest.number, offer.blob, offer.size_bytes, offer.loss, *block, steps)
            effects += self._on_assign(ctx, to, assign) if to == ctx.me else [Send(to, assign)]
        return effects

    def _on_assign(self, ctx: Context, author: PeerId, assign: Assign) -> list[Effect]:
        worker = self._worker
        if assign.steps > 0 and not is_block((assign.begin, assign.end), self._layers):
            return []
        if (assign.term, assign.round) < self._latest or worker.phase is Phase.SETTLE:
            return []
        self._latest = (assign.term, assign.round)
        if worker.offer(Work(author, assign)):
            if worker.phase is not Phase.WAIT:
                return []
            if author != ctx.me and worker.result is not None:
                self._waits.add(ctx.now - self._waiting_since)
            return self._seek(ctx)
        if worker.result is None or worker.result.term == assign.term or author == ctx.me:
            return []
        return [Send(author, self._result())]

    # -- a worker without work ---------------------------------------------------------------------

    def _wait(self, ctx: Context, before: Phase) -> list[Effect]:
        """Be free for work, and tell what came out of the last."""
        config, result, usual = self._config, self._worker.result, self._waits.usual_s or 0.0
        self._lease.heard = self._waiting_since = self._ask_at = ctx.now
        self._hold_until = ctx.now + (config.ask_again_s if self._worker.is_held else 0.0)
        self._asked = 0
        told: list[Effect] = []
        if before is Phase.SHOW and result is not None:
            self._ask_at += max(SLACK * usual, 2 * config.ask_again_s)
            told = self._tell(ctx)
        return [*told, *(self._seek(ctx) if self._worker.phase is Phase.WAIT else [])]

    def _tell(self, ctx: Context) -> list[Effect]:
        """Tell the coordinator the result, or that this peer is here."""
        holder = self._lease.holder
        if holder is None:
            return []
        if holder != ctx.me:
            return [Send(holder, self._result() if self._worker.result else self._here(ctx))]
        if self._worker.result is None:
            return []
        return self._coordinated(
            ctx, self._coordinator.take(ctx, delivery_of(ctx.me, self._result(), self._steps_max))
        )

    def _result(self) -> Result:
        """The result, for the coordinator of now."""
        worker = self._worker
        assert worker.result is not None
        worker.result = replace(worker.result, term=self._lease.term)
        return worker.result

    def _here(self, ctx: Context) -> Here:
        newest = self._worker.newest
        number = newest.number if newest else self._worker.number
        return Here(self._lease.term, number, left_of(ctx, self._own), newest.offer if newest else None)

    def _seek(self, ctx: Context) -> list[Effect]:
        """Take up what came, or train alone, or ask, or end."""
        worker, companions = self._worker, self._companions(ctx)
        if ctx.now < self._hold_until:
            return []
        if worker.next is not None:
            return worker.take_up(ctx, worker.next)
        if left_of(ctx, self._own) == 0:
            told = worker.result is not None and companions
            if told and ctx.now - self._waiting_since <= self._patience_s():
                return self._ask(ctx)
            worker.turn("own steps done")
            return self._own.look("last")
        if not companions:
            return self._train_alone(ctx) if ctx.now - self._company >= self._config.wait_s else []
        return self._ask(ctx)

    def _ask(self, ctx: Context) -> list[Effect]:
        """Ask again, less and less often."""
        if ctx.now < self._ask_at:
            return []
        self._ask_at = ctx.now + self._config.ask_again_s * 2 ** min(self._asked, ASK_DOUBLINGS)
        self._asked += 1
        return self._tell(ctx)

    def _train_alone(self, ctx: Context) -> list[Effect]:
        worker = self._worker
        worker.turn("nobody else is here")
        look = self._own.look("own") if self._own.is_due(ctx.now, self._config.report_s) else []
        worker.newest = worker.result = None
        worker.number += 1
        return [*look, Train(min(ALONE_STEPS, left_of(ctx, self._own)), worker.number)]

    # -- own weights -------------------------------------------------------------------------------

    def _on_own_loss(self, ctx: Context, event: Evaluated) -> list[Effect]:
        own = self._own
        if own.measure(event):
            return own.propose() or own.tell()
        if self._worker.phase is Phase.SETTLE:
            return []
        own.be_careful()
        note = Note("diverged", {"step": own.step, "lr_scale": own.lr_scale})
        if own.keep.offer is None:
            return [note, Fresh(ctx.manifest.seed, own.lr_scale)]
        return [note, Adopt("back", own.keep.offer.blob, OptimizerState.RESET, own.lr_scale)]

    def _on_kept(self, event: Published | LearnFailed) -> list[Effect]:
        kept = self._own.keep
        before = kept.offer
        kept.on_written(event)
        if before is not None and kept.offer is not None and before.loss < kept.offer.loss:
            kept.offer = before  # common weights came in between
        return self._own.tell()

    def _settle(self, ctx: Context, event: Event) -> list[Effect]:
        match event:
            case Evaluated(tag="own" | "last"):
                self._measured |= event.tag == "last"
                return [*self._on_own_loss(ctx, event), *self._choose(ctx)]
            case Published(tag=keep.TAG) | LearnFailed(tag=keep.TAG):
                return [*self._on_kept(event), *self._choose(ctx)]
        effects = self._ending.handle(ctx, event, self._own)
        if self._ending.is_over:
            self._worker.turn("best result chosen")
            self._coordinator.close()
        return effects

    def _choose(self, ctx: Context) -> list[Effect]:
        """Look at the results of others once the own is measured and written."""
        ready = self._measured and not self._own.keep.is_writing
        return self._ending.begin(ctx, self._own) if ready else []


def plan_of(config: Config, parts: int) -> Plan:
    """Return what coordinator and worker need of the settings; the data are in so many parts."""
    turns = config.turns or (TURNS if parts > 1 else NEVER)
    return Plan(
        local=config.mode is Mode.LOCAL,
        group=config.group,
        turns=turns,
        steps=config.round_steps,
        least_s=config.ask_again_s,
        most_s=config.deadline_s,
        examples=config.examples,
        tolerance=config.tolerance,
        quorum=config.quorum,
        replicas=config.replicas,
    )
