"""One client's part of a round: from the global weights to the own way.

The weights are fetched, measured against those before, and adopted if they are no worse than they may be;
after some steps from them the way is measured and written. Where nothing came of it, that is said too.
"""

import math

from msgspec.structs import replace

from p2ptrain.core import limits
from p2ptrain.core.effects import (
    Accuse,
    Adopt,
    Combine,
    Effect,
    Evaluate,
    Guide,
    Halt,
    Note,
    OptimizerState,
    Publish,
    SetTimer,
)
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, LearnFailed, Published, TimerFired, Trained
from p2ptrain.core.intake import Intake
from p2ptrain.core.messages import Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import OWN, BlobId, Ref, Seconds, Slot, short
from p2ptrain.strategies.federated.gather import MIX
from p2ptrain.strategies.federated.jobs import PHASES, Algorithm, Job, Phase, Way

WAY = Slot(Ref("way"))
CONTROL = Slot(Ref("control"))
SHIFT = Slot(Ref("shift"))

LIMIT_ALIKE = 1.5
LIMIT_APART = 3.0
SLACK_ALIKE = 0.05
SLACK_APART = 1.0
"""New global weights may have so many times the loss of those before, and a little more: with data of one
kind, and where parts differ and a round may lose what the next one finds again (guess)."""


