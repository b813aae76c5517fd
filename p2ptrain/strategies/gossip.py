"""Gossip averaging: after every few steps two peers meet in the middle of their weights.

Both publish a snapshot, fetch the other's, and move by half of the difference, while training goes on:
own <- own + (theirs - mine) / 2, so that the sum over both is kept. Before that each measures the
mixture on its own held-out data; whose weights keep making things worse is refused (robust mixing), and
no step is longer than is usual. Who meets whom follows from the step number alone, so that two peers ask
each other; who is late or away is replaced. At the end the peers wait for each other and average a few
times without training. Exact form, defaults and what was measured: ALGORITHMS 2.6, 2.7, 4.4, 4.6.
"""

import math
from enum import StrEnum
from statistics import median
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import keep, law, newcomer
from p2ptrain.core.effects import (
    Adopt,
    Combine,
    Effect,
    Evaluate,
    Finish,
    Note,
    OptimizerState,
    Publish,
    Send,
    SetTimer,
)
from p2ptrain.core.inputs import (
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    PeerDown,
    Published,
    TimerFired,
    Trained,
    TrainerReady,
)
from p2ptrain.core.keep import Keep
from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Offer
from p2ptrain.core.mixing import Mixing
from p2ptrain.core.newcomer import Newcomer
from p2ptrain.core.pairing import Turns
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event, Learned, Told
from p2ptrain.core.types import OWN, BlobId, PeerId, Ref, Seconds, Slot, peer_text, short

MIX = Slot(Ref("mix"))
FETCH_TRIES = 3
FAILURES_MAX = 3
"""After so many failures others are asked, after twice as many the next round is waited for (guess)."""

SETTLE_SHARE = 0.25
AHEAD_ROUNDS = 4
"""A newcomer takes the weights of who is so far ahead (guess)."""

