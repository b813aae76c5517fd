"""Whoever coordinates rounds: asks, gathers, moves the global weights, and asks again.

It says to itself what it says to others, so that it is a client like all of them.
"""

import math
from collections.abc import Callable
from enum import StrEnum
from statistics import fmean

from msgspec import Struct

from p2ptrain.core.effects import Combine, Effect, Evaluate, Note, Publish, Send, SetTimer
from p2ptrain.core.inputs import Evaluated, LearnFailed, Published
from p2ptrain.core.intake import Intake, Wanted
from p2ptrain.core.lease import AHEAD_MAX
from p2ptrain.core.messages import Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import OWN, PeerId, Seconds
from p2ptrain.strategies.federated import roll
from p2ptrain.strategies.federated.gather import MEAN, SPEEDS, Gather, Part
from p2ptrain.strategies.federated.outer import OuterStep
from p2ptrain.strategies.federated.roll import Roll
from p2ptrain.strategies.federated.rounds import Known, Newest, Task, Update
from p2ptrain.strategies.federated.sides import Sides

RECORD_EXAMPLES = 1000
"""Held-out examples on which the result of a round is recorded (guess)."""

STALE_MAX = 10
"""Where nobody is waited for, older ways are not used (FedBuff, ALGORITHMS 2.5)."""

BUFFER_SHARE = 0.3
BUFFER_MIN = 2
"""So many ways make a step there, as a share of the clients (ALGORITHMS 2.5)."""

MISSES_MAX = 2
MISSES_BUFFERED_MAX = 16
"""So many deadlines may pass before a silent client is not awaited any more (guess)."""

STUCK_MAX = 3
"""Who hands in so often without a step more has none left, whatever it says (guess)."""

EARLY_MAX = 64
"""Ways that come while the global weights move are looked at afterwards (guess)."""

COLLAPSE = 1.1
"""Where the last weights have so many times the loss of the best, the best are the result (guess)."""

GRACE_S = 2.0
"""Before the end, for whoever knows better (guess)."""


class Lead(StrEnum):
    """What a coordinator is doing."""

    NO = "somebody else coordinates"
    OPEN = "ways come in"
    MOVE = "the global weights move"
    CONCLUDE = "nobody has steps left"


class Settings(Struct, frozen=True):
    """As in the strategy's Config."""

    participation: float
    quorum: float
    is_buffered: bool
    has_control: bool
    buffer: int
    examples: int


