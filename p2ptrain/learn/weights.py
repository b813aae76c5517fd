"""Weights as bytes: safetensors with one allowed form for a given model and codec.

Layout: u64 little-endian header length, JSON header padded with spaces to 8 bytes, then the vector's
numbers in the order of the spec. Header and size follow from spec and codec alone, so a receiver
compares them with its own and parses nothing that a stranger wrote.
"""

import math

import msgspec
import torch
from torch import Tensor

from p2ptrain.core import limits
from p2ptrain.core.errors import ManifestError, WeightsError
from p2ptrain.learn.vector import Spec

FORMAT = "p2ptrain-weights-1"

NORM_FACTOR = 100.0
"""Weights longer than this times the own ones (plus one) are refused: training never moves that far,
and a huge vector would rule any average it enters. Guess."""


class Codec(msgspec.Struct, frozen=True):
    """A number format: what safetensors and what torch call it."""

    tag: str
    dtype: torch.dtype


CODECS = {"f32": Codec("F32", torch.float32), "bf16": Codec("BF16", torch.bfloat16)}


def header(spec: Spec, codec: str) -> bytes:
    """Return the bytes that every blob of this model begins with.

    Raises:
        ManifestError: the model is too large to travel, or there is no such codec.
    """
    if codec not in CODECS:
        raise ManifestError(f"there is no codec `{codec}`", f"known are: {', '.join(CODECS)}")
    tag, width = CODECS[codec].tag, CODECS[codec].dtype.itemsize
    fields: dict[str, object] = {"__metadata__": {"format": FORMAT, "codec": codec}}
    for entry in spec.entries:
        begin, end = entry.offset * width, (entry.offset + entry.count) * width
        fields[entry.name] = {"dtype": tag, "shape": entry.shape, "data_offsets": (begin, end)}
    text = msgspec.json.encode(fields)
    text += b" " * (-len(text) % 8)
    if len(text) > limits.BLOB_HEADER_BYTES_MAX:
        raise ManifestError(f"the names and shapes of the model take {len(text)} bytes: too many")
    if 8 + len(text) + spec.count * width > limits.BLOB_BYTES_MAX:
        raise ManifestError(f"the model has {spec.count} numbers: too many to be sent")
    return len(text).to_bytes(8, "little") + text


def blob_bytes(spec: Spec, codec: str) -> int:
    """Return the size of every blob of this model."""
    return len(header(spec, codec)) + spec.count * CODECS[codec].dtype.itemsize


def encode(vector: Tensor, spec: Spec, codec: str) -> tuple[bytes, memoryview]:
    """Return header and numbers of a vector on the CPU.

    Raises:
        WeightsError: a number is not finite, or leaves the codec's range.
    """
    numbers = vector.to(CODECS[codec].dtype).contiguous()
    if not math.isfinite(norm(numbers)):
        raise WeightsError("the weights are not finite: training diverged", "lower the learning rate")
    return header(spec, codec), numbers.view(torch.uint8).numpy().data


def decode(data: bytes | memoryview, spec: Spec, codec: str, norm_max: float = math.inf) -> Tensor:
    """Read weights that came from elsewhere: shape (spec.count,), float32, in memory of their own.

    Raises:
        WeightsError: they are not of this model, not finite, or longer than `norm_max`.
    """
    expected = header(spec, codec)
    count_bytes = spec.count * CODECS[codec].dtype.itemsize
    if len(data) != len(expected) + count_bytes:
        raise WeightsError(f"weights of {len(data)} bytes instead of {len(expected) + count_bytes}")
    if bytes(data[: len(expected)]) != expected:
        raise WeightsError("weights of another model, or in another format")
    numbers = torch.empty(spec.count, dtype=CODECS[codec].dtype)
    numbers.view(torch.uint8).numpy().data[:] = memoryview(data)[len(expected) :]
    vector = numbers.float()
    length = norm(vector)
    if not math.isfinite(length):
        raise WeightsError("weights that are not finite")
    if length > norm_max:
        raise WeightsError(f"weights of length {length:.3g}, more than {norm_max:.3g}")
    return vector


def norm(vector: Tensor) -> float:
    """Return the Euclidean length, in doubles: finite exactly if every number is."""
    return float(torch.linalg.vector_norm(vector.cpu(), dtype=torch.float64))


def norm_limit(own: float) -> float:
    """Return the length above which foreign weights are refused; `own`: length of the own ones."""
    return NORM_FACTOR * (1.0 + own)
