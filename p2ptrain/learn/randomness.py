"""Chance that can be repeated: every use has a seed of its own, made from what it is for."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def mix(purpose: str, *numbers: int) -> int:
    """Return a seed below 2^63 that depends on all of these."""
    text = ",".join([purpose, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def permutation(count: int, purpose: str, *numbers: int) -> torch.Tensor:
    """Return the numbers below `count`, shuffled: int64, shape (count,).

    NumPy froze the stream of this generator for good, so peers with other versions cut the data alike.
    """
    shuffled = _stream(purpose, *numbers).permutation(count)
    return torch.from_numpy(shuffled.astype(np.int64, copy=False))


def shares(count: int, concentration: float, *numbers: int) -> torch.Tensor:
    """Return `count` shares of one from a Dirichlet distribution: float64, the same everywhere."""
    return torch.from_numpy(_stream("shares", *numbers).dirichlet([concentration] * count))


def normals(count: int, purpose: str, *numbers: int) -> torch.Tensor:
    """Return `count` standard normal numbers: float64, the same everywhere."""
    return torch.from_numpy(_stream(purpose, *numbers).standard_normal(count))


def _stream(purpose: str, *numbers: int) -> np.random.RandomState:
    seed = mix(purpose, *numbers)
    return np.random.RandomState([seed >> 32, seed & 0xFFFF_FFFF])


class Randomness:
    """Torch's global generators, borrowed: reseeded inside, found outside as they were."""

    def __init__(self, device: torch.device) -> None:
        self._generators: list[Any] = [torch.default_generator]
        if device.type == "cuda":
            self._generators.append(torch.cuda.default_generators[device.index or 0])
        if device.type == "mps":
            self._generators.append(torch.mps._get_default_mps_generator())

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Give the generators back as they were, so that several engines do not influence each other."""
        states = [generator.get_state() for generator in self._generators]
        try:
            yield
        finally:
            for generator, state in zip(self._generators, states, strict=True):
                generator.set_state(state)

    def reseed(self, seed: int) -> None:
        """Start a new stream; only while borrowed."""
        for generator in self._generators:
            generator.manual_seed(seed)
