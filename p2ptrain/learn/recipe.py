"""How a net is trained, as settings of a manifest: what every built-in task knows."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from p2ptrain.core.errors import ManifestError
from p2ptrain.core.manifest import read_settings

if TYPE_CHECKING:
    from p2ptrain.learn.task import Task

RATES = {
    "sgd": 0.05,
    "momentum": 0.01,
    "nesterov": 0.01,
    "rmsprop": 1e-3,
    "adam": 1e-3,
    "adagrad": 0.01,
    "nadam": 1e-3,
    "adamw": 1e-3,
}
"""The optimizers, and the learning rate that suits each (ALGORITHMS 4.7, measured; `adamw`: as `adam`)."""

SCHEDULES = ("constant", "linear", "cosine", "step")

OWN_OPTIMIZERS = ("optimizer", "lr", "momentum", "weight_decay")
"""Settings that are nobody else's business where a task makes its own optimizer."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of training. A task's config inherits them, and may choose other defaults.

    optimizer: `sgd`, `momentum`, `nesterov`, `rmsprop`, `adam`, `adagrad`, `nadam`, `adamw`.
    lr: learning rate; 0: what suits this optimizer.
    momentum: what `momentum` and `nesterov` keep of the last step.
    weight_decay: added to the gradient as this share of the weights; `adamw` takes it off the weights
        instead, and 0 means its usual 0.01.
    batch_size: examples of one step of the optimizer.
    accumulate: the batch goes through the net in so many pieces, whose gradients are added.
    clip: longest gradient, Euclidean; 0: any.
    schedule: of the learning rate: `constant`, `linear`, `cosine`, `step`; needs a planned number of steps.
    warmup: the rate rises from zero over so many steps.
    lr_final: share of the rate that is left at the end.
    label_smoothing: so much of the truth is given to all classes alike, in training.
    augment: chance changes of pictures in training.

    Raises:
        ManifestError: an unknown name, or a number out of its range.
    """

    optimizer: str = "momentum"
    lr: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 0.0
    batch_size: int = 32
    accumulate: int = 1
    clip: float = 0.0
    schedule: str = "linear"
    warmup: int = 0
    lr_final: float = 0.1
    label_smoothing: float = 0.0
    augment: bool = False

    def __post_init__(self) -> None:
        _check_word("optimizer", self.optimizer, RATES)
        _check_word("schedule", self.schedule, SCHEDULES)
        if self.batch_size < 1:
            raise ManifestError(f"the task has batches of {self.batch_size}", "set `batch_size` to 1 or more")
        for name in ("lr", "weight_decay", "clip", "warmup"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < float("inf"), "0 or more")
        _check("accumulate", self.accumulate, 1 <= self.accumulate <= self.batch_size, "1 to `batch_size`")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "0 or more, and less than 1")
        _check("label_smoothing", self.label_smoothing, 0 <= self.label_smoothing < 1, "0 to less than 1")
        _check("lr_final", self.lr_final, 0 <= self.lr_final <= 1, "from 0 to 1")
        if self.optimizer == "nesterov":
            _check("momentum", self.momentum, self.momentum > 0, "more than 0 for `nesterov`")
        if self.schedule == "step":
            _check("lr_final", self.lr_final, self.lr_final > 0, "more than 0 for the schedule `step`")

    @property
    def rate(self) -> float:
        """The learning rate before schedule and scale."""
        return self.lr or RATES[self.optimizer]


def of(task: "Task", cfg: Any) -> Recipe:
    """Return how a task's config wants it trained; what the config does not know has its default.

    Raises:
        ManifestError: a setting has a wrong type or is out of its range.
    """
    theirs = OWN_OPTIMIZERS if task.optimizer is not None else ()
    names = [field.name for field in fields(Recipe) if field.name not in theirs]
    settings = {name: getattr(cfg, name) for name in names if hasattr(cfg, name)}
    recipe: Recipe = read_settings(Recipe, settings, f"the task {task.name}")
    return recipe


def _check_word(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        near = difflib.get_close_matches(value, known, n=1)
        meant = f"did you mean `{near[0]}`?" if near else f"known are: {', '.join(known)}"
        raise ManifestError(f"there is no {name} `{value}`", meant)


def _check(name: str, value: float, holds: bool, range_: str) -> None:
    if not holds:
        raise ManifestError(f"the setting `{name}` is {value}", f"it must be {range_}")
