"""Finds the folder with the files of a data set, and reads files that may be damaged."""

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO

import platformdirs

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import GIB, MIB
from p2ptrain.tasks.loaders import download
from p2ptrain.tasks.loaders.known import SETS, Known

VARIABLE = "P2PTRAIN_DATA"
"""Folders of the owner's with data, several with the separator that PATH has on this system."""

BYTES_MAX = GIB
"""One file in memory: six times the largest known, CIFAR-100's train data."""

BLOCK_BYTES = MIB

GZIP = b"\x1f\x8b"
AGAIN = "get the file again"
READABLE = "give yourself the right to read it"


def cache() -> Path:
    """Return the folder for data that was downloaded, or made of other data."""
    return Path(platformdirs.user_cache_dir("p2ptrain", appauthor=False)) / "datasets"


def find(dataset: str, files: Sequence[str] = ()) -> Path:
    """Return a folder that holds the files of a data set; those that are known are downloaded if need be.

    Looks into the folders of `P2PTRAIN_DATA` and into their subfolders of the usual names, into what the
    system's packages bring, and into the cache. A file may be there with `.gz` or without.

    Args:
        dataset: the name of a known set, or of any other.
        files: what must be there; by default all of a known set, in any of its forms.

    Raises:
        ConfigError: the set is not here, and could not be got; the hint says what to put where.
    """
    known = SETS.get(dataset) or Known(dataset, ())
    layouts = (tuple(files),) if files else known.layouts
    others: list[Path] = []
    for folder in folders(dataset):
        if any(_holds(folder, layout) for layout in layouts):
            if not known.mark or _is_marked(folder, known):
                return folder
            others.append(folder)
    kept = cache() / (known.folders or (dataset,))[0]
    for archive in known.downloads:
        for folder in folders(dataset):
            if archive.is_archive and (folder / archive.name).is_file():
                return download.unpacked(known, archive, folder / archive.name, kept)
    if not known.downloads or known.terms:
        raise _absent(dataset, known, layouts, others)
    try:
        return download.fetch(known, kept)
    except ConfigError as error:
        absent = _absent(dataset, known, layouts, others)
        raise ConfigError(f"{absent.message}; {error.message}", error.hint or absent.hint) from None


def folders(dataset: str) -> Iterator[Path]:
    """Give the folders where a data set may be, in the order of search; each of them exists.

    Raises:
        ConfigError: `P2PTRAIN_DATA` names a folder that does not exist.
    """
    known = SETS.get(dataset) or Known(dataset, ())
    for named in os.environ.get(VARIABLE, "").split(os.pathsep):
        if named:
            folder = Path(named).expanduser()
            if not folder.is_dir():
                raise ConfigError(
                    f"{folder}, which {VARIABLE} or --data names, is not a folder",
                    "name the folder of the data",
                )
            candidates = (*(folder / name for name in (*known.folders, dataset)), folder)
            yield from (candidate for candidate in candidates if candidate.is_dir())
    rest = (*map(Path, known.system), *(cache() / name for name in (*known.folders, dataset)))
    yield from (candidate for candidate in rest if candidate.is_dir())


