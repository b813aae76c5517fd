"""The largest few of each chunk, by place, sign and one of two sizes; all others count as zero.

14 bits for each number that is kept, and 8 bytes for each chunk. What is left out must not be lost: see
`feedback`. Source: SparseLoCo (2508.15706), which sends 2 bits a value as well.
"""

from math import ceil, log2

import torch
from torch import Tensor

from p2ptrain.learn.weights.codecs import bits
from p2ptrain.learn.weights.codecs.codec import Part
from p2ptrain.learn.weights.codecs.finite import check

CHUNK = 4096
"""Numbers that compete with each other; a place among them takes 12 bits."""

AT_ONCE = 31 << 10
"""So many numbers are worked on at once on a CPU, by one thread: see `int8`."""

TINY = torch.finfo(torch.float32).tiny
"""Dividing by less is not exact."""

NEGATIVE, LARGE = 2, 1
"""What the two bits of a value say."""


class TopK:
    """Any finite numbers.

    Args:
        percent: of a chunk that is kept, rounded up.
    """

    whole = False
    tag = ""
    width = 0

    def __init__(self, name: str, percent: int) -> None:
        self.name = name
        self._percent = percent

    def parts(self, count: int) -> tuple[Part, ...]:
        scales = 2 * -(-count // CHUNK)
        kept = count // CHUNK * self._kept(CHUNK) + self._kept(count % CHUNK)
        places, values = bits.places_bytes(kept), bits.values_bytes(kept)
        return (
            Part(".scales", "F32", scales, 4 * scales),
            Part(".places", "U8", places, places),
            Part(".values", "U8", values, values),
        )

    def encode(self, vector: Tensor) -> Tensor:
        sketches = [
            _sketch(some, self._kept(some.shape[1]))
            for chunks in _chunks(vector)
            for some in torch.split(chunks, AT_ONCE // self._kept(chunks.shape[1]))
        ]
        scales, places, values = (torch.cat(same) for same in zip(*sketches, strict=True))
        check(torch.isfinite(scales))
        return torch.cat([scales.view(torch.uint8), bits.pack_places(places), bits.pack_values(values)])

    def decode(self, data: Tensor, count: int) -> Tensor:
        head, middle, tail = torch.split(data, [part.size_bytes for part in self.parts(count)])
        vector = torch.zeros(count, device=data.device)
        chunks = _chunks(vector)
        rows = [len(some) for some in chunks]
        kept = [len(some) * self._kept(some.shape[1]) for some in chunks]
        scales = torch.split(head.view(torch.float32).view(-1, 2), rows)
        places = torch.split(bits.unpack_places(middle, sum(kept)), kept)
        values = torch.split(bits.unpack_values(tail, sum(kept)), kept)
        for sketch in zip(chunks, scales, places, values, strict=True):
            _draw(*sketch)
        return vector

    def bound(self, vector: Tensor) -> Tensor:
        return torch.cat(
            [some.abs().amax(1, keepdim=True).expand_as(some).flatten() for some in _chunks(vector)]
        )

    def _kept(self, width: int) -> int:
        return -(-width * self._percent // 100)


def _chunks(vector: Tensor) -> list[Tensor]:
    """Return whole chunks as rows, and the rest as a row, each if there is any."""
    even = len(vector) // CHUNK * CHUNK
    whole, rest = vector[:even].view(-1, CHUNK), vector[even:].view(1, -1)
    return [some for some in (whole, rest) if some.numel()]


def _sketch(chunks: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two sizes of each chunk, and the places and values of what is kept, flat."""
    at_once = AT_ONCE // CHUNK if chunks.device.type == "cpu" else len(chunks)
    places = torch.cat([_largest(some.abs(), kept) for some in torch.split(chunks, at_once)]).sort(1).values
    numbers = chunks.gather(1, places)
    peak = numbers.abs().amax(1, keepdim=True).clamp_min_(TINY)
    sizes = numbers.abs() / peak
    border = sizes.mean(1, keepdim=True)
    for _ in range(2):  # the second time it moves by little
        large = sizes > border
        counts = large.sum(1, keepdim=True)
        upper = (sizes * large).sum(1, keepdim=True) / counts.clamp_min(1)
        lower = (sizes * ~large).sum(1, keepdim=True) / (kept - counts).clamp_min(1)
        border = (upper + lower) / 2
    values = (numbers < 0) * NEGATIVE + large * LARGE
    return torch.cat([lower, upper], 1).mul_(peak).view(-1), places.view(-1), values.view(-1)


def _largest(sizes: Tensor, kept: int) -> Tensor:
    """Return the places of the largest in each row: (rows, kept).

    They lie in those columns of a row whose largest number is among the largest of all columns. So only
    heads and chosen columns are searched: 2.5 times faster than whole rows (1 %, measured).
    """
    rows, width = sizes.shape
    columns = 1 << ceil(log2(CHUNK * kept) / 2)
    if width < CHUNK:
        return sizes.topk(kept, dim=1, sorted=False).indices
    depth = width // columns
    heads = sizes.view(rows, depth, columns).amax(1)
    chosen = heads.topk(kept, dim=1, sorted=False).indices
    steps = torch.arange(0, width, columns, device=sizes.device)
    candidates = (chosen.unsqueeze(1) + steps.unsqueeze(1)).view(rows, -1)
    best = sizes.gather(1, candidates).topk(kept, dim=1, sorted=False).indices
    return candidates.gather(1, best)


def _draw(chunks: Tensor, scales: Tensor, places: Tensor, values: Tensor) -> None:
    """Put what was kept into chunks of zeros.

    Raises:
        WeightsError: a size is no size, or places are not within the chunk and in order.
    """
    rows, width = chunks.shape
    places, values = places.view(rows, -1), values.view(rows, -1)
    in_order = (places[:, 1:] > places[:, :-1]).all() & (places[:, -1] < width).all()
    check(in_order & (torch.isfinite(scales) & (scales >= 0)).all())
    sizes = scales.gather(1, values & LARGE)
    chunks.scatter_(1, places, torch.where(values >= NEGATIVE, -sizes, sizes))
