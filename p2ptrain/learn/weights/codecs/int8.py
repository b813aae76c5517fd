"""Whole steps from -127 to 127, of a size that each block of numbers has for itself: 1.004 bytes a number."""

from collections.abc import Iterator

import torch
from torch import Tensor

from p2ptrain.learn.weights.codecs.codec import Part, size
from p2ptrain.learn.weights.codecs.finite import check

BLOCK = 1024
"""Numbers that share a step. One outlier costs only so many others their precision, for 0.4 % more bytes."""

STEPS = 127
SCALE_MIN = torch.finfo(torch.float32).tiny
SCALE_MAX = 2.0**120
"""A step of 0 divides badly; 128 of the largest one are finite."""

AT_ONCE = 31 << 10
"""So many numbers stay in a processor's cache, and are just too few for torch to use several threads: these
would wait for each other after each operation, 20 ms at a time on a busy computer (measured)."""

ROUNDING = 1.5 * 2.0**23
"""Added and taken away again, it rounds to whole numbers; for `round` torch does use several threads."""

SLACK = 1e-4
"""Multiplying and rounding put a number that much of a step further off than half of it, at most."""


class Int8:
    """Numbers up to 1.6e38."""

    name = "int8"
    whole = True
    tag = "I8"
    width = 1

    def parts(self, count: int) -> tuple[Part, ...]:
        blocks = -(-count // BLOCK)
        return (Part(".scales", "F32", blocks, 4 * blocks),)

    def encode(self, vector: Tensor) -> Tensor:
        data = torch.empty(size(self, len(vector)), dtype=torch.uint8, device=vector.device)
        scales, steps = _cut(data, len(vector))
        for numbers, blocks, width in _groups(len(vector), vector.device):
            group = vector[numbers].view(-1, width)
            sizes = group.abs()
            scale = sizes.amax(1).div_(STEPS).clamp_min_(SCALE_MIN)
            scales[blocks] = scale
            torch.mul(group, scale.reciprocal_().unsqueeze(1), out=sizes)
            steps[numbers].copy_(sizes.add_(ROUNDING).sub_(ROUNDING).view(-1))
        check(scales <= SCALE_MAX)  # NaN is not
        return data

    def decode(self, data: Tensor, count: int) -> Tensor:
        scales, steps = _cut(data, count)
        check((scales >= SCALE_MIN) & (scales <= SCALE_MAX))
        vector = torch.empty(count, device=data.device)
        for numbers, blocks, width in _groups(count, data.device):
            group = vector[numbers].view(-1, width)
            group.copy_(steps[numbers].view(-1, width)).mul_(scales[blocks].unsqueeze(1))
        return vector

    def bound(self, vector: Tensor) -> Tensor:
        bound = torch.empty_like(vector)
        for numbers, _, width in _groups(len(vector), vector.device):
            group = vector[numbers].view(-1, width)
            scale = group.abs().amax(1, keepdim=True).div_(STEPS).clamp_min_(SCALE_MIN)
            bound[numbers].view(-1, width).copy_(scale * (0.5 + SLACK))
        return bound


def _cut(data: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the scales and the steps that bytes hold."""
    head = len(data) - count
    return data[:head].view(torch.float32), data[head:].view(torch.int8)


def _groups(count: int, device: torch.device) -> Iterator[tuple[slice, slice, int]]:
    """Cut numbers into what is worked on at once: which numbers, which blocks, and how long those are."""
    even = count // BLOCK * BLOCK
    at_once = AT_ONCE if device.type == "cpu" else max(even, BLOCK)
    for begin in range(0, even, at_once):
        end = min(begin + at_once, even)
        yield slice(begin, end), slice(begin // BLOCK, end // BLOCK), BLOCK
    if even < count:
        yield slice(even, count), slice(even // BLOCK, even // BLOCK + 1), count - even
