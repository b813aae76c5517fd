"""One peer's work on its layers: it looks at the common weights, trains, measures, and writes its layers.

Source: ALGORITHMS 2.3.
"""

import math
from enum import StrEnum

from msgspec import Struct

from p2ptrain.core.blocks import ranges_of
from p2ptrain.core.effects import Accuse, Adopt, Effect, Evaluate, Guide, Note, OptimizerState, Publish, Train
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Fetched, FetchFailed, Layer, LearnFailed, Published, Trained
from p2ptrain.core.messages import Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import OWN, PeerId, Seconds
from p2ptrain.strategies.layerwise.coordinating import LEFT_MAX, Plan
from p2ptrain.strategies.layerwise.messages import Assign, Result
from p2ptrain.strategies.layerwise.roster import STEPS_MAX
from p2ptrain.strategies.layerwise.succession import Newest, is_good

FETCH_TRIES = 3

MANNERS = ("local", "global", "whole")
"""How layers are trained, where a net does not allow what comes before: only they are offered in any case."""


class Phase(StrEnum):
    """What a peer does as one that trains; it may coordinate at the same time."""

    WAIT = "waiting for layers to train"
    ALONE = "training the whole net, nobody else is here"
    LOOK = "looking at the common weights"
    TRAIN = "training its layers"
    SHOW = "measuring and writing its layers"
    SETTLE = "own steps done, waiting for the others"
    DONE = "done"


PHASES = {
    (Phase.WAIT, "nobody else is here"): Phase.ALONE,
    (Phase.WAIT, "work came"): Phase.LOOK,
    (Phase.WAIT, "own steps done"): Phase.SETTLE,
    (Phase.ALONE, "steps taken"): Phase.WAIT,
    (Phase.LOOK, "weights are good"): Phase.TRAIN,
    (Phase.LOOK, "weights are bad, or did not come"): Phase.WAIT,
    (Phase.LOOK, "nothing is left to train"): Phase.WAIT,
    (Phase.TRAIN, "steps taken"): Phase.SHOW,
    (Phase.TRAIN, "weights were gone, or cannot be trained like this"): Phase.WAIT,
    (Phase.SHOW, "layers are written"): Phase.WAIT,
    (Phase.SHOW, "there is nothing good to write"): Phase.WAIT,
    (Phase.SETTLE, "best result chosen"): Phase.DONE,
}


class Work(Struct):
    """An assignment, and how far it is.

    begun: own steps before it.
    seconds: that training took.
    loss: with the trained layers, as measured.
    failures: so often the weights did not come.
    is_void: they were gone when training was to begin.
    """

    author: PeerId
    assign: Assign
    begun: int = 0
    seconds: Seconds = 0.0
    loss: float = math.nan
    failures: int = 0
    is_void: bool = False

    @property
    def key(self) -> tuple[int, str]:
        """What is trained from what: the same for all coordinators."""
        return self.assign.round, self.assign.blob


