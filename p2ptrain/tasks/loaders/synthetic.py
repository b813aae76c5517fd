"""Pictures of nothing, as many and as large as ImageNet's: for measuring how fast a net trains.

A picture is a window into one block of chance bytes, so that having a million costs no more than having one.
"""

from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from p2ptrain.core.limits import MIB

IMAGENET = {"train": 1_281_167, "test": 50_000}
"""Pictures of ImageNet's 1,000 classes, of the challenge of 2012."""

BLOCK_BYTES = 16 * MIB

STEP_BYTES = 4093
"""From one picture to the next: a prime number, so that no two look alike. 4,000 fit into the block."""


class Noise(Dataset[tuple[Tensor, int]]):
    """Chance pixels as a map-style dataset: uint8 of shape (3, size, size); the classes go round.

    Equal arguments give equal data, on every computer.
    """

    def __init__(self, count: int, size: int = 224, classes: int = 1000, seed: int = 0) -> None:
        self._count = count
        self._classes = classes
        bytes_each = 3 * size * size
        total = max(BLOCK_BYTES, 2 * bytes_each)
        generator = torch.Generator().manual_seed(seed)
        block = torch.randint(0, 256, (total,), dtype=torch.uint8, generator=generator)
        different = (total - bytes_each) // STEP_BYTES + 1
        self._windows = block.as_strided((different, 3, size, size), (STEP_BYTES, size * size, size, 1))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < self._count:
            raise IndexError(f"there are {self._count} pictures")
        return self._windows[index % len(self._windows)], index % self._classes

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return pictures as one batch: uint8 (count, 3, size, size), and int64 (count,)."""
        return self._windows[indices % len(self._windows)], indices % self._classes

    @cached_property
    def labels(self) -> Tensor:
        """The class of every picture: int64 of shape (count,)."""
        return torch.arange(self._count) % self._classes