class Client:
    """One after the other.

    Args:
        intake: what others have is fetched through it; who owns it says what came.
        pull: of FedProx.

    Attributes:
        alike: all have data of one kind.
        adopted: the last global weights that were found good here.
        way: of the last job.
    """

    __slots__ = (
        "_algorithm",
        "_control",
        "_count",
        "_examples",
        "_has_control",
        "_has_shift",
        "_intake",
        "_kept",
        "_pull",
        "_report_s",
        "_round_steps",
        "_since",
        "_train_loss",
        "adopted",
        "alike",
        "job",
        "own",
        "phase",
        "way",
    )

    def __init__(
        self,
        intake: Intake[object],
        algorithm: Algorithm,
        *,
        round_steps: int,
        examples: int,
        pull: float,
        report_s: Seconds,
    ) -> None:
        self._intake, self._algorithm = intake, algorithm
        self._round_steps, self._examples = round_steps, examples
        self._pull, self._report_s = pull, report_s
        self.alike = True
        self.phase = Phase.WAIT
        self.own = Progress()
        self.job: Job | None = None
        self.way: Way | None = None
        self._kept: Way | None = None
        self.adopted: BlobId | None = None
        self._count = 0
        self._since = (0, 0)
        self._train_loss = 0.0
        self._control: BlobId | None = None
        self._has_control = self._has_shift = False

    def _turn(self, cause: str) -> None:
        self.phase = PHASES[self.phase, cause]

    def _tag(self, what: str) -> str:
        """Name what is asked in this job: answers to an earlier one mean nothing."""
        return f"{what}:{self._count}"

    # -- a job comes -------------------------------------------------------------------------------

    def take(self, ctx: Context, job: Job) -> list[Effect]:
        """Go from these weights; what is under way from the same ones goes on."""
        before, busy = self.job, self.phase not in (Phase.WAIT, Phase.ALONE)
        if busy and before is not None and before.author == job.author and before.number > job.number:
            return []  # that word came late
        self.job = job
        busy = busy and self.phase is not Phase.HALT
        if busy and before is not None and before.offer.blob == job.offer.blob and not job.is_last:
            return []
        if self.phase in (Phase.TRAIN, Phase.ALONE):
            self._turn("a task came")
            return [Halt()]
        if self.phase is Phase.HALT:
            return []
        self._turn("a task came")
        return self._begin(ctx, job)

    def _begin(self, ctx: Context, job: Job) -> list[Effect]:
        self._count += 1
        control = job.control if self._algorithm is Algorithm.SCAFFOLD else None
        self._control = control.blob if control else None
        effects = self._intake.add(ctx, job.author, job.offer, job)
        return effects + (self._intake.add(ctx, job.author, control, job) if control else [])

    def on_fetched(self, ctx: Context) -> list[Effect]:
        """Something came that may be what is waited for."""
        job = self.job
        if self.phase is not Phase.FETCH or job is None or not ctx.holds(job.offer.blob):
            return []
        if self._control is not None and not ctx.holds(self._control):
            return []
        self._turn("weights came")
        return self._check(ctx, job)

    def review(self, ctx: Context) -> list[Effect]:
        """See whether what is waited for is still being fetched."""
        job = self.job
        if self.phase is not Phase.FETCH or job is None:
            return []
        for blob in filter(None, (self._control, job.offer.blob)):
            if not (ctx.holds(blob) or self._intake.wants(blob)):
                return self.on_lost(ctx, blob)
        return self.on_fetched(ctx)

    def on_lost(self, ctx: Context, blob: BlobId) -> list[Effect]:
        """Something did not come, although it was asked for again."""
        job = self.job
        if self.phase is not Phase.FETCH or job is None:
            return []
        if blob == self._control:
            self._control = None
            return self.on_fetched(ctx)
        if blob != job.offer.blob:
            return []
        self._turn("weights did not come")
        return self._nothing(ctx)

    def _check(self, ctx: Context, job: Job) -> list[Effect]:
        """Measure them beside those before; and where the mean way of all leads, if it is to be followed."""
        tag, new = self._tag("check"), job.offer.blob
        before = self.adopted if self.adopted is not None and ctx.holds(self.adopted) else OWN
        if self._control is None:
            return [Evaluate(tag, (before, new), examples_max=self._examples)]
        ahead = Combine(tag, MIX, ((1.0, new), (float(self._round_steps), self._control)))
        return [ahead, Evaluate(tag, (before, new, MIX), examples_max=self._examples)]

    def _on_checked(self, ctx: Context, job: Job, event: Evaluated) -> list[Effect]:
        before, new, *ahead = event.losses
        is_own = job.author == ctx.me and math.isfinite(new)  # it was measured when it was made
        if not (is_own or new <= self.bearable(before, event.errors[1])):
            self._turn("they are useless")
            self.way = None
            note = Note("refused", {"peer": short(job.author), "loss": before, "global": new})
            detail = f"global weights of loss {new:.4g}, before {before:.4g}"
            return [note, Accuse(job.author, Offence.FALSE_CLAIM, detail)] if job.author != ctx.me else [note]
        if not (ahead and ahead[0] <= LIMIT_APART * abs(new) + SLACK_APART):
            self._control = None
        self.adopted = job.offer.blob
        adopt = Adopt(self._tag("adopt"), self.adopted, OptimizerState.RESET)
        if job.is_last:
            self._turn("they are the result")
            return [adopt, *self._measure_result(self.adopted)]
        if self.own.is_done(ctx):
            self._turn("no steps are left")
            return self._nothing(ctx)
        self._turn("they are good")
        due = self.own.is_due(ctx.now, self._report_s)
        look: list[Effect] = [Evaluate(self._tag("own"), (self.adopted,))] if due else []
        return [adopt, *look, *self._train(ctx, job)]

    def bearable(self, before: float, error: float) -> float:
        """Return the largest loss that new global weights may have.

        Args:
            before: loss of those before.
            error: standard error of the new one.
        """
        if not math.isfinite(before):
            return math.inf if math.isnan(before) else before
        if self.alike:
            return LIMIT_ALIKE * abs(before) + 3 * error + SLACK_ALIKE
        return LIMIT_APART * abs(before) + SLACK_APART

    def has_way(self, ctx: Context, job: Job) -> bool:
        """Say whether it was gone from these weights in this round already: then it is `way` again."""
        kept = self._kept
        if kept is None or (kept.number, kept.base) != (job.number, job.offer.blob):
            return False
        self.way = kept
        return kept.offer is not None and ctx.holds(kept.offer.blob)

    def pass_by(self, ctx: Context, job: Job) -> None:
        """Nothing comes of a job; if that was said, it is the same again."""
        known = self.way
        if known is None or known.offer is not None or (known.number, known.base) != _goal(job):
            self.way = Way(*_goal(job), ctx.rng.getrandbits(48) + 1)

    # -- training ----------------------------------------------------------------------------------

    def _train(self, ctx: Context, job: Job) -> list[Effect]:
        self._since = self.own.step, self.own.samples
        effects: list[Effect] = []
        guide = None
        if self._algorithm is Algorithm.FEDPROX:
            guide = Guide(towards=job.offer.blob, pull=self._pull)
        self._has_shift = self._control is not None
        if self._control is not None:
            terms: tuple[tuple[float, Ref], ...] = ((1.0, self._control), (-1.0, CONTROL))
            terms = terms if self._has_control else terms[:1]
            effects.append(Combine(self._tag("shift"), SHIFT, terms))
            guide = Guide(shift=SHIFT)
        if job.deadline_s:
            effects.append(SetTimer("deadline", job.deadline_s))
        train = self.own.train(ctx, self._round_steps)
        return [*effects, replace(train, round=job.number, guide=guide)]

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer what the trainer did."""
        job = self.job
        match event:
            case Trained():
                self.own.take(event)
                return self._on_trained(ctx, event)
            case TimerFired(key="deadline") if self.phase is Phase.TRAIN:
                return [Halt()]
            case LearnFailed(tag="train") if self.phase in (Phase.TRAIN, Phase.HALT):
                return self._on_stopped(ctx)
            case Evaluated(tag=tag) if tag == self._tag("check") and self.phase is Phase.CHECK and job:
                return self._on_checked(ctx, job, event)
            case Evaluated(tag=tag) if tag == self._tag("own"):
                return self._on_measured(ctx, event)
            case Evaluated(tag=tag) if tag == self._tag("local") and self.phase is Phase.HAND_IN and job:
                return self._on_local(ctx, job, event)
            case Published(tag=tag) if tag == self._tag("way") and self.phase is Phase.HAND_IN:
                return self._on_written(event)
            case LearnFailed(tag=tag):
                return self._on_failed(ctx, tag)
            case _:
                return []

    def _on_trained(self, ctx: Context, event: Trained) -> list[Effect]:
        job = self.job
        if self.phase is Phase.HALT:
            return self._on_stopped(ctx)
        if self.phase is Phase.ALONE:
            self._turn("steps taken")
            return self._measure_result(OWN)
        if self.phase is not Phase.TRAIN or job is None:
            return []
        self._turn("steps taken")
        self._train_loss = event.loss if abs(event.loss) <= limits.ABSOLUTE_NUMBER_MAX else 0.0
        way = Combine(self._tag("way"), WAY, ((1.0, OWN), (-1.0, job.offer.blob)))
        return [way, Evaluate(self._tag("local"), (OWN,), examples_max=self._examples)]

    def _on_stopped(self, ctx: Context) -> list[Effect]:
        if self.phase is Phase.TRAIN:
            self._turn("it failed")
            return self._nothing(ctx)
        self._turn("stopped")
        assert self.job is not None
        return self._begin(ctx, self.job)

    def _on_local(self, ctx: Context, job: Job, event: Evaluated) -> list[Effect]:
        steps = self.own.step - self._since[0]
        loss = event.losses[0]
        if steps <= 0 or not math.isfinite(loss):
            self._turn("it failed")
            return [*(self._recover(job) if steps > 0 else []), *self._nothing(ctx)]
        self.way = Way(
            job.number,
            job.offer.blob,
            ctx.rng.getrandbits(48) + 1,
            Offer(job.offer.blob, 1, loss),
            steps,
            max(1, self.own.samples - self._since[1]),
            self._train_loss,
        )
        return [*self._note_control(steps), Publish(self._tag("way"), WAY)]

    def _note_control(self, steps: int) -> list[Effect]:
        """The own way per step, without what was added to it."""
        if self._algorithm is not Algorithm.SCAFFOLD:
            return []
        self._has_control = True
        terms = ((1 / steps, WAY), (-1.0, SHIFT)) if self._has_shift else ((1 / steps, WAY),)
        return [Combine(self._tag("control"), CONTROL, terms)]

    def _on_written(self, event: Published) -> list[Effect]:
        self._turn("written")
        if self.way is not None and self.way.offer is not None:
            offer = Offer(event.blob, event.size_bytes, self.way.offer.loss)
            self.way = self._kept = replace(self.way, offer=offer)
        return []

    def _recover(self, job: Job) -> list[Effect]:
        """Training diverged: the global weights are good still; from now on more carefully."""
        self.own.be_careful()
        note = Note("diverged", {"step": self.own.step, "lr_scale": self.own.lr_scale})
        if self.adopted != job.offer.blob:
            return [note]
        return [note, Adopt(self._tag("back"), self.adopted, OptimizerState.RESET, self.own.lr_scale)]

    def _nothing(self, ctx: Context) -> list[Effect]:
        """Nothing came of this job; whoever waits for it is to know."""
        if self.job is not None:
            self.pass_by(ctx, self.job)
        return []

    def _on_failed(self, ctx: Context, tag: str) -> list[Effect]:
        if self.phase is Phase.CHECK and tag == self._tag("check"):
            self._turn("they are useless")
            return self._nothing(ctx)
        if self.phase is Phase.HAND_IN and tag in (self._tag("way"), self._tag("local")):
            self._turn("it failed")
            return self._nothing(ctx)
        if self.phase is Phase.END and tag == self._tag("own"):
            self._turn("measured")
        return []

    # -- the end -----------------------------------------------------------------------------------

    def train_alone(self, ctx: Context) -> list[Effect]:
        """Nobody is there to hand anything in to, and nothing can be written: take all steps."""
        self._turn("nobody to hand in to")
        self._count += 1
        left = ctx.manifest.steps - self.own.step if ctx.manifest.steps else self._round_steps
        return [self.own.train(ctx, max(1, left))]

    def conclude(self, ctx: Context) -> list[Effect]:
        """No result comes any more: the last good global weights are it, or the own."""
        self._turn("no result came")
        self._count += 1
        if self.adopted is None or not ctx.holds(self.adopted):
            return self._measure_result(OWN)
        return [Adopt(self._tag("adopt"), self.adopted), *self._measure_result(self.adopted)]

    def _measure_result(self, ref: Ref) -> list[Effect]:
        return [Evaluate(self._tag("own"), (ref,))]

    def _on_measured(self, ctx: Context, event: Evaluated) -> list[Effect]:
        """What global weights are worth here is what this peer reports; the best of them is on offer."""
        best, job = self.own.keep.offer, self.job
        good = self.own.measure(event) and (best is None or self.own.loss < best.loss)
        if good and job is not None and job.offer.blob == self.adopted and ctx.holds(self.adopted):
            offer = Offer(self.adopted, job.offer.size_bytes, self.own.loss, self.own.lr_scale)
            self.own.keep.offer = offer
        if self.phase is Phase.END:
            self._turn("measured")
        return self.own.tell()


def _goal(job: Job) -> tuple[int, BlobId]:
    return job.number, job.offer.blob
