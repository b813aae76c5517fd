"""Keeps decoded pictures on the disk, mapped into memory: read as needed, and never all of them at once."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from p2ptrain.core.limits import MIB

Bytes = npt.NDArray[np.uint8]

SPARE_BYTES = 64 * MIB
"""Stays free on the disk."""


def key(*parts: object) -> str:
    """Name what was decoded after all that it depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def mapped(file: Path, shape: Sequence[int]) -> Bytes | None:
    """Return an array of that shape from its file, or nothing where that is missing or damaged.

    Who writes into the array changes its own memory, not the file.
    """
    try:
        array = np.load(file, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == np.uint8 and array.shape == tuple(shape) else None


def room(folder: Path, shape: Sequence[int]) -> bool:
    """Tell whether an array of that shape fits on the disk."""
    return prod(shape) + SPARE_BYTES <= shutil.disk_usage(folder).free


def write(file: Path, shape: Sequence[int], pieces: Iterable[Bytes]) -> None:
    """Write an array piece by piece; whoever looks sees all of it or nothing.

    Raises:
        OSError: no room, or no right to write.
    """
    beside = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as out:
            header = {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)}
            np.lib.format.write_array_header_1_0(out, header)
            for piece in pieces:
                out.write(piece.tobytes())
        os.replace(beside, file)
    finally:
        beside.unlink(missing_ok=True)
