"""Reads Tiny-ImageNet in its official layout, from a folder or from the zip that it comes in.

Its JPEGs are decoded once, into a file that is mapped into memory: 1.2 GB for the whole set.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import MIB
from p2ptrain.tasks.loaders import decoded, download, files, unpack
from p2ptrain.tasks.loaders.decoding import decode
from p2ptrain.tasks.loaders.pictures import Pictures
from p2ptrain.tasks.loaders.progress import Progress

SIDE = 64
CLASSES_MAX = 1000
JPEG_BYTES_MAX = MIB
"""They have 2 kB."""

TEXT_BYTES_MAX = 64 * MIB
ZIP = "tiny-imagenet-200.zip"
WNID = re.compile(r"n\d{8}")
NUMBER = re.compile(r"(\d+)\.JPEG")


class Entry(NamedTuple):
    """A picture of a split: where it is, and its class; -1: nobody says."""

    name: str
    label: int


class Source(Protocol):
    """The set, wherever it lies."""

    def names(self, folder: str) -> list[str]:
        """Return what a folder of the set holds, by name."""
        ...

    def read(self, name: str, most: int) -> bytes:
        """Return what a file of the set holds.

        Raises:
            ConfigError: it is missing, damaged or larger than `most`.
        """
        ...

    def print_of(self, names: Sequence[str]) -> object:
        """Return what changes when these files do."""
        ...


class _Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self, folder: str) -> list[str]:
        with files.reading(self.path / folder):
            return [entry.name for entry in (self.path / folder).iterdir()]

    def read(self, name: str, most: int) -> bytes:
        return files.read(self.path / name, most=most)

    def print_of(self, names: Sequence[str]) -> object:
        found = []
        for name in names:
            with files.reading(self.path / name):
                status = (self.path / name).stat()
            found.append((name, status.st_size, status.st_mtime_ns))
        return str(self.path.resolve()), found


class _Zip:
    """The paths in it may begin with a folder that holds all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with files.reading(path):
            try:
                self._zip = zipfile.ZipFile(path)
            except unpack.DAMAGES as error:
                raise ValueError(f"it is not a whole zip ({error})") from None
        places = [name for name in self._zip.namelist() if name.split("/")[-1] == "wnids.txt"]
        self._top = min(places, key=len, default="wnids.txt").removesuffix("wnids.txt")
        self._folders: dict[str, list[str]] = {}
        for name in self._zip.namelist():
            folder, _, last = name.removeprefix(self._top).rpartition("/")
            if last:
                self._folders.setdefault(folder, []).append(last)

    def names(self, folder: str) -> list[str]:
        if folder not in self._folders:
            raise ConfigError(f"{self.path} lacks {folder}", files.AGAIN)
        return self._folders[folder]

    def read(self, name: str, most: int) -> bytes:
        with files.reading(self.path):
            try:
                with self._zip.open(self._top + name) as content:
                    held = content.read(most + 1)
            except KeyError:
                raise ValueError(f"it lacks {name}") from None
            except unpack.DAMAGES as error:
                raise ValueError(f"{name} in it is damaged ({error})") from None
            if not held or len(held) > most:
                raise ValueError(f"{name} in it has {len(held)} bytes")
        return held

    def print_of(self, names: Sequence[str]) -> object:
        infos = [self._zip.getinfo(self._top + name) for name in names]
        return [(info.filename, info.file_size, info.CRC) for info in infos]


def find() -> Path:
    """Return the folder with the set, or with its zip.

    Raises:
        ConfigError: it is not here.
    """
    return files.find("tiny_imagenet")


def read(folder: Path, split: str) -> Pictures:
    """Read a split: images of shape (count, 3, 64, 64), mapped; classes in the order of `wnids.txt`.

    Args:
        folder: the official one, or one that holds `tiny-imagenet-200.zip`.
        split: `train`; `test`, which is the set's `val`, for its own test pictures have no labels; or
            `unlabelled`, which is those.

    Raises:
        ConfigError: a file is missing or damaged, or there is no room for the decoded pictures.
    """
    source = _source(folder)
    entries = _entries(source, split)
    names = [entry.name for entry in entries]
    shape = (len(entries), 3, SIDE, SIDE)
    kept = files.cache() / f"tiny_imagenet-{split}-{decoded.key(source.print_of(names), shape)}.npy"
    images = decoded.mapped(kept, shape)
    if images is None:
        with download.alone(kept, "Tiny-ImageNet"):
            images = decoded.mapped(kept, shape)
            if images is None:
                _decode(source, names, kept, f"tiny_imagenet-{split}-*.npy")
                images = decoded.mapped(kept, shape)
    assert images is not None
    labels = torch.tensor([entry.label for entry in entries], dtype=torch.int64)
    return Pictures(torch.from_numpy(images), labels)