def choose(folder: Traversable, name: str) -> Traversable:
    """Return the file of that name in a folder, or its twin with or without `.gz` if only that is there."""
    file = folder / name
    twin = folder / (name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz")
    return file if file.is_file() or not (twin.is_file() or twin.is_dir()) else twin


def read(file: Traversable, dataset: str = "", most: int = BYTES_MAX) -> bytes:
    """Return what a file holds, unpacked if it is compressed by gzip.

    Args:
        file: what to read.
        dataset: the known set whose official file it must be; empty: any.
        most: bytes that it may hold.

    Raises:
        ConfigError: it is missing, unreadable, damaged, too large, or not the official one.
    """
    with reading(file), file.open("rb") as stored:
        packed = stored.read(2) == GZIP
        stored.seek(0)
        if packed:
            with gzip.open(stored) as unpacked:
                content = _bounded(unpacked, most)
        else:
            content = _bounded(stored, most)
        if not content:
            raise ValueError("it is empty")
    if dataset:
        _check(file, content, dataset)
    return content


def _bounded(stored: IO[bytes] | gzip.GzipFile, most: int) -> bytes:
    blocks, size = [], 0
    while block := stored.read(BLOCK_BYTES):
        blocks.append(block)
        size += len(block)
        if size > most:
            raise ValueError(f"it holds more than {most} bytes")
    return b"".join(blocks)


@contextmanager
def reading(file: Traversable) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a sentence that names it.

    Raises:
        ConfigError: in place of an error of the system, of a format or of a value.
    """
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(
            f"{file} is missing", f"put it there, or name another folder with {VARIABLE} or --data"
        ) from None
    except IsADirectoryError:
        raise ConfigError(f"{file} is a folder, not a file", f"remove it, and {AGAIN}") from None
    except PermissionError:
        raise ConfigError(f"{file} may not be read", READABLE) from None
    except EOFError:
        raise ConfigError(f"{file} cannot be read: it ends too early", _fix(file)) from None
    except (zlib.error, gzip.BadGzipFile):
        raise ConfigError(f"{file} cannot be read: its compressed bytes are damaged", _fix(file)) from None
    except struct.error:
        raise ConfigError(f"{file} cannot be read: it ends within a number", _fix(file)) from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}", _fix(file)) from error
    except ValueError as error:
        raise ConfigError(f"{file} cannot be read: {error}", _fix(file)) from error


def _fix(file: Traversable) -> str:
    """Say what to do about a damaged file."""
    downloaded = isinstance(file, Path) and file.is_relative_to(cache())
    return "delete it, and it is downloaded again" if downloaded else AGAIN


def digest(content: bytes, expected: str) -> str:
    """Return the MD5 or SHA-256 of bytes in hex, whichever was expected."""
    if len(expected) == 32:
        return hashlib.md5(content, usedforsecurity=False).hexdigest()
    return hashlib.sha256(content).hexdigest()


def _check(file: Traversable, content: bytes, dataset: str) -> None:
    known = SETS[dataset]
    expected = known.digests.get(file.name.removesuffix(".gz"))
    if expected is not None and (found := digest(content, expected)) != expected:
        kind = "MD5" if len(expected) == 32 else "SHA-256"
        raise ConfigError(
            f"{file} is damaged, or not of {known.title}: its {kind} is {found[:12]}…, not {expected[:12]}…",
            f"{_fix(file)}; {_source(known)}",
        )


def _holds(folder: Path, layout: Sequence[str]) -> bool:
    return not _missing(folder, layout)


def _missing(folder: Path, layout: Sequence[str]) -> list[str]:
    try:
        return [name for name in layout if not choose(folder, name).is_file()]
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be read: {error.strerror}", "give yourself the right to read it"
        ) from None


def _is_marked(folder: Path, known: Known) -> bool:
    """Tell a set from another with the same names of files. What cannot be read is left to its reader."""
    try:
        content = read(choose(folder, known.mark))
    except ConfigError:
        return True
    return digest(content, known.digests[known.mark]) == known.digests[known.mark]


def _absent(
    dataset: str, known: Known, layouts: Sequence[Sequence[str]], others: Sequence[Path]
) -> ConfigError:
    """Say what is missing, and what to do about it."""
    begun = [
        (len(lacking), folder, lacking)
        for folder in folders(dataset)
        for layout in layouts
        if 0 < len(lacking := _missing(folder, layout)) < len(layout)
    ]
    if others:
        why = f"the files in {others[0]} are damaged, or of another set"
    elif begun:
        _, folder, lacking = min(begun)
        why = f"{folder} lacks {', '.join(lacking)}"
    else:
        why = "no folder with its files was found"
    wanted = " or ".join(", ".join(layout) for layout in layouts)
    hint = f"put {wanted} into a folder, and name it with --data or {VARIABLE}"
    return ConfigError(f"{known.title} is not here: {why}", f"{hint}; {_source(known)}".removesuffix("; "))


def _source(known: Known) -> str:
    """Say where a set comes from."""
    parts = [f"it comes from {known.downloads[0].urls[0]}"] if known.downloads else []
    if known.package:
        parts.append(f"or with `apt-get install {known.package}`")
    if known.terms:
        parts.append(f"mind its terms: {known.terms}")
    return ", ".join(parts)
