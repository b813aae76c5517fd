"""What flows along a line of peers, as bytes: activations and what goes with them, gradients.

Whatever the bytes are, what comes back is finite and has the shape that is expected here, or is refused.
"""

from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor

from p2ptrain.core.errors import WeightsError
from p2ptrain.learn.training.precision import over_tensors
from p2ptrain.learn.weights.codecs import Codec
from p2ptrain.learn.weights.codecs.codec import size

DIMENSIONS_MAX = 8
NUMBERS_MAX = 1 << 28
"""Of one tensor: 1 GiB as f32, more than a home computer could hold several of (guess)."""

IGNORED = -100
"""A label that torch's losses leave out."""

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
}

Count = Annotated[int, Meta(ge=0, le=NUMBERS_MAX)]
Shape = Annotated[tuple[Count, ...], Meta(max_length=DIMENSIONS_MAX)]


class Forward(Struct, frozen=True, tag=0, array_like=True):
    """What leaves a layer, for a micro-batch.

    step: of the line, from 0. index: of so many micro-batches, of which this counts `share`.
    numbers: activations by the line's codec. batch: what the loss needs besides, see `pack`.
    """

    step: Count
    index: Count
    count: Annotated[int, Meta(ge=1, le=1 << 16)]
    share: Annotated[float, Meta(gt=0.0, le=1.0)]
    shape: Shape
    numbers: bytes
    batch: bytes


class Backward(Struct, frozen=True, tag=1, array_like=True):
    """The gradient for a micro-batch, and its loss as it counts."""

    step: Count
    index: Count
    loss: float
    shape: Shape
    numbers: bytes


class _Packed(Struct, frozen=True, array_like=True):
    """A tensor of a batch. numbers: None for what entered the net."""

    dtype: str
    shape: Shape
    numbers: bytes | None


_decoder: msgspec.msgpack.Decoder[Forward | Backward] = msgspec.msgpack.Decoder(Forward | Backward)
_packed = msgspec.msgpack.Decoder(tuple[_Packed, ...])
encode = msgspec.msgpack.encode


def decode(data: bytes) -> Forward | Backward:
    """Read a frame.

    Raises:
        WeightsError: it is none.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"something else than a frame of a line came: {error}") from None


def write(tensor: Tensor, codec: Codec) -> bytes:
    """Write numbers; they are not where they are any more.

    Raises:
        WeightsError: some are not finite.
    """
    flat = tensor.detach().reshape(-1).float().contiguous()
    return _bytes(codec.encode(flat)) if len(flat) else b""


def read(data: bytes, shape: tuple[int, ...], codec: Codec, device: torch.device) -> Tensor:
    """Read numbers of that shape.

    Raises:
        WeightsError: these are others, or not finite.
    """
    count = _count(shape)
    if len(data) != (size(codec, count) if count else 0):
        raise WeightsError(f"{len(data)} bytes for numbers of shape {shape}")
    if not count:
        return torch.empty(shape, device=device)
    flat = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
    return codec.decode(flat, count).view(shape)


def pack(batch: Any, entering: Tensor) -> bytes:
    """Write the tensors of a batch, but for the one that enters the net: nobody else needs its numbers."""
    found: list[_Packed] = []

    def note(tensor: Tensor) -> Tensor:
        name = str(tensor.dtype).removeprefix("torch.")
        if name not in DTYPES:
            raise WeightsError(f"numbers of type {name} in a batch cannot be sent along a line")
        numbers = None if tensor is entering else _bytes(tensor.reshape(-1))
        found.append(_Packed(name, tuple(tensor.shape), numbers))
        return tensor

    over_tensors(batch, note)
    return encode(tuple(found))


class Unpacker:
    """Builds batches as the own ones are, of others' numbers.

    Args:
        like: an own batch, prepared.
        classes: so many values may whole numbers have, and those that occur in the own batch.
    """

    def __init__(self, like: Any, classes: int) -> None:
        self._like, self._classes = like, classes
        self._tensors: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            self._tensors.append(tensor)
            return tensor

        over_tensors(like, note)

    @property
    def batch_bytes(self) -> int:
        """Of the own batch."""
        return sum(tensor.nbytes for tensor in self._tensors)

    def unpack(self, data: bytes) -> Any:
        """Read a batch; zeros are in place of what entered the net.

        Raises:
            WeightsError: it is not like the own ones.
        """
        try:
            packed = _packed.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise WeightsError(f"something else than a batch came along a line: {error}") from None
        if len(packed) != len(self._tensors):
            raise WeightsError(f"a batch of {len(packed)} tensors, not {len(self._tensors)}")
        read = iter([self._read(one, like) for one, like in zip(packed, self._tensors, strict=True)])
        return over_tensors(self._like, lambda _: next(read))

    def _read(self, one: _Packed, like: Tensor) -> Tensor:
        if DTYPES.get(one.dtype) != like.dtype or one.shape[1:] != tuple(like.shape[1:]):
            raise WeightsError(f"{one.dtype} of shape {one.shape} in a batch")
        if len(one.shape) != like.ndim:
            raise WeightsError(f"{one.dtype} of shape {one.shape} in a batch")
        if one.numbers is None:
            return like.new_zeros(()).expand(one.shape)
        if len(one.numbers) != _count(one.shape) * like.element_size():
            raise WeightsError(f"{len(one.numbers)} bytes for numbers of shape {one.shape}")
        raw = torch.frombuffer(bytearray(one.numbers), dtype=torch.uint8)
        tensor = (raw != 0) if like.dtype == torch.bool else raw.view(like.dtype)
        self._check(tensor, like)
        return tensor.view(one.shape).to(like.device)

    def _check(self, tensor: Tensor, like: Tensor) -> None:
        """Whole numbers choose places in memory: on some devices a wrong one ends the process."""
        if tensor.is_floating_point():
            fits = bool(tensor.isfinite().all())
        elif tensor.dtype == torch.bool or not tensor.numel():
            fits = True
        else:
            most = max(self._classes - 1, int(like.max()) if like.numel() else 0)
            least = min(0, int(like.min()) if like.numel() else 0)
            fits = bool((((tensor >= least) & (tensor <= most)) | (tensor == IGNORED)).all())
        if not fits:
            raise WeightsError("a batch with numbers that are out of range")


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    if count > NUMBERS_MAX:
        raise WeightsError(f"more than {NUMBERS_MAX} numbers of shape {shape}")
    return count
