"""A task trained by this computer alone, watched from second to second: the same engine as in a swarm."""

import math
import time
from collections.abc import Callable, Iterator
from math import inf

from msgspec import Struct

from p2ptrain.core import inputs
from p2ptrain.core.effects import Checkpoint, Evaluate, Split, Train
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.types import OWN, Seconds
from p2ptrain.learn import result
from p2ptrain.learn.blame import own_code
from p2ptrain.learn.device import describe
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.result import Result
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.weights.checkpoint import MemoryCheckpoints, fingerprint
from p2ptrain.learn.wire import Setup

SLICE_S = 0.25
"""So long one look takes."""

MEASURE_EXAMPLES = 1000
MEASURE_SHARE = 0.1
MEASURE_EVERY_S = 2.0
"""On so many held out examples accuracy is measured, that often at most, and in that share of the time."""


class Look(Struct, frozen=True):
    """How training goes. `loss`: mean over the last slice. `held_out`: loss and accuracy, None: not yet.

    seconds: of training, without measuring.
    """

    step: int
    samples: int
    seconds: Seconds
    samples_per_s: float
    loss: float
    held_out: tuple[float, float | None] | None = None
    is_measured: bool = False


class Alone:
    """One run.

    Attributes:
        device: in words.
        notices: what the owner should read.

    Raises:
        ManifestError, ConfigError: the task, its data or the device is not here.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._checkpoints = MemoryCheckpoints()
        with own_code("the task cannot be trained"):
            self._engine = Engine(setup, MemoryBlobs(), self._checkpoints)
        if setup.threads == 0 and self._engine.device.type == "cpu":
            self._engine.choose_threads()
        self.device = describe(self._engine.device)
        self.notices = self._engine.notices

    def train(self, seconds: Seconds, enough: Callable[[], bool]) -> Iterator[Look]:
        """Train for `setup.steps` steps (0: no end), or so long, or until it is enough.

        Raises:
            WeightsError: training diverged.
        """
        spent, measuring, last, slice_steps = 0.0, 0.0, -inf, 1
        held_out = None
        step = samples = 0
        while spent < seconds and (step < self._setup.steps or not self._setup.steps) and not enough():
            left = self._setup.steps - step if self._setup.steps else slice_steps
            trained = self._train(min(slice_steps, left))
            rate = (trained.samples - samples) / trained.seconds if trained.seconds else 0.0
            slice_s = trained.seconds / max(1, trained.step - step)
            step, samples, spent = trained.step, trained.samples, spent + trained.seconds
            slice_steps = max(1, min(2 * slice_steps, round(SLICE_S / slice_s) if slice_s else slice_steps))
            is_due = spent - last >= MEASURE_EVERY_S and measuring <= MEASURE_SHARE * spent
            if is_due:
                held_out, took = self._measure()
                measuring, last = measuring + took, spent
            yield Look(step, samples, spent, rate, trained.loss, held_out, is_due)

    def result(self) -> Result:
        """Return the net as it is now."""
        self._engine.perform(Checkpoint(b""))
        made = result.build(self._setup)
        same = fingerprint(made.task, made.cfg, self._setup.seed, made.vector.spec)
        state, _ = self._checkpoints.load(same)
        assert state is not None
        made.load_state(state)
        return made

    def _train(self, steps: int) -> inputs.Trained:
        with own_code("training fails"):
            trained = self._engine.perform(Train(steps))
        assert isinstance(trained, inputs.Trained)
        if not math.isfinite(trained.loss):
            raise WeightsError(
                f"training diverged: the loss is {trained.loss} after {trained.step} steps",
                "lower the learning rate: `--set lr=…`",
            )
        return trained

    def _measure(self) -> tuple[tuple[float, float | None], Seconds]:
        began = time.perf_counter()
        with own_code("measuring fails"):
            answer = self._engine.perform(Evaluate("alone", (OWN,), Split.VALIDATION, MEASURE_EXAMPLES))
        if not isinstance(answer, inputs.Evaluated):
            raise WeightsError(f"the weights cannot be measured: {getattr(answer, 'reason', answer)}")
        accuracy = answer.accuracies[0]
        return (answer.losses[0], None if math.isnan(accuracy) else accuracy), time.perf_counter() - began
