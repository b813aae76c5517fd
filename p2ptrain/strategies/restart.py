"""Restart selection: everyone searches from an own start; losers start again, anew or near the best.

The six steps of the distributed restart method (source 000):
  1 each peer searches from its own point                       -> `start`
  2 at intervals it sends its name and loss to another peer     -> core/spread.py
  3 who knows better answers and passes the better on, evenly   -> core/spread.py, core/law.py
  4 who hears nothing for long sends more often                 -> core/spread.py
  5 after a given time the own result is compared with the best -> `_compare`, `_start_again`
  6 a fixed loss reached: stop and spread; if reached elsewhere, ask for the weights -> `_seek_target`

A population of settings (Jaderberg 2017): with `lr_spread` every peer searches at a rate of its own; who
takes weights over takes their rate with them, a little changed. Notes `restarted`, `adopted` and `result`
say from whom weights descend. Exact form, defaults and what was measured: ALGORITHMS 2.1, 4.1, 5.
"""

import math
from enum import StrEnum
from random import Random
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from p2ptrain.core import keep
from p2ptrain.core.effects import (
    Accuse,
    Adopt,
    Combine,
    Effect,
    Evaluate,
    Finish,
    Fresh,
    Note,
    OptimizerState,
    SetTimer,
)
from p2ptrain.core.ending import Ending, claim_limit
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import (
    Adopted,
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    Published,
    TimerFired,
    Trained,
    TrainerReady,
)
from p2ptrain.core.ledger import Stated
from p2ptrain.core.messages import Message, Offer
from p2ptrain.core.progress import LR_SCALE_MIN, Progress
from p2ptrain.core.strategy import Context, Event, Learned
from p2ptrain.core.tried import Tried
from p2ptrain.core.types import OWN, BlobId, Ref, Slot, peer_text, short

MESSAGES: tuple[type[Message], ...] = ()
"""None of its own: reports say it all."""

Positive = Annotated[float, Meta(gt=0.0)]
Portion = Annotated[float, Meta(ge=0.0, le=1.0)]
Steps = Annotated[int, Meta(ge=1)]

SEEK_AGAIN_S = 8.0

POINT, OTHER = Slot(Ref("point")), Slot(Ref("other"))
"""Where a new start is put together."""


class Compare(StrEnum):
    """When the own result is compared with those of others."""

    ALWAYS = "always"
    TIMER = "timer"
    END = "end"


