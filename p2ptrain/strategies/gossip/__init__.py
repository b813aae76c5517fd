"""Gossip averaging: after every few steps two peers meet in the middle of their weights.

Both publish a snapshot, fetch the other's, and move by half of the difference, while training goes on:
own <- own + (theirs - mine) / 2, so that the sum over both is kept. Before that each measures the
mixture on its own held-out data; whose weights keep making things worse is refused (robust mixing), and
no step is longer than is usual. Who meets whom follows from the step number alone, so that two peers ask
each other; who is late or away is replaced. At the end the peers wait for each other and average a few
times without training. Sources 000, 003; exact form, defaults, measurements: ALGORITHMS 2.6, 2.7, 4.4, 4.6.

Settings change what is done with the two: outer momentum (noloco.py), a piece of the weights a turn
(fragments.py), partners by chance, and giving without asking back: own <- (w own + m theirs) / (w + m),
w <- w + m, where m is half of the giver's w (push-sum, gifts.py).
"""

import math
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import inputs, keep, law, newcomer
from p2ptrain.core.effects import Adopt, Effect, Evaluate, Finish, Note, OptimizerState, Send, SetTimer
from p2ptrain.core.keep import Keep
from p2ptrain.core.messages import Message, Offer
from p2ptrain.core.mixing import Mixing
from p2ptrain.core.newcomer import Newcomer
from p2ptrain.core.pairing import Circle, Draws, Turns
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event, Learned, Told
from p2ptrain.core.types import OWN, BlobId, PeerId, peer_text, short
from p2ptrain.strategies.gossip.age import Age
from p2ptrain.strategies.gossip.averaging import Averaging
from p2ptrain.strategies.gossip.exchange import (
    Answer,
    Busy,
    Exchange,
    Failure,
    Heard,
    Meeting,
    Swap,
    say_swap,
)
from p2ptrain.strategies.gossip.gifts import Gifts, Give, Took, say_give
from p2ptrain.strategies.gossip.noloco import MOMENTUM_MAX, SlowWeights

FAILURES_MAX = 3
"""After so many failures others are asked, after twice as many the next round is waited for (guess)."""

