"""Federated averaging on PCs that come and go: rounds, with a coordinator that is replaced when it dies.

The coordinator names the global weights of a round and who takes part. A client fetches them, measures
them beside those before, trains from them on its own data, and hands in its way: its weights minus the
global ones. The coordinator fetches one way after the other, measures each, and adds it to a mean by its
examples. When all are in, or a quorum is and the others are late, the global weights move by the mean.

Who coordinates follows from a law that all know; when that one is gone, distrusted or silent it is the
next. It goes on from the newest global weights that anybody has, and clients hand in again what they had:
no more is lost than the dead one's own share. What two halves of a cut network reached is measured, and
joined where that is better.

Source: 004, ALGORITHMS 2.5, 3.5, 4.5. FedAvg: McMahan 2017; FedProx: Li 2020; FedBuff: Nguyen 2022;
SCAFFOLD: Karimireddy 2020, with control variates that are counted in way per step.
"""

import math
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core.effects import Effect, Finish, Send, SetTimer
from p2ptrain.core.inputs import (
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    PeerDown,
    PeerUp,
    Published,
    TimerFired,
    TrainerReady,
)
from p2ptrain.core.intake import Intake
from p2ptrain.core.keep import Keep
from p2ptrain.core.lease import Lease
from p2ptrain.core.messages import Message, Offer
from p2ptrain.core.mixing import Mixing
from p2ptrain.core.strategy import Context, Event, Told
from p2ptrain.core.types import BlobId, PeerId, short
from p2ptrain.strategies.federated.client import Client
from p2ptrain.strategies.federated.coordinator import Coordinator, Lead, Settings, has_finished
from p2ptrain.strategies.federated.jobs import PHASES, Algorithm, Job, Phase
from p2ptrain.strategies.federated.outer import Outer, OuterStep
from p2ptrain.strategies.federated.rounds import Known, Newest, Task, Update

__all__ = ["MESSAGES", "PHASES", "Config", "Phase", "Strategy"]

QUIET = 4
"""After so many times `ask_again_s` without a word the coordinator is asked, come what may (guess)."""

START_S = 2.0
"""Who knows nobody yet waits so long before it begins alone (guess)."""

RESULT_TRIES = 3
"""So often the result is asked for before what is here is taken (guess)."""