PATIENCE_MAX = 12.0
"""No partner is waited for longer than so many times `timeout_s` (guess)."""


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults: ALGORITHMS 5 unless said otherwise.

    exchange_steps: optimiser steps of a round.
    exchanges: exchanges a round, one after the other; log2 of the number of peers for skewed data.
    mix_examples: held-out examples on which a mixture is measured.
    report_s: time between two measurements of the own loss, or 200 times as long as one takes (guess).
    ask_again_s: a question without answer is repeated after this: messages get lost (guess).
    timeout_s: an exchange with a silent partner is given up after this, or 4 times the usual (guess).
    settle_s: at the end, so long is waited for the others, or a quarter of the own time (guess).
    consensus: exchanges without training at the end, for each doubling of the number of peers.
    """

    exchange_steps: Annotated[int, Meta(ge=1)] = 50
    exchanges: Annotated[int, Meta(ge=1)] = 1
    mix_examples: Annotated[int, Meta(ge=1)] = 128
    report_s: Annotated[float, Meta(gt=0)] = 2.0
    ask_again_s: Annotated[float, Meta(gt=0)] = 1.0
    timeout_s: Annotated[float, Meta(gt=0)] = 5.0
    settle_s: Annotated[float, Meta(ge=0)] = 20.0
    consensus: Annotated[int, Meta(ge=0)] = 3


class Swap(Message, frozen=True):
    """My weights of this moment, give me yours.

    number: the starter's count of meetings.
    turn: of the law of pairs, where the starter is.
    """

    number: Natural
    blob: BlobName
    size_bytes: BlobBytes
    turn: Natural = 0


class Answer(Message, frozen=True):
    """Mine, for the exchange of that number of yours."""

    number: Natural
    blob: BlobName
    size_bytes: BlobBytes


class Busy(Message, frozen=True):
    """Not now: another exchange is under way."""

    number: Natural


MESSAGES: tuple[type[Message], ...] = (Swap, Answer, Busy)


class Phase(StrEnum):
    """Where a run stands."""

    RUN = "training and averaging"
    SETTLE = "own steps done, waiting for the others"
    CONSENSUS = "averaging without training"
    DONE = "done"


class Exchange(Struct):
    """The meeting under way: who, whose count, and the two snapshots as far as they are known.

    fetched: theirs was asked for; failures: so often it did not come.
    """

    partner: PeerId
    number: int
    turn: int
    starter: bool
    begun: Seconds
    mine: BlobId | None = None
    mine_bytes: int = 0
    theirs: Offer | None = None
    fetched: bool = False
    failures: int = 0


class Memory(Struct, frozen=True):
    """What survives a restart of the program."""

    keep: Offer | None
    mixing: Mixing


class Strategy:
    """One peer's averaging."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._phase = Phase.RUN
        self._own = Progress()
        self._turns = Turns()
        self._exchange: Exchange | None = None
        self._meetings = 0
        self._newcomer = Newcomer()
        self._mixing = Mixing()
        self._durations: list[Seconds] = []
        self._began = self._settle_until = 0.0
        self._tries_left = 0

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Train from the common start, or go on from the checkpoint."""
        self._own.take(ready)
        self._began = ctx.now
        self._newcomer.may_join = ready.step == 0
        if ready.memory:
            memory = msgspec.msgpack.decode(ready.memory, type=Memory)
            self._mixing, self._own.keep = memory.mixing, Keep(ctx.best_kept(memory.keep))
        return self._next_round(ctx)

    def memory(self) -> bytes:
        """Keep the best offer, the peers' scores and the usual distances."""
        return msgspec.msgpack.encode(Memory(self._own.keep.offer, self._mixing))

    def activity(self) -> str:
        """Say what goes on."""
        if self._exchange is not None:
            return f"exchanging weights with {short(self._exchange.partner)}"
        return str(self._phase)

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event."""
        match event:
            case Learned():
                return []  # reports are looked at when a round begins
            case Trained():
                self._own.take(event)
                return self._next_round(ctx)
            case Evaluated(tag="own"):
                return self._on_own_loss(ctx, event)
            case Published(tag=keep.TAG):
                self._own.keep.on_published(event)
                return [*self._own.tell(), *self._finish()]
            case LearnFailed(tag=keep.TAG):
                self._own.keep.on_failed()
                return self._finish()
            case Published() if event.tag == self._tag("swap"):
                return self._on_snapshot(ctx, event)
            case Told(sender=sender, message=Swap() as swap):
                return self._on_swap(ctx, sender, swap)
            case Told(sender=sender, message=Answer() as answer):
                return self._on_answer(ctx, sender, answer)
            case Told(sender=sender, message=Busy() as busy):
                return self._fail(ctx, "busy") if self._is_with(sender, busy.number) else []
            case Fetched(blob=blob):
                return self._on_fetched(blob)
            case FetchFailed(blob=blob):
                return self._on_fetch_failed(ctx, blob)
            case Evaluated() if event.tag == self._tag("mix"):
                return self._on_mixture(ctx, event)
            case Evaluated(tag=newcomer.TAG) if self._phase is not Phase.DONE:
                return self._newcomer.decide(event)
            case LearnFailed() if event.tag in (self._tag("swap"), self._tag("mix")):
                return self._fail(ctx, "weights were gone")
            case PeerDown(peer=peer) if self._exchange and self._exchange.partner == peer:
                return self._fail(ctx, "partner lost")
            case TimerFired(key="exchange") if self._exchange:
                return self._on_exchange_timer(ctx, self._exchange)
            case TimerFired(key="turn"):
                return self._go_on(ctx) if self._phase is Phase.RUN else self._settle(ctx)
            case _:
                return []

    # -- rounds ------------------------------------------------------------------------------------

    def _next_round(self, ctx: Context) -> list[Effect]:
        """Start an exchange with a snapshot of now, then train on without waiting for it."""
        if self._phase is not Phase.RUN:
            return []
        if self._own.is_done(ctx):
            return self._begin_settling(ctx)
        effects: list[Effect] = []
        if self._own.is_due(ctx.now, self._config.report_s):
            effects = [Evaluate("own", (OWN,))]
        effects += self._newcomer.look(ctx, self._own.step + AHEAD_ROUNDS * self._config.exchange_steps)
        measured = self._own.step > 0 and math.isfinite(self._own.loss)
        if measured and not (self._exchange and self._exchange.starter):
            self._turns.begin(self._first_turn(), self._config.exchanges)
            effects += self._go_on(ctx)
        return [*effects, self._own.train(ctx, self._config.exchange_steps)]

    def _on_own_loss(self, ctx: Context, event: Evaluated) -> list[Effect]:
        if not self._own.measure(event):
            return [*self._recover(), *self._finish()]
        return self._own.keep.propose(self._own.loss) or [*self._own.tell(), *self._finish()]

    def _finish(self) -> list[Effect]:
        return [Finish("all steps done; averaged with the others")] if self._phase is Phase.DONE else []

    def _recover(self) -> list[Effect]:
        """Training diverged: go back to the last weights that were good."""
        note = Note("diverged", {"step": self._own.step})
        if self._own.keep.offer is None or self._phase is Phase.DONE:
            return [note]
        return [note, Adopt("back", self._own.keep.offer.blob, OptimizerState.RESET, 0.5)]

    # -- an exchange -------------------------------------------------------------------------------

    def _first_turn(self) -> int:
        """Peers with equal steps come to equal turns."""
        return self._own.step // self._config.exchange_steps * self._config.exchanges

    def _go_on(self, ctx: Context) -> list[Effect]:
        """Begin what is still due."""
        if self._phase is Phase.CONSENSUS:
            return [SetTimer("turn", 0.0)]
        free = self._phase is Phase.RUN and self._exchange is None
        return self._begin_exchange(ctx) if free and self._turns.due > 0 else []

    def _begin_exchange(self, ctx: Context) -> list[Effect]:
        members, turns = ctx.membership.trainers, self._turns
        if turns.is_met or (self._phase is Phase.CONSENSUS and turns.is_free(members, ctx.me)):
            turns.end()
            return self._go_on(ctx)
        partner = turns.partner(members, ctx.me, lambda p: ctx.is_partner(p) and ctx.trusts(p), FAILURES_MAX)
        if partner is None:
            return [SetTimer("turn", 0.5)] if self._phase is Phase.CONSENSUS else []
        return self._meet(Exchange(partner, self._meetings + 1, turns.now, True, ctx.now))

    def _meet(self, exchange: Exchange) -> list[Effect]:
        self._exchange = exchange
        self._meetings += 1
        return [Publish(self._tag("swap")), SetTimer("exchange", self._config.ask_again_s)]

    def _tag(self, what: str) -> str:
        """Name what is asked for this exchange: answers to an earlier one mean nothing."""
        return f"{what}:{self._meetings}"

    def _on_snapshot(self, ctx: Context, event: Published) -> list[Effect]:
        exchange = self._exchange
        if exchange is None or exchange.mine is not None:
            return []
        exchange.mine, exchange.mine_bytes = event.blob, event.size_bytes
        return self._show(ctx)

    def _show(self, ctx: Context) -> list[Effect]:
        """Tell the partner where my snapshot is, as soon as there is one, and get theirs."""
        exchange = self._exchange
        if exchange is None or exchange.mine is None:
            return []
        number, blob, size_bytes = exchange.number, exchange.mine, exchange.mine_bytes
        swap, answer = Swap(number, blob, size_bytes, exchange.turn), Answer(number, blob, size_bytes)
        return [Send(exchange.partner, swap if exchange.starter else answer), *self._fetch_theirs(ctx)]

    def _on_swap(self, ctx: Context, sender: PeerId, swap: Swap) -> list[Effect]:
        offer = Offer(swap.blob, swap.size_bytes, 0.0)
        if self._phase is Phase.DONE:
            return self._answer_when_done(sender, swap)
        if not ctx.trusts(sender):
            return [Send(sender, Busy(swap.number))]
        if self._phase is Phase.SETTLE and swap.turn >= self._first_turn():
            self._begin_consensus(ctx)
        if self._phase is Phase.CONSENSUS and self._turns.reaches(swap.turn):
            return []
        exchange = self._exchange
        given_up = exchange is not None and exchange.partner == sender and not exchange.starter
        if exchange is None or (given_up and exchange.number != swap.number):
            return self._meet(Exchange(sender, swap.number, swap.turn, False, ctx.now, theirs=offer))
        if exchange.partner != sender or (exchange.starter and exchange.theirs is not None):
            return [] if self._turns.reaches(swap.turn) else [Send(sender, Busy(swap.number))]
        if exchange.starter and (swap.turn, sender) < (exchange.turn, ctx.me):
            exchange.starter, exchange.theirs = False, offer
            exchange.number, exchange.turn = swap.number, swap.turn
        # Both asked at once: the question of who is behind counts, or of the smaller id; it may be lost.
        return self._show(ctx)

    def _answer_when_done(self, sender: PeerId, swap: Swap) -> list[Effect]:
        """Late ones may still come to the result; the result itself stays."""
        offer = self._own.keep.offer
        if offer is None:
            return [Send(sender, Busy(swap.number))]
        return [Send(sender, Answer(swap.number, offer.blob, offer.size_bytes))]

    def _on_answer(self, ctx: Context, sender: PeerId, answer: Answer) -> list[Effect]:
        exchange = self._exchange
        if exchange is None or exchange.theirs or not self._is_with(sender, answer.number):
            return []
        exchange.theirs = Offer(answer.blob, answer.size_bytes, 0.0)
        return self._fetch_theirs(ctx)

    def _fetch_theirs(self, ctx: Context) -> list[Effect]:
        exchange = self._exchange
        if exchange is None or exchange.theirs is None or exchange.mine is None or exchange.fetched:
            return []
        exchange.fetched = True
        return [ctx.fetch(exchange.partner, exchange.theirs)]

    def _on_fetched(self, blob: BlobId) -> list[Effect]:
        if offer := self._newcomer.awaited(blob):
            return self._newcomer.measure(offer, self._config.mix_examples)
        exchange = self._exchange
        if exchange is None or exchange.mine is None or not exchange.theirs or exchange.theirs.blob != blob:
            return []
        tag, mine = self._tag("mix"), exchange.mine
        mix = Combine(tag, MIX, ((0.5, mine), (0.5, blob)))
        return [mix, Evaluate(tag, (mine, MIX), examples_max=self._config.mix_examples)]

    def _on_fetch_failed(self, ctx: Context, blob: BlobId) -> list[Effect]:
        if self._newcomer.awaited(blob):
            self._newcomer.give_up()
            return []
        exchange = self._exchange
        if exchange is None or exchange.theirs is None or exchange.theirs.blob != blob:
            return []
        exchange.failures += 1
        if exchange.failures >= FETCH_TRIES or not ctx.trusts(exchange.partner):
            return self._fail(ctx, "weights did not come")
        exchange.fetched = False
        return self._fetch_theirs(ctx)

    def _on_mixture(self, ctx: Context, event: Evaluated) -> list[Effect]:
        """Decide by the running effect of this peer, then move by half of the (clipped) difference."""
        exchange = self._exchange
        if exchange is None or exchange.theirs is None or exchange.mine is None:
            return []
        mine, theirs = exchange.mine, exchange.theirs.blob
        if not self._mixing.accepts(peer_text(exchange.partner), *event.losses):
            fields = {"peer": short(exchange.partner), "loss": event.losses[0], "mixed": event.losses[1]}
            look = self._newcomer.measure(exchange.theirs, self._config.mix_examples)
            return [Note("refused", fields), *look, *self._end(ctx)]
        coefficient = 0.5 * self._mixing.share(2 * event.distances[1])
        move = ((1.0, OWN), (coefficient, theirs), (-coefficient, mine))
        note = Note("averaged", {"peer": short(exchange.partner), "loss": event.losses[1]})
        self._newcomer.may_join = False
        self._durations = [*self._durations[-7:], ctx.now - exchange.begun]
        return [Combine("mixed", OWN, move), note, *self._end(ctx)]

    def _end(self, ctx: Context) -> list[Effect]:
        """The exchange took place, or its weights were refused."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return []
        if exchange.starter:
            self._turns.end()
        else:
            self._turns.meet(ctx.membership.trainers, ctx.me, exchange.partner, exchange.turn)
        return self._go_on(ctx)

    def _fail(self, ctx: Context, why: str) -> list[Effect]:
        """Ask again when a busy partner should be free, and in the end somebody else."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return []
        note = Note("exchange_failed", {"peer": short(exchange.partner), "reason": why})
        again = self._turns.fail() <= 2 * FAILURES_MAX or self._phase is Phase.CONSENSUS
        wait_s = ctx.rng.uniform(0.25, 0.75) * self._usual_s()
        return [note, *([SetTimer("turn", wait_s)] if again else [])]

    def _on_exchange_timer(self, ctx: Context, exchange: Exchange) -> list[Effect]:
        left_s = exchange.begun + self._patience() - ctx.now
        if left_s <= 0.01:
            return self._fail(ctx, "no answer in time")
        again = self._show(ctx) if exchange.starter and exchange.theirs is None else []
        return [*again, SetTimer("exchange", min(left_s, self._config.ask_again_s))]

    def _is_with(self, sender: PeerId, number: int) -> bool:
        now = self._exchange
        return now is not None and now.starter and (now.partner, now.number) == (sender, number)

    def _patience(self) -> Seconds:
        return min(max(self._config.timeout_s, 4 * self._usual_s()), PATIENCE_MAX * self._config.timeout_s)

    def _usual_s(self) -> Seconds:
        """How long an exchange takes here."""
        return median(self._durations) if self._durations else 0.2

    # -- the end -----------------------------------------------------------------------------------

    def _begin_settling(self, ctx: Context) -> list[Effect]:
        self._phase = Phase.SETTLE
        self._settle_until = ctx.now + max(self._config.settle_s, SETTLE_SHARE * (ctx.now - self._began))
        return [Evaluate("own", (OWN,)), SetTimer("turn", 0.0)]

    def _begin_consensus(self, ctx: Context) -> None:
        self._phase = Phase.CONSENSUS
        partners = len(ctx.partners())
        due = self._config.consensus * law.turns(partners + 1) if partners else 0
        self._turns.begin(self._first_turn(), due)
        self._tries_left = 4 * due

    def _settle(self, ctx: Context) -> list[Effect]:
        """Wait for the slower ones, average without training, and finish."""
        partners = ctx.partners()
        if self._phase is Phase.SETTLE:
            reports = [entry.report.message for entry in map(ctx.ledger.of, partners) if entry]
            missing = sum(not report.finished and report.step < ctx.manifest.steps for report in reports)
            if missing and ctx.now < self._settle_until:
                return [SetTimer("turn", 0.5)]
            self._begin_consensus(ctx)
        if self._phase is not Phase.CONSENSUS or self._exchange is not None:
            return []
        self._tries_left -= 1
        if self._turns.due <= 0 or self._tries_left < 0 or not partners:
            self._phase = Phase.DONE
            return [Evaluate("own", (OWN,))]
        return self._begin_exchange(ctx)