class Worker:
    """Does one assignment after the other.

    Args:
        own: progress of this peer.
        layers: of the net.
        report_s: time between two reports.

    Attributes:
        phase: changes by `turn` only.
        newest: the last common weights that were good here.
        number: of the round that these begin, or the own weights where there are none.
        next: an assignment that waits.
        work: the one under way.
        result: what came out of the last, until other common weights are taken over.
        is_held: something is missing: it is better not to try the next at once.
    """

    def __init__(self, own: Progress, layers: tuple[Layer, ...], plan: Plan, report_s: Seconds) -> None:
        self.phase = Phase.WAIT
        self.newest: Newest | None = None
        self.number = 0
        self.next: Work | None = None
        self.work: Work | None = None
        self.result: Result | None = None
        self.is_held = False
        self._own, self._layers, self._plan, self._report_s = own, layers, plan, report_s
        self._works = 0
        self._looked = ""
        self._has_diverged = False
        self._manner = 0

    def turn(self, cause: str) -> None:
        """Go on to the next phase."""
        self.phase = PHASES[self.phase, cause]

    def offer(self, work: Work) -> bool:
        """Say whether an assignment is new here; then it is the next, and it is the one that counts."""
        result = self.result
        is_done = result is not None and (result.round, result.base) == work.key
        is_known = is_done or (self.work is not None and self.work.key == work.key)
        self.next = self.next if is_known else work
        return not is_known

    def take_up(self, ctx: Context, work: Work) -> list[Effect]:
        """Begin with the assignment that waits: look at its weights, unless they are known."""
        self.work, self.next, self.is_held = work, None, False
        self._works += 1
        self.turn("work came")
        assign, newest = work.assign, self.newest
        if newest is not None and self._looked == assign.blob == newest.offer.blob:
            return self._accept(ctx, work, newest.offer.loss, self._own.accuracy)
        return [ctx.fetch(work.author, Offer(assign.blob, assign.size_bytes, assign.loss))]

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event; back in the first phase, the work is over."""
        work = self.work
        if work is None:
            return []
        match event, self.phase:
            case Fetched(blob=blob), Phase.LOOK if blob == work.assign.blob:
                return [Evaluate(self._tag("look"), (blob,), examples_max=self._plan.examples)]
            case FetchFailed(blob=blob), Phase.LOOK if blob == work.assign.blob:
                return self._on_fetch_failed(ctx, work)
            case Evaluated(), Phase.LOOK if event.tag == self._tag("look"):
                return self._on_looked(ctx, work, event)
            case Trained(), Phase.TRAIN:
                return self._on_trained(work, event)
            case Evaluated(), Phase.SHOW if event.tag == self._tag("show"):
                return self._on_shown(work, event)
            case Published(), Phase.SHOW if event.tag == self._tag("show"):
                return self._on_written(ctx, work, event)
            case LearnFailed(), _ if event.tag in (self._tag("look"), self._tag("show")):
                return self._on_learn_failed(work)
            case LearnFailed(tag="train"), Phase.TRAIN:
                return self._on_refused(event)
            case _:
                return []

    def _tag(self, what: str) -> str:
        """Name what is asked for this work: answers to an earlier one mean nothing."""
        return f"{what}:{self._works}"

    def _end(self, cause: str, *, is_held: bool = False) -> list[Effect]:
        self.turn(cause)
        self.work, self.is_held = None, is_held
        return []

    # -- looking -----------------------------------------------------------------------------------

    def _on_fetch_failed(self, ctx: Context, work: Work) -> list[Effect]:
        work.failures += 1
        if work.failures < FETCH_TRIES and ctx.trusts(work.author) and self.next is None:
            self.next = work
        return self._end("weights are bad, or did not come", is_held=True)

    def _on_looked(self, ctx: Context, work: Work, event: Evaluated) -> list[Effect]:
        (loss, *_), (error, *_), (accuracy, *_) = event.losses, event.errors, event.accuracies
        known = self.newest.offer.loss if self.newest else math.inf
        claimed = work.assign.loss
        if is_good(loss, error, claimed, known, self._plan.tolerance):
            self._looked = work.assign.blob
            return self._accept(ctx, work, loss, accuracy if math.isfinite(accuracy) else None)
        detail = f"claimed {claimed:.4g}, measured {loss:.4g}"
        accuse: list[Effect] = []
        if work.author != ctx.me:
            accuse = [Accuse(work.author, Offence.FALSE_CLAIM, detail)]
        return [*accuse, *self._end("weights are bad, or did not come", is_held=True)]

    def _accept(self, ctx: Context, work: Work, loss: float, accuracy: float | None) -> list[Effect]:
        """Go on from the common weights, with the own layers."""
        assign, own = work.assign, self._own
        offer = Offer(assign.blob, assign.size_bytes, loss, own.lr_scale)
        self.newest, self.number, self.result = Newest(assign.round, offer), assign.round, None
        own.loss, own.accuracy = loss, accuracy
        steps = min(assign.steps, self._plan.steps or STEPS_MAX, left_of(ctx, own))
        state, scale = OptimizerState.KEEP, None
        if self._has_diverged:
            self._has_diverged, state, scale = False, OptimizerState.RESET, own.lr_scale
        effects: list[Effect] = [Adopt(self._tag("look"), assign.blob, state, scale)]
        if own.is_due(ctx.now, self._report_s) or steps == 0:
            if not own.keep.is_writing and (own.keep.offer is None or loss < own.keep.offer.loss):
                own.keep.offer = offer
            effects += own.tell()
        if steps == 0:
            return [*effects, *self._end("nothing is left to train")]
        self.turn("weights are good")
        work.begun = own.step
        return [*effects, Train(steps, assign.round, self._guide(assign))]

    def _guide(self, assign: Assign) -> Guide | None:
        block, manner = (assign.begin, assign.end), MANNERS[self._manner]
        if block == (0, len(self._layers)) or manner == "whole":
            return None
        return Guide(layers=block, local=self._plan.local and manner == "local")

    # -- training and showing ----------------------------------------------------------------------

    def _on_trained(self, work: Work, event: Trained) -> list[Effect]:
        work.seconds = event.seconds
        if work.is_void:
            return self._end("weights were gone, or cannot be trained like this")
        self.turn("steps taken")
        return [Evaluate(self._tag("show"), (OWN,), examples_max=self._plan.examples)]

    def _on_shown(self, work: Work, event: Evaluated) -> list[Effect]:
        own = self._own
        work.loss = event.losses[0]
        if not math.isfinite(work.loss):
            own.be_careful()
            self._has_diverged = True
            note = Note("diverged", {"step": own.step, "lr_scale": own.lr_scale})
            return [note, *self._end("there is nothing good to write")]
        if own.step <= work.begun:
            return self._end("there is nothing good to write")
        ranges = ranges_of(self._layers, (work.assign.begin, work.assign.end))
        return [Publish(self._tag("show"), OWN, ranges=ranges)]

    def _on_written(self, ctx: Context, work: Work, event: Published) -> list[Effect]:
        assign = work.assign
        self.result = Result(
            assign.term,
            assign.round,
            assign.blob,
            assign.begin,
            assign.end,
            event.blob,
            event.size_bytes,
            work.loss,
            self._own.step - work.begun,
            work.seconds,
            left_of(ctx, self._own),
        )
        return self._end("layers are written")

    def _on_refused(self, event: LearnFailed) -> list[Effect]:
        """This net cannot be trained like this here: its layers by the loss of the whole, or all of them."""
        before, self._manner = self._manner, min(self._manner + 1, len(MANNERS) - 1)
        note = Note("guide_refused", {"manner": MANNERS[before], "reason": event.reason})
        return [note, *self._end("weights were gone, or cannot be trained like this", is_held=True)]

    def _on_learn_failed(self, work: Work) -> list[Effect]:
        """Weights were gone, or there is no room to write any."""
        match self.phase:
            case Phase.LOOK:
                return self._end("weights are bad, or did not come", is_held=True)
            case Phase.SHOW:
                return self._end("there is nothing good to write", is_held=True)
        work.is_void = True
        return []


def left_of(ctx: Context, own: Progress) -> int:
    """Return how many steps a peer may still take."""
    return max(0, ctx.manifest.steps - own.step) if ctx.manifest.steps else LEFT_MAX