Share = Annotated[float, Meta(gt=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0)]


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults: ALGORITHMS 5 and 2.5 unless said otherwise.

    algorithm: `fedavg`; `fedprox` pulls clients towards the global weights; `scaffold` corrects each
        client's way by that of all: for skewed parts some of which are away, with plain SGD; `fedbuff`
        waits for nobody: the global weights move when a few ways are in, and old ones count less.
    round_steps: optimiser steps of a client in a round; an epoch is its examples / batch size (guess).
    participation: share of the members that is drawn for each round.
    quorum: share of those drawn without which no round closes.
    outer: `average`, `momentum`, `adam` or `yogi`: how the global weights move.
    outer_rate: of that move; by default 1, or .01 for adam and yogi.
    momentum: of `momentum`.
    pull: of `fedprox`.
    buffer: ways in a move of `fedbuff`; 0: .3 of the clients, at least 2.
    examples: held-out examples on which ways and global weights are compared.
    report_s: as in `gossip`.
    ask_again_s: a word without answer is repeated after this: messages get lost (guess).
    silence_s: a coordinator that does not answer for so long is replaced (guess).
    """

    algorithm: Algorithm = Algorithm.FEDAVG
    round_steps: Annotated[int, Meta(ge=1)] = 50
    participation: Share = 1.0
    quorum: Share = 0.7
    outer: Outer = Outer.AVERAGE
    outer_rate: Positive | None = None
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.3
    pull: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.01
    buffer: Annotated[int, Meta(ge=0, le=1000)] = 0
    examples: Annotated[int, Meta(ge=1)] = 128
    report_s: Positive = 2.0
    ask_again_s: Positive = 1.0
    silence_s: Positive = 15.0


MESSAGES: tuple[type[Message], ...] = (Task, Update, Known)


class Memory(Struct, frozen=True):
    """What survives a restart of the program."""

    keep: Offer | None
    lr_scale: float
    term: int
    round: int
    weights: Offer | None
    mixing: Mixing


class Strategy:
    """One member: a client, and the coordinator when it is its turn.

    What it says to itself is handled at once: a coordinator is a client like all of them.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._buffered = config.algorithm is Algorithm.FEDBUFF
        self._intake: Intake[object] = Intake()
        self._newest = Newest()
        self._lease = Lease()
        self._client = Client(
            self._intake,
            config.algorithm,
            round_steps=config.round_steps,
            examples=config.examples,
            pull=config.pull,
            report_s=config.report_s,
        )
        settings = Settings(
            participation=config.participation,
            quorum=config.quorum,
            is_buffered=self._buffered,
            has_control=config.algorithm is Algorithm.SCAFFOLD,
            buffer=config.buffer,
            examples=config.examples,
        )
        self._outer = OuterStep(config.outer, config.outer_rate, config.momentum)
        client = self._client
        self._office = Coordinator(
            settings, self._outer, self._intake, self._newest, client.own, client.bearable
        )
        self._task: Task | None = None
        self._tries = 0
        self._has_led = False

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Begin, or go on: whoever coordinates says from where."""
        own, manifest = self._client.own, ctx.manifest
        own.take(ready)
        if ready.memory:
            memory = msgspec.msgpack.decode(ready.memory, type=Memory)
            own.lr_scale, own.keep = memory.lr_scale, Keep(ctx.best_kept(memory.keep))
            self._lease.term, self._office.gather.mixing = memory.term, memory.mixing
            if memory.weights is not None and ctx.holds(memory.weights.blob):
                self._newest.set(memory.round, memory.weights)
        if ready.parameters < ready.numbers:
            self._outer.statistics = ((ready.parameters, ready.numbers),)
        alike = manifest.skew == 0 and manifest.balance in (None, 1.0)
        self._client.alike = self._office.gather.alike = alike
        self._office.can_compare = alike or manifest.pool > 0
        return [SetTimer("look", 0.0 if ctx.partners() else START_S)]

    def memory(self) -> bytes:
        """Keep the best offer, the newest global weights, and what is known of others."""
        own, newest = self._client.own, self._newest
        return msgspec.msgpack.encode(
            Memory(
                keep=own.keep.offer,
                lr_scale=own.lr_scale,
                term=self._lease.term,
                round=newest.round,
                weights=newest.weights,
                mixing=self._office.gather.mixing,
            )
        )

    def activity(self) -> str:
        """Say what goes on, and for whom is waited."""
        phase, office = self._client.phase, self._office
        if phase is not Phase.WAIT:
            return str(phase)
        if office.lead is Lead.NO:
            holder = self._lease.holder
            return f"waiting for {short(holder)}, who coordinates" if holder else str(phase)
        names = [short(peer) for peer in office.awaited]
        others = f" and {len(names) - 3} others" if len(names) > 3 else ""
        return f"coordinating: {office.lead}" + (
            f", waiting for {', '.join(names[:3])}{others}" if names else ""
        )

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event, and what this node says to itself."""
        before = self._client.phase
        effects = self._answer(ctx, event)
        job, phase = self._client.job, self._client.phase
        if self._office.lead is Lead.NO and job is not None and self._client.adopted == job.offer.blob:
            self._newest.set(max(job.number, self._newest.round), job.offer)
        if phase is Phase.WAIT and before is not phase:
            effects += self._hand_in(ctx)
        if phase is Phase.DONE and before is not phase:
            effects.append(Finish("all steps done; these are the global weights of the last round"))
        heard: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send) and effect.to == ctx.me:
                heard += self.handle(ctx, Told(ctx.me, effect.message))
            else:
                heard.append(effect)
        return heard

    def _answer(self, ctx: Context, event: Event) -> list[Effect]:
        match event:
            case Told(sender=sender, message=message):
                return self._on_message(ctx, sender, message)
            case _ if self._client.phase is Phase.DONE:
                return []
            case Fetched(blob=blob):
                return self._on_fetched(ctx, blob)
            case FetchFailed(blob=blob):
                return self._on_lost(ctx, blob)
            case Published():
                return [*self._client.handle(ctx, event), *self._office.on_published(ctx, event)]
            case Evaluated():
                return [*self._client.handle(ctx, event), *self._office.on_evaluated(ctx, event)]
            case LearnFailed():
                failed = [*self._client.handle(ctx, event), *self._office.on_failed(ctx, event)]
                return [*failed, *self._watch(ctx)]
            case PeerUp(peer=peer):
                return self._office.welcome(ctx, peer)
            case PeerDown():
                return [*self._watch(ctx), *self._office.try_close(ctx)]
            case TimerFired(key="look"):
                return self._look(ctx)
            case TimerFired(key="close"):
                return self._office.on_deadline(ctx)
            case TimerFired(key="end"):
                return self._office.on_end(ctx)
            case _:
                return self._client.handle(ctx, event)

    # -- what others have --------------------------------------------------------------------------

    def _on_fetched(self, ctx: Context, blob: BlobId) -> list[Effect]:
        wanted = self._intake.take(blob)
        effects = self._office.on_fetched(ctx, wanted) if wanted is not None else []
        return [*effects, *self._client.on_fetched(ctx), *self._intake.go_on(ctx)]

    def _on_lost(self, ctx: Context, blob: BlobId) -> list[Effect]:
        wanted = self._intake.fail(ctx, blob)
        if wanted is None:
            return []  # it is asked for again
        return [*self._office.on_lost(ctx, wanted), *self._client.on_lost(ctx, blob)]

    # -- who coordinates ---------------------------------------------------------------------------

    def _watch(self, ctx: Context) -> list[Effect]:
        """See who coordinates now. Only who waits for its word is impatient."""
        if ctx.paused or self._client.phase is Phase.DONE:
            return []
        waits = self._client.phase is Phase.WAIT
        fit = self._office.is_fit

        def can(peer: PeerId) -> bool:
            return fit if peer == ctx.me else not has_finished(ctx, peer)

        mine = self._lease.watch(ctx, self._config.silence_s if waits else math.inf, can)
        if not fit and not any(can(peer) and ctx.trusts(peer) for peer in ctx.partners()):
            self._step_down()
            return self._client.train_alone(ctx) if waits else []
        if not mine:
            self._step_down()
            return []
        if self._office.lead is not Lead.NO and self._office.term == self._lease.term:
            return []
        return self._office.take_over(ctx, self._lease.term, self._task.deadline_s if self._task else 0.0)

    def _step_down(self) -> None:
        if self._office.lead is not Lead.NO:
            self._office.step_down()
            self._has_led = True

    def _look(self, ctx: Context) -> list[Effect]:
        """Once in a while: fetch what did not come, see who coordinates, ask."""
        effects: list[Effect] = [SetTimer("look", self._config.ask_again_s)]
        if ctx.paused:
            return effects
        effects += [*self._intake.go_on(ctx), *self._client.review(ctx), *self._watch(ctx)]
        return [*effects, *self._office.try_close(ctx), *self._ask(ctx)]

    def _ask(self, ctx: Context) -> list[Effect]:
        """Ask the coordinator what comes next, if it does not know what this client has, or is silent."""
        task, way = self._task, self._client.way
        if self._client.phase is not Phase.WAIT or self._lease.holder in (None, ctx.me):
            return []
        has_all = task is not None and (not task.asked or (way is not None and task.got == way.name))
        if has_all and ctx.now - self._lease.heard < QUIET * self._config.ask_again_s:
            return []
        return self._send_way(ctx)

    def _hand_in(self, ctx: Context) -> list[Effect]:
        """A job is over: tell who coordinates; or find another one, if its weights were useless."""
        if self._client.way is None:
            return self._watch(ctx)
        self._lease.heard = ctx.now  # from now on it is waited for
        return self._send_way(ctx)

    def _send_way(self, ctx: Context) -> list[Effect]:
        way, holder = self._client.way, self._lease.holder
        if holder is None:
            return []
        term, step = self._lease.term, self._client.own.step
        if way is None or way.offer is None:
            name, number = (way.name, way.number) if way is not None else (0, self._newest.round)
            return [Send(holder, Update(term, number, name, step))]
        offer = way.offer
        update = Update(
            term=term,
            round=way.number,
            number=way.name,
            step=step,
            blob=offer.blob,
            size_bytes=offer.size_bytes,
            steps=way.steps,
            samples=way.samples,
            loss=offer.loss,
            train_loss=way.train_loss,
        )
        return [Send(holder, update)]

    # -- messages ----------------------------------------------------------------------------------

    def _on_message(self, ctx: Context, sender: PeerId, message: Message) -> list[Effect]:
        if sender != ctx.me and not (ctx.trusts(sender) and ctx.is_partner(sender)):
            return []
        match message:
            case Task() if self._client.phase is Phase.DONE:
                return [Send(sender, self._known())] if message.round < self._newest.round else []
            case Update() if self._client.phase is Phase.DONE:
                return self._office.welcome(ctx, sender) or [Send(sender, self._known())]
            case Task():
                return self._on_task(ctx, sender, message)
            case Update():
                return self._on_update(ctx, sender, message)
            case Known():
                self._follow(ctx, message)
                return [*self._watch(ctx), *self._office.on_known(ctx, sender, message)]
            case _:
                return []

    def _follow(self, ctx: Context, known: Known) -> None:
        """Somebody says who coordinates: who that is, is found again when it does not answer."""
        holder = known.holder
        if holder is not None and ctx.is_partner(holder) and ctx.trusts(holder):
            self._lease.renew(ctx, holder, known.term)
        self._lease.follow(known.term)

    def _known(self) -> Known:
        return self._newest.known(self._lease.term, self._lease.holder)

    def _on_task(self, ctx: Context, sender: PeerId, task: Task) -> list[Effect]:
        if not self._lease.renew(ctx, sender, task.term):
            if self._office.lead is not Lead.NO:
                return self._office.welcome(ctx, sender) if sender != ctx.me else []
            return [Send(sender, self._known())] if task.term <= self._lease.term else []
        effects: list[Effect] = []
        if sender != ctx.me:
            self._step_down()
        if self._has_led and sender != ctx.me:
            self._has_led = False
            effects = [Send(sender, self._known())]  # what was reached under this one is not lost
        elif task.round < self._newest.round:
            return [Send(sender, self._known())]
        return effects + self._accept(ctx, sender, task)

    def _accept(self, ctx: Context, sender: PeerId, task: Task) -> list[Effect]:
        """The coordinator's word: go from its weights, or hand in again what came of them."""
        known = self._task
        if known is None or (task.term, task.round) >= (known.term, known.round):
            self._task = task
        client, job = self._client, self._job(sender, task)
        waits = client.phase is Phase.WAIT
        done = client.own.is_done(ctx)
        if task.last:
            return self._take_result(ctx, job) if waits and (done or ctx.manifest.steps == 0) else []
        if not task.asked:
            return []
        if waits and self._buffered and client.way is not None and task.got != client.way.name:
            return self._send_way(ctx)
        if waits and not self._buffered and client.has_way(ctx, job):
            return self._send_way(ctx) if client.way is not None and task.got != client.way.name else []
        if waits and done:
            client.pass_by(ctx, job)
            return self._send_way(ctx) if client.way is not None and task.got != client.way.name else []
        return client.take(ctx, job) if not done and (waits or not self._buffered) else []

    def _job(self, sender: PeerId, task: Task) -> Job:
        control = Offer(task.control, task.control_bytes, 0.0) if task.control is not None else None
        offer = Offer(task.blob, task.size_bytes, 0.0)
        return Job(sender, task.round, offer, control, task.deadline_s, task.last)

    def _take_result(self, ctx: Context, job: Job) -> list[Effect]:
        self._tries += 1
        return self._client.conclude(ctx) if self._tries > RESULT_TRIES else self._client.take(ctx, job)

    def _on_update(self, ctx: Context, sender: PeerId, update: Update) -> list[Effect]:
        self._lease.follow(update.term)
        effects = self._watch(ctx)
        if self._office.lead is Lead.NO:
            return [*effects, Send(sender, self._known())] if update.term <= self._lease.term else effects
        return [*effects, *self._office.on_update(ctx, sender, update)]
