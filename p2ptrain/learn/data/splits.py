"""Which examples a peer trains on, in which order, and which ones it measures on.

Every split is a function of the manifest's seed and this peer's slot, and every batch of the number
of its step as well: nothing needs to be remembered to go on exactly where a run stopped.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from p2ptrain.core.errors import ManifestError
from p2ptrain.learn.data.partition import Division, Plan
from p2ptrain.learn.data.source import Examples as Examples
from p2ptrain.learn.data.source import Source as Source
from p2ptrain.learn.randomness import mix, permutation
from p2ptrain.learn.task import Task
from p2ptrain.learn.wire import Setup


class Selection:
    """Some examples of a dataset, in a fixed order.

    Attributes:
        balance: how evenly classes occur, see `partition.balance_of`; None: they are not looked at.
        round: whose examples these are.
    """

    balance: float | None = None
    round = 0

    def __init__(self, source: "Source", indices: Tensor) -> None:
        self._source = source
        self._indices = indices.to(source.place)

    @property
    def place(self) -> torch.device:
        """Where places are looked up: those that are there already cost no waiting."""
        return self._source.place

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, places: Tensor | slice) -> Any:
        """Return the examples at these places of the order, as one batch on the device."""
        return self._source.take(self._indices[places])

    @property
    def comes_ahead(self) -> bool:
        """Whether it helps to say what is taken soon."""
        return self._source.comes_ahead

    def expect(self, places: Tensor) -> None:
        """Say that these are taken soon."""
        self._source.expect(self._indices[places])

    def first(self, count: int) -> "Selection":
        """Return the beginning of this selection; 0: all of it."""
        return Selection(self._source, self._indices[:count]) if count else self

    def turn_to(self, round_: int) -> None:
        """Take the examples of that round; most selections are the same in all of them."""


class Training(Selection):
    """What a peer trains on: in every round as many examples, other ones where the swarm wants it so."""

    def __init__(self, source: "Source", division: Division) -> None:
        super().__init__(source, division.training(0))
        self._division = division
        self.balance = division.balance

    def turn_to(self, round_: int) -> None:
        """Take the examples of that round."""
        if round_ != self.round:
            self.round, self._indices = round_, self._division.training(round_).to(self.place)


class Splits(NamedTuple):
    """What one peer trains on, decides on, and reports on; disjoint."""

    training: Selection
    validation: Selection
    test: Selection


def split(task: Task, cfg: Any, device: torch.device, setup: Setup) -> Splits:
    """Return a peer's selections of the task's data.

    Raises:
        ManifestError: there is too little of it, or it cannot be indexed.
    """
    train = Source(load(task, cfg, "train"), device, task.collate)
    test = Source(load(task, cfg, "test"), device, task.collate)
    plan = plan_of(setup)
    division = Division(len(train), plan, setup.slot, train.labels() if plan.by_class else None)
    everything = permutation(len(test), "test", setup.seed)
    return Splits(
        Training(train, division), Selection(train, division.validation), Selection(test, everything)
    )


def plan_of(setup: Setup) -> Plan:
    """Return how the manifest wants the data divided."""
    return Plan(**{name: getattr(setup, name) for name in Plan.__struct_fields__})


@lru_cache(maxsize=8)
def load(task: Task, cfg: Any, split: str) -> Examples:
    """Return a task's dataset; engines in one process share it. Call it with the generators borrowed.

    Raises:
        ManifestError: it is empty, or not a map-style dataset.
    """
    torch.default_generator.manual_seed(mix(split))  # random data must be the same on every peer
    examples: Any = task.data(cfg, split)
    if not hasattr(examples, "__getitem__") or not hasattr(examples, "__len__"):
        raise ManifestError(
            f"the {split} data of the task {task.name} cannot be indexed", "return a map-style dataset"
        )
    if len(examples) == 0:
        raise ManifestError(f"the task {task.name} has no {split} data")
    return examples  # type: ignore[no-any-return]


class Order:
    """The order of training: each epoch is a shuffle of its own; a last, smaller batch is left out.

    place: of the tensors that it gives. The last two epochs are at hand, for a look across the border.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, slot: int, place: torch.device | None = None
    ) -> None:
        self._place = place
        self.batch_size = min(batch_size, count)
        self._count = count
        self._key = (seed, slot)
        self._epochs: dict[int, Tensor] = {}

    def places(self, step: int) -> Tensor:
        """Return which of the training examples one step uses."""
        epoch, batch = divmod(step, self._count // self.batch_size)
        if epoch not in self._epochs:
            self._epochs = dict(list(self._epochs.items())[-1:])
            self._epochs[epoch] = permutation(self._count, "epoch", *self._key, epoch).to(self._place)
        return self._epochs[epoch][batch * self.batch_size : (batch + 1) * self.batch_size]
