"""Weights as bytes: safetensors with one allowed header for a given model, codec, base and ranges.

Layout: u64 little-endian header length, JSON header padded with spaces to 8 bytes, the numbers that are
not trained as float32, then the trained ones by the codec, each in the order of the spec. Header and size
follow from spec, codec, base and ranges alone, so a receiver compares them with its own and parses nothing
that a stranger wrote but the name of a base and the ranges.

A **delta** names its base, the blob of other weights: its trained numbers are differences from those. The
others are not: a variance that is a sum may be rounded to zero.

**Pieces** name ranges: only these numbers are written. Elsewhere they are zero, or as in the base of a
delta, which may be pieces itself.
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
from p2ptrain.core.types import BlobId, Ranges, Ref
from p2ptrain.learn.weights import codecs, pieces
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

_METADATA = re.compile(
    rb'\{"__metadata__":\{"format":"%b","codec":"([a-z0-9]{1,16})"'
    rb'(?:,"base":"([0-9a-f]{64})")?(?:,"ranges":"([0-9,-]+)")?\}' % FORMAT.encode()
)
_METADATA_BYTES_MAX = 256 + pieces.TEXT_BYTES_MAX


class BaseGoneError(WeightsError):
    """A delta cannot be used before its base is here."""


class Base(NamedTuple):
    """What a delta is a difference from: the name and the numbers."""

    blob: BlobId
    vector: Tensor


class Kind(NamedTuple):
    """What a blob says that it is. ranges: none for all numbers."""

    codec: str
    base: BlobId | None = None
    ranges: Ranges = ()


def header(spec: Spec, codec: str, base: BlobId | None = None, ranges: Ranges = ()) -> bytes:
    """Return the bytes that every blob of this model begins with.

    Raises:
        ManifestError: the model is too large to travel, or there is no such codec.
        WeightsError: it has no such ranges.
    """
    pieces.check(ranges, spec.count)
    how = codecs.find(codec)
    fields: dict[str, object] = {}
    end = 0
    for name, tag, shape, size_bytes in _some(spec, how, ranges) if ranges else _tensors(spec, how):
        begin, end = end, end + size_bytes
        fields[name] = {"dtype": tag, "shape": shape, "data_offsets": (begin, end)}
    text = _metadata(codec, base, ranges) + b"," + msgspec.json.encode(fields)[1:]
    text += b" " * (-len(text) % 8)
    if len(text) > limits.BLOB_HEADER_BYTES_MAX:
        raise ManifestError(f"the names and shapes of the model take {len(text)} bytes: too many")
    if 8 + len(text) + end > limits.BLOB_BYTES_MAX:
        raise ManifestError(f"the model has {spec.count} numbers: too many to be sent")
    return len(text).to_bytes(8, "little") + text


def blob_bytes(spec: Spec, codec: str, base: BlobId | None = None, ranges: Ranges = ()) -> int:
    """Return the size of every blob of this model."""
    trained, fixed = map(pieces.size, _split(spec, ranges))
    return len(header(spec, codec, base, ranges)) + 4 * fixed + _trained_bytes(codecs.find(codec), trained)


def encode(
    vector: Tensor, spec: Spec, codec: str, base: Base | None = None, ranges: Ranges = ()
) -> tuple[Buffer, ...]:
    """Return the parts of a blob: header, numbers that are not trained, trained numbers.

    Args:
        vector: shape (spec.count,), float32, on any device; stays unchanged while the parts are used.
        spec: of the model.
        codec: by its name.
        base: makes a delta.
        ranges: makes pieces.

    Raises:
        WeightsError: a number is not finite, or leaves the codec's range, or the codec is for deltas only,
            or the model has no such ranges.
    """
    how = codecs.find(codec)
    if base is None and not how.whole:
        raise WeightsError(f"`{codec}` is for differences from other weights", "name the base of the delta")
    begin = header(spec, codec, None if base is None else base.blob, ranges)
    places, fixed_places = _split(spec, ranges)
    trained, fixed = pieces.take(vector, places), pieces.take(vector, fixed_places)
    if base is not None:
        trained = trained - pieces.take(base.vector, places).to(trained.device)
    if not math.isfinite(norm(fixed)):
        raise _diverged()
    try:
        data = how.encode(trained.contiguous()) if len(trained) else trained
    except WeightsError:
        raise _diverged() from None
    return begin, _bytes(fixed.contiguous().view(torch.uint8)), _bytes(data)


def kind_of(data: Buffer) -> Kind | None:
    """Return what a blob says that it is; None for rubbish.

    Raises:
        WeightsError: it names ranges that nobody would.
    """
    found = _METADATA.match(bytes(data[8 : 8 + _METADATA_BYTES_MAX]))
    if found is None or (codec := found[1].decode()) not in CODECS:
        return None
    base = None if found[2] is None else BlobId(Ref(found[2].decode()))
    return Kind(codec, base, () if found[3] is None else pieces.read(found[3]))


def base_of(data: Buffer) -> BlobId | None:
    """Return the name of the weights that a blob is a delta from; None for whole weights, and for rubbish."""
    kind = kind_of(data)
    return None if kind is None else kind.base


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
        codec: of whole weights; f32 is taken too. Deltas have any, pieces any that is fit for weights.
        norm_max: longest weights; a delta is at most twice as long.
        find: returns the weights that a delta builds on; without it, deltas are refused.

    Raises:
        BaseGoneError: it is a good delta, but its base is not here.
        WeightsError: they are not of this model, not finite, or longer than `norm_max`.
    """
    kind = kind_of(data)
    if kind is None:
        raise WeightsError("weights in another format")
    how, base = codecs.find(kind.codec), kind.base
    expects = how.whole if kind.ranges else kind.codec in (codec, EXACT)
    if (find is None and base is not None) or (base is None and not expects):
        raise WeightsError(
            f"weights by the codec `{kind.codec}`{' from a base' if base else ''}: not expected"
        )
    expected = header(spec, *kind)
    size_bytes = blob_bytes(spec, *kind)
    if len(data) != size_bytes:
        raise WeightsError(f"weights of {len(data)} bytes instead of {size_bytes}")
    if bytes(data[: len(expected)]) != expected:
        raise WeightsError("weights of another model, or in another format")
    places, fixed_places = _split(spec, kind.ranges)
    at = len(expected) + 4 * pieces.size(fixed_places)
    fixed = _tensor(data[len(expected) : at]).view(torch.float32)
    count = pieces.size(places)
    trained = how.decode(_tensor(data[at:]), count) if count else torch.empty(0)
    whole = None
    if base is not None and find is not None:
        _check_length(trained, 2 * norm_max)
        whole = _base(find, base)
        trained += pieces.take(whole, places).to(trained.device)
    if kind.ranges:
        vector = torch.zeros(spec.count) if whole is None else whole.to("cpu", copy=True)
        pieces.put(vector, places, trained)
        pieces.put(vector, fixed_places, fixed)
    else:
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


