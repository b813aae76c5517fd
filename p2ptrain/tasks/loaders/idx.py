"""Reads the idx format of MNIST and its kin: magic, big-endian sizes, then bytes; with gzip or without."""

import struct
from importlib.resources.abc import Traversable
from math import prod

import numpy as np
import torch
from torch import Tensor

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import files
from p2ptrain.tasks.loaders.pictures import Pictures

__all__ = ["FILES", "Pictures", "read_idx", "read_pictures"]

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def read_pictures(folder: Traversable, split: str, dataset: str = "") -> Pictures:
    """Read images, of shape (count, height, width), and labels from their files of the usual names.

    Args:
        folder: holds them, compressed or not.
        split: `train` or `test`.
        dataset: `mnist` or `fashion_mnist`, if these must be the official files; empty: any.

    Raises:
        ConfigError: a file is missing, damaged or another, or the two do not fit together.
    """
    images, labels = (read_idx(files.choose(folder, name), dataset) for name in FILES[split])
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ConfigError(
            f"images {tuple(images.shape)} and labels {tuple(labels.shape)} in {folder} do not fit together",
            "both files must be of the same set",
        )
    return Pictures(images, labels.long())


def read_idx(file: Traversable, dataset: str = "") -> Tensor:
    """Read one file of unsigned bytes: uint8, of the shape that it states.

    Raises:
        ConfigError: the file is missing, damaged, of another kind, or not the official one of `dataset`.
    """
    content = files.read(file, dataset)
    with files.reading(file):
        if content[:3] != b"\0\0\x08" or content[3:4] not in (b"\1", b"\2", b"\3", b"\4"):
            raise ValueError("it is not an idx file of bytes")
        begin = 4 + 4 * content[3]
        shape = struct.unpack_from(f">{content[3]}I", content, 4)
        if len(content) - begin != prod(shape):
            raise ValueError(f"it states {prod(shape)} bytes and holds {len(content) - begin}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=begin).reshape(shape).copy())
