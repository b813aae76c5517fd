"""Examples of a dataset as batches on the device: kept there where they fit, else brought ahead of use."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from p2ptrain.core.errors import ManifestError
from p2ptrain.core.limits import GIB
from p2ptrain.learn.training.memory import free_bytes
from p2ptrain.learn.training.precision import over_tensors

ROOM_SHARE = 0.25
"""Data that takes up to this share of a GPU's free memory is kept there: batches cost nothing then. Guess:
activations need the rest."""

ON_DEVICE_BYTES_MAX = GIB
"""The same where free memory is not known. Guess."""

EXPECTED_MAX = 64
"""So many batches, or pieces of batches, are brought ahead at most."""


class Examples(Protocol):
    """A map-style dataset.

    It may have more: `take(indices)` gives a batch at once; `labels` are the classes of all examples,
    int64 of shape (count,). Chance in it comes from torch's global generator, if there is any.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


class Source:
    """Gives any examples of a dataset as one batch on the device.

    Attributes:
        place: where indices are looked up: indices that are there already cost no waiting.
        comes_ahead: whether it helps to say what is taken soon.
    """

    def __init__(
        self, examples: Examples, device: torch.device, collate: Callable[[list[Any]], Any] | None = None
    ) -> None:
        self._examples = examples
        self._device = device
        self._collate = collate or default_collate
        self._takes: Callable[[Tensor], Any] | None = None
        self._tensors: list[Tensor] | None = None
        if collate is None:
            self._takes = getattr(examples, "take", None)
        if isinstance(examples, TensorDataset) and collate is None:
            self._tensors = list(examples.tensors)
            if sum(tensor.nbytes for tensor in self._tensors) <= _room_bytes(device):
                self._tensors = [tensor.to(device) for tensor in self._tensors]
        self.place = torch.device("cpu") if self._tensors is None else self._tensors[0].device
        self._ahead = _Ahead(self._fetch)
        self.comes_ahead = self._tensors is None or self.place != device

    def __len__(self) -> int:
        return len(self._examples)

    def labels(self) -> Tensor:
        """Return the class of each example: int64, shape (count,).

        Raises:
            ManifestError: the dataset does not show them.
        """
        given = getattr(self._examples, "labels", None)
        last = self._tensors[-1].cpu() if self._tensors is not None else given
        if not isinstance(last, Tensor) or last.dim() != 1 or last.is_floating_point():
            raise ManifestError(
                "the classes of this data are not known, so it cannot be divided unevenly",
                "make the swarm without skew, or let the task return a TensorDataset with labels last",
            )
        return last.long()

    def expect(self, indices: Tensor) -> None:
        """Begin to bring the examples that are taken soon, unless that is quick or chance plays a part."""
        if self.comes_ahead:
            self._ahead.expect(indices)

    def take(self, indices: Tensor) -> Any:
        """Return the examples at these indices; whole tensors are indexed at once."""
        if not self.comes_ahead:
            return self._fetch(indices)
        batch = self._ahead.take(indices)
        on_gpu = self._device.type == "cuda"
        return over_tensors(batch, lambda tensor: tensor.to(self._device, non_blocking=on_gpu))

    def _fetch(self, indices: Tensor) -> Any:
        """Return a batch where the data is, in memory that a GPU can read while training goes on."""
        if self._tensors is not None:
            places = indices.to(self.place)
            batch: Any = tuple(tensor.index_select(0, places) for tensor in self._tensors)
        elif self._takes is not None:
            batch = self._takes(indices)
        else:
            batch = self._collate([self._examples[index] for index in indices.tolist()])
        if self.comes_ahead and self._device.type == "cuda":
            batch = over_tensors(batch, lambda tensor: tensor.pin_memory())
        return batch


class _Ahead:
    """Brings batches in a second thread, one at a time: datasets are rarely made for more.

    Where making a batch draws from torch's generator, nothing is brought ahead: it would draw at
    another time in every run.
    """

    def __init__(self, fetch: Callable[[Tensor], Any]) -> None:
        self._fetch = fetch
        self._draws: bool | None = None
        self._lock = Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._coming: deque[tuple[Tensor, Future[Any]]] = deque()

    def expect(self, indices: Tensor) -> None:
        """Bring a batch, unless it is on its way already; who expects too much has given up the oldest."""
        if self._draws is not False or self._place_of(indices) is not None:
            return
        while len(self._coming) >= EXPECTED_MAX:
            self._coming.popleft()[1].cancel()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "examples")
        self._coming.append((indices, self._thread.submit(self._guarded, indices)))

    def take(self, indices: Tensor) -> Any:
        """Return a batch that is on its way, or else one brought now."""
        place = self._place_of(indices)
        if place is not None:
            for _ in range(place):  # expected before it, and not wanted any more
                self._coming.popleft()[1].cancel()
            return self._coming.popleft()[1].result()
        if self._draws is not None:
            return self._guarded(indices)
        before = torch.default_generator.get_state()
        batch = self._guarded(indices)
        self._draws = not torch.equal(before, torch.default_generator.get_state())
        return batch

    def _place_of(self, indices: Tensor) -> int | None:
        places = (place for place, (other, _) in enumerate(self._coming) if torch.equal(indices, other))
        return next(places, None)

    def _guarded(self, indices: Tensor) -> Any:
        with self._lock:
            return self._fetch(indices)


def _room_bytes(device: torch.device) -> float:
    """Return how much data a device may keep."""
    if device.type == "cpu":
        return float("inf")
    return ROOM_SHARE * free_bytes(device) if device.type == "cuda" else ON_DEVICE_BYTES_MAX
