"""How much of a batch goes through the net at once, so that it fits into the memory at hand."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import GIB

T = TypeVar("T")

EXAMPLES_MIN = 2
"""Batch norm needs two examples to see how they differ."""


def is_exhausted(error: Exception) -> bool:
    """Say whether an error means that memory is full: torch has a type of its own for GPUs only."""
    text = str(error)
    is_typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_typed or "can't allocate memory" in text or "out of memory" in text


def full(device: torch.device) -> str:
    """Say what is full, for people."""
    if device.type != "cuda":
        return "memory is full" if device.type == "cpu" else "the GPU's memory is full"
    return f"the GPU's {torch.cuda.get_device_properties(device).total_memory / GIB:.0f} GiB are full"


def bound(device: torch.device, memory_gb: float) -> None:
    """Let torch take no more than so many GB (2^30) of a GPU's memory; 0: all. See `fit` for CPUs."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = min(1.0, memory_gb * GIB / total) if memory_gb else 1.0
        torch.cuda.set_per_process_memory_fraction(share, device)
    elif device.type == "mps":
        total = torch.mps.recommended_max_memory()
        torch.mps.set_per_process_memory_fraction(min(1.0, memory_gb * GIB / total) if memory_gb else 1.0)


def free_bytes(device: torch.device) -> float:
    """Return how much of a GPU's memory may still be taken: what is free, and within the bound."""
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    return min(float(free), allowed - torch.cuda.memory_reserved(device))


class Pieces:
    """Cuts batches into pieces: as many as the manifest says, and twice as many whenever memory is full.

    The gradient stays that of the batch, up to rounding: each piece counts by its size. Only batch norm
    sees the pieces, and not the batch.

    Args:
        count: to begin with.
        batch_size: there are never more pieces than pairs of examples.
        say: takes what the owner should read.
    """

    def __init__(
        self, count: int, batch_size: int, net: nn.Module, device: torch.device, say: Callable[[str], None]
    ) -> None:
        self.count = count
        self._batch_size = batch_size
        self._device = device
        self._say = say
        self._normalises = any(isinstance(module, _BatchNorm) for module in net.modules())

    @property
    def count_max(self) -> int:
        """Smaller pieces are not tried."""
        return max(1, self._batch_size // EXAMPLES_MIN)

    def fitting(self, work: Callable[[int], T]) -> T:
        """Do some work on a batch in so many pieces as fit; it may begin more than once."""
        while True:
            try:
                return work(self.count)
            except (RuntimeError, MemoryError) as error:
                if not is_exhausted(error) or self.count >= self.count_max:
                    raise
            # The error is forgotten here, and with it the tensors that its frames held.
            self.cut(2 * self.count, full(self._device))
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def cut(self, count: int, reason: str) -> None:
        """Take so many pieces from now on, and tell the owner why."""
        self.count = min(count, self.count_max)
        size = -(-self._batch_size // self.count)
        seen = f"; batch norm sees {size} examples at once" if self._normalises else ""
        self._say(f"batches of {self._batch_size} in {self.count} pieces: {reason}{seen}")


def fit(pieces: Pieces, step: Callable[[], object], memory_gb: float) -> None:
    """Make pieces small enough for the process to stay below so many GB (2^30), on a CPU.

    What is too much is not tried: steps on small pieces show how memory grows with their size. A hard bound
    of the system would end the process instead, and counts what is only mapped.

    Raises:
        ConfigError: even the smallest piece takes more.
    """
    least, bound_bytes = pieces.count, memory_gb * GIB
    count = pieces.count = pieces.count_max
    _forget_peak()
    before = _peak_bytes()
    step()
    peak = _peak_bytes()
    if peak > bound_bytes:
        raise ConfigError(
            f"training takes {peak / GIB:.1f} GB here, more than `memory_gb = {memory_gb:g}`",
            f"set `memory_gb` under [training] to {1.2 * peak / GIB:.1f} or more, or 0",
        )
    expected = peak - before
    while count > least and peak + expected < bound_bytes:
        count = pieces.count = max(least, count // 2)
        step()
        before, peak = peak, _peak_bytes()
        expected = 2 * (peak - before)
    if count > least:
        pieces.cut(count, f"`memory_gb` is {memory_gb:g}")


def _forget_peak() -> None:
    """Let the peak be what is in memory now, where the system can do that: loading may have taken more."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """The most that this process had in memory."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
