"""Ring all-reduce: after every few steps all members take the same step together, at the least cost there is.

Everyone trains some steps from the common weights and says that it is ready. One of them, the coordinator,
names a ring when all are, or when the usual time is over; the ring averages what its members have, weighted
by their examples of the round, and all go on from the same mean, bit by bit. With `round_steps` 1 that is
synchronous data-parallel training. Who is late goes into the next ring, and weighs less the more rings it
missed. Who is silent in a ring is left out of the next, which is formed at once from the same weights.

Nobody is believed: each measures the mean on its own held-out examples, and refuses one that makes things
worse. Then all show what they gave, the coordinator looks at each, others at some, and liars are accused and
left out. Coordinators are found by a law (core/lease.py), and one that is silent, distrusted or brings no
good means is replaced. Within one computer the same is done by torch.distributed: learn/training/parallel.py.

Sources: 002, 003; ALGORITHMS 2.4 (DP-RING); Patarasuk and Yuan 2009.
"""

import math
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from p2ptrain.core import keep, newcomer
from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.effects import (
    Adopt,
    Effect,
    Evaluate,
    Fresh,
    Note,
    OptimizerState,
    Publish,
    Reduce,
    Send,
    SetTimer,
)
from p2ptrain.core.ending import Ending, claim_limit
from p2ptrain.core.inputs import (
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    Published,
    Reduced,
    ReduceFailed,
    TimerFired,
    Trained,
    TrainerReady,
)
from p2ptrain.core.messages import Message, Offer
from p2ptrain.core.newcomer import Newcomer
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event, Told
from p2ptrain.core.types import OWN, PeerId, Ref, Seconds, Slot, short
from p2ptrain.strategies.allreduce.leader import Leader
from p2ptrain.strategies.allreduce.words import (
    AVOIDS_MAX,
    COUNT_BITS,
    RING_MAX,
    Call,
    Outcome,
    Ready,
    Ring,
    Shown,
)

MEAN = Slot(Ref("mean"))

SILENCE_LEAST_S = 4.0
"""Nobody is silent before that, however fast rings were (guess)."""

ATTEMPTS = 3
"""Rings in one round: the first, one without who was silent, one without who lied (guess)."""

USELESS_MAX = 3
"""A coordinator that brought no good mean in so many rounds is replaced (guess)."""

PATIENCE_MAX = 12
"""Nobody waits for a ring longer than so many times `patience_s`, whatever a coordinator says (guess)."""

AHEAD_ROUNDS = 4
LOOKS = 2
"""Contributions that a member looks at after a mean was bad (guess)."""

