"""One task trained alone with certain settings, measured on the way: for comparing settings."""

from math import nan

import torch
from msgspec import Struct
from msgspec.structs import replace

from p2ptrain.core.effects import Evaluate, Split, Train
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import Evaluated, Trained
from p2ptrain.core.manifest import Settings
from p2ptrain.core.types import OWN, Seconds
from p2ptrain.learn import recipe as recipes
from p2ptrain.learn.data.splits import load, split
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.randomness import Randomness
from p2ptrain.learn.task import find
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.wire import Setup

POINTS = 12
"""Of a curve, besides its start."""

EXAMPLES = 1000
"""The curve and the result on training examples are measured on so many, the result on all of the test."""

POOL = 2
"""Nothing is decided here, so no more is held out than an engine demands."""


class Point(Struct, frozen=True):
    """One place of a curve.

    loss: mean over the training since the place before, with what training does by chance; NaN at the start.
    test_loss, test_accuracy: on the first `EXAMPLES` of the test; the accuracy is NaN where there is none.
    """

    step: int
    loss: float
    test_loss: float
    test_accuracy: float


class Result(Struct, frozen=True, kw_only=True):
    """What settings lead to. The accuracies are NaN where the task has none.

    lr: the learning rate before schedule and scale; None if the task makes its own optimizer.
    seconds: of training alone.
    """

    settings: Settings
    seed: int
    lr: float | None
    steps: int
    samples: int
    seconds: Seconds
    test_loss: float
    test_accuracy: float
    train_loss: float
    train_accuracy: float
    curve: list[Point]

    @property
    def samples_per_s(self) -> float:
        """Examples trained on in a second."""
        return self.samples / self.seconds if self.seconds else nan


def check(task: str, settings: Settings) -> float | None:
    """Return the learning rate that these settings of a task lead to; None if the task decides.

    Raises:
        ManifestError: there is no such task, or no such setting of it.
    """
    found = find(task)
    recipe = recipes.of(found, found.configure(settings))
    return recipe.rate if found.optimizer is None else None


def train(setup: Setup, epochs: int) -> Result:
    """Train for `setup.steps`, or if that is 0 for so many epochs.

    Raises:
        ManifestError, ConfigError: the task, its data or the device is not here.
    """
    setup = replace(setup, pool=POOL)
    if setup.steps == 0:
        setup = replace(setup, steps=epochs * _steps_of_an_epoch(setup))
    engine = Engine(setup, MemoryBlobs())
    if setup.threads == 0 and engine.device.type == "cpu":
        engine.choose_threads()
    curve = [_point(engine, 0, nan)]
    seconds, samples = 0.0, 0
    for number in range(POINTS):
        steps = setup.steps * (number + 1) // POINTS - setup.steps * number // POINTS
        if steps:
            trained = engine.perform(Train(steps))
            assert isinstance(trained, Trained)
            seconds, samples = seconds + trained.seconds, trained.samples
            curve.append(_point(engine, trained.step, trained.loss))
    on_test, on_training = _measure(engine, Split.TEST, 0), _measure(engine, Split.TRAINING, EXAMPLES)
    load.cache_clear()  # the next settings have data of their own
    return Result(
        settings=setup.task_config,
        seed=setup.seed,
        lr=check(setup.task, setup.task_config),
        steps=setup.steps,
        samples=samples,
        seconds=seconds,
        test_loss=on_test[0],
        test_accuracy=on_test[1],
        train_loss=on_training[0],
        train_accuracy=on_training[1],
        curve=curve,
    )


def _steps_of_an_epoch(setup: Setup) -> int:
    task = find(setup.task)
    cfg = task.configure(setup.task_config)
    cpu = torch.device("cpu")
    with Randomness(cpu).borrowed():
        count = len(split(task, cfg, cpu, setup).training)
    return count // min(count, recipes.of(task, cfg).batch_size)


def _point(engine: Engine, step: int, loss: float) -> Point:
    return Point(step, loss, *_measure(engine, Split.TEST, EXAMPLES))


def _measure(engine: Engine, split: Split, examples: int) -> tuple[float, float]:
    """Return loss and accuracy of the weights as they are."""
    answer = engine.perform(Evaluate("study", (OWN,), split, examples))
    if not isinstance(answer, Evaluated):
        raise WeightsError(f"the weights cannot be measured: {getattr(answer, 'reason', answer)}")
    return answer.losses[0], answer.accuracies[0]
