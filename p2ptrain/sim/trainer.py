"""A learner in virtual time: steps take time, and other work gets in between, as in the real trainer."""

import math
from collections.abc import Callable
from typing import Protocol

from p2ptrain.core.effects import Combine, Drop, Effect, Evaluate, Guide, Halt, Train
from p2ptrain.core.inputs import Input, Trained, TrainerReady
from p2ptrain.core.types import OWN, BlobId, Seconds
from p2ptrain.sim.poison import Poison


class Learner(Protocol):
    """Carries out the effects of learning at once.

    poison: what is done to weights before they are offered; None for honest peers.
    """

    poison: Poison | None

    def ready(self) -> TrainerReady:
        """Load the last checkpoint."""
        ...

    def accept(self, blob: BlobId, source: "Learner") -> str:
        """Take another's weights over; say why they are refused, empty if they are good."""
        ...

    def perform(self, effect: Effect) -> Input | None:
        """Carry out one effect."""
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
        step_s: virtual seconds of one optimiser step.
    """

    __slots__ = (
        "_answer",
        "_guide",
        "_job",
        "_last",
        "_learner",
        "_losses",
        "_round",
        "_since",
        "_step_s",
        "_todo",
        "_wake",
    )

    def __init__(
        self, learner: Learner, ready: TrainerReady, step_s: Seconds, answer: Answer, wake: Wake
    ) -> None:
        self._learner = learner
        self._step_s = step_s
        self._answer = answer
        self._wake = wake
        self._todo = self._round = 0
        self._guide: Guide | None = None
        self._since: Seconds = 0.0
        self._job = 0
        self._losses: list[tuple[int, float]] = []
        self._last = Trained(ready.step, ready.samples, math.nan, 0.0)

    def perform(self, now: Seconds, effect: Effect) -> None:
        """Begin an effect; its answer comes later."""
        if touches_own(effect):
            self._catch_up(now)
        if isinstance(effect, Train):
            self._since = self._since if self._todo else now
            self._todo += effect.steps
            self._round, self._guide = effect.round, effect.guide
            self._schedule()
        elif isinstance(effect, Halt):
            if self._todo:
                self._todo = 0
                self._finish()
        else:
            delay = (
                self._step_s * EVALUATION_STEPS * len(effect.refs) if isinstance(effect, Evaluate) else 0.0
            )
            answer = self._learner.perform(effect)
            if answer is not None:
                self._answer(delay, answer)
            if self._todo and delay:
                self._since += delay
                self._schedule()

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
        self._last = result
        self._losses.append((due, result.loss))
        self._todo -= due
        self._since += due * self._step_s
        if self._todo == 0:
            self._finish()

    def _finish(self) -> None:
        last = self._last
        steps = sum(count for count, _ in self._losses)
        loss = sum(count * loss for count, loss in self._losses) / steps if steps else math.nan
        self._losses.clear()
        self._answer(0.0, Trained(last.step, last.samples, loss, steps * self._step_s))
