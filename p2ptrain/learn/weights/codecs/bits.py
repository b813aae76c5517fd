"""Places of 12 bits and values of 2 bits, packed into bytes; what fills up the last bytes is not read."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def places_bytes(count: int) -> int:
    """Return how many bytes so many places take."""
    return -(-count // 2) * 3


def pack_places(places: Tensor) -> Tensor:
    """Write numbers from 0 to 4095, two in three bytes, the low bits first."""
    first, second = pad(places, (0, len(places) % 2)).view(-1, 2).unbind(1)
    packed = torch.stack([first & 255, first >> 8 | (second & 15) << 4, second >> 4], 1)
    return packed.to(torch.uint8).view(-1)


def unpack_places(data: Tensor, count: int) -> Tensor:
    """Read so many places: int64."""
    low, middle, high = data.long().view(-1, 3).unbind(1)
    return torch.stack([low | (middle & 15) << 8, middle >> 4 | high << 4], 1).view(-1)[:count]


def values_bytes(count: int) -> int:
    """Return how many bytes so many values take."""
    return -(-count // 4)


def pack_values(values: Tensor) -> Tensor:
    """Write numbers from 0 to 3, four in a byte, the low bits first."""
    first, second, third, fourth = pad(values, (0, -len(values) % 4)).view(-1, 4).unbind(1)
    return (first | second << 2 | third << 4 | fourth << 6).to(torch.uint8)


def unpack_values(data: Tensor, count: int) -> Tensor:
    """Read so many values: int64."""
    numbers = data.long()
    return torch.stack([numbers >> shift & 3 for shift in (0, 2, 4, 6)], 1).view(-1)[:count]