def _metadata(codec: str, base: BlobId | None, ranges: Ranges) -> bytes:
    """Return how the JSON of a header begins, up to the closing brace of the metadata."""
    facts = {"format": FORMAT, "codec": codec} | ({} if base is None else {"base": base})
    facts |= {"ranges": pieces.write(ranges)} if ranges else {}
    return msgspec.json.encode({"__metadata__": facts})[:-1]


def _split(spec: Spec, ranges: Ranges) -> tuple[Ranges, Ranges]:
    """Return which of the numbers in these ranges are trained, and which are not; no ranges: of all."""
    ranges = ranges or ((0, spec.count),)
    return pieces.part(ranges, 0, spec.trainable), pieces.part(ranges, spec.trainable, spec.count)


def _trained_bytes(codec: Codec, count: int) -> int:
    return size(codec, count) if count else 0


_Line = tuple[str, str, tuple[int, ...], int]
"""Name, format, shape and bytes of a tensor of a blob."""


def _tensors(spec: Spec, codec: Codec) -> Iterator[_Line]:
    """Return all tensors of a blob with all numbers, in its order."""
    for entry in _fixed(spec):
        yield entry.name, "F32", entry.shape, 4 * entry.count
    for part in codec.parts(spec.trainable):
        yield part.name, part.tag, (part.count,), part.size_bytes
    for entry in spec.entries if codec.tag else ():
        if entry.offset < spec.trainable:
            yield entry.name, codec.tag, entry.shape, codec.width * entry.count


def _some(spec: Spec, codec: Codec, ranges: Ranges) -> Iterator[_Line]:
    """Return all tensors of pieces: ranges need not end where the net's tensors do."""
    trained, fixed = map(pieces.size, _split(spec, ranges))
    if fixed:
        yield ".fixed", "F32", (fixed,), 4 * fixed
    for part in codec.parts(trained) if trained else ():
        yield part.name, part.tag, (part.count,), part.size_bytes
    if trained and codec.tag:
        yield ".numbers", codec.tag, (trained,), codec.width * trained


def _fixed(spec: Spec) -> list[Entry]:
    return [entry for entry in spec.entries if entry.offset >= spec.trainable]


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.cpu().numpy().data).cast("B") if len(tensor) else memoryview(b"")


def _tensor(data: Buffer) -> Tensor:
    """Return a copy of bytes, uint8."""
    tensor = torch.empty(len(data), dtype=torch.uint8)
    tensor.numpy().data[:] = memoryview(data)
    return tensor


def _diverged() -> WeightsError:
    return WeightsError("the weights are not finite: training diverged", "lower the learning rate")