class Again(StrEnum):
    """Where a loser starts again as long as the swarm explores."""

    FRESH = "fresh"
    SHRUNKEN = "shrunken"
    PERTURBED = "perturbed"


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings, equal for the swarm. Defaults: ALGORITHMS 5 unless said otherwise.

    round_steps: optimiser steps between two measurements of the own loss (guess).
    compare: with others: `always`, after each own measurement and when better news come; `timer`, every
        `compare_s`; `end`, only when all own steps are done.
    compare_s: time between comparisons: 8 periods of the spread.
    worst: this share of the peers counts as losers.
    explore: in this first share of the steps losers start again as `again` says, later from the best.
    again: `fresh`, from a new random point; `shrunken`, from the own weights, shrunken towards a random point
        (shrink and perturb, Ash 2020); `perturbed`, from one of the best, with noise.
    noise: so large is the random part in `shrunken` and `perturbed`, a new random point being 1 (guess).
    margin: so much better must another be, as a share of the own loss.
    fresh_s: reports older than this are not compared with.
    lr_spread: peers draw their learning rate factor from exp(U(-lr_spread, lr_spread)); it is adopted too.
    claim_examples: examples to check another's claim on.
    tolerance: a claim may be wrong by this share, besides three standard errors.
    settle_s: at the end, so long at most is waited for the others (guess).
    """

    round_steps: Steps = 50
    compare: Compare = Compare.TIMER
    compare_s: Positive = 12.0
    worst: Portion = 0.25
    explore: Portion = 0.5
    again: Again = Again.FRESH
    noise: Portion = 0.3
    margin: Portion = 0.02
    fresh_s: Positive = 45.0
    lr_spread: Annotated[float, Meta(ge=0.0, le=10.0)] = 0.0
    claim_examples: Steps = 500
    tolerance: Annotated[float, Meta(ge=0.0)] = 0.10
    settle_s: Annotated[float, Meta(ge=0.0)] = 20.0


class Phase(StrEnum):
    """Where a run stands."""

    RUN = "searching"
    SETTLE = "own steps done, waiting for the others"
    DONE = "done"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.RUN, "target reached"): Phase.DONE,
    (Phase.RUN, "own steps done"): Phase.SETTLE,
    (Phase.SETTLE, "best result chosen"): Phase.DONE,
}


class Claim(Struct, frozen=True):
    """An offer of another peer that is being fetched or measured here.

    noise: is added to its weights when they are taken over.
    """

    stated: Stated
    offer: Offer
    noise: float = 0.0


class Strategy:
    """One peer's search."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._phase = Phase.RUN
        self._own = Progress()
        self._point = 0  # counts starts: a measurement from before the last one means nothing any more
        self._began_step = -1
        self._trains = False
        self._claim: Claim | None = None
        self._picks = 0
        self._tried = Tried()
        self._ending = Ending(config.settle_s, config.fresh_s, config.tolerance)
        self._diverged = 0

    # -- step 1 ------------------------------------------------------------------------------------

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Search from an own point, or go on from the checkpoint."""
        self._own.resume(ctx, ready)
        timer = SetTimer("compare", self._config.compare_s * (0.75 + 0.5 * ctx.rng.random()))
        timers: list[Effect] = [timer] if self._config.compare is Compare.TIMER else []
        if ready.step == 0:
            own_point = Random(f"{ctx.manifest.seed} {peer_text(ctx.me)}")
            return [*timers, self._fresh(own_point)]
        return [*timers, *self._measure()]

    def memory(self) -> bytes:
        """Keep the best offer and the learning rate."""
        return self._own.memory()

    def activity(self) -> str:
        """Say what goes on."""
        if self._claim is not None:
            return f"checking the weights of {short(self._claim.stated.sender)}"
        return str(self._phase)

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event."""
        if self._phase is Phase.SETTLE:
            return self._settle(ctx, event)
        match event:
            case Learned(report=report):
                return self._seek_target(ctx, [report]) or self._compare_at_once(ctx)
            case Trained():
                return self._on_trained(ctx, event)
            case Adopted() | LearnFailed(tag="adopt" | "fresh"):
                return self._measure() if self._phase is Phase.RUN else []
            case LearnFailed(tag="back"):
                self._own.keep.offer = None  # its weights are gone
                return [self._fresh(ctx.rng)] if self._phase is Phase.RUN else []
            case Evaluated() if event.tag == f"own:{self._point}":
                return self._on_own_loss(ctx, event)
            case Published(tag=keep.TAG):
                return self._on_kept(ctx, event)
            case LearnFailed(tag=keep.TAG):
                self._own.keep.on_written(event)
                return self._settle_if_done(ctx)
            case TimerFired(key="compare"):
                return [*self._compare(ctx), SetTimer("compare", self._config.compare_s)]
            case TimerFired(key="seek"):
                return self._seek_again(ctx)
            case Fetched():
                return self._on_fetched(event)
            case FetchFailed():
                return self._on_claim_lost(ctx, event.blob)
            case Evaluated() if event.tag == self._tag("claim"):
                return self._on_claim_measured(ctx, event)
            case LearnFailed() if event.tag == self._tag("claim"):
                return self._on_claim_lost(ctx, self._claim.offer.blob) if self._claim else []
            case _:
                return []

    # -- the own search ----------------------------------------------------------------------------

    def _fresh(self, rng: Random) -> Fresh:
        spread = self._config.lr_spread
        self._own.lr_scale = math.exp(rng.uniform(-spread, spread))
        self._begin_from(math.inf)
        return Fresh(rng.getrandbits(32), self._own.lr_scale)

    def _begin_from(self, loss: float) -> None:
        self._own.loss = loss
        self._began_step = self._own.step
        self._point += 1

    def _measure(self) -> list[Effect]:
        return [Evaluate(f"own:{self._point}", (OWN,))]

    def _on_trained(self, ctx: Context, event: Trained) -> list[Effect]:
        self._own.take(event)
        self._trains = False
        return self._measure() if self._phase is not Phase.DONE else []

    def _on_own_loss(self, ctx: Context, event: Evaluated) -> list[Effect]:
        if self._phase is Phase.DONE:
            return []
        if not self._own.measure(event):
            return self._recover(ctx)
        self._diverged = 0
        write = self._own.keep.propose(self._own.loss, self._own.lr_scale)
        if not write:
            told = [*self._own.tell(), *self._compare_at_once(ctx)]
            return [*told, *self._train(ctx), *self._settle_if_done(ctx)]
        return [*write, *self._compare_at_once(ctx), *self._train(ctx)]

    def _on_kept(self, ctx: Context, event: Published) -> list[Effect]:
        offer = self._own.keep.on_written(event)
        if offer is None or self._phase is Phase.DONE:
            return []
        target = ctx.manifest.target_loss
        if target is not None and offer.loss <= target:
            finish = self._reach_target(f"target reached here: loss {offer.loss:.4g}")
            return [*self._own.tell(), Adopt("final", offer.blob), *finish]
        return [*self._own.tell(), *self._settle_if_done(ctx)]

    def _recover(self, ctx: Context) -> list[Effect]:
        """Training diverged: go back, and more carefully."""
        self._own.be_careful()
        self._diverged += 1
        self._point += 1
        note = Note("diverged", {"step": self._own.step, "lr_scale": self._own.lr_scale})
        if self._own.keep.offer is None or self._diverged > 1:
            return [note, Fresh(ctx.rng.getrandbits(32), self._own.lr_scale)]
        return [note, Adopt("back", self._own.keep.offer.blob, OptimizerState.RESET, self._own.lr_scale)]

    def _train(self, ctx: Context) -> list[Effect]:
        """Begin a round, unless one is under way."""
        if self._trains or self._own.is_done(ctx):
            return []
        self._trains = True
        return [self._own.train(ctx, self._config.round_steps)]

    def _settle_if_done(self, ctx: Context) -> list[Effect]:
        waiting = self._trains or self._own.keep.is_writing or not self._own.is_done(ctx)
        return [] if waiting else self._begin_settling(ctx)

    # -- step 5 ------------------------------------------------------------------------------------

    def _compare_at_once(self, ctx: Context) -> list[Effect]:
        """Compare now, if that is wanted; who has just started again trains first."""
        due = self._config.compare is Compare.ALWAYS and self._own.step > self._began_step
        return self._compare(ctx) if due and not self._own.is_done(ctx) else []

    def _compare(self, ctx: Context) -> list[Effect]:
        if self._phase is not Phase.RUN or self._claim is not None or not math.isfinite(self._own.loss):
            return []
        if sought := self._seek_again(ctx):  # nobody looked for the target while a claim was checked
            return sought
        if not self._is_loser(ctx):
            return []
        others = self._others(ctx)
        if not others:
            return []
        if others[0][1].loss >= self._own.loss - self._config.margin * abs(self._own.loss):
            return []
        if ctx.manifest.steps and self._own.step < self._config.explore * ctx.manifest.steps:
            return self._start_again(ctx, others)
        return self._pick(ctx, best_of(others))

    def _start_again(self, ctx: Context, others: list[tuple[Stated, Offer]]) -> list[Effect]:
        """Leave the own point for one that may lead elsewhere."""
        config, own = self._config, self._own
        if config.again is Again.PERTURBED:
            return self._pick(ctx, best_of(others), config.noise)
        fields = {"step": own.step, "loss": own.loss, "how": str(config.again)}
        note = Note("restarted", fields)
        if config.again is Again.FRESH:
            return [note, self._fresh(ctx.rng)]
        own.lr_scale = self._inherit(ctx, own.lr_scale)
        self._begin_from(math.inf)
        return [
            note,
            Fresh(ctx.rng.getrandbits(32), out=POINT),
            Combine("point", POINT, ((1 - config.noise, OWN), (config.noise, POINT))),
            Adopt("adopt", POINT, OptimizerState.RESET, own.lr_scale),
        ]

    def _is_loser(self, ctx: Context) -> bool:
        own, oldest, me = self._own.loss, ctx.now - self._config.fresh_s, ctx.me
        losses = [
            entry.report.message.loss
            for entry in ctx.ledger.entries()
            if entry.seen >= oldest and entry.report.sender != me
        ]
        better = sum([loss < own for loss in losses])
        return bool(losses) and better >= math.ceil((1 - self._config.worst) * len(losses))

    def _others(self, ctx: Context) -> list[tuple[Stated, Offer]]:
        """Believable offers of others, best first."""
        return [
            (stated, offer)
            for stated, offer in ctx.ledger.ranked(ctx.now, self._config.fresh_s, ctx.me)
            if ctx.trusts(stated.sender) and self._tried.may_try(offer.blob, ctx.now)
        ]

    def _pick(self, ctx: Context, offers: list[tuple[Stated, Offer]], noise: float = 0.0) -> list[Effect]:
        """Fetch any of them: among liars the best claim is always a lie."""
        stated, offer = ctx.rng.choice(offers)
        self._claim = Claim(stated, offer, noise)
        self._picks += 1
        return [ctx.fetch(stated.sender, offer)]

    def _tag(self, what: str) -> str:
        """Name what is asked about this claim: answers about an earlier one mean nothing."""
        return f"{what}:{self._picks}"

    # -- step 6 ------------------------------------------------------------------------------------

    def _seek_target(self, ctx: Context, reports: list[Stated]) -> list[Effect]:
        target = ctx.manifest.target_loss
        if target is None or self._claim is not None or self._phase is Phase.DONE:
            return []
        if not any(r.message.offer and r.message.offer.loss <= target for r in reports):
            return []
        reached = [(stated, offer) for stated, offer in self._others(ctx) if offer.loss <= target]
        return self._pick(ctx, reached) if reached else []

    def _seek_again(self, ctx: Context) -> list[Effect]:
        if ctx.manifest.target_loss is None:
            return []
        return self._seek_target(ctx, [entry.report for entry in ctx.ledger.entries()])

    # -- another's weights, checked ----------------------------------------------------------------

    def _on_fetched(self, event: Fetched) -> list[Effect]:
        claim = self._claim
        if claim is None or claim.offer.blob != event.blob or self._phase is Phase.DONE:
            return []
        return [Evaluate(self._tag("claim"), (OWN, event.blob), examples_max=self._config.claim_examples)]

    def _on_claim_lost(self, ctx: Context, blob: BlobId) -> list[Effect]:
        if self._claim is None or self._claim.offer.blob != blob:
            return []
        self._claim = None
        # Another one at once would fail too, while the line is full.
        return [SetTimer("seek", self._tried.on_lost(blob, ctx.now))]

    def _on_claim_measured(self, ctx: Context, event: Evaluated) -> list[Effect]:
        claim, self._claim = self._claim, None
        if claim is None or self._phase is Phase.DONE:
            return []
        own, measured = event.losses[0], event.losses[1]
        if not measured <= claim_limit(claim.offer.loss, self._config.tolerance, event.errors[1]):
            detail = f"claimed {claim.offer.loss:.4g}, measured {measured:.4g}"
            accuse = Accuse(claim.stated.sender, Offence.FALSE_CLAIM, detail)
            self._tried.on_lie(claim.offer.blob)
            return [accuse, *(self._seek_again(ctx) or [SetTimer("seek", SEEK_AGAIN_S)])]
        target = ctx.manifest.target_loss
        if target is not None and measured <= target + self._config.tolerance * abs(target):
            adopt = self._adopt(ctx, replace(claim, noise=0.0), measured)
            self._own.accuracy = None
            if self._own.keep.offer is None or measured < self._own.keep.offer.loss:
                self._own.keep.offer = replace(claim.offer, loss=measured)
            why = f"target reached by {short(claim.stated.sender)}: loss {measured:.4g}"
            return [*adopt, *self._own.tell(), *self._reach_target(why)]
        if math.isfinite(own) and measured >= own - self._config.margin * abs(own):
            return []
        return self._adopt(ctx, claim, measured)

    def _inherit(self, ctx: Context, lr_scale: float) -> float:
        """Return a learning rate factor like the parent's, a little changed in a population."""
        jitter = ctx.rng.choice((0.8, 1.0, 1.25)) if self._config.lr_spread else 1.0
        most = math.exp(self._config.lr_spread)  # a liar's rate must not stop or blow up the training
        return max(LR_SCALE_MIN / most, min(most, lr_scale * jitter))

    def _adopt(self, ctx: Context, claim: Claim, measured: float) -> list[Effect]:
        scale = self._own.lr_scale = self._inherit(ctx, claim.offer.lr_scale)
        self._begin_from(measured)
        blob, noise = claim.offer.blob, claim.noise
        fields = {"from": short(claim.stated.sender), "loss": measured, "step": self._own.step}
        note = Note("adopted", fields | ({"how": str(Again.PERTURBED)} if noise else {}))
        if not noise:
            return [note, Adopt("adopt", blob, OptimizerState.KEEP, scale)]
        draws = [Fresh(ctx.rng.getrandbits(32), out=slot) for slot in (POINT, OTHER)]
        # Two points that are as random: whatever is the same at every start cancels out.
        noisy = Combine("point", POINT, ((1.0, blob), (noise, POINT), (-noise, OTHER)))
        return [note, *draws, noisy, Adopt("adopt", POINT, OptimizerState.RESET, scale)]

    # -- the end -----------------------------------------------------------------------------------

    def _begin_settling(self, ctx: Context) -> list[Effect]:
        if self._phase is not Phase.RUN:
            return []
        self._phase = PHASES[self._phase, "own steps done"]
        self._claim = None
        return self._ending.begin(ctx, self._own)

    def _settle(self, ctx: Context, event: Event) -> list[Effect]:
        effects = self._ending.handle(ctx, event, self._own)
        if self._ending.is_over:
            self._phase = PHASES[self._phase, "best result chosen"]
        return effects

    def _reach_target(self, reason: str) -> list[Effect]:
        self._phase = PHASES[self._phase, "target reached"]
        return [Finish(reason)]


def best_of(offers: list[tuple[Stated, Offer]]) -> list[tuple[Stated, Offer]]:
    """Return the first quarter."""
    return offers[: max(1, len(offers) // 4)]
