"""Which examples a peer trains on, in which order, and which ones it measures on.

Every split is a function of the manifest's seed and this peer's slot, and every batch of the number
of its step as well: nothing needs to be remembered to go on exactly where a run stopped.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from p2ptrain.core.errors import ManifestError
from p2ptrain.core.limits import GIB
from p2ptrain.learn.randomness import mix, permutation, shares
from p2ptrain.learn.task import Task
from p2ptrain.learn.wire import Setup

VALIDATION_SHARE = 0.15
"""Of the own part (ALGORITHMS 5, measured)."""

SKEWED_PART_MIN = 20
SKEW_DRAWS_MAX = 100
"""A part of fewer examples than that trains nothing; so often another division is tried (guess)."""

ON_DEVICE_BYTES_MAX = GIB
"""Data up to this size is kept on the device: small nets train several times faster then. Guess."""


class Examples(Protocol):
    """A map-style dataset."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Selection:
    """Some examples of a dataset, in a fixed order."""

    def __init__(self, source: "Source", indices: Tensor) -> None:
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, places: Tensor | slice) -> Any:
        """Return the examples at these places of the order, as one batch on the device."""
        return self._source.take(self._indices[places])

    def first(self, count: int) -> "Selection":
        """Return the beginning of this selection; 0: all of it."""
        return Selection(self._source, self._indices[:count]) if count else self


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
    labels = train.labels() if setup.skew else None
    training, validation = divide(
        len(train), setup.seed, setup.slot, setup.parts, setup.pool, labels, setup.skew
    )
    everything = permutation(len(test), "test", setup.seed)
    return Splits(Selection(train, training), Selection(train, validation), Selection(test, everything))


def divide(
    count: int,
    seed: int,
    slot: int,
    parts: int,
    pool: int = 0,
    labels: Tensor | None = None,
    skew: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return which of `count` examples a peer trains on, and which it decides on: int64, disjoint.

    The examples are shuffled and cut into `parts` pieces: equal ones, a remainder left out; or, with
    `skew`, of each class shares drawn from Dirichlet(skew). Peers with equal `slot % parts` share a piece.
    A `pool` of examples in front of all that is nobody's training: everyone decides on it. Without one, a
    peer holds out some of its own.

    Raises:
        ManifestError: there are too few examples for that many parts.
    """
    order = permutation(count, "parts", seed)
    shared, rest = order[:pool], order[pool:]
    size = len(rest) // parts
    if size < 2:
        raise ManifestError(
            f"{count} examples are too few for {parts} parts", "make the swarm with fewer parts of the data"
        )
    begin = slot % parts * size
    own = rest[begin : begin + size]
    if skew and labels is not None:
        own = rest[_skewed(labels[rest], parts, skew, seed) == slot % parts]
    if pool:
        return own, shared
    held_out = max(1, round(VALIDATION_SHARE * len(own)))
    return own[:-held_out], own[-held_out:]


def _skewed(labels: Tensor, parts: int, skew: float, seed: int) -> Tensor:
    """Return the part of each example; draws again until every part has enough."""
    for draw in range(SKEW_DRAWS_MAX):
        belongs = torch.zeros(len(labels), dtype=torch.int64)
        for label in sorted(set(labels.tolist())):
            places = (labels == label).nonzero().squeeze(1)
            ends = (shares(parts, skew, seed, draw, label).cumsum(0) * len(places)).round().long()
            belongs[places] = torch.searchsorted(ends[:-1], torch.arange(len(places)), right=True)
        if belongs.bincount(minlength=parts).min() >= SKEWED_PART_MIN:
            return belongs
    raise ManifestError(
        f"no division of the data with a skew of {skew} gives each of {parts} parts enough",
        "make the swarm with fewer parts, or with a larger skew",
    )


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


class Source:
    """Gives any examples of a dataset as one batch on the device."""

    def __init__(
        self, examples: Examples, device: torch.device, collate: Callable[[list[Any]], Any] | None = None
    ) -> None:
        self._examples = examples
        self._device = device
        self._collate = collate or default_collate
        self._tensors: list[Tensor] | None = None
        if isinstance(examples, TensorDataset) and collate is None:
            self._tensors = list(examples.tensors)
            if sum(tensor.nbytes for tensor in self._tensors) <= ON_DEVICE_BYTES_MAX:
                self._tensors = [tensor.to(device) for tensor in self._tensors]

    def __len__(self) -> int:
        return len(self._examples)

    def labels(self) -> Tensor:
        """Return the class of each example: int64, shape (count,).

        Raises:
            ManifestError: the dataset does not show them.
        """
        last = self._tensors[-1].cpu() if self._tensors is not None else None
        if last is None or last.dim() != 1 or last.is_floating_point():
            raise ManifestError(
                "the classes of this data are not known, so it cannot be divided unevenly",
                "make the swarm without skew, or let the task return a TensorDataset with labels last",
            )
        return last.long()

    def take(self, indices: Tensor) -> Any:
        """Return the examples at these indices; whole tensors are indexed at once."""
        if self._tensors is not None:
            return tuple(
                tensor.index_select(0, indices.to(tensor.device)).to(self._device) for tensor in self._tensors
            )
        return _move(self._collate([self._examples[index] for index in indices.tolist()]), self._device)


class Order:
    """The order of training: each epoch is a shuffle of its own; a last, smaller batch is left out."""

    def __init__(self, count: int, batch_size: int, seed: int, slot: int) -> None:
        self.batch_size = min(batch_size, count)
        self._count = count
        self._key = (seed, slot)
        self._epoch = -1
        self._shuffled = torch.empty(0)

    def places(self, step: int) -> Tensor:
        """Return which of the training examples one step uses."""
        epoch, batch = divmod(step, self._count // self.batch_size)
        if epoch != self._epoch:
            self._epoch, self._shuffled = epoch, permutation(self._count, "epoch", *self._key, epoch)
        return self._shuffled[batch * self.batch_size : (batch + 1) * self.batch_size]


def _move(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {name: _move(item, device) for name, item in batch.items()}
    if isinstance(batch, tuple | list):
        moved = [_move(item, device) for item in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch
