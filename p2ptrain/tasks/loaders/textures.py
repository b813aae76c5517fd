"""Cuts photographs of textures into patches, when they are asked for.

A folder of photographs is a class. The patches of one photograph all go to one split. Where a patch lies
follows from its number, so the list of patches is nowhere kept: 4.5 million of them cost nothing.

The source (654 photographs of 2272 x 1074, "rotation, overlap, contrast normalisation") has 6,972 patches of
256 x 256 a photograph. Neighbours that share 7/8 and four turns give 6,912 here, 4.52 million in all. Exactly
6,972 are 83 x 21 places and four turns: overlaps of 0.9039 across and 0.84 down.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import MIB
from p2ptrain.tasks.loaders import decoded, files
from p2ptrain.tasks.loaders.decoding import decode, size_of

ENDINGS = (".jpg", ".jpeg", ".png")
FILE_BYTES_MAX = 128 * MIB
HELD_BYTES_MAX = 512 * MIB
"""Decoded photographs in memory: 70 of the source's. Guess."""

TEST_SHARE = 0.2
"""Of the photographs of each class."""

MIDDLE, DEVIATION = 127.5, 42.5
"""Where contrast is made equal: three deviations fill the range of a byte."""


@dataclass(frozen=True)
class Cut:
    """How photographs become patches.

    size: side of a patch, in pixels.
    overlap: neighbours share at least so much of their width, 0 to less than 1. The places are spread evenly
        from one edge to the other, so that every pixel is used.
    overlap_down: of their height; None: as across.
    turns: 1, 2 or 4 directions in which each patch is given.
    channels: 1 grey, 3 colours.
    contrast: give every patch the same mean and the same deviation.
    """

    size: int = 256
    overlap: float = 0.875
    overlap_down: float | None = None
    turns: int = 4
    channels: int = 3
    contrast: bool = True

    def check(self) -> None:
        """Demand values that make sense.

        Raises:
            ConfigError: they do not.
        """
        down = self.overlap if self.overlap_down is None else self.overlap_down
        sound = self.size >= 1 and self.turns in (1, 2, 4) and self.channels in (1, 3)
        if not sound or not 0 <= self.overlap < 1 or not 0 <= down < 1:
            raise ConfigError(
                f"photographs cannot be cut by {self}",
                "an overlap is from 0 to less than 1, turns are 1, 2 or 4, channels 1 or 3",
            )

    def across(self, width: int) -> list[int]:
        """Return where patches begin in a row."""
        return _places(width, self.size, self.overlap)

    def down(self, height: int) -> list[int]:
        """Return where patches begin in a column."""
        return _places(height, self.size, self.overlap if self.overlap_down is None else self.overlap_down)

    def count(self, width: int, height: int) -> int:
        """Return how many patches a photograph gives."""
        return len(self.across(width)) * len(self.down(height)) * self.turns


def _places(length: int, size: int, overlap: float) -> list[int]:
    free = length - size
    if free < 0:
        return []
    steps = ceil(round(free / (size * (1 - overlap)), 6))
    return [round(step * free / steps) for step in range(steps + 1)] if steps else [0]


class Photograph(NamedTuple):
    file: Path
    label: int
    width: int
    height: int


class Patches(Dataset[tuple[Tensor, int]]):
    """Patches of photographs as a map-style dataset: uint8 of shape (channels, size, size), and the class."""

    def __init__(self, photographs: list[Photograph], cut: Cut) -> None:
        self.photographs = photographs
        self.cut = cut
        self._ends = list(accumulate(cut.count(one.width, one.height) for one in photographs))
        self._held: OrderedDict[int, decoded.Bytes] = OrderedDict()
        self._held_bytes = 0
        pixels = sum(one.width * one.height for one in photographs)
        self._keeps = pixels * cut.channels > HELD_BYTES_MAX

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} patches")
        number = bisect_right(self._ends, index)
        one = self.photographs[number]
        place, turn = divmod(index - (self._ends[number - 1] if number else 0), self.cut.turns)
        columns = self.cut.across(one.width)
        row, column = divmod(place, len(columns))
        top, left, size = self.cut.down(one.height)[row], columns[column], self.cut.size
        patch = self._photograph(number)[top : top + size, left : left + size]
        patch = np.rot90(patch, turn * 4 // self.cut.turns)
        planes = np.ascontiguousarray(patch.transpose(2, 0, 1))
        return torch.from_numpy(_equalised(planes) if self.cut.contrast else planes.copy()), one.label

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return patches as one batch: uint8 (count, channels, size, size), and int64 (count,)."""
        taken = [self[index] for index in indices.tolist()]
        return torch.stack([patch for patch, _ in taken]), torch.tensor([label for _, label in taken])

    @cached_property
    def labels(self) -> Tensor:
        """The class of every patch: int64 of shape (count,)."""
        counts = [self.cut.count(one.width, one.height) for one in self.photographs]
        return torch.tensor([one.label for one in self.photographs]).repeat_interleave(torch.tensor(counts))

    def _photograph(self, number: int) -> decoded.Bytes:
        """Return a decoded photograph of shape (height, width, channels); the last ones used are held."""
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        one = self.photographs[number]
        pixels = self._kept(one) if self._keeps else self._decode(one)
        self._held[number] = pixels
        self._held_bytes += pixels.nbytes
        while self._held_bytes > HELD_BYTES_MAX and len(self._held) > 1:
            self._held_bytes -= self._held.popitem(last=False)[1].nbytes
        return pixels

    def _kept(self, one: Photograph) -> decoded.Bytes:
        """Decode a photograph once for all, where the disk has room: nothing else takes so long."""
        shape = (one.height, one.width, self.cut.channels)
        with files.reading(one.file):
            status = one.file.stat()
        name = decoded.key(str(one.file.resolve()), status.st_size, status.st_mtime_ns, shape)
        file = files.cache() / "textures-decoded" / f"{name}.npy"
        pixels = decoded.mapped(file, shape)
        if pixels is None:
            pixels = self._decode(one)
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                if decoded.room(file.parent, shape):
                    decoded.write(file, shape, (pixels,))
            except OSError:
                return pixels
        return pixels

    def _decode(self, one: Photograph) -> decoded.Bytes:
        content = files.read(one.file, most=FILE_BYTES_MAX)
        with files.reading(one.file):
            pixels = decode(content, self.cut.channels)
            if pixels.shape[:2] != (one.height, one.width):
                raise ValueError("it changed while it was in use")
        return pixels


def _equalised(planes: decoded.Bytes) -> decoded.Bytes:
    """Give a patch the mean and the deviation that all have; one without any contrast stays flat."""
    deviation = max(float(planes.std(dtype=np.float64)), 1.0)
    levels = (planes - np.float32(planes.mean())) * np.float32(DEVIATION / deviation) + np.float32(MIDDLE)
    return levels.clip(0, 255).round().astype(np.uint8)


def find() -> Path:
    """Return the folder whose subfolders are classes of photographs.

    Raises:
        ConfigError: there is none among the owner's.
    """
    for folder in files.folders("textures"):
        if len(_classes(folder)) >= 2:
            return folder
    raise ConfigError(
        "no photographs of textures are here",
        "put those of each class into a folder of its own, these into one folder `textures`, and name what "
        f"holds it with --data or {files.VARIABLE}; such a set, for research only, is the Describable "
        "Textures Dataset, https://www.robots.ox.ac.uk/~vgg/data/dtd",
    )


def class_names(folder: Path) -> list[str]:
    """Return the classes in their order."""
    return [name.name for name in _classes(folder)]


def read(folder: Path, split: str, cut: Cut | None = None) -> Patches:
    """Return the patches of a split, `train` or `test`. No photograph is decoded before one is used.

    Raises:
        ConfigError: a file is damaged or too small, or there are no two classes.
    """
    cut = cut or Cut()
    cut.check()
    classes = _classes(folder)
    if len(classes) < 2:
        raise ConfigError(
            f"{folder} holds no two folders with photographs",
            "put those of each class into a folder of its own",
        )
    chosen = []
    for label, name in enumerate(classes):
        held = sorted(_photographs(name))
        tests = max(1, round(TEST_SHARE * len(held))) if len(held) > 1 else 0
        part = held[len(held) - tests :] if split == "test" else held[: len(held) - tests]
        chosen += [_measured(file, label, cut) for file in part]
    return Patches(chosen, cut)


def _measured(file: Path, label: int, cut: Cut) -> Photograph:
    """Look at the head of a file only."""
    with files.reading(file):
        if file.stat().st_size > FILE_BYTES_MAX:
            raise ValueError(f"it holds more than {FILE_BYTES_MAX} bytes")
        width, height = size_of(file)
        if min(width, height) < cut.size:
            raise ConfigError(
                f"{file} has {width} x {height} pixels, too few for a patch of {cut.size}",
                "choose smaller patches, or take the file away",
            )
    return Photograph(file, label, width, height)


def _classes(folder: Path) -> list[Path]:
    with files.reading(folder):
        inner = sorted(path for path in folder.iterdir() if path.is_dir())
        return [path for path in inner if next(_photographs(path), None)]


def _photographs(folder: Path) -> Iterator[Path]:
    with files.reading(folder):
        for path in folder.iterdir():
            if path.suffix.lower() in ENDINGS and not path.name.startswith("."):
                yield path