SETTLE_SHARE = 0.25
AHEAD_ROUNDS = 4
"""A newcomer takes the weights of who is so far ahead (guess)."""


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
    partners: `pairs` by the law, which ends in the same point; `random` by chance, to compare (4.4).
    mode: `swap`: two peers give each other their weights; `push_sum`: one gives and does not wait (3.1).
    fragments: an exchange moves one of so many pieces of the weights, but all at the end (3.1).
    outer, b, g: momentum of exchanges, weight of the way since the last one, pull to the partner (NoLoCo,
        3.1). By default plain averaging; skewed data: .3 to .5, .7, .7. It begins again from zero when
        the trainer is started again.
    alike_from: peers whose weights have at least this share of the other's steps behind them, or lack
        no more than four rounds, count alike; others by their steps. 0: all count alike (guess).
    """

    exchange_steps: Annotated[int, Meta(ge=1)] = 50
    exchanges: Annotated[int, Meta(ge=1)] = 1
    mix_examples: Annotated[int, Meta(ge=1)] = 128
    report_s: Annotated[float, Meta(gt=0)] = 2.0
    ask_again_s: Annotated[float, Meta(gt=0)] = 1.0
    timeout_s: Annotated[float, Meta(gt=0)] = 5.0
    settle_s: Annotated[float, Meta(ge=0)] = 20.0
    consensus: Annotated[int, Meta(ge=0)] = 3
    partners: Literal["pairs", "random"] = "pairs"
    mode: Literal["swap", "push_sum"] = "swap"
    fragments: Annotated[int, Meta(ge=1, le=1000)] = 1
    outer: Annotated[float, Meta(ge=0)] = 0.0
    b: Annotated[float, Meta(ge=0, le=2)] = 1.0
    g: Annotated[float, Meta(gt=0, le=2)] = 1.0
    alike_from: Annotated[float, Meta(ge=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        """Refuse what is known to fail."""
        if self.outer >= MOMENTUM_MAX:
            raise ValueError(f"`outer` from {MOMENTUM_MAX} on diverges in pairs; take .3 to .5")
        if self.mode == "push_sum" and (self.fragments > 1 or (self.outer, self.b, self.g) != (0, 1, 1)):
            raise ValueError("`push_sum` gives whole weights as they are: no `fragments`, `outer`, `b`, `g`")


MESSAGES: tuple[type[Message], ...] = (Swap, Answer, Busy, Give, Took)


class Phase(StrEnum):
    """Where a run stands."""

    RUN = "training and averaging"
    SETTLE = "own steps done, waiting for the others"
    CONSENSUS = "averaging without training"
    DONE = "done"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.RUN, "own steps done"): Phase.SETTLE,
    (Phase.SETTLE, "others done, or waited long enough"): Phase.CONSENSUS,
    (Phase.CONSENSUS, "averaged often enough"): Phase.DONE,
}


class Memory(Struct, frozen=True):
    """What survives a restart of the program."""

    keep: Offer | None
    mixing: Mixing
    mass: float = 1.0
    older: float = 0.0


class Strategy:
    """One peer's averaging."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._phase = Phase.RUN
        self._own = Progress()
        self._turns = Turns()
        self._gives = config.mode == "push_sum"
        self._exchange = Exchange(config.ask_again_s, config.timeout_s, say_give if self._gives else say_swap)
        self._gifts = Gifts(config.ask_again_s, config.timeout_s)
        self._newcomer = Newcomer()
        age = Age(AHEAD_ROUNDS * config.exchange_steps, config.alike_from)
        slow = SlowWeights(config.outer, config.b, config.g)
        self._averaging = Averaging(slow, age, config.fragments, config.exchanges)
        self._began, self._settle_until, self._tries_left = 0.0, 0.0, 0

    def start(self, ctx: Context, ready: inputs.TrainerReady) -> list[Effect]:
        """Train from the common start, or go on from the checkpoint."""
        manifest, averaging = ctx.manifest, self._averaging
        self._own.take(ready)
        self._began = ctx.now
        self._newcomer.may_join = ready.step == 0
        if self._config.partners == "random":
            self._turns = Draws(ctx.rng)
        elif self._gives:
            self._turns = Circle()
        if ready.memory:
            memory = msgspec.msgpack.decode(ready.memory, type=Memory)
            averaging.mixing, self._own.keep = memory.mixing, Keep(ctx.best_kept(memory.keep))
            self._gifts.mass.now, averaging.age.more = memory.mass, memory.older
        begun = averaging.start(manifest.seed, ready.numbers, self._turn_at(manifest.steps))
        return [*begun, *self._next_round(ctx)]

    def memory(self) -> bytes:
        """Keep the best offer, the peers' scores, the usual distances, mass and age."""
        aside = self._exchange.meeting.mass if self._exchange.meeting else 0.0
        mass, averaging = self._gifts.mass.now + aside, self._averaging
        return msgspec.msgpack.encode(
            Memory(self._own.keep.offer, averaging.mixing, mass, averaging.age.more)
        )

    def activity(self) -> str:
        """Say what goes on."""
        if self._exchange.meeting is not None:
            return f"exchanging weights with {short(self._exchange.meeting.partner)}"
        return str(self._phase)

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event."""
        match event:
            case Learned():
                return []  # reports are looked at when a round begins
            case inputs.Trained():
                self._own.take(event)
                return self._next_round(ctx)
            case inputs.Evaluated(tag="own"):
                return self._on_own_loss(ctx, event)
            case inputs.Published(tag=keep.TAG) | inputs.LearnFailed(tag=keep.TAG):
                told = self._own.tell() if self._own.keep.on_written(event) else []
                return [*told, *self._finish()]
            case Told(sender=sender, message=message):
                return self._on_told(ctx, sender, message)
            case inputs.Fetched(blob=blob):
                return self._on_fetched(blob)
            case inputs.FetchFailed(blob=blob) if self._newcomer.awaited(blob):
                self._newcomer.give_up()
                return []
            case inputs.Evaluated(tag=newcomer.TAG) if self._phase is not Phase.DONE:
                return self._on_compared(event)
            case inputs.Evaluated() if event.tag == self._exchange.tag("mix"):
                return self._on_mixture(ctx, self._exchange, event)
            case inputs.Evaluated() if event.tag == self._gifts.taking.tag("mix"):
                return self._on_mixture(ctx, self._gifts.taking, event)
            case inputs.TimerFired(key="turn"):
                return self._go_on(ctx) if self._phase is Phase.RUN else self._settle(ctx)
            case _:
                return [*self._heed(ctx, self._exchange, event), *self._heed(ctx, self._gifts.taking, event)]

    def _heed(self, ctx: Context, exchange: Exchange, event: Event) -> list[Effect]:
        said = exchange.handle(ctx, event)
        return self._fail(ctx, exchange, said.why) if isinstance(said, Failure) else said

    def _on_told(self, ctx: Context, sender: PeerId, message: Message) -> list[Effect]:
        match message:
            case Swap() if not self._gives:
                return self._on_swap(ctx, sender, message)
            case Answer() if not self._gives and self._exchange.is_with(sender, message.number):
                return self._exchange.answer(ctx, Offer(message.blob, message.size_bytes, 0.0), message.age)
            case Busy() if self._exchange.is_with(sender, message.number):
                return self._fail(ctx, self._exchange, "busy")
            case Give() if self._gives:
                return self._on_give(ctx, sender, message)
            case Took() if self._gives:
                return self._on_took(ctx, sender, message)
            case _:
                return []

    # -- rounds ------------------------------------------------------------------------------------

    def _next_round(self, ctx: Context) -> list[Effect]:
        """Start an exchange with a snapshot of now, then train on without waiting for it."""
        if self._phase is not Phase.RUN:
            return []
        if self._own.is_done(ctx):
            return self._begin_settling(ctx)
        due = self._own.is_due(ctx.now, self._config.report_s)
        effects: list[Effect] = [Evaluate("own", (OWN,))] if due else []
        effects += self._newcomer.look(ctx, self._own.step + AHEAD_ROUNDS * self._config.exchange_steps)
        measured = self._own.step > 0 and math.isfinite(self._own.loss)
        if measured and not (self._exchange.meeting and self._exchange.meeting.starter):
            self._turns.begin(self._turn_at(self._own.step), self._config.exchanges)
            effects += self._go_on(ctx)
        return [*effects, self._own.train(ctx, self._config.exchange_steps)]

    def _on_own_loss(self, ctx: Context, event: inputs.Evaluated) -> list[Effect]:
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
        back = Adopt("back", self._own.keep.offer.blob, OptimizerState.RESET, 0.5)
        return [note, back, *self._averaging.jump(self._own.step, None)]

    def _on_compared(self, event: inputs.Evaluated) -> list[Effect]:
        """Others' weights were looked at as they are, to be taken over."""
        adopted = self._newcomer.decide(event)
        return adopted and [*adopted, *self._averaging.jump(self._own.step, self._newcomer.age)]

    # -- who meets whom ----------------------------------------------------------------------------

    def _turn_at(self, step: int) -> int:
        """Peers with equal steps come to equal turns."""
        return step // self._config.exchange_steps * self._config.exchanges

    def _go_on(self, ctx: Context) -> list[Effect]:
        """Begin what is still due."""
        free = self._phase is Phase.RUN and self._exchange.meeting is None
        return self._ask(ctx) if free and self._turns.due > 0 else self._wake()

    def _wake(self) -> list[Effect]:
        """At the end, see what is next."""
        return [SetTimer("turn", 0.0)] if self._phase is Phase.CONSENSUS else []

    def _ask(self, ctx: Context) -> list[Effect]:
        members, turns, waits = ctx.membership.trainers, self._turns, self._phase is Phase.CONSENSUS
        if turns.is_met or (waits and turns.is_free(members, ctx.me)):
            turns.end()
            return self._go_on(ctx)
        partner = turns.partner(members, ctx.me, lambda p: self._is_fit(ctx, p), FAILURES_MAX)
        if partner is None or (self._gives and not self._gifts.mass.is_enough(at_end=waits)):
            return [SetTimer("turn", 0.5)] if waits else []
        mass = self._gifts.mass.set_aside() if self._gives else 0.0
        number = self._exchange.next_number
        return self._meet(ctx, self._exchange, Meeting(partner, number, turns.now, True, ctx.now, mass=mass))

    def _is_fit(self, ctx: Context, peer: PeerId) -> bool:
        """Mass given to whom nobody takes any from would be gone."""
        welcome = not self._gives or self._averaging.mixing.welcomes(peer_text(peer))
        return welcome and ctx.is_partner(peer) and ctx.trusts(peer)

    def _on_swap(self, ctx: Context, sender: PeerId, swap: Swap) -> list[Effect]:
        offer = Offer(swap.blob, swap.size_bytes, 0.0)
        question = Meeting(sender, swap.number, swap.turn, False, ctx.now, their_age=swap.age, theirs=offer)
        if self._phase is Phase.DONE:
            return self._answer_when_done(sender, swap)
        if not ctx.trusts(sender):
            return [Send(sender, Busy(swap.number))]
        self._hear_of_turn(ctx, swap.turn)
        awaited = self._turns.reaches(swap.turn)
        if self._phase is Phase.CONSENSUS and awaited:
            return []
        before, heard = self._exchange.turn, self._exchange.hear(ctx.me, question)
        if heard is Heard.BUSY:
            return [] if awaited else [Send(sender, Busy(swap.number))]
        if heard is Heard.NEW or not self._averaging.shows_alike(before, self._exchange.turn):
            return self._meet(ctx, self._exchange, question)
        return self._exchange.show(ctx)

    def _hear_of_turn(self, ctx: Context, turn: int) -> None:
        """Others average already without training."""
        if self._phase is Phase.SETTLE and turn >= self._turn_at(self._own.step):
            self._begin_consensus(ctx)

    def _answer_when_done(self, sender: PeerId, swap: Swap) -> list[Effect]:
        """Late ones may still come to the result; the result itself stays."""
        offer = self._own.keep.offer
        if offer is None:
            return [Send(sender, Busy(swap.number))]
        age = self._averaging.age.at(self._own.step)
        return [Send(sender, Answer(swap.number, offer.blob, offer.size_bytes, age))]

    def _on_give(self, ctx: Context, sender: PeerId, give: Give) -> list[Effect]:
        if self._phase is Phase.DONE:
            age = self._averaging.age.at(self._own.step)
            return self._gifts.give_result(sender, give, self._own.keep.offer, age)
        self._hear_of_turn(ctx, give.turn)
        gift = self._gifts.hear(ctx, sender, give)
        return self._meet(ctx, self._gifts.taking, gift) if isinstance(gift, Meeting) else gift

    def _on_took(self, ctx: Context, sender: PeerId, took: Took) -> list[Effect]:
        if not self._exchange.is_with(sender, took.number):
            self._gifts.mass.on_late(sender, took.number, took.mass)
            return []
        meeting = self._exchange.end(ctx, well=took.mass > 0)
        self._gifts.mass.settle(meeting.mass if meeting else 0.0, took.mass)
        self._turns.end()
        return [Note("given", {"peer": short(sender), "mass": took.mass}), *self._go_on(ctx)]

    # -- what is done with the two -----------------------------------------------------------------

    def _meet(self, ctx: Context, exchange: Exchange, meeting: Meeting) -> list[Effect]:
        """Take a snapshot of now."""
        timer, tag = exchange.begin(meeting), exchange.tag("swap")
        meeting.age = self._averaging.age.at(self._own.step)
        if meeting.shows:
            return [*self._averaging.write(tag, meeting.turn), *timer]
        return [*self._averaging.keep(tag), *timer, *exchange.show(ctx)]

    def _on_fetched(self, blob: BlobId) -> list[Effect]:
        if offer := self._newcomer.awaited(blob):
            return self._newcomer.measure(offer, self._config.mix_examples, self._newcomer.age)
        for exchange in (self._exchange, self._gifts.taking):
            if exchange.meeting is not None and exchange.is_complete(blob):
                return self._measure(exchange, exchange.meeting)
        return []

    def _measure(self, exchange: Exchange, meeting: Meeting) -> list[Effect]:
        ratio = self._averaging.age.ratio(meeting.age, meeting.their_age)
        meeting.share = self._gifts.share(meeting, ratio) if self._gives else ratio / (1 + ratio)
        return self._averaging.measure(exchange.tag("mix"), meeting, self._config.mix_examples)

    def _on_mixture(self, ctx: Context, exchange: Exchange, event: inputs.Evaluated) -> list[Effect]:
        """Move as far as is usual at most, or look at theirs alone."""
        meeting, averaging = exchange.meeting, self._averaging
        if meeting is None or meeting.theirs is None or not meeting.is_prepared or meeting.share <= 0:
            return []
        fields = {"peer": short(meeting.partner), "loss": event.losses[0], "mixed": event.losses[1]}
        if not averaging.accepts(meeting, event):
            notes, look = [Note("refused", fields)], list[Effect]()
            if not math.isfinite(event.losses[0]):
                notes.append(Note("diverged", {"step": self._own.step}))
            if averaging.moves_all(meeting.turn):
                look = self._newcomer.measure(meeting.theirs, self._config.mix_examples, meeting.their_age)
            return [*notes, *look, *self._end(ctx, exchange)]
        share, told = averaging.usual_share(meeting, event), list[Effect]()
        if self._gives:
            part, took = self._gifts.take(meeting, share * meeting.share)
            share, told = part / meeting.share, [took]
        self._newcomer.may_join = False
        note = Note("averaged", {"peer": short(meeting.partner), "loss": event.losses[1]})
        return [*averaging.move(meeting, share), note, *told, *self._end(ctx, exchange, well=True)]

    def _end(self, ctx: Context, exchange: Exchange, *, well: bool = False) -> list[Effect]:
        """The exchange took place, or its weights were refused."""
        meeting = exchange.end(ctx, well=well)
        if meeting is None:
            return []
        if self._gives:
            refused = [] if well else [self._gifts.take(meeting, 0.0)[1]]
            return [*refused, *self._wake()]
        if meeting.starter:
            self._turns.end()
        else:
            self._turns.meet(ctx.membership.trainers, ctx.me, meeting.partner, meeting.turn)
        return self._go_on(ctx)

    def _fail(self, ctx: Context, exchange: Exchange, why: str) -> list[Effect]:
        """Ask again when a busy partner should be free, and in the end somebody else."""
        meeting = exchange.end(ctx, well=False)
        if meeting is None:
            return []
        note = Note("exchange_failed", {"peer": short(meeting.partner), "reason": why})
        if exchange is self._gifts.taking:
            return [note, Send(meeting.partner, Busy(meeting.number)), *self._wake()]
        if self._gives:
            self._gifts.mass.give_up(meeting.partner, meeting.number, meeting.mass)
        again = self._turns.fail() <= 2 * FAILURES_MAX or self._phase is Phase.CONSENSUS
        wait_s = ctx.rng.uniform(0.25, 0.75) * exchange.usual_s
        return [note, *([SetTimer("turn", wait_s)] if again else [])]

    # -- the end -----------------------------------------------------------------------------------

    def _begin_settling(self, ctx: Context) -> list[Effect]:
        self._phase = PHASES[self._phase, "own steps done"]
        self._settle_until = ctx.now + max(self._config.settle_s, SETTLE_SHARE * (ctx.now - self._began))
        return [Evaluate("own", (OWN,)), SetTimer("turn", 0.0)]

    def _begin_consensus(self, ctx: Context) -> None:
        self._phase = PHASES[self._phase, "others done, or waited long enough"]
        partners = len(ctx.partners())
        due = self._config.consensus * law.turns(partners + 1) if partners else 0
        self._turns.begin(self._turn_at(self._own.step), due)
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
        if self._phase is not Phase.CONSENSUS or self._exchange.meeting or self._gifts.taking.meeting:
            return []
        self._tries_left -= 1
        if self._turns.due <= 0 or self._tries_left < 0 or not partners:
            self._phase = PHASES[self._phase, "averaged often enough"]
            return [Evaluate("own", (OWN,))]
        return self._ask(ctx)
