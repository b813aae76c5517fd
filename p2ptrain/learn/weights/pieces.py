"""Some of the numbers of a flat vector, named by ranges: written, checked, taken out, put back."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from p2ptrain.core import limits
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.types import Ranges

DIGITS_MAX = 12
"""More than any vector has, and few enough to be read without care."""

TEXT_BYTES_MAX = limits.RANGES_MAX * (2 * DIGITS_MAX + 2)

_RANGE = re.compile(rb"([0-9]{1,%d})-([0-9]{1,%d})" % (DIGITS_MAX, DIGITS_MAX))


def write(ranges: Ranges) -> str:
    """Write ranges as headers carry them: `0-5,9-12`."""
    return ",".join(f"{begin}-{end}" for begin, end in ranges)


def read(text: bytes) -> Ranges:
    """Read what a stranger wrote.

    Raises:
        WeightsError: these are no ranges, or too many.
    """
    words = text.split(b",", limits.RANGES_MAX)
    if len(words) > limits.RANGES_MAX:
        raise _too_many()
    found = [_RANGE.fullmatch(word) for word in words]
    ranges = tuple((int(one[1]), int(one[2])) for one in found if one is not None)
    if len(ranges) < len(words):
        raise WeightsError("pieces of weights without good ranges")
    return ranges


def check(ranges: Ranges, count: int) -> None:
    """Demand ranges that are sorted, disjoint, not empty and inside a vector of `count` numbers.

    Raises:
        WeightsError: they are not.
    """
    if len(ranges) > limits.RANGES_MAX:
        raise _too_many()
    last = 0
    for begin, end in ranges:
        if not last <= begin < end <= count:
            raise WeightsError(f"the numbers {begin} to {end} of {count} cannot be named after {last}")
        last = end


def size(ranges: Ranges) -> int:
    """Return how many numbers there are in ranges."""
    return sum(end - begin for begin, end in ranges)


def part(ranges: Ranges, begin: int, end: int) -> Ranges:
    """Return what of these ranges lies between two places."""
    inside = ((max(begin, first), min(end, last)) for first, last in ranges)
    return tuple((first, last) for first, last in inside if first < last)


def take(vector: Tensor, ranges: Ranges) -> Tensor:
    """Return these numbers in order: a view of the vector where they are one range or none."""
    if len(ranges) <= 1:
        begin, end = ranges[0] if ranges else (0, 0)
        return vector[begin:end]
    return torch.cat([vector[begin:end] for begin, end in ranges])


def put(vector: Tensor, ranges: Ranges, numbers: Tensor) -> None:
    """Put numbers into these places of a vector, in order."""
    for place, piece in pair(vector, ranges, numbers):
        place.copy_(piece)


def pair(vector: Tensor, ranges: Ranges, numbers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return each range of a vector as a view, and those of the numbers that are for it."""
    at = 0
    for begin, end in ranges:
        yield vector[begin:end], numbers[at : at + end - begin]
        at += end - begin


def _too_many() -> WeightsError:
    return WeightsError(f"more than {limits.RANGES_MAX} ranges of weights")
