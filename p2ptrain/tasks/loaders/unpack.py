"""Unpacks archives from strangers: no path out of the folder, no links, bounded sizes."""

import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import GIB, KIB, MIB

BYTES_MAX = 4 * GIB
"""Of all files of an archive: fifteen times the largest known."""

ENTRIES_MAX = 200_000
"""Tiny-ImageNet has 120,609 with its folders."""

BLOCK_BYTES = MIB
NAME_CHARS_MAX = KIB

DAMAGES = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)


class Entry(NamedTuple):
    """A file of an archive; only one that lies in the archive's folder is ever given."""

    path: PurePosixPath
    content: IO[bytes]


def into(folder: Path, archive: Path) -> Path:
    """Unpack an archive, so that `folder` is there whole or not at all, and return `folder`.

    A folder that holds all of the archive is left out of the paths. A former `folder` is replaced.

    Raises:
        ConfigError: the archive is damaged, or does what none of a data set does.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        left = BYTES_MAX
        for entry in entries(archive):
            target = beside.joinpath(*entry.path.parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as out:
                while block := entry.content.read(min(BLOCK_BYTES, left + 1)):
                    left -= len(block)
                    if left < 0:
                        raise ValueError(f"it unpacks to more than {BYTES_MAX} bytes")
                    out.write(block)
        inner = list(beside.iterdir())
        whole = inner[0] if len(inner) == 1 and inner[0].is_dir() else beside
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(whole, folder)
    except DAMAGES as error:
        raise ConfigError(
            f"{archive} cannot be unpacked: {error or 'it ends too early'}", "get it again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def entries(archive: Path) -> Iterator[Entry]:
    """Give the files of a `.zip` or a `.tar.gz` one after the other.

    Raises:
        ValueError: one has a path that leads elsewhere, or is no plain file.
    """
    if archive.name.endswith(".zip"):
        yield from _zipped(archive)
        return
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        for count, member in enumerate(tar):
            path = inside(member.name)
            if count >= ENTRIES_MAX:
                raise ValueError(f"it holds more than {ENTRIES_MAX} files")
            if member.isdir():
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise ValueError(f"{member.name!r} is a link or a device")
            yield Entry(path, content)
        rest = 0
        while block := stream.read(BLOCK_BYTES):  # the checksum of gzip comes last
            rest += len(block)
            if rest > BYTES_MAX:
                raise ValueError("it has no end")


def _zipped(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        if len(members) > ENTRIES_MAX:
            raise ValueError(f"it holds more than {ENTRIES_MAX} files")
        for member in members:
            path = inside(member.filename)
            if member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                raise ValueError(f"{member.filename!r} is a link or a device")
            with packed.open(member) as content:
                yield Entry(path, content)


def inside(name: str) -> PurePosixPath:
    """Return the path of an entry.

    Raises:
        ValueError: it leads out of the folder, or means something else on another system.
    """
    path = PurePosixPath(name)
    odd = any(sign in name for sign in ("\\", ":", "\0")) or len(name) > NAME_CHARS_MAX
    if odd or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the path {name[:80]!r} leads out of its folder")
    return path
