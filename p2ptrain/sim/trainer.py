"""A learner in virtual time: steps take time, and other work gets in between, as in the real trainer."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from p2ptrain.core.effects import Combine, Drop, Effect, Evaluate, Guide, Halt, Stage, Train
from p2ptrain.core.inputs import Input, Layer, Trained, TrainerReady
from p2ptrain.core.types import OWN, BlobId, Ranges, Ref, Seconds, Slot
from p2ptrain.sim.poison import Poison


class Learner(Protocol):
    """Carries out the effects of learning at once.

    poison: what is done to weights before they are offered; None for honest peers.
    layers: of the net.
    line_bytes: a batch sends from one peer of a line to the next, and back, as far as is known.
    """

    poison: Poison | None

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    @property
    def line_bytes(self) -> int: ...

    def ready(self) -> TrainerReady:
        """Load the last checkpoint."""
        ...

    def accept(self, blob: BlobId, source: "Learner") -> str:
        """Take another's weights over; say why they are refused, empty if they are good."""
        ...

    def perform(self, effect: Effect) -> Input | None:
        """Carry out one effect."""
        ...

    def step_in_line(self, line: "Sequence[tuple[Any, Stage]]") -> list[Trained]:
        """Take a step as a line of learners of this kind, this one first; return what each of them did.

        A loss that is not finite: this one's numbers are not, and the line is over.
        """
        ...

    def contribution(self, ref: Ref, ranges: Ranges) -> Any | None:
        """Return what it gives to a ring, a sequence of numbers; None: it has nothing that is finite."""
        ...

    def mean(self, parts: Sequence[tuple[float, Any]]) -> Any | None:
        """Return the mean of weighted contributions of this kind, in this order; None: it is not finite."""
        ...

    def take_over(self, out: Slot, ranges: Ranges, numbers: Any) -> str:
        """Put a mean into a slot; say why it is refused, empty if it is good."""
        ...

    def score(self) -> tuple[float, float | None]:
        """Return loss and accuracy of the own weights on the test split; None: the task has none."""
        ...


Answer = Callable[[Seconds, Input], None]
"""Delivers an input after so many seconds."""

Wake = Callable[[Seconds, int], None]
"""Calls `on_wake` with the number after so many seconds."""

ROUNDING = 1 + 1e-9
"""A sum of steps must not come out a hair before the last one is due."""

EVALUATION_STEPS = 1.0
"""Measuring one set of weights takes as long as that many steps (guess)."""


def share_of(guide: Guide | None, layers: tuple[Layer, ...]) -> float:
    """Return how long a guided step takes, as a share of a whole one.

    A third of a layer's cost is its output, a third the gradient of its input, a third that of its weights.
    Layers before the trained ones give their output only; those after them output and the gradient of
    their input, or nothing where the loss is local. So a local loss divides the work, and the global one
    saves a third at most (ALGORITHMS 4.3).
    """
    if guide is None or guide.layers is None or not layers:
        return 1.0
    first, last = guide.layers
    before, trained, after = (
        sum(layer.cost for layer in some) for some in (layers[:first], layers[first:last], layers[last:])
    )
    whole = before + trained + after
    return (before / 3 + trained + (0.0 if guide.local else after * 2 / 3)) / whole if whole > 0 else 1.0


def touches_own(effect: Effect) -> bool:
    """Say whether an effect reads or changes the weights in training."""
    match effect:
        case Evaluate():
            return OWN in effect.refs
        case Combine():
            return effect.out == OWN or any(ref == OWN for _, ref in effect.terms)
        case _:
            return not isinstance(effect, Drop)


class SimTrainer:
    """Runs one learner on a virtual processor.

    Args:
        ready: what the learner resumed from.
        step_s: virtual seconds of one optimiser step of the whole net.

    Attributes:
        last: the last steps, taken here or in a line.
    """

    __slots__ = (
        "_answer",
        "_busy_s",
        "_guide",
        "_job",
        "_layers",
        "_learner",
        "_losses",
        "_round",
        "_since",
        "_step_s",
        "_todo",
        "_wake",
        "_whole_step_s",
        "last",
    )

    def __init__(
        self, learner: Learner, ready: TrainerReady, step_s: Seconds, answer: Answer, wake: Wake
    ) -> None:
        self._learner = learner
        self._layers = ready.layers
        self._whole_step_s = self._step_s = step_s
        self._busy_s: Seconds = 0.0
        self._answer = answer
        self._wake = wake
        self._todo = self._round = 0
        self._guide: Guide | None = None
        self._since: Seconds = 0.0
        self._job = 0
        self._losses: list[tuple[int, float]] = []
        self.last = Trained(ready.step, ready.samples, math.nan, 0.0)

    def perform(self, now: Seconds, effect: Effect) -> None:
        """Begin an effect; its answer comes later."""
        if touches_own(effect):
            self._catch_up(now)
        if isinstance(effect, Train):
            self._since = self._since if self._todo else now
            self._todo += effect.steps
            self._round, self._guide = effect.round, effect.guide
            self._step_s = self._whole_step_s * share_of(effect.guide, self._layers)
            self._schedule()
        elif isinstance(effect, Halt):
            if self._todo:
                self._todo = 0
                self._finish()
        else:
            sets = len(effect.refs) if isinstance(effect, Evaluate) else 0
            delay = self._whole_step_s * EVALUATION_STEPS * sets
            answer = self._learner.perform(effect)
            if answer is not None:
                self._answer(delay, answer)
            if self._todo and delay:
                self._since += delay
                self._schedule()

    def contribution(self, now: Seconds, ref: Ref, ranges: Ranges) -> Any | None:
        """Return what the learner gives to a ring now."""
        if ref == OWN:
            self._catch_up(now)
        return self._learner.contribution(ref, ranges)

    def on_wake(self, now: Seconds, job: int) -> None:
        """The training that was begun last should be done."""
        if job != self._job or self._todo == 0:
            return
        self._catch_up(now)
        if self._todo:
            self._schedule()

    def _schedule(self) -> None:
        self._job += 1
        self._wake(self._todo * self._step_s * ROUNDING, self._job)

    def _catch_up(self, now: Seconds) -> None:
        """Take the steps that the time so far allowed: whatever comes now sees the weights of now."""
        due = min(self._todo, max(0, math.floor((now - self._since) / self._step_s)))
        if due == 0:
            return
        result = self._learner.perform(Train(due, self._round, self._guide))
        if not isinstance(result, Trained):
            self._todo = 0
            if result is not None:
                self._answer(0.0, result)
            return
        self.last = result
        self._losses.append((due, result.loss))
        self._todo -= due
        self._since += due * self._step_s
        self._busy_s += due * self._step_s
        if self._todo == 0:
            self._finish()

    def _finish(self) -> None:
        last = self.last
        steps = sum(count for count, _ in self._losses)
        loss = sum(count * loss for count, loss in self._losses) / steps if steps else math.nan
        self._losses.clear()
        seconds, self._busy_s = self._busy_s, 0.0
        self._answer(0.0, Trained(last.step, last.samples, loss, seconds))
