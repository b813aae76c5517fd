"""What an engine drives: a net in training, and how its weights are measured."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from p2ptrain.core.inputs import Layer
from p2ptrain.learn import device
from p2ptrain.learn.data.splits import Selection, Splits, split
from p2ptrain.learn.randomness import Randomness
from p2ptrain.learn.task import find
from p2ptrain.learn.training.guide import Guidance
from p2ptrain.learn.training.memory import bound
from p2ptrain.learn.training.optimizer import Number
from p2ptrain.learn.training.parallel import Helpers
from p2ptrain.learn.training.trainer import Trainer
from p2ptrain.learn.weights.checkpoint import fingerprint
from p2ptrain.learn.weights.evaluate import Evaluator, Score
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.learn.wire import Setup


class Steps(Protocol):
    """Who takes the steps: see `Trainer`, and `OwnLoop` for steps that are taken elsewhere."""

    vector: Vector
    step: int
    lr_scale: float

    @property
    def samples(self) -> int: ...

    @property
    def layers(self) -> tuple[Layer, ...]: ...

    def guide(self, guidance: Guidance | None) -> None: ...

    def take_step(self) -> Tensor: ...

    def restart(self, seed: int) -> None: ...

    def draw(self, seed: int) -> Tensor: ...

    def forget_momentum(self) -> None: ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Number]]: ...

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Number]) -> None: ...


class Measures(Protocol):
    """Who tells the loss of the weights that are in the net now: see `Evaluator`."""

    def score(self, examples: Selection) -> Score: ...


@dataclass(frozen=True)
class Parts:
    """What an engine drives.

    device: where the net lives.
    fingerprint: only a checkpoint of the same one is gone on from.
    notices: what the owner should read; more may come while it works.
    """

    device: torch.device
    randomness: Randomness
    splits: Splits
    trainer: Steps
    evaluator: Measures
    fingerprint: str
    notices: list[str] = field(default_factory=list)


def parts_of_task(setup: Setup) -> Parts:
    """Build the net of the task that a setup names, and load its data.

    Raises:
        ManifestError: the task is not here, or cannot be trained like this.
        ConfigError: the device is not here.
    """
    task = find(setup.task)
    cfg = task.configure(setup.task_config)
    places = device.choose_all(setup.device)
    place = places[0]
    if setup.threads:
        torch.set_num_threads(setup.threads)
    bound(place, setup.memory_gb)
    randomness, notices = Randomness(place), list[str]()
    helpers = Helpers(setup, places, notices.append) if len(places) > 1 else None
    with randomness.borrowed():
        splits = split(task, cfg, place, setup)
        trainer = Trainer(task, cfg, setup, place, randomness, splits.training, notices.append)
        evaluator = Evaluator(trainer.net, task, cfg, splits.validation.take(slice(2)), trainer.manner)
    if splits.training.balance is not None:
        notices.append(f"balance of classes in the own part: {splits.training.balance:.2f}; 1: as in all")
    if helpers is not None:
        trainer.group = helpers.meet()
    same = fingerprint(task, cfg, setup.seed, trainer.vector.spec)
    return Parts(place, randomness, splits, trainer, evaluator, same, notices)
