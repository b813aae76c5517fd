"""What a codec is."""

from typing import Protocol

from msgspec import Struct
from torch import Tensor


class Part(Struct, frozen=True):
    """A stretch of a codec's bytes that is no tensor of the net, as safetensors describes it.

    name: begins with a dot: no tensor of a net does.
    tag: its number format.
    """

    name: str
    tag: str
    count: int
    size_bytes: int


class Codec(Protocol):
    """One way to write `count` float32 numbers: first the parts, then `width` bytes for each number.

    Attributes:
        name: as in manifests and headers.
        whole: fit for weights; otherwise for differences only.
        tag: what safetensors calls the format of a number; empty if numbers are not written one by one.
        width: bytes of a number.
    """

    name: str
    whole: bool
    tag: str
    width: int

    def parts(self, count: int) -> tuple[Part, ...]:
        """Return what comes before the numbers."""
        ...

    def encode(self, vector: Tensor) -> Tensor:
        """Return bytes, uint8, where the numbers are; they may share memory with the numbers.

        Args:
            vector: shape (count,), float32, contiguous, count > 0.

        Raises:
            WeightsError: a number is not finite, or leaves the codec's range.
        """
        ...

    def decode(self, data: Tensor, count: int) -> Tensor:
        """Return numbers, shape (count,), float32, where the bytes are; they may share memory with the bytes.

        Args:
            data: shape (size(count),), uint8, contiguous, at a multiple of 4 bytes.
            count: of numbers.

        Raises:
            WeightsError: no numbers are written like that.
        """
        ...

    def bound(self, vector: Tensor) -> Tensor:
        """Return how far each number may be off after both ways: shape (count,)."""
        ...


def size(codec: Codec, count: int) -> int:
    """Return how many bytes `count` numbers take."""
    return sum(part.size_bytes for part in codec.parts(count)) + count * codec.width
