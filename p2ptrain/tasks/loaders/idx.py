"""Reads the idx format of MNIST and its kin: magic, big-endian sizes, then bytes; compressed by gzip."""

import gzip
import struct
import zlib
from importlib.resources.abc import Traversable
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import GIB

BYTES_MAX = GIB
"""Twenty times the largest set of this format, MNIST's train images."""

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


class Pictures(NamedTuple):
    """images: uint8 of shape (count, height, width). labels: int64 of shape (count,)."""

    images: Tensor
    labels: Tensor


def read_pictures(folder: Traversable, split: str) -> Pictures:
    """Read images and labels of a split from their files of the usual names.

    Raises:
        ConfigError: a file is missing or damaged, or the two do not fit together.
    """
    images, labels = (read_idx(folder / name) for name in FILES[split])
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ConfigError(
            f"images {tuple(images.shape)} and labels {tuple(labels.shape)} in {folder} do not fit together",
            "both files must be of the same set",
        )
    return Pictures(images, labels.long())


def read_idx(file: Traversable) -> Tensor:
    """Read one file of unsigned bytes: uint8, of the shape that it states.

    Raises:
        ConfigError: the file is missing, damaged, or of another kind.
    """
    try:
        with file.open("rb") as packed, gzip.open(packed) as content:
            magic = content.read(4)
            if magic[:3] != b"\0\0\x08" or not 1 <= magic[3] <= 4:
                raise ValueError("it is not an idx file of bytes")
            shape = struct.unpack(f">{magic[3]}I", content.read(4 * magic[3]))
            count = prod(shape)
            if count > BYTES_MAX:
                raise ValueError(f"it states {count} bytes")
            data = content.read(count + 1)
    except FileNotFoundError:
        raise ConfigError(f"{file} is missing") from None
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", "get the file again") from error
    if len(data) != count:
        raise ConfigError(f"{file} holds another number of bytes than it states", "get the file again")
    return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(shape).copy())
