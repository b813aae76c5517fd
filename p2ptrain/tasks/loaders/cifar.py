"""Reads CIFAR-10 and CIFAR-100 in their binary and their python version."""

from collections.abc import Callable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import MIB
from p2ptrain.tasks.loaders import files, plain_pickle
from p2ptrain.tasks.loaders.known import PARTS
from p2ptrain.tasks.loaders.pictures import Pictures

CHANNELS, SIDE = 3, 32
PIXELS = CHANNELS * SIDE * SIDE

FILE_BYTES_MAX = 192 * MIB
"""CIFAR-100's train data are 155 MB."""

Bytes = npt.NDArray[np.uint8]


class Batch(NamedTuple):
    """labels: uint8 of shape (count,). pixels: uint8 of shape (count, 3072), planes of red, green, blue."""

    labels: Bytes
    pixels: Bytes


class Form(NamedTuple):
    """One of the four ways in which the two sets come."""

    dataset: str
    classes: int
    files: dict[str, tuple[str, ...]]
    read: Callable[[bytes, bool], Batch]
    names: str


def find(dataset: str) -> Path:
    """Return the folder with `cifar10` or `cifar100`; get it if need be.

    Raises:
        ConfigError: it is not here, and could not be got.
    """
    return files.find(dataset)


def read(folder: Traversable, split: str, *, coarse: bool = False, official: bool = True) -> Pictures:
    """Read a split: images of shape (count, 3, 32, 32), classes as in the files.

    Args:
        folder: holds the files of one version of one of the sets.
        split: `train` or `test`.
        coarse: CIFAR-100's 20 kinds in place of its 100 classes.
        official: only the publisher's bytes will do.

    Raises:
        ConfigError: a file is missing, damaged or another.
    """
    form = _form(folder)
    batches = [_read(folder / name, form, coarse, official) for name in form.files[split]]
    images = torch.from_numpy(np.concatenate([batch.pixels for batch in batches]))
    labels = torch.from_numpy(np.concatenate([batch.labels for batch in batches]))
    return Pictures(images.view(-1, CHANNELS, SIDE, SIDE), labels.long())


def class_names(folder: Traversable) -> list[str]:
    """Return what the classes are called, in their order.

    Raises:
        ConfigError: the file that says it is missing or damaged.
    """
    form = _form(folder)
    file = folder / form.names
    content = files.read(file, most=MIB)
    with files.reading(file):
        if file.name.endswith(".txt"):
            names = content.decode("ascii").split()
        else:
            held = plain_pickle.loads(content)
            listed = held.get(b"label_names") or held.get(b"fine_label_names") or []
            names = [name.decode("ascii") for name in listed if isinstance(name, bytes)]
        if len(names) != form.classes:
            raise ValueError(f"it names {len(names)} classes in place of {form.classes}")
    return names


def _read(file: Traversable, form: Form, coarse: bool, official: bool) -> Batch:
    content = files.read(file, form.dataset if official else "", FILE_BYTES_MAX)
    with files.reading(file):
        batch = form.read(content, coarse)
        if len(batch.labels) == 0 or int(batch.labels.max()) >= form.classes:
            raise ValueError(f"it has classes that are not among the {form.classes}")
    return batch


def _form(folder: Traversable) -> Form:
    """Tell by the names of its files what a folder holds.

    Raises:
        ConfigError: none of the forms is there whole.
    """

    def lacking(form: Form) -> list[str]:
        return [name for names in form.files.values() for name in names if not (folder / name).is_file()]

    best = min(FORMS, key=lambda form: len(lacking(form)) / sum(map(len, form.files.values())))
    if missing := lacking(best):
        raise ConfigError(
            f"{folder} lacks {', '.join(missing)}",
            "name a folder with all files of CIFAR-10 or CIFAR-100, in the binary or the python version",
        )
    return best


def _records(content: bytes, labels: int, place: int) -> Batch:
    """Cut the binary version: so many labels, of which one is wanted, then the pixels."""
    size = labels + PIXELS
    if len(content) % size:
        raise ValueError(f"its {len(content)} bytes are no whole number of pictures of {size}")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return Batch(records[:, place], records[:, labels:])


def _binary10(content: bytes, coarse: bool) -> Batch:
    return _records(content, 1, 0)


def _binary100(content: bytes, coarse: bool) -> Batch:
    return _records(content, 2, 0 if coarse else 1)


def _python(content: bytes, coarse: bool) -> Batch:
    held = plain_pickle.loads(content)
    names = (b"coarse_labels",) if coarse else (b"labels", b"fine_labels")
    labels = next((held[name] for name in names if name in held), None)
    pixels = held.get(b"data")
    if not isinstance(labels, list) or not isinstance(pixels, np.ndarray):
        raise ValueError("it holds no labels or no data")
    if pixels.shape != (len(labels), PIXELS):
        raise ValueError(f"data of shape {pixels.shape} and {len(labels)} labels do not fit together")
    if not all(isinstance(label, int) and 0 <= label < 256 for label in labels):
        raise ValueError("its labels are no small numbers")
    return Batch(np.array(labels, np.uint8), pixels)


FORMS = (
    Form(
        "cifar10",
        10,
        {"train": tuple(f"{part}.bin" for part in PARTS), "test": ("test_batch.bin",)},
        _binary10,
        "batches.meta.txt",
    ),
    Form("cifar10", 10, {"train": PARTS, "test": ("test_batch",)}, _python, "batches.meta"),
    Form(
        "cifar100", 100, {"train": ("train.bin",), "test": ("test.bin",)}, _binary100, "fine_label_names.txt"
    ),
    Form("cifar100", 100, {"train": ("train",), "test": ("test",)}, _python, "meta"),
)
