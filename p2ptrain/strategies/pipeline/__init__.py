"""The net is cut into parts on different peers: batches flow through them in pieces, gradients flow back.

In each round a coordinator puts the members into lines. All of them start from the same weights; each
computes its layers only, on examples of the first in its line, and takes its steps together with the line
(`Stage`). Then it hands its layers in; the coordinator puts them together, those of lines side by side as
their mean, measures the result, and the next round starts there, everyone one place further. A peer that dies
ends its line at the step that it was at: the others hand in what they have, its layers stay those of the
round's beginning, and the next round goes on without it. If the coordinator dies, the next one takes over.

Gradients are not delayed: what a line takes are the steps of one peer with all layers, up to rounding, and a
line of n peers waits 2 (n - 1) latencies a step. Delayed ones would wait less, and lose accuracy from a few
steps on. Source: ALGORITHMS 2.3 (LW-P), 3.6, 4.3; the schedule of micro-batches GPipe, 1811.06965.
"""

import math
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from p2ptrain.core import inputs, keep
from p2ptrain.core.blocks import Block, ranges_of
from p2ptrain.core.effects import (
    Adopt,
    Effect,
    Evaluate,
    Note,
    OptimizerState,
    Publish,
    SetTimer,
    Stage,
    Train,
)
from p2ptrain.core.ending import Ending
from p2ptrain.core.messages import Message, Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event, Told
from p2ptrain.core.types import OWN, BlobId, Seconds
from p2ptrain.strategies.pipeline.foreman import DEADLINE_S, Foreman, Part, Ready, Round
from p2ptrain.strategies.pipeline.lineup import STAGES_MAX, pace_of
from p2ptrain.strategies.pipeline.post import BAD, NEW, Elsewhere, Post, is_bearable

SPACED = 5
"""Who was answered asks again after so many times `ask_again_s` (guess)."""

MEETING = 4
"""Others of the line may need so many times as long as this peer to get the weights (guess)."""

FETCH_TRIES = 3
REFUSALS_MAX = 3
"""Who finds the common weights bad so often in a row takes a round's steps from its own (guess)."""