Steps = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0.0)]


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults are guesses unless said otherwise.

    round_steps: optimiser steps between two means; 1 for synchronous training, more where lines are slow.
    ring_max: more members form several rings, others each round: a ring takes 2 (n - 1) times the latency,
        and one member that fails costs all of it their time.
    quorum: when the usual time is over, this share of those that are waited for is enough.
    wait_s: the usual time, before any is known.
    patience_s: a coordinator that is silent for so long is replaced.
    ask_again_s: a question without answer is repeated after this: messages get lost.
    silence_s: a member of a ring that gives nothing for so long is given up; less when rings were fast.
    examples: held-out examples on which a mean is measured.
    worse: a mean may be worse by this share than the own weights, or than the best mean so far: on data of
        one kind the own weights are always better.
    report_s, settle_s, fresh_s, tolerance: as in `gossip` and `restart`.
    """

    round_steps: Steps = 16
    ring_max: Annotated[int, Meta(ge=2, le=RING_MAX)] = 16
    quorum: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.5
    wait_s: Positive = 10.0
    patience_s: Positive = 5.0
    ask_again_s: Positive = 1.0
    silence_s: Positive = 10.0
    examples: Steps = 128
    worse: Annotated[float, Meta(ge=0.0)] = 0.1
    report_s: Positive = 2.0
    settle_s: Annotated[float, Meta(ge=0.0)] = 20.0
    fresh_s: Positive = 45.0
    tolerance: Annotated[float, Meta(ge=0.0)] = 0.10


MESSAGES: tuple[type[Message], ...] = (Ready, Ring, Call)


class Phase(StrEnum):
    """Where a run stands."""

    TRAIN = "training"
    GATHER = "waiting for a ring"
    REDUCE = "averaging in a ring"
    SETTLE = "own steps done, waiting for the others"
    DONE = "done"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.TRAIN, "steps of the round done"): Phase.GATHER,
    (Phase.TRAIN, "own steps done"): Phase.SETTLE,
    (Phase.GATHER, "a ring was formed"): Phase.REDUCE,
    (Phase.GATHER, "next round"): Phase.TRAIN,
    (Phase.GATHER, "own steps done"): Phase.SETTLE,
    (Phase.REDUCE, "next round"): Phase.TRAIN,
    (Phase.REDUCE, "own steps done"): Phase.SETTLE,
    (Phase.REDUCE, "it failed, or its mean is bad"): Phase.GATHER,
    (Phase.SETTLE, "best result chosen"): Phase.DONE,
}


class Strategy:
    """One member, which may coordinate too."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._phase = Phase.TRAIN
        self._own = Progress()
        self._ending = Ending(config.settle_s, config.fresh_s, config.tolerance)
        self._measured = False
        self._newcomer = Newcomer()
        self._leader = Leader(config.ring_max, config.quorum, config.wait_s, config.examples)
        self._lease = self._leader.lease
        self._silences = Arrivals(min(SILENCE_LEAST_S, config.silence_s), config.silence_s)
        self._ready = Ready(0, 0, 0)
        self._ring: Ring | None = None
        self._mean_turn = 0
        self._lowest = math.inf
        self._attempts = self._useless = 0
        self._round_began: Seconds = 0.0
        self._round_samples = 0
        self._waits_since: Seconds = 0.0

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Train from the common start, or go on from the checkpoint."""
        self._own.resume(ctx, ready)
        self._ready = Ready(0, ctx.rng.getrandbits(32) << COUNT_BITS, 0)
        self._newcomer.may_join = ready.step == 0
        return self._train(ctx)

    def memory(self) -> bytes:
        """Keep the best offer and the learning rate."""
        return self._own.memory()

    def activity(self) -> str:
        """Say what goes on."""
        if self._phase is Phase.REDUCE and self._ring is not None:
            return f"averaging in a ring of {len(self._ring.members)}"
        return str(self._phase)

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event."""
        self._leader.trains = self._phase not in (Phase.SETTLE, Phase.DONE)
        led = self._leader.handle(ctx, event)
        if led is not None:
            return [*led, *self._enter_own_ring(ctx)]
        match event:
            case Told(sender=sender, message=Ring() as ring):
                return self._on_ring(ctx, sender, ring)
            case Trained():
                self._own.take(event)
                return self._gather(ctx) if self._phase is Phase.TRAIN else []
            case Evaluated(tag="own"):
                return self._on_own_loss(ctx, event)
            case Published(tag=keep.TAG) | LearnFailed(tag=keep.TAG) if self._phase is not Phase.SETTLE:
                return self._on_kept(event)
            case _ if self._phase is Phase.SETTLE:
                return self._settle(ctx, event)
            case _:
                return self._take_part(ctx, event)

    def _take_part(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer what has to do with this round."""
        ring = self._ring if self._phase is Phase.REDUCE else None
        match event:
            case TimerFired(key="ask") if self._phase is Phase.GATHER:
                return self._ask(ctx)
            case Published() if self._phase is Phase.GATHER and event.tag == self._show_tag:
                return self._enter(ctx, Shown(event.blob, event.size_bytes))
            case LearnFailed() if self._phase is Phase.GATHER and event.tag == self._show_tag:
                return self._enter(ctx, None)
            case Reduced() if ring and event.tag == ring.name:
                self._silences.add(event.seconds)
                return [Evaluate(ring.name, (OWN, MEAN), examples_max=self._config.examples)]
            case Evaluated() if ring and event.tag == ring.name:
                return self._on_mean(ctx, ring, event)
            case ReduceFailed() if ring and event.tag == ring.name:
                return self._on_failed(ctx, event.reason, event.silent)
            case LearnFailed() if ring and event.tag == ring.name:
                return self._on_failed(ctx, event.reason, None)
            case Fetched(blob=blob) if offer := self._newcomer.awaited(blob):
                return self._newcomer.measure(offer, self._config.examples)
            case FetchFailed(blob=blob) if self._newcomer.awaited(blob):
                self._newcomer.give_up()
                return []
            case Evaluated(tag=newcomer.TAG) if self._phase is Phase.TRAIN:
                return self._newcomer.decide(event)
            case _:
                return []

    # -- the own training --------------------------------------------------------------------------

    def _go_on(self, ctx: Context) -> list[Effect]:
        """The round is over, well or not."""
        self._attempts = 0
        cause = "own steps done" if self._own.is_done(ctx) else "next round"
        self._phase = PHASES[self._phase, cause]
        return self._own.look("last") if self._phase is Phase.SETTLE else self._train(ctx)

    def _train(self, ctx: Context) -> list[Effect]:
        if self._own.is_done(ctx):
            return self._end_training()
        self._round_began, self._round_samples = ctx.now, self._own.samples
        steps = self._config.round_steps
        effects: list[Effect] = []
        if self._own.is_due(ctx.now, self._config.report_s):
            effects += self._own.look("own")
        effects += self._newcomer.look(ctx, self._own.step + AHEAD_ROUNDS * steps)
        return [*effects, self._own.train(ctx, steps)]

    def _end_training(self) -> list[Effect]:
        self._phase = PHASES[self._phase, "own steps done"]
        return self._own.look("last")

    def _on_own_loss(self, ctx: Context, event: Evaluated) -> list[Effect]:
        if self._own.measure(event):
            if self._lowest == math.inf:
                self._lowest = self._own.loss
            return self._own.propose() or self._own.tell()
        return self._recover(ctx) if self._phase not in (Phase.SETTLE, Phase.DONE) else []

    def _on_kept(self, event: Published | LearnFailed) -> list[Effect]:
        self._own.keep.on_written(event)
        return self._own.tell()

    def _recover(self, ctx: Context) -> list[Effect]:
        """Training diverged: go back to the last weights that were good, and more carefully."""
        own = self._own
        own.be_careful()
        note = Note("diverged", {"step": own.step, "lr_scale": own.lr_scale})
        if own.keep.offer is None:
            return [note, Fresh(ctx.manifest.seed, own.lr_scale)]
        return [note, Adopt("back", own.keep.offer.blob, OptimizerState.RESET, own.lr_scale)]

    # -- waiting for a ring ------------------------------------------------------------------------

    def _gather(self, ctx: Context) -> list[Effect]:
        """Say that this round's steps are taken, if there is anybody to average with."""
        self._leader.times.add(ctx.now - self._round_began)
        if not any(map(ctx.trusts, ctx.partners())):
            return self._end_training() if self._own.is_done(ctx) else self._train(ctx)
        self._phase = PHASES[self._phase, "steps of the round done"]
        return self._enter(ctx, None)

    def _enter(self, ctx: Context, shown: Shown | None) -> list[Effect]:
        """Have something new to give."""
        self._ready = replace(self._ready, number=self._ready.number + 1, shown=shown)
        self._waits_since = self._lease.heard = ctx.now
        return self._ask(ctx)

    def _ask(self, ctx: Context) -> list[Effect]:
        """Turn to who coordinates now; say it again later, for messages get lost."""
        patience_s = self._config.patience_s
        if ctx.now - self._waits_since > PATIENCE_MAX * patience_s:
            return self._give_up(ctx)
        again = SetTimer("ask", self._config.ask_again_s)
        if ctx.paused:
            return [again]
        is_me = self._lease.watch(ctx, patience_s)
        holder = self._lease.holder
        avoided = [peer for peer in ctx.membership.trainers if not ctx.trusts(peer)]
        self._ready = replace(self._ready, term=self._lease.term, avoids=tuple(avoided[:AVOIDS_MAX]))
        if is_me or holder is None:
            return [again, *self._leader.on_ready(ctx, ctx.me, self._ready), *self._enter_own_ring(ctx)]
        return [again, Send(holder, self._ready)]

    def _give_up(self, ctx: Context) -> list[Effect]:
        """No mean this time: the own steps stay."""
        self._useless += 1
        if self._useless >= USELESS_MAX:
            self._useless = 0
            self._lease.watch(ctx, -1.0)
        return self._go_on(ctx)

    # -- in a ring ---------------------------------------------------------------------------------

    def _on_ring(self, ctx: Context, sender: PeerId, ring: Ring) -> list[Effect]:
        if sender != ctx.me and not (ctx.trusts(sender) and self._lease.renew(ctx, sender, ring.term)):
            return []
        group = ring.group
        mine = next((place for place in ring.members if place.peer == ctx.me), None)
        if self._phase is not Phase.GATHER or mine is None or mine.number != self._ready.number:
            return []
        if len(dict.fromkeys(group)) < len(group) or not all(map(ctx.membership.trains, group)):
            return []
        if len(group) == 1:
            return self._give_up(ctx)
        missed = max(0, ring.turn - self._mean_turn - 1)
        self._ready = replace(self._ready, turn=ring.turn)
        self._phase, self._ring = PHASES[self._phase, "a ring was formed"], ring
        weight = max(1, self._own.samples - self._round_samples) / (1 + missed)
        silence_s = self._silences.deadline_s
        return [Reduce(ring.name, MEAN, OWN, weight, group, ring.name, silence_s)]

    def _enter_own_ring(self, ctx: Context) -> list[Effect]:
        """Take part in the ring that this node itself formed, if it is in one."""
        ring = self._leader.take_own()
        return self._on_ring(ctx, ctx.me, ring) if ring is not None else []

    def _on_mean(self, ctx: Context, ring: Ring, event: Evaluated) -> list[Effect]:
        """Take it over, unless it makes things worse."""
        if len(event.losses) != 2:
            return []
        own, mean = event.losses
        fields = {"peers": len(ring.members), "before": own, "loss": mean}
        if not mean <= max(self._limit(own, event), self._limit(self._lowest, event)):
            return [Note("refused", fields), *self._again(ctx, Outcome.REFUSED, None)]
        self._lowest = min(self._lowest, mean)
        self._newcomer.may_join = False
        self._useless, self._mean_turn = 0, ring.turn
        self._ready = replace(self._ready, outcome=Outcome.WELL, silent=None)
        note = Note("averaged", fields)
        return [note, Adopt("mean", MEAN), *self._go_on(ctx)]

    def _limit(self, loss: float, event: Evaluated) -> float:
        """Return what a mean may come to beside weights of that loss.

        The error of weights that are very bad is large too: it must not excuse them.
        """
        noise = min((error for error in (event.errors[0], *event.differences[1:]) if error >= 0), default=0.0)
        return claim_limit(loss, self._config.worse, noise) if math.isfinite(loss) else -math.inf

    def _on_failed(self, ctx: Context, reason: str, silent: PeerId | None) -> list[Effect]:
        note = Note("ring_failed", {"reason": reason, "silent": short(silent) if silent else ""})
        check = self._own.look("own") if silent is None else []
        return [note, *check, *self._again(ctx, Outcome.FAILED, silent)]

    def _again(self, ctx: Context, outcome: Outcome, silent: PeerId | None) -> list[Effect]:
        """Have another ring formed from the same weights; who is not known to be at fault shows its own."""
        ring, self._ring = self._ring, None
        number = self._ready.number + 1
        self._ready = replace(self._ready, number=number, outcome=outcome, silent=silent, shown=None)
        self._attempts += 1
        looks = self._inspect(ctx, ring) if silent is None else []
        if self._attempts >= ATTEMPTS:
            return [*looks, *self._give_up(ctx)]
        self._phase = PHASES[self._phase, "it failed, or its mean is bad"]
        if silent is not None:
            return self._enter(ctx, None)
        return [*looks, Publish(self._show_tag), SetTimer("ask", self._config.patience_s)]

    @property
    def _show_tag(self) -> str:
        return f"show:{self._ready.number}"

    def _inspect(self, ctx: Context, ring: Ring | None) -> list[Effect]:
        """Look at what some gave to a bad mean, and at what the coordinator gave."""
        places = [place for place in ring.members if place.peer != ctx.me] if ring else []
        shown = [(PeerId(place.peer), place.shown) for place in places if place.shown is not None]
        ctx.rng.shuffle(shown)
        shown.sort(key=lambda one: one[0] != self._lease.holder)
        offers = [(peer, Offer(one.blob, one.size_bytes, 0.0)) for peer, one in shown[:LOOKS]]
        return self._leader.inspection.begin(ctx, offers) if self._leader.inspection.is_over else []

    # -- the end -----------------------------------------------------------------------------------

    def _settle(self, ctx: Context, event: Event) -> list[Effect]:
        match event:
            case Evaluated(tag="last"):
                self._measured = True
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
