"""What the loaders of pictures return."""

from typing import NamedTuple

from torch import Tensor


class Pictures(NamedTuple):
    """images: uint8 of shape (count, height, width) or (count, channels, height, width).

    labels: int64 of shape (count,); -1 where none is known.
    """

    images: Tensor
    labels: Tensor