Steps = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0.0)]
Share = Annotated[float, Meta(ge=0.0)]


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults are guesses, but for those that others name.

    stages: peers of a line, at most; with each one more a step waits two latencies longer.
    round_steps: optimiser steps of a round: after them the weights of all are put together.
    micro: pieces that a batch is cut into: the more there are, the less peers wait for each other.
    codec: how activations and gradients are written; bf16 takes half the bytes of f32, int8 a quarter.
    examples: held-out examples on which weights are compared.
    tolerance: so much worse on these, as a share, may the weights after a round be, or a claim be wrong.
    silence_s: a peer of a line that gives nothing for so long is given up.
    ask_again_s: a question without answer is repeated after this: messages get lost.
    report_s, settle_s, fresh_s: as in `gossip` and `restart`.
    """

    stages: Annotated[int, Meta(ge=1, le=STAGES_MAX)] = 2
    round_steps: Steps = 50
    micro: Annotated[int, Meta(ge=1, le=256)] = 4
    codec: Literal["f32", "bf16", "int8"] = "bf16"
    examples: Steps = 256
    tolerance: Share = 0.10
    silence_s: Positive = 5.0
    ask_again_s: Positive = 1.0
    report_s: Positive = 2.0
    settle_s: Share = 20.0
    fresh_s: Positive = 45.0


MESSAGES: tuple[type[Message], ...] = (Round, Ready, Elsewhere)


class Phase(StrEnum):
    """Where a run stands."""

    ASK = "waiting for a part"
    FETCH = "getting the common weights"
    STAGE = "training its layers"
    WRITE = "handing its layers in"
    LAST = "own steps done, waiting for what comes of them"
    SETTLE = "waiting for the others"
    DONE = "done"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.ASK, "a round with a part"): Phase.FETCH,
    (Phase.ASK, "nothing can be written, nobody else is there"): Phase.STAGE,
    (Phase.ASK, "bad weights again and again"): Phase.STAGE,
    (Phase.ASK, "own steps done"): Phase.LAST,
    (Phase.FETCH, "good weights"): Phase.STAGE,
    (Phase.FETCH, "no weights, or bad ones"): Phase.ASK,
    (Phase.FETCH, "another round"): Phase.ASK,
    (Phase.STAGE, "steps taken"): Phase.WRITE,
    (Phase.STAGE, "no steps taken"): Phase.ASK,
    (Phase.WRITE, "handed in"): Phase.ASK,
    (Phase.LAST, "the newest weights measured"): Phase.SETTLE,
    (Phase.SETTLE, "the best result chosen"): Phase.DONE,
}


class Strategy:
    """One peer of the lines, and their coordinator when it is its turn."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._phase = Phase.ASK
        self._own = Progress()
        self._ending = Ending(config.settle_s, config.fresh_s, config.tolerance)
        self._layers: tuple[inputs.Layer, ...] = ()
        self._post = Post(
            lambda now, term: Foreman(
                now,
                term,
                self._layers,
                stages=config.stages,
                round_steps=config.round_steps,
                examples=config.examples,
                tolerance=config.tolerance,
                wait_s=config.ask_again_s,
            )
        )
        self._plan: Round | None = None
        self._planned = self._free_since = 0.0
        self._ready = Ready(0)
        self._base: Offer | None = None
        self._coming: Offer | None = None
        self._failures = self._refused = self._parts = self._round = 0
        self._part: Part | None = None
        self._pace: Seconds = 0.0
        self._must_reset = True
        self._piece: Offer | None = None
        self._piece_loss: float | None = None
        self._is_measured = False

    def start(self, ctx: Context, ready: inputs.TrainerReady) -> list[Effect]:
        """Train from the common start, or go on from the checkpoint."""
        self._own.resume(ctx, ready)
        self._layers = ready.layers or (inputs.Layer((), 1.0),)
        self._ready = Ready(0, step=self._own.step)
        return [*self._be_free(ctx), *self._catch_up(ctx)]

    def memory(self) -> bytes:
        """Keep the best offer and the learning rate."""
        return self._own.memory()

    def activity(self) -> str:
        """Say what goes on."""
        first, last = self._block
        doing = str(self._phase)
        if self._phase is Phase.STAGE:
            doing = f"training layers {first + 1} to {last} of {len(self._layers)}"
        return doing if self._post.foreman is None else f"{doing}, and coordinating"

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event: as the coordinator, as a member, and as a member that the coordinator told."""
        effects = self._post.handle(ctx, event)
        return [*effects, *self._handle(ctx, event), *self._catch_up(ctx)]

    def _handle(self, ctx: Context, event: Event) -> list[Effect]:
        match event:
            case Told(sender=sender, message=Round() as plan):
                self._post.on_round(ctx, sender, plan)
            case Told(sender=sender, message=Ready() as ready):
                return self._post.on_ready(ctx, sender, ready, self._ready)
            case Told(sender=sender, message=Elsewhere() as elsewhere):
                found = self._post.on_elsewhere(ctx, sender, elsewhere)
                return self._post.say(ctx, self._ready) if found and self._is_free else []
            case inputs.TimerFired(key="ask"):
                return self._ask(ctx)
            case inputs.Evaluated(tag="own" | "last"):
                return self._on_own_loss(ctx, event)
            case inputs.Published(tag=keep.TAG) | inputs.LearnFailed(tag=keep.TAG):
                self._own.keep.on_written(event)
                return [*self._own.tell(), *self._choose(ctx)]
            case _ if self._phase in (Phase.SETTLE, Phase.DONE):
                return self._settle(ctx, event)
            case _:
                return self._take_part(ctx, event)
        return []

    # -- a part is asked for -----------------------------------------------------------------------

    @property
    def _block(self) -> Block:
        return self._part.block if self._part is not None else (0, len(self._layers))

    @property
    def _is_free(self) -> bool:
        return self._phase in (Phase.ASK, Phase.LAST)

    def _ask(self, ctx: Context) -> list[Effect]:
        """Say that this peer is free, until there is something to do; look whether somebody coordinates."""
        wait_s, post = self._config.ask_again_s, self._post
        if ctx.paused:  # what others say does not come, so whoever coordinates seems to be silent
            post.rest()
            return [SetTimer("ask", wait_s)]
        effects = post.go_on(ctx)
        if self._failures:
            effects += self._fetch(ctx)
        if self._is_free or post.foreman is not None:
            effects += post.watch(ctx, self._ready)
        if self._is_free:
            effects += post.say(ctx, self._ready)
        if self._phase is Phase.LAST and ctx.now - self._free_since > DEADLINE_S[1]:
            effects += self._own.look("last")
        calm = post.foreman is None and post.is_calm(ctx.now, SPACED * wait_s)
        return [*effects, SetTimer("ask", wait_s * (SPACED if calm else 1))]

    def _catch_up(self, ctx: Context) -> list[Effect]:
        """Follow the newest plan."""
        if self._phase is Phase.ASK and self._refused >= REFUSALS_MAX:
            return self._train_alone(ctx, "bad weights again and again")
        if self._phase is Phase.ASK and not (self._post.can_write or any(map(ctx.trusts, ctx.partners()))):
            return self._train_alone(ctx, "nothing can be written, nobody else is there")
        effects: list[Effect] = []
        while self._post.plan is not None and self._post.plan is not self._plan:
            effects += self._follow(ctx, self._post.plan)
        return effects

    # -- a part ------------------------------------------------------------------------------------

    def _be_free(self, ctx: Context, cause: str = "") -> list[Effect]:
        """Nothing is to be done: say so."""
        self._phase = PHASES[self._phase, cause] if cause else self._phase
        if self._own.is_done(ctx):
            self._phase = PHASES[self._phase, "own steps done"]
        self._free_since = ctx.now
        self._post.be_patient(ctx.now)
        plan = self._plan
        if plan is not None and plan.round > self._ready.round and (effects := self._follow(ctx, plan)):
            return effects
        return self._ask(ctx)

    def _follow(self, ctx: Context, plan: Round) -> list[Effect]:
        """Take the own part in a round, or its weights if the own steps are done."""
        before, self._plan, self._planned = self._plan, plan, ctx.now
        if self._phase is Phase.FETCH:
            self._phase, self._coming = PHASES[self._phase, "another round"], None
        if not self._is_free:
            return []
        if plan.round <= self._ready.round:
            is_other = before is not None and before.term != plan.term and self._post.foreman is None
            return self._post.say(ctx, self._ready) if is_other else []
        if self._phase is Phase.ASK:
            if not self._fits(ctx, plan):
                return []
            self._phase = PHASES[self._phase, "a round with a part"]
        self._coming, self._failures = Offer(plan.base, plan.size_bytes, math.inf), 0
        self._parts, self._round = self._parts + 1, plan.round
        return self._fetch(ctx)

    def _fits(self, ctx: Context, plan: Round) -> bool:
        """Say whether there is a part for this peer that can be taken."""
        part = self._part = plan.part(ctx.me)
        if part is None or not 0 <= part.block[0] < part.block[1] <= len(self._layers):
            return False
        return not 0 < ctx.manifest.steps < self._own.step + part.steps

    def _tag(self, what: str) -> str:
        """Name what is asked now: answers to earlier questions mean nothing."""
        return f"{what}:{self._parts}"

    def _take_part(self, ctx: Context, event: Event) -> list[Effect]:
        coming = self._coming
        match event:
            case inputs.Fetched(blob=blob) if coming is not None and coming.blob == blob:
                self._failures = 0
                return self._compare(ctx, blob)
            case inputs.FetchFailed(blob=blob) if coming is not None and coming.blob == blob:
                self._failures += 1
                return [] if self._failures < FETCH_TRIES else self._do_without(ctx)
            case inputs.Evaluated() if event.tag == self._tag("base") and coming is not None:
                return self._on_compared(ctx, coming, event)
            case inputs.LearnFailed() if event.tag == self._tag("base") and coming is not None:
                return self._do_without(ctx)
            case inputs.Staged() if event.tag == self._tag("stage") and self._phase is Phase.STAGE:
                return self._on_staged(ctx, event)
            case inputs.Trained() if self._phase is Phase.STAGE:
                taken = event.step - self._own.step
                tag, seconds = self._tag("stage"), event.seconds
                staged = inputs.Staged(tag, event.step, event.samples, taken, event.loss, seconds)
                return self._on_staged(ctx, staged)
            case inputs.LearnFailed() if (
                event.tag in (self._tag("stage"), "train") and self._phase is Phase.STAGE
            ):
                return self._be_free(ctx, "no steps taken")
            case inputs.Evaluated() if event.tag == self._tag("piece") and self._phase is Phase.WRITE:
                self._piece_loss = event.losses[0]
                return self._hand_in(ctx)
            case inputs.Published() if event.tag == self._tag("piece") and self._phase is Phase.WRITE:
                self._piece = Offer(event.blob, event.size_bytes, 0.0)
                return self._hand_in(ctx)
            case inputs.LearnFailed() if event.tag == self._tag("piece") and self._phase is Phase.WRITE:
                return self._be_free(ctx, "handed in")
        return []

    # -- the weights of the beginning --------------------------------------------------------------

    def _fetch(self, ctx: Context) -> list[Effect]:
        author = self._post.holder
        if self._coming is None:
            return []
        if author is None or not (author == ctx.me or ctx.trusts(author)):
            return self._do_without(ctx)
        return [ctx.fetch(author, self._coming)]

    def _compare(self, ctx: Context, blob: BlobId) -> list[Effect]:
        """Measure the new weights beside the best own ones, or else those before."""
        known = [one.blob for one in (self._own.keep.offer, self._base) if one and ctx.holds(one.blob)]
        refs = (known[0] if known else OWN, blob)
        return [Evaluate(self._tag("base"), refs, examples_max=self._config.examples)]

    def _on_compared(self, ctx: Context, coming: Offer, event: inputs.Evaluated) -> list[Effect]:
        best, now = event.losses[0], event.losses[-1]
        if not is_bearable(now, best, BAD if self._own.step else NEW):
            self._refused += 1
            refused = self._post.refuse(ctx, now, best, self._own.keep.offer)
            return [*refused, *self._do_without(ctx)]
        state = OptimizerState.RESET if self._must_reset else OptimizerState.KEEP
        effects: list[Effect] = [Adopt(self._tag("adopt"), coming.blob, state, self._own.lr_scale)]
        self._base, self._coming, self._refused = coming, None, 0
        if self._phase is Phase.LAST:
            self._ready = replace(self._ready, round=self._round)
            return [*effects, *self._own.look("last")]
        if self._own.is_due(ctx.now, self._config.report_s):
            effects += self._own.look("own")
        return [*effects, *self._begin_part(ctx)]

    def _do_without(self, ctx: Context) -> list[Effect]:
        """There are no weights to begin with: wait for the next round."""
        self._coming = None
        if self._phase is Phase.LAST:
            return self._own.look("last")
        if self._phase is not Phase.FETCH:
            return []
        self._note_round()
        return self._be_free(ctx, "no weights, or bad ones")

    def _note_round(self, **came: object) -> None:
        """Have it said what came of this round; `came`: as in `Ready`."""
        base = self._base
        self._ready = Ready(
            0,
            self._round,
            self._own.step,
            base.blob if base else None,
            base.size_bytes if base else 0,
            pace=self._pace,
            **came,  # type: ignore[arg-type]
        )

    # -- the own layers ----------------------------------------------------------------------------

    def _begin_part(self, ctx: Context) -> list[Effect]:
        """All of the line get the same weights, so they are about as late as this peer."""
        self._phase = PHASES[self._phase, "good weights"]
        self._note_round()
        return [self._stage(self._config.silence_s + MEETING * (ctx.now - self._planned))]

    def _stage(self, meet_s: Seconds) -> Train | Stage:
        """Take the steps: alone as usual, also with a net that cannot be cut."""
        part, config = self._part, self._config
        assert part is not None
        if part.before is None and part.after is None:
            return Train(part.steps, self._round)
        names = (self._tag("stage"), part.name, part.block, part.before, part.after, part.steps)
        return Stage(*names, config.micro, config.codec, meet_s, config.silence_s, self._round)

    def _train_alone(self, ctx: Context, cause: str) -> list[Effect]:
        """Take a round's steps from the own weights."""
        self._phase, self._refused = PHASES[self._phase, cause], 0
        self._parts += 1
        left = ctx.manifest.steps - self._own.step if ctx.manifest.steps else self._config.round_steps
        name, steps = f"{ctx.rng.getrandbits(128):032x}", min(left, self._config.round_steps)
        self._part = Part(name, steps, (0, len(self._layers)), None, None)
        return [self._stage(0.0)]

    def _on_staged(self, ctx: Context, event: inputs.Staged) -> list[Effect]:
        self._own.take(event)
        self._note_round()
        notes: list[Effect] = []
        if event.reason:
            fields = {"reason": event.reason, "steps": event.taken, "silent": event.silent}
            notes = [Note("line_ended", fields)]
        if event.taken <= 0:
            return [*notes, *self._be_free(ctx, "no steps taken")]
        if not math.isfinite(event.loss):
            return [*notes, *self._diverged(), *self._be_free(ctx, "no steps taken")]
        self._pace = pace_of(self._layers, self._block, event) or self._pace
        self._note_round(taken=event.taken)
        self._must_reset = False
        self._phase = PHASES[self._phase, "steps taken"]
        self._piece = self._piece_loss = None
        tag, ranges = self._tag("piece"), ranges_of(self._layers, self._block)
        measure = Evaluate(tag, (OWN,), examples_max=self._config.examples)
        return [*notes, measure, Publish(tag, OWN, ranges=ranges)]

    def _diverged(self) -> list[Effect]:
        """Be more careful from the next weights on."""
        self._own.be_careful()
        self._must_reset = True
        return [Note("diverged", {"step": self._own.step, "lr_scale": self._own.lr_scale})]

    def _hand_in(self, ctx: Context) -> list[Effect]:
        """The own layers are measured and written."""
        piece, loss = self._piece, self._piece_loss
        if piece is None or loss is None:
            return []
        if not math.isfinite(loss):
            return [*self._diverged(), *self._be_free(ctx, "handed in")]
        self._ready = replace(self._ready, piece=piece.blob, piece_bytes=piece.size_bytes, loss=loss)
        return self._be_free(ctx, "handed in")

    # -- the own result ----------------------------------------------------------------------------

    def _on_own_loss(self, ctx: Context, event: inputs.Evaluated) -> list[Effect]:
        self._is_measured = self._is_measured or event.tag == "last"
        told = (self._own.propose() or self._own.tell()) if self._own.measure(event) else self._diverged()
        return [*told, *self._choose(ctx)]

    def _choose(self, ctx: Context) -> list[Effect]:
        """Look at the results of others once the own is measured and written."""
        if not self._is_measured or self._own.keep.is_writing or self._phase is not Phase.LAST:
            return []
        self._phase = PHASES[self._phase, "the newest weights measured"]
        return self._ending.begin(ctx, self._own)

    def _settle(self, ctx: Context, event: Event) -> list[Effect]:
        if self._phase is Phase.DONE:
            return []
        effects = self._ending.handle(ctx, event, self._own)
        if self._ending.is_over:
            self._phase = PHASES[self._phase, "the best result chosen"]
        return effects
