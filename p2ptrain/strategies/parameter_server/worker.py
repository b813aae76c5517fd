"""A worker of shards: it brings its change of the weights to the servers, and takes the new weights over.

The change is own - base; what servers answer is put together and measured as a whole, before training goes
on from it. If that is worse, each server's shard is measured for itself: one that is worse alone is not
taken over, and its server is accused when that adds up. Source: ALGORITHMS 2.4, and 2.3 for finding the one.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from msgspec import Struct

from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.effects import (
    Accuse,
    Adopt,
    Combine,
    Drop,
    Effect,
    Evaluate,
    Fresh,
    Note,
    OptimizerState,
    Publish,
)
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Published
from p2ptrain.core.intake import Intake
from p2ptrain.core.messages import Offer
from p2ptrain.core.mixing import WORSE_MAX
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import OWN, PeerId, Ranges, Ref, Seconds, Slot
from p2ptrain.strategies.parameter_server.serving import LIE, SERVED, TRIALS, Change, is_worse

BASE = Slot(Ref("base"))
PUSHED = Slot(Ref("pushed"))
WHOLE = Slot(Ref("whole"))
"""What is put together: the own change before it is brought, the new weights after."""


ASK_AGAIN_S = 2.0
"""Without an answer a question is repeated after this, or a quarter of the usual time (guess)."""

PATIENCE_S = (10.0, 30.0)
"""A server is missed after the usual time, but no sooner and no later than this (guess)."""

GIVE_UP = 5
"""After so many times that patience a worker goes on with the shards that came (guess)."""


class Came(Struct, frozen=True):
    """What is fetched for a worker: the answer about a shard."""

    turn: int
    shard: int


class Answer(Struct, frozen=True):
    """Numbers of a shard that a server gave."""

    server: PeerId
    version: int
    offer: Offer


class Asked(Struct):
    """What is asked of the servers now.

    step: own steps when it began. weight: of the change in the mean.
    ready: shards whose change is written, or that have none; changes: the own, by shard.
    answers: by shard; here: of them, which are fetched.
    joined: what is here is being measured; is_lie: it is much worse.
    missed: the coordinator was told of what is not here.
    suspects: shards that are measured each for itself.
    bad: shards that are worse than before.
    """

    turn: int
    began: Seconds
    step: int
    weight: float
    ready: dict[int, None] = {}
    changes: dict[int, Offer] = {}
    answers: dict[int, Answer] = {}
    here: dict[int, None] = {}
    joined: bool = False
    is_lie: bool = False
    missed: bool = False
    suspects: list[int] = []
    bad: list[int] = []


Bring = Callable[[Context, int, Change], list[Effect]]
"""Hands a change of a shard to whoever serves it."""

Over = Callable[[Context, int, bool], list[Effect]]
"""Goes on when a turn is over: own steps when it began, and whether new weights were taken over."""


def cut(numbers: int, count: int) -> tuple[Ranges, ...]:
    """Cut so many numbers into ranges of equal length, one more or less."""
    count = max(1, min(count, numbers))
    edges = [numbers * shard // count for shard in range(count + 1)]
    return tuple(((begin, end),) for begin, end in pairwise(edges))


class Worker:
    """What one worker knows.

    versions, pieces: of each shard, what the own weights began from; None: nobody wrote it.
    asked: None while nothing is.

    Args:
        waits: nothing is trained until the answers are here.
        ranges: by shard.
        examples: on which is measured.
    """

    def __init__(
        self,
        waits: bool,
        ranges: tuple[Ranges, ...],
        examples: int,
        intake: Intake[Any],
        bring: Bring,
        over: Over,
    ) -> None:
        self.versions = [0] * len(ranges)
        self.pieces: list[Offer | None] = [None] * len(ranges)
        self.asked: Asked | None = None
        self._waits, self._ranges, self._examples = waits, ranges, examples
        self._mine = OWN if waits else PUSHED
        self._intake, self._bring, self._over = intake, bring, over
        self._turns = self._diverged = 0
        self._doubted: dict[PeerId, float] = {}
        self._times = Arrivals(*PATIENCE_S)

    @property
    def patience_s(self) -> Seconds:
        """Who has not answered by then is missed."""
        return self._times.deadline_s

    @property
    def again_s(self) -> Seconds:
        """Time to the next question without an answer."""
        return max(ASK_AGAIN_S, 0.25 * (self._times.usual_s or 0.0))

    def _tag(self, what: str) -> str:
        """Name what is asked in this turn: answers to an earlier one mean nothing."""
        return f"{what}:{self._turns}"

    # -- the own change ----------------------------------------------------------------------------

    def begin(self, ctx: Context, step: int, weight: float) -> list[Effect]:
        """Bring what was trained since the base; without weight, ask only."""
        self._turns += 1
        self.asked = Asked(self._turns, ctx.now, step, weight)
        keep = [] if self._waits else [Combine("pushed", PUSHED, ((1.0, OWN),))]
        if not weight:
            return [*keep, *self._ask_only(ctx, self.asked)]
        return [*keep, Evaluate(self._tag("mine"), (self._mine,), examples_max=self._examples)]

    def on_measured_own(self, ctx: Context, event: Evaluated, own: Progress) -> list[Effect]:
        """Write the change, unless the own weights are no numbers any more."""
        asked = self.asked
        if asked is None or event.tag != self._tag("mine") or asked.ready:
            return []
        if not math.isfinite(event.losses[0]):
            return self._recover(ctx, asked, own)
        self._diverged = 0
        return [Combine(self._tag("change"), WHOLE, ((1.0, self._mine), (-1.0, BASE))), self._write(0)]

    def _write(self, shard: int) -> Publish:
        """Write the change of a shard: one after the other, so that others are fetched meanwhile."""
        return Publish(self._tag(f"change:{shard}"), WHOLE, ranges=self._ranges[shard])

    def _recover(self, ctx: Context, asked: Asked, own: Progress) -> list[Effect]:
        """Training diverged: go back to what the turn began from, the second time to the best weights."""
        own.be_careful()
        self._diverged += 1
        note = Note("diverged", {"step": own.step, "lr_scale": own.lr_scale})
        back: list[Effect] = [Adopt("back", BASE, OptimizerState.RESET, own.lr_scale)]
        if self._diverged > 1:
            best, fresh = own.keep.offer, Fresh(ctx.manifest.seed, own.lr_scale)
            back = [Adopt("back", best.blob, OptimizerState.RESET, own.lr_scale) if best else fresh]
            back.append(Combine("base", BASE, ((1.0, OWN),)))
        if not self._waits:
            back.append(Combine("pushed", PUSHED, ((1.0, OWN),)))
        return [note, *back, *self._ask_only(ctx, asked)]

    def _ask_only(self, ctx: Context, asked: Asked) -> list[Effect]:
        asked.ready = dict.fromkeys(range(len(self._ranges)))
        return self.ask(ctx)

    def on_written(self, ctx: Context, event: Published) -> list[Effect]:
        """The change of a shard is written: bring it."""
        shard = self._shard_of(event.tag)
        if shard is None or self.asked is None:
            return []
        self.asked.changes[shard] = Offer(event.blob, event.size_bytes, 0.0)
        return self._bring_and_write(ctx, self.asked, shard)

    def _bring_and_write(self, ctx: Context, asked: Asked, shard: int) -> list[Effect]:
        asked.ready[shard] = None
        more = [self._write(shard + 1)] if shard + 1 < len(self._ranges) else []
        return [*self.ask(ctx, shard), *more]

    def on_failed(self, ctx: Context, tag: str) -> list[Effect]:
        """An effect of learning failed: a change is not brought, weights are not taken over."""
        shard = self._shard_of(tag)
        if self.asked is None:
            return []
        if shard is not None:
            return self._bring_and_write(ctx, self.asked, shard)
        if tag in (self._tag("mine"), self._tag("change")) and not self.asked.ready:
            return self._ask_only(ctx, self.asked)
        return self._end(ctx, []) if tag in (self._tag("whole"), self._tag("each")) else []

    def _shard_of(self, tag: str) -> int | None:
        tags = (self._tag(f"change:{shard}") for shard in range(len(self._ranges)))
        return next((shard for shard, known in enumerate(tags) if known == tag), None)

    def ask(self, ctx: Context, only: int | None = None) -> list[Effect]:
        """Ask for what there is no answer about yet, once more."""
        asked, effects = self.asked, list[Effect]()
        for shard in range(len(self._ranges)) if only is None else (only,):
            if (
                asked is self.asked
                and asked is not None
                and shard in asked.ready
                and shard not in asked.answers
            ):
                version, base, offer = self.versions[shard], self.pieces[shard], asked.changes.get(shard)
                held = base if base is not None and ctx.holds(base.blob) else None
                change = Change(ctx.me, asked.turn, version, offer, held, asked.weight)
                effects += self._bring(ctx, shard, change)
        return effects

    # -- the new weights ---------------------------------------------------------------------------

    @property
    def missing(self) -> list[int]:
        """Shards without an answer."""
        asked = self.asked
        return [] if asked is None else [s for s in range(len(self._ranges)) if s not in asked.answers]

    def answer(self, ctx: Context, turn: int, shard: int, answer: Answer) -> list[Effect]:
        """A server gives its numbers."""
        asked = self.asked
        if asked is None or asked.turn != turn or asked.joined or shard in asked.answers:
            return []
        asked.answers[shard] = answer
        if answer.server != ctx.me:
            self._times.add(ctx.now - asked.began)
        if ctx.holds(answer.offer.blob):
            return self.on_here(ctx, Came(turn, shard))
        return self._intake.add(ctx, answer.server, answer.offer, Came(turn, shard))

    def on_here(self, ctx: Context, came: Came) -> list[Effect]:
        """An answer is fetched."""
        asked = self.asked
        if asked is None or asked.turn != came.turn or asked.joined:
            return []
        asked.here[came.shard] = None
        return self.join(ctx) if len(asked.here) == len(self._ranges) else []

    def on_missing(self, ctx: Context, came: Came) -> list[Effect]:
        """It did not come: whoever serves the shard is asked again."""
        asked = self.asked
        if asked is None or asked.turn != came.turn or asked.joined:
            return []
        asked.answers.pop(came.shard, None)
        return self.ask(ctx, came.shard)

    def join(self, ctx: Context) -> list[Effect]:
        """Put together what is here, and measure it beside what the own weights began from."""
        asked = self.asked
        if asked is None or asked.joined:
            return []
        asked.joined = True
        if not asked.here:
            return self._end(ctx, [])
        tag = self._tag("whole")
        parts = [Combine(tag, WHOLE, ((1.0, self._mine),))]
        parts += [self._part(tag, WHOLE, asked, shard) for shard in asked.here]
        return [*parts, Evaluate(tag, (BASE, WHOLE), examples_max=self._examples)]

    def _part(self, tag: str, slot: Slot, asked: Asked, shard: int) -> Combine:
        return Combine(tag, slot, ((1.0, asked.answers[shard].offer.blob),), ranges=self._ranges[shard])

    def on_measured(self, ctx: Context, event: Evaluated) -> list[Effect]:
        """Take the new weights over if they are no worse, or find out which shard it is."""
        asked = self.asked
        if asked is None or not asked.joined:
            return []
        if event.tag == self._tag("whole") and len(event.losses) == 2 and not asked.suspects:
            if not is_worse(event, 1, WORSE_MAX):
                self._doubted.clear()
                return self._take_over(ctx, asked)
            asked.is_lie = is_worse(event, 1, LIE)
            asked.suspects = [shard for shard in asked.here if asked.answers[shard].server != ctx.me]
            return self._measure_each(ctx, asked)
        if event.tag == self._tag("each") and len(event.losses) > 1:
            return self._on_measured_each(ctx, asked, event)
        return []

    def _measure_each(self, ctx: Context, asked: Asked) -> list[Effect]:
        """Measure the next suspects, each alone in place of what it was before."""
        if not asked.suspects and asked.is_lie and not asked.bad:
            return self._end(ctx, [])
        if not asked.suspects:
            return self._take_over(ctx, asked)
        tag, suspects = self._tag("each"), asked.suspects[: len(TRIALS)]
        effects: list[Effect] = []
        for slot, shard in zip(TRIALS, suspects, strict=False):
            effects += [Combine(tag, slot, ((1.0, BASE),)), self._part(tag, slot, asked, shard)]
        return [*effects, Evaluate(tag, (BASE, *TRIALS[: len(suspects)]), examples_max=self._examples)]

    def _on_measured_each(self, ctx: Context, asked: Asked, event: Evaluated) -> list[Effect]:
        before = event.losses[0]
        suspects, asked.suspects = asked.suspects[: len(TRIALS)], asked.suspects[len(TRIALS) :]
        effects: list[Effect] = []
        for place, (shard, loss) in enumerate(zip(suspects, event.losses[1:], strict=False), 1):
            if not is_worse(event, place, WORSE_MAX):
                continue
            asked.bad.append(shard)
            server = asked.answers[shard].server
            self._doubted[server] = self._doubted.get(server, 0.0) + (loss - before) / (abs(before) + 0.05)
            if not self._doubted[server] <= LIE:
                detail = f"served a shard {shard} that raises the loss from {before:.4g} to {loss:.4g}"
                effects.append(Accuse(server, Offence.FALSE_CLAIM, detail))
        return [*effects, *self._measure_each(ctx, asked)]

    def _take_over(self, ctx: Context, asked: Asked) -> list[Effect]:
        """Go on from the new weights; what was trained meanwhile is kept."""
        shards = [shard for shard in asked.here if shard not in asked.bad]
        if not shards:
            return self._end(ctx, [])
        ranges = tuple(one for shard in sorted(shards) for one in self._ranges[shard])
        back: list[Effect] = []
        if asked.bad:
            unused = tuple(one for shard in sorted(asked.bad) for one in self._ranges[shard])
            back = [Combine("whole", WHOLE, ((1.0, self._mine),), ranges=unused)]
        if self._waits:
            move: Effect = Adopt("whole", WHOLE, OptimizerState.KEEP)
        else:
            move = Combine("whole", OWN, ((1.0, OWN), (1.0, WHOLE), (-1.0, PUSHED)))
        base = Combine("base", BASE, ((1.0, WHOLE),), ranges=ranges)
        return [*back, move, base, *self._end(ctx, shards)]

    def show(self, served: list[int]) -> list[Effect]:
        """Let the own server know the newest numbers of the shards that others serve."""
        others = [shard for shard in range(len(self._ranges)) if shard not in served]
        ranges = tuple(one for shard in others for one in self._ranges[shard])
        return [Combine("serve", SERVED, ((1.0, BASE),), ranges=ranges)] if served and others else []

    def _end(self, ctx: Context, taken: list[int]) -> list[Effect]:
        """The turn is over: what it was about is not needed any more."""
        asked, self.asked = self.asked, None
        if asked is None:
            return []
        old = [offer.blob for offer in asked.changes.values()]
        for shard in taken:
            answer, before = asked.answers[shard], self.pieces[shard]
            self.versions[shard], self.pieces[shard] = answer.version, answer.offer
            old += [before.blob] if before is not None and answer.server != ctx.me else []
        now = [piece.blob for piece in self.pieces if piece is not None]
        drops: list[Effect] = [Drop(blob) for blob in dict.fromkeys(old) if blob not in now]
        note = Note("pulled", {"turn": asked.turn, "shards": len(taken), "seconds": ctx.now - asked.began})
        return [note, *drops, *self._over(ctx, asked.step, bool(taken))]