class Coordinator:
    """What one member needs when it is its turn.

    Args:
        intake: what others have is fetched through it; who owns it says what came.
        newest: shared with the client, as is `own`.
        bearable: from the loss before and a standard error to the largest loss that new weights may have.

    Attributes:
        lead: what it is doing.
        gather: the ways that are in.
        can_compare: the data held out here are like everybody's, and say which weights are the best.
        control: the mean way per step of all, if it is asked for.
        term: of this coordinator.
        awaited: who is waited for, as seen last.
        is_fit: False once it could not write global weights: then somebody else coordinates.
    """

    def __init__(
        self,
        settings: Settings,
        outer: OuterStep,
        intake: Intake[object],
        newest: Newest,
        own: Progress,
        bearable: Callable[[float, float], float],
    ) -> None:
        self._settings, self._outer, self._intake, self._newest = settings, outer, intake, newest
        self._own, self._bearable = own, bearable
        misses_max = MISSES_BUFFERED_MAX if settings.is_buffered else MISSES_MAX
        self._roll = Roll(settings.quorum, misses_max)
        self.gather = Gather(settings.examples, speeds=settings.has_control)
        self.lead = Lead.NO
        self.is_fit = True
        self.awaited: list[PeerId] = []
        self.can_compare = True
        self.control: Offer | None = None
        self._best: tuple[float, Offer | None] = math.inf, None
        self._last_loss = -math.inf
        self.term = 0
        self._moves = 0
        self._next: Offer | None = None
        self._sides = Sides(RECORD_EXAMPLES)
        self._side: Known | None = None
        self._got: dict[PeerId, int] = {}
        self._steps: dict[PeerId, tuple[int, int]] = {}
        self._early: list[tuple[PeerId, Update]] = []
        self._train_losses: list[float] = []

    # -- who coordinates ---------------------------------------------------------------------------

    def take_over(self, ctx: Context, term: int, deadline_s: Seconds) -> list[Effect]:
        """It is this node's turn: go on from the newest global weights, or begin with the own ones.

        deadline_s: of the coordinator before; 0: not known.
        """
        self.term = term
        self._roll.expect(deadline_s)
        self._got.clear()
        self._outer.forget()
        self._best, self._last_loss = (math.inf, None), -math.inf
        self.lead = Lead.OPEN
        if self._newest.held(ctx) is not None:
            return self._open(ctx, max(1, self._newest.round))
        self._moves += 1
        return [Publish(self._tag("start"), OWN)]

    def step_down(self) -> None:
        """Somebody else coordinates."""
        self.lead = Lead.NO
        self._side = None
        self._sides.clear()
        self._early.clear()
        self.gather.close()

    def _tag(self, what: str) -> str:
        """Name what is asked for the next global weights: answers to an earlier question mean nothing."""
        return f"{what}:{self._moves}"

    # -- a round begins ----------------------------------------------------------------------------

    def _open(self, ctx: Context, number: int, *, is_announced: bool = True) -> list[Effect]:
        weights = self._newest.weights
        assert weights is not None
        self._newest.set(number, weights)
        self.lead = Lead.OPEN
        working = [peer for peer in self._everybody(ctx) if self.has_steps(ctx, peer)]
        if all(map(self._roll.is_absent, working)):
            return self._conclude(ctx, number)
        settings = self._settings
        asked = working
        if settings.participation < 1 and not settings.is_buffered:
            steps = {peer: self._step_of(ctx, peer) for peer in working}
            count = math.ceil(settings.participation * len(self._everybody(ctx)) - 1e-9)
            asked = roll.drawn(ctx.manifest.seed, number, steps, count)
        self._roll.open(number, ctx.now, asked)
        self.gather.open(weights.blob, len(asked))
        self._train_losses.clear()
        self.awaited = self.missing(ctx)
        effects: list[Effect] = [SetTimer("close", self._wait_s(ctx))]
        effects += self._tell_all(ctx) if is_announced else []
        early, self._early = self._early, []
        for peer, update in early:
            effects += self._bring(ctx, peer, update)
        side, self._side = self._side, None
        return effects + (self._compare(ctx, side) if side is not None else self._take_side(ctx))

    def _conclude(self, ctx: Context, number: int) -> list[Effect]:
        """Nobody that answers has steps left: say so, and wait a little for who knows better."""
        self.lead = Lead.CONCLUDE
        loss, best = self._best
        if best is not None and COLLAPSE * loss < self._last_loss and ctx.holds(best.blob):
            self._newest.set(number, best)
        self._roll.open(number, ctx.now, ())
        return [*self._tell_all(ctx, without=ctx.me), SetTimer("end", GRACE_S)]

    def on_end(self, ctx: Context) -> list[Effect]:
        """Nobody knew better."""
        return [Send(ctx.me, self.task_for(ctx.me))] if self.lead is Lead.CONCLUDE else []

    def _everybody(self, ctx: Context) -> list[PeerId]:
        return sorted([ctx.me, *filter(ctx.trusts, ctx.partners())])

    def _tell_all(self, ctx: Context, without: PeerId | None = None) -> list[Effect]:
        peers = [peer for peer in self._everybody(ctx) if peer != without and not has_finished(ctx, peer)]
        return [Send(peer, self.task_for(peer)) for peer in peers]

    def task_for(self, peer: PeerId) -> Task:
        """What a client is told."""
        weights, control = self._newest.weights, self.control
        assert weights is not None
        return Task(
            term=self.term,
            round=self._newest.round,
            blob=weights.blob,
            size_bytes=weights.size_bytes,
            asked=self._roll.is_asked(peer),
            last=self.lead is Lead.CONCLUDE,
            got=self._got.get(peer, 0),
            deadline_s=0.0 if self._settings.is_buffered else self._roll.deadline_s,
            control=control.blob if control else None,
            control_bytes=control.size_bytes if control else 1,
        )

    def welcome(self, ctx: Context, peer: PeerId) -> list[Effect]:
        """Somebody comes, asks, or thinks that it coordinates: say what is going on."""
        if self.lead is Lead.NO or self._newest.weights is None:
            return []
        everybody = self._settings.participation == 1 or self._settings.is_buffered
        is_open = everybody and self.lead is not Lead.CONCLUDE and not self._roll.is_asked(peer)
        if is_open and self.has_steps(ctx, peer):
            self._roll.ask(ctx.now, peer)
        return [Send(peer, self.task_for(peer))]

    # -- ways come in ------------------------------------------------------------------------------

    def has_steps(self, ctx: Context, peer: PeerId) -> bool:
        """Say whether a peer has steps left, by its own words."""
        if has_finished(ctx, peer):
            return False
        if peer == ctx.me:
            return not self._own.is_done(ctx)
        _, again = self._steps.get(peer, (0, 0))
        return again < STUCK_MAX and not 0 < ctx.manifest.steps <= self._step_of(ctx, peer)

    def _step_of(self, ctx: Context, peer: PeerId) -> int:
        if peer == ctx.me:
            return self._own.step
        entry = ctx.ledger.of(peer)
        known, _ = self._steps.get(peer, (0, 0))
        return max(known, entry.report.message.step if entry is not None else 0)

    def on_update(self, ctx: Context, peer: PeerId, update: Update) -> list[Effect]:
        """Somebody handed something in, or asks what is going on."""
        is_new = self._got.get(peer, 0) != update.number
        self._got[peer] = update.number
        known, again = self._steps.get(peer, (-1, 0))
        again = again + 1 if is_new and update.step <= known else 0 if update.step > known else again
        self._steps[peer] = max(known, update.step), again
        if self.lead is Lead.CONCLUDE and self.has_steps(ctx, peer):
            return self._open(ctx, self._newest.round)
        stale = self._newest.round - update.round
        in_time = 0 <= stale <= (STALE_MAX if self._settings.is_buffered else 0)
        if is_new:
            self._roll.answer(ctx.now, peer, in_time=in_time and self.lead is Lead.OPEN)
        effects = self._bring(ctx, peer, update) if is_new and in_time and update.blob is not None else []
        late = self._settings.is_buffered or not in_time or not self._roll.is_asked(peer)
        answer = self.welcome(ctx, peer) if late or not is_new else []
        return [*effects, *answer, *self.try_close(ctx)]

    def _bring(self, ctx: Context, peer: PeerId, update: Update) -> list[Effect]:
        if self.lead is Lead.MOVE and self._settings.is_buffered:
            self._early = [*self._early[1 - EARLY_MAX :], (peer, update)]
        if self.lead is not Lead.OPEN or update.blob is None or not (update.samples and update.steps):
            return []
        stale = max(0, self._newest.round - update.round)
        scale = 1 / math.sqrt(1 + stale)
        part = Part(peer, update.samples, update.steps, update.loss, scale, peer == ctx.me)
        self.gather.announce(update.blob)
        self._train_losses.append(update.train_loss)
        return self._intake.add(ctx, peer, Offer(update.blob, update.size_bytes, update.loss), part)

    def on_fetched(self, ctx: Context, wanted: Wanted[object]) -> list[Effect]:
        """Something came that this coordinator wanted."""
        blob = wanted.offer.blob
        if isinstance(wanted.what, Part):
            return [*self.gather.bring(wanted.what, blob), *self.try_close(ctx)]
        return self._compare(ctx, wanted.what) if isinstance(wanted.what, Known) else []

    def on_lost(self, ctx: Context, wanted: Wanted[object]) -> list[Effect]:
        """It did not come, although it was asked for again."""
        if isinstance(wanted.what, Part):
            self.gather.lose(wanted.offer.blob)
            return self.try_close(ctx)
        if isinstance(wanted.what, Known) and self._sides.other is None:
            self._sides.give_up(wanted.what)
        return self._take_side(ctx)

    def is_there(self, ctx: Context, peer: PeerId) -> bool:
        """Say whether an answer may come."""
        return peer == ctx.me or (ctx.is_partner(peer) and ctx.trusts(peer) and not has_finished(ctx, peer))

    def missing(self, ctx: Context) -> list[PeerId]:
        """Return who is waited for."""
        return self._roll.missing(lambda peer: self.is_there(ctx, peer)) if self.lead is Lead.OPEN else []

    def try_close(self, ctx: Context) -> list[Effect]:
        """Move the global weights if all are in, or enough and the others late."""
        self.gather.review(self._intake.wants)
        if self.lead is not Lead.OPEN or self._newest.weights is None or not self.gather.is_idle:
            return []
        if self._settings.is_buffered:
            working = sum(
                self.has_steps(ctx, peer) and not self._roll.is_absent(peer) for peer in self._everybody(ctx)
            )
            size = self._settings.buffer or max(BUFFER_MIN, math.ceil(BUFFER_SHARE * working))
            full = self.gather.count >= max(1, min(size, working))
            return self._close(ctx) if full or not working else []
        missing = self.awaited = self.missing(ctx)
        late = ctx.now >= self._roll.until and self._roll.is_quorum(lambda peer: self.is_there(ctx, peer))
        if not missing or late:
            return self._close(ctx)
        return [SetTimer("close", self._wait_s(ctx))]

    def _wait_s(self, ctx: Context) -> Seconds:
        return max(0.0, self._roll.until - ctx.now)

    def on_deadline(self, ctx: Context) -> list[Effect]:
        """Close without who is late; if there are too few, ask them again."""
        if self.lead is not Lead.OPEN or self._newest.weights is None or ctx.now < self._roll.until:
            return self.try_close(ctx)
        effects = self.try_close(ctx)
        if self.lead is not Lead.OPEN or not self.gather.is_idle or not self.missing(ctx):
            return effects
        missing = self._roll.expire(ctx.now, lambda peer: peer != ctx.me and self.is_there(ctx, peer))
        again: list[Effect] = [Send(peer, self.task_for(peer)) for peer in (*missing, ctx.me)]
        return [*again, *self.try_close(ctx)]

    # -- the global weights move -------------------------------------------------------------------

    def _close(self, ctx: Context) -> list[Effect]:
        if not self.gather.count:
            return self._open(ctx, self._newest.round + 1)
        self.lead = Lead.MOVE
        self._moves += 1
        if not self._settings.has_control:
            return self._move(ctx)
        members = max(self.gather.count, len(self._everybody(ctx)))
        mean = (1 / members, SPEEDS)
        old = self.control.blob if self.control is not None and ctx.holds(self.control.blob) else None
        terms = (mean,) if old is None else ((1 - self.gather.count / members, old), mean)
        return [Combine(self._tag("speeds"), SPEEDS, terms), Publish(self._tag("control"), SPEEDS)]

    def _move(self, ctx: Context) -> list[Effect]:
        weights, before = self._newest.weights, self._newest.before
        assert weights is not None
        before = before if before is not None and ctx.holds(before) else None
        step = self._outer.step(self._tag("step"), weights.blob, before, MEAN)
        return [*step, Publish(self._tag("global"), MEAN)]

    def on_published(self, ctx: Context, event: Published) -> list[Effect]:
        """Something that this coordinator asked for is written."""
        offer = Offer(event.blob, event.size_bytes, 0.0)
        if event.tag == self._tag("start") and self.lead is Lead.OPEN and self._newest.held(ctx) is None:
            self._newest.set(max(1, self._newest.round), offer)
            return self._open(ctx, self._newest.round)
        if event.tag == self._tag("control") and self.lead is Lead.MOVE:
            self.control = offer
            return self._move(ctx)
        if event.tag == self._tag("global") and self.lead is Lead.MOVE and self._newest.weights is not None:
            self._next = offer
            refs = (self._newest.weights.blob, offer.blob)
            return [Evaluate(self._tag("record"), refs, examples_max=RECORD_EXAMPLES)]
        return [*self._sides.handle(event), *self._take_side(ctx)]

    def on_evaluated(self, ctx: Context, event: Evaluated) -> list[Effect]:
        """Something that this coordinator asked for is measured."""
        if event.tag == self._tag("record") and self.lead is Lead.MOVE and self._next is not None:
            return self._record(ctx, self._next, event)
        effects = self.gather.handle(event)
        if effects:
            return [*effects, *self.try_close(ctx)]
        return [*self._sides.handle(event), *self._take_side(ctx)]

    def _record(self, ctx: Context, new: Offer, event: Evaluated) -> list[Effect]:
        loss, accuracy, number = event.losses[1], event.accuracies[1], self._newest.round
        good = loss <= self._bearable(event.losses[0], event.errors[1])
        fields = {
            "round": number,
            "participants": self.gather.count,
            "local_loss": fmean(self.gather.losses) if self.gather.losses else math.nan,
            "train_loss": fmean(self._train_losses) if self._train_losses else math.nan,
            "loss": loss,
            "accuracy": accuracy if math.isfinite(accuracy) else None,
            "taken": good,
        }
        if good:
            self._newest.set(number, new)
            self._last_loss = loss
        if good and self.can_compare and loss < self._best[0]:
            self._best = loss, new
        note = Note("round", fields)
        return [note, *self._open(ctx, number + 1, is_announced=not self._settings.is_buffered)]

    def on_failed(self, ctx: Context, event: LearnFailed) -> list[Effect]:
        """Something that this coordinator asked for could not be done."""
        if self.lead is not Lead.NO and event.tag in map(self._tag, ("start", "control", "global")):
            self.is_fit = False
            return [Note("resigned", {"reason": event.reason[:200]})]
        if self.lead is Lead.MOVE and event.tag in map(self._tag, ("speeds", "step", "record")):
            self._outer.forget()
            return self._open(ctx, self._newest.round + 1)
        effects = [*self.gather.handle(event), *self.try_close(ctx)]
        return [*effects, *self._sides.handle(event), *self._take_side(ctx)]

    # -- other global weights ----------------------------------------------------------------------

    def on_known(self, ctx: Context, peer: PeerId, known: Known) -> list[Effect]:
        """Somebody has global weights that are not known here: of a later round, or of another history."""
        if self.lead is Lead.NO or self._newest.weights is None or known.blob is None:
            return []
        if not self._newest.is_new(known.blob) or known.round > self._newest.round + AHEAD_MAX:
            return []
        self._newest.note(known.blob)
        return self._intake.add(ctx, peer, Offer(known.blob, known.size_bytes, 0.0), known)

    def _compare(self, ctx: Context, side: Known) -> list[Effect]:
        """Compare them when the own ones stand still."""
        weights = self._newest.held(ctx)
        if self.lead is Lead.MOVE or self._sides.other is not None:
            self._side = side
            return []
        return self._sides.begin(weights.blob, side) if weights is not None else []

    def _take_side(self, ctx: Context) -> list[Effect]:
        """Go on from what was chosen, in a round that is later than those of both."""
        sides, side = self._sides, self._sides.other
        if not sides.is_decided or side is None or self.lead is Lead.MOVE:
            return []
        number, chosen = self._newest.round, sides.chosen
        sides.clear()
        if chosen is not None:
            self._newest.set(number, chosen)
        elif side.round <= number:
            return []
        return self._open(ctx, max(number, side.round) + 1)


def has_finished(ctx: Context, peer: PeerId) -> bool:
    """Say whether a peer trains no more."""
    entry = ctx.ledger.of(peer)
    return entry is not None and entry.report.message.finished
