"""Numbers of weights as a file of plain f32, for rings: the daemon adds up what the trainer wrote."""

import math
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from p2ptrain.core.errors import WeightsError
from p2ptrain.core.types import Ranges, Ref, Slot
from p2ptrain.learn import wire


class Holder(Protocol):
    """What an engine offers."""

    def numbers(self, ref: Ref, ranges: Ranges) -> Tensor:
        """Return some numbers of any weights, as they are now."""
        ...

    def fill(self, out: Slot, ranges: Ranges, numbers: Tensor) -> None:
        """Put numbers from elsewhere into a slot."""
        ...


def move(holder: Holder, command: wire.Export | wire.Import) -> wire.Moved:
    """Write a file, or read one; say how many numbers, or why not."""
    try:
        if isinstance(command, wire.Export):
            numbers = holder.numbers(command.ref, command.ranges).cpu().contiguous()
            if not math.isfinite(float(numbers.double().square().sum())):
                raise WeightsError("the weights are not finite")
            Path(command.path).write_bytes(numbers.numpy().data.cast("B"))
        else:
            size = Path(command.path).stat().st_size
            numbers = torch.empty(size // 4)
            with Path(command.path).open("rb") as file:
                file.readinto(numbers.numpy().data.cast("B"))
            holder.fill(command.out, command.ranges, numbers)
    except WeightsError as error:
        return wire.Moved(command.tag, 0, error.message)
    except OSError as error:
        return wire.Moved(command.tag, 0, f"the numbers could not be moved: {error.strerror}")
    return wire.Moved(command.tag, len(numbers))
