"""Weights as bytes: safetensors with one allowed header for a given model, codec and base.

Layout: u64 little-endian header length, JSON header padded with spaces to 8 bytes, the numbers that are
not trained as float32, then the trained ones by the codec, each in the order of the spec. Header and size
follow from spec, codec and base alone, so a receiver compares them with its own and parses nothing that a
stranger wrote but the name of a base.

A **delta** names its base, the blob of other weights: its trained numbers are differences from those. The
others are not: a variance that is a sum may be rounded to zero.
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import torch
from torch import Tensor

from p2ptrain.core import limits
from p2ptrain.core.errors import ManifestError, WeightsError
from p2ptrain.core.types import BlobId, Ref
from p2ptrain.learn.weights import codecs
from p2ptrain.learn.weights.blobs import Buffer, GoneError
from p2ptrain.learn.weights.codecs import CODECS, Codec
from p2ptrain.learn.weights.codecs.codec import size
from p2ptrain.learn.weights.vector import Entry, Spec

FORMAT = "p2ptrain-weights-1"

NORM_FACTOR = 100.0
"""Weights longer than this times the own ones (plus one) are refused: training never moves that far,
and a huge vector would rule any average it enters. Guess."""

AT_ONCE = 31 << 10
"""So many numbers are squared at once: 10 times faster than the whole (measured)."""

EXACT = "f32"
"""Whole weights may always travel like this, whatever the manifest says."""

_NAME = re.compile(rb"[0-9a-f]{64}")
_NOWHERE = BlobId(Ref("0" * 64))


class BaseGoneError(WeightsError):
    """A delta cannot be used before its base is here."""


class Base(NamedTuple):
    """What a delta is a difference from: the name and the numbers."""

    blob: BlobId
    vector: Tensor


def header(spec: Spec, codec: str, base: BlobId | None = None) -> bytes:
    """Return the bytes that every blob of this model begins with.

    Raises:
        ManifestError: the model is too large to travel, or there is no such codec.
    """
    fields: dict[str, object] = {}
    end = 0
    for name, tag, shape, size_bytes in _tensors(spec, codecs.find(codec)):
        begin, end = end, end + size_bytes
        fields[name] = {"dtype": tag, "shape": shape, "data_offsets": (begin, end)}
    text = _metadata(codec, base) + b"," + msgspec.json.encode(fields)[1:]
    text += b" " * (-len(text) % 8)
    if len(text) > limits.BLOB_HEADER_BYTES_MAX:
        raise ManifestError(f"the names and shapes of the model take {len(text)} bytes: too many")
    if 8 + len(text) + end > limits.BLOB_BYTES_MAX:
        raise ManifestError(f"the model has {spec.count} numbers: too many to be sent")
    return len(text).to_bytes(8, "little") + text


def blob_bytes(spec: Spec, codec: str, base: BlobId | None = None) -> int:
    """Return the size of every blob of this model."""
    return len(header(spec, codec, base)) + _fixed_bytes(spec) + size(codecs.find(codec), spec.trainable)


def encode(vector: Tensor, spec: Spec, codec: str, base: Base | None = None) -> tuple[Buffer, ...]:
    """Return the pieces of a blob: header, numbers that are not trained, trained numbers.

    Args:
        vector: shape (spec.count,), float32, on any device; stays unchanged while the pieces are used.
        spec: of the model.
        codec: by its name.
        base: makes a delta.

    Raises:
        WeightsError: a number is not finite, or leaves the codec's range, or the codec is for deltas only.
    """
    how = codecs.find(codec)
    if base is None and not how.whole:
        raise WeightsError(f"`{codec}` is for differences from other weights", "name the base of the delta")
    trained, fixed = vector[: spec.trainable], vector[spec.trainable :]
    if base is not None:
        trained = trained - base.vector[: spec.trainable].to(trained.device)
    if not math.isfinite(norm(fixed)):
        raise _diverged()
    try:
        data = how.encode(trained.contiguous())
    except WeightsError:
        raise _diverged() from None
    begin = header(spec, codec, None if base is None else base.blob)
    return begin, _bytes(fixed.contiguous().view(torch.uint8)), _bytes(data)


def base_of(data: Buffer) -> BlobId | None:
    """Return the name of the weights that a blob is a delta from; None for whole weights, and for rubbish."""
    for codec in CODECS:
        before, _, _ = _metadata(codec, _NOWHERE).partition(_NOWHERE.encode())
        begin = 8 + len(before)
        name = bytes(data[begin : begin + len(_NOWHERE)])
        if bytes(data[8:begin]) == before and _NAME.fullmatch(name):
            return BlobId(Ref(name.decode()))
    return None


def codec_of(data: Buffer) -> str:
    """Return the name of the codec that a blob says it is written by.

    Raises:
        WeightsError: none that is known.
    """
    base = base_of(data)
    for codec in CODECS:
        begin = _metadata(codec, base)
        if bytes(data[8 : 8 + len(begin)]) == begin:
            return codec
    raise WeightsError("weights in another format")


def decode(
    data: Buffer,
    spec: Spec,
    codec: str,
    norm_max: float = math.inf,
    find: Callable[[BlobId], Tensor] | None = None,
) -> Tensor:
    """Read weights that came from elsewhere: shape (spec.count,), float32, in memory of their own.

    Args:
        data: a blob.
        spec: of the model.
        codec: of whole weights; f32 is taken too. Deltas have any.
        norm_max: longest weights; a delta is at most twice as long.
        find: returns the weights that a delta builds on; without it, deltas are refused.

    Raises:
        BaseGoneError: it is a good delta, but its base is not here.
        WeightsError: they are not of this model, not finite, or longer than `norm_max`.
    """
    base, written = base_of(data), codec_of(data)
    if (find is None and base is not None) or (base is None and written not in (codec, EXACT)):
        raise WeightsError(f"weights by the codec `{written}`{' from a base' if base else ''}: not expected")
    expected = header(spec, written, base)
    size_bytes = blob_bytes(spec, written, base)
    if len(data) != size_bytes:
        raise WeightsError(f"weights of {len(data)} bytes instead of {size_bytes}")
    if bytes(data[: len(expected)]) != expected:
        raise WeightsError("weights of another model, or in another format")
    at = len(expected) + _fixed_bytes(spec)
    fixed = _tensor(data[len(expected) : at]).view(torch.float32)
    trained = codecs.find(written).decode(_tensor(data[at:]), spec.trainable)
    if base is not None and find is not None:
        _check_length(trained, 2 * norm_max)
        trained += _base(find, base)[: spec.trainable].to(trained.device)
    vector = torch.cat([trained, fixed]) if len(fixed) else trained
    _check_length(vector, norm_max)
    return vector


def norm(vector: Tensor) -> float:
    """Return the Euclidean length, in doubles: finite exactly if every number is."""
    if vector.device.type == "cuda":
        return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    pieces = (piece.double() for piece in torch.split(vector.cpu(), AT_ONCE))
    return math.sqrt(sum(float(torch.dot(piece, piece)) for piece in pieces))


def norm_limit(own: float) -> float:
    """Return the length above which foreign weights are refused; `own`: length of the own ones."""
    return NORM_FACTOR * (1.0 + own)


def _check_length(vector: Tensor, norm_max: float) -> None:
    length = norm(vector)
    if not math.isfinite(length):
        raise WeightsError("weights that are not finite")
    if length > norm_max:
        raise WeightsError(f"weights of length {length:.3g}, more than {norm_max:.3g}")


def _base(find: Callable[[BlobId], Tensor], blob: BlobId) -> Tensor:
    try:
        return find(blob)
    except GoneError:
        raise BaseGoneError(f"the base {blob[:12]} is not here", "fetch it first") from None


def _metadata(codec: str, base: BlobId | None) -> bytes:
    """Return how the JSON of a header begins, up to the closing brace of the metadata."""
    facts = {"format": FORMAT, "codec": codec} | ({} if base is None else {"base": base})
    return msgspec.json.encode({"__metadata__": facts})[:-1]


def _tensors(spec: Spec, codec: Codec) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Return name, format, shape and bytes of all tensors of a blob, in its order."""
    for entry in _fixed(spec):
        yield entry.name, "F32", entry.shape, 4 * entry.count
    for part in codec.parts(spec.trainable):
        yield part.name, part.tag, (part.count,), part.size_bytes
    for entry in spec.entries if codec.tag else ():
        if entry.offset < spec.trainable:
            yield entry.name, codec.tag, entry.shape, codec.width * entry.count


def _fixed(spec: Spec) -> list[Entry]:
    return [entry for entry in spec.entries if entry.offset >= spec.trainable]


def _fixed_bytes(spec: Spec) -> int:
    return 4 * (spec.count - spec.trainable)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.cpu().numpy().data).cast("B") if len(tensor) else memoryview(b"")


def _tensor(data: Buffer) -> Tensor:
    """Return a copy of bytes, uint8."""
    tensor = torch.empty(len(data), dtype=torch.uint8)
    tensor.numpy().data[:] = memoryview(data)
    return tensor


def _diverged() -> WeightsError:
    return WeightsError("the weights are not finite: training diverged", "lower the learning rate")
