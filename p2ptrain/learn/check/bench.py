"""The workbench of a check: a task, what was made of it so far, and what is said about it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from msgspec import Struct
from torch import Tensor, nn

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.manifest import Settings
from p2ptrain.learn import blame
from p2ptrain.learn.data.splits import Splits
from p2ptrain.learn.randomness import Randomness
from p2ptrain.learn.task import Task
from p2ptrain.learn.wire import Setup

BATCH_SIZE = 32
"""Where the config names none."""


class Finding(Struct, frozen=True):
    """One thing that was looked at.

    state: `note`: it works, and could be better. `skipped`: something before it is broken.
    said: a sentence. fix: what to do about it.
    """

    name: str
    state: Literal["ok", "broken", "note", "skipped"]
    said: str
    fix: str = ""


class TaskError(P2PTrainError):
    """Something is wrong with a task."""


@dataclass
class Bench:
    """Each check finds here what those before it made.

    Attributes:
        reference: name of the task, or `package.module:attribute`.
        settings: differences from the defaults of its config.
        notes: what works and could be better; with what to do about it.
    """

    reference: str
    settings: Settings
    device: torch.device
    notes: list[tuple[str, str]] = field(default_factory=list)
    task: Task = field(init=False)
    cfg: Any = None
    net: nn.Module = field(init=False)
    splits: Splits = field(init=False)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.randomness = Randomness(self.device)

    @property
    def batch_size(self) -> int:
        """Examples of one step."""
        size: int = getattr(self.cfg, "batch_size", BATCH_SIZE)
        return min(size, len(self.splits.training))

    def setup(self, **changes: Any) -> Setup:
        """Tell a trainer about this task, on this device."""
        told = {"task": self.reference, "task_config": self.settings, "device": str(self.device)}
        return Setup(**(told | changes))

    def build(self, seed: int) -> nn.Module:
        """Build the net from the random point of that seed."""
        self.randomness.reseed(seed)
        with own_code("the model cannot be built"):
            return self.task.model(self.cfg)

    def batch(self, number: int = 0, training: bool = True) -> Any:
        """Return a batch of training data as `loss` takes it."""
        begin = number * self.batch_size % max(1, len(self.splits.training) - self.batch_size + 1)
        self.randomness.reseed(number)
        with own_code("a batch of the train data cannot be made"):
            raw = self.splits.training.take(slice(begin, begin + self.batch_size))
        with own_code("`prepare` fails"):
            return self.task.prepared(self.cfg, raw, training)

    def mean_loss(self, net: nn.Module, batch: Any) -> Tensor:
        """Return the loss as the trainer takes it."""
        result = self.task.loss(net, batch)
        loss = result[0] if isinstance(result, tuple) else result
        return loss.mean()


@contextmanager
def own_code(what: str | Callable[[], str], fix: str = "") -> Iterator[None]:
    """Run code of the task: whatever it raises is one sentence."""
    try:
        with blame.own_code(what, fix):
            yield
    except P2PTrainError as error:
        raise TaskError(error.message, error.hint or fix) from error


@contextmanager
def layers(net: nn.Module) -> Iterator[Callable[[], str]]:
    """Watch which layer is at work; what is given says it, also after an error, empty: none."""
    inside: list[nn.Module] = []
    names = {module: name for name, module in net.named_modules()}
    hooks = []
    for module in names:
        hooks.append(module.register_forward_pre_hook(lambda layer, _: inside.append(layer)))
        hooks.append(module.register_forward_hook(lambda *_: _leave(inside)))

    def where() -> str:
        if not inside:
            return ""
        kind, name = type(inside[-1]).__name__, names[inside[-1]]
        return f"the layer `{name}` ({kind})" if name else f"the net ({kind})"

    try:
        yield where
    finally:
        for hook in hooks:
            hook.remove()


def _leave(inside: list[nn.Module]) -> None:
    inside.pop()


def shapes(batch: Any) -> str:
    """Write the shapes of a batch."""
    if isinstance(batch, Tensor):
        return "x".join(map(str, batch.shape)) or "one number"
    if isinstance(batch, dict):
        return ", ".join(f"{name}: {shapes(item)}" for name, item in batch.items())
    if isinstance(batch, tuple | list):
        return " and ".join(shapes(item) for item in batch)
    return type(batch).__name__


def some(names: list[str]) -> str:
    """Name the first few."""
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