def class_names(folder: Path) -> list[str]:
    """Return what the classes are called, in their order.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    source = _source(folder)
    words = dict(line.partition("\t")[::2] for line in _text(source, "words.txt").splitlines())
    return [words.get(wnid, wnid) for wnid in wnids(source)]


def _source(folder: Path) -> Source:
    packed = (folder / ZIP).is_file() and not (folder / "wnids.txt").is_file()
    return _Zip(folder / ZIP) if packed else _Folder(folder)


def wnids(source: Source) -> list[str]:
    """Return the names of the classes, as WordNet numbers them, in their order.

    Raises:
        ConfigError: the file is damaged.
    """
    found = _text(source, "wnids.txt").split()
    if (
        not 2 <= len(found) <= CLASSES_MAX
        or len(set(found)) < len(found)
        or not all(map(WNID.fullmatch, found))
    ):
        raise ConfigError("wnids.txt of Tiny-ImageNet is damaged: it is no list of classes", files.AGAIN)
    return found


def _entries(source: Source, split: str) -> list[Entry]:
    classes = wnids(source)
    if split == "train":
        return [
            Entry(name, label)
            for label, wnid in enumerate(classes)
            for name in _numbered(source, f"train/{wnid}/images")
        ]
    if split == "unlabelled":
        return [Entry(name, -1) for name in _numbered(source, "test/images")]
    numbers = {wnid: label for label, wnid in enumerate(classes)}
    entries = []
    present = set(source.names("val/images"))
    for number, line in enumerate(_text(source, "val/val_annotations.txt").splitlines(), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if name not in present or wnid not in numbers:
            raise ConfigError(
                f"line {number} of val_annotations.txt names {name[:40]!r} and {wnid[:40]!r}: "
                "no such picture or class",
                files.AGAIN,
            )
        entries.append(Entry(f"val/images/{name}", numbers[wnid]))
    named = {entry.name for entry in entries}
    if not named or len(named) < len(entries) or len(named) < len(list(filter(NUMBER.search, present))):
        raise ConfigError("val_annotations.txt does not name each picture once", files.AGAIN)
    return entries


def _numbered(source: Source, folder: str) -> list[str]:
    """Return the pictures of a folder in the order of their numbers, the same on every computer."""
    found = [(int(match[1]), name) for name in source.names(folder) if (match := NUMBER.search(name))]
    if not found:
        raise ConfigError(f"{folder} of Tiny-ImageNet holds no pictures", files.AGAIN)
    return [f"{folder}/{name}" for _, name in sorted(found)]


def _text(source: Source, name: str) -> str:
    try:
        return source.read(name, TEXT_BYTES_MAX).decode("ascii")
    except UnicodeDecodeError:
        raise ConfigError(f"{name} of Tiny-ImageNet is damaged: it is no plain text", files.AGAIN) from None


def _decode(source: Source, names: Sequence[str], kept: Path, outdated: str) -> None:
    """Write all pictures of a split; older versions of it go."""
    shape = (len(names), 3, SIDE, SIDE)
    for old in kept.parent.glob(outdated):
        with suppress(OSError):
            old.unlink()
    with download.writing(kept):
        download.demand_room(kept.parent, len(names) * 3 * SIDE * SIDE)
        with Progress("decoding Tiny-ImageNet", len(names), "pictures") as progress:
            decoded.write(kept, shape, _planes(source, names, progress))


def _planes(source: Source, names: Sequence[str], progress: Progress) -> Iterator[decoded.Bytes]:
    for done, name in enumerate(names, 1):
        content = source.read(name, JPEG_BYTES_MAX)
        try:
            picture = decode(content)
            if picture.shape != (SIDE, SIDE, 3):
                raise ValueError(f"it has {picture.shape[1]} x {picture.shape[0]} pixels")
        except ValueError as error:
            raise ConfigError(f"{name} of Tiny-ImageNet cannot be read: {error}", files.AGAIN) from None
        yield np.ascontiguousarray(picture.transpose(2, 0, 1))
        progress.at(done)
