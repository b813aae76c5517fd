"""Gets the files of a data set from where their publisher gives them away.

What broke off goes on where it stopped, in a file with `.part`. Nothing counts before its checksum is right.
One process gets a set while others wait for it.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.limits import GIB, KIB, MIB
from p2ptrain.tasks.loaders import unpack
from p2ptrain.tasks.loaders.known import Download, Known
from p2ptrain.tasks.loaders.progress import Progress

OFFLINE = "P2PTRAIN_OFFLINE"
"""Where this variable is set, nothing is downloaded."""

TRIES = 4
"""So often one address is asked again, each time from where the last answer broke off."""

TIMEOUT_S = 30.0
BLOCK_BYTES = 256 * KIB
BYTES_MAX = 2 * GIB
"""Of a file whose size is not known: eight times the largest set."""

SPARE_BYTES = 64 * MIB
"""Stays free on the disk."""

PARTIAL, UNSATISFIABLE = 206, 416


class _BrokenOffError(Exception):
    """Worth another try."""


class _RefusedError(Exception):
    """This address will not give the file."""


def fetch(known: Known, folder: Path) -> Path:
    """Get what a set lacks into a folder, and return the folder.

    Raises:
        ConfigError: no connection, no room, or other bytes than expected.
    """
    if os.environ.get(OFFLINE):
        raise ConfigError(f"nothing is downloaded, for {OFFLINE} is set")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(folder, known.title):
        for file in known.downloads:
            if file.is_archive and not _is_complete(known, folder):
                archive = folder.parent / file.name
                get(file, archive, known.title)
                unpack.into(folder, archive)
                archive.unlink(missing_ok=True)
            elif not file.is_archive and not (folder / file.name).is_file():
                with writing(folder):
                    folder.mkdir(exist_ok=True)
                get(file, folder / file.name, known.title)
    return folder


def unpacked(known: Known, archive: Download, file: Path, folder: Path) -> Path:
    """Unpack an archive that its owner got into a folder, and return the folder.

    Raises:
        ConfigError: it is not the publisher's, or cannot be unpacked.
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with alone(folder, known.title):
        if not _is_complete(known, folder):
            if _digest(file, archive.digest) != archive.digest:
                raise ConfigError(
                    f"{file} is damaged, or another archive: its checksum is wrong",
                    f"get it again from {archive.urls[0]}",
                )
            unpack.into(folder, file)
    return folder


@contextmanager
def alone(folder: Path, title: str) -> Iterator[None]:
    """Keep other processes from filling the same folder; wait for one that does.

    Raises:
        ConfigError: the folder above cannot be written.
    """
    with writing(folder):
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            with Progress(f"waiting for another process that prepares {title}", 0) as waiting:
                waiting.at(0)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def get(file: Download, target: Path, title: str) -> None:
    """Get one file and check it.

    Raises:
        ConfigError: it cannot be had, there is no room, or its checksum is wrong.
    """
    failures: list[str] = []
    for url in file.urls:
        try:
            _get(file, url, target, title)
            return
        except _RefusedError as error:
            failures.append(f"getting {url} failed: {error}")
    raise ConfigError("; ".join(failures))


def _get(file: Download, url: str, target: Path, title: str) -> None:
    part = target.with_name(f"{target.name}.part")
    reason = ""
    for _ in range(TRIES):
        resumed = part.exists()
        try:
            _receive(file, url, part, title)
        except _BrokenOffError as error:
            reason = str(error)
            continue
        if _digest(part, file.digest) == file.digest:
            with writing(part):
                os.replace(part, target)
            return
        part.unlink()
        reason = "its checksum is wrong"
        if not resumed:
            break
    raise _RefusedError(reason)


def _receive(file: Download, url: str, part: Path, title: str) -> None:
    """Append to what is there of a file until it is whole."""
    have = part.stat().st_size if part.exists() else 0
    if file.size and have == file.size:
        return
    if file.size and have > file.size:
        part.unlink()
        have = 0
    with _ask(url, have, part) as answer:
        if answer.status != PARTIAL:
            have = 0
        length = answer.headers.get("Content-Length", "")
        total = file.size or (have + int(length) if length.isdecimal() else 0)
        if total > BYTES_MAX:
            raise _RefusedError(f"it states {total} bytes")
        demand_room(part.parent, total - have)
        what = f"{title}, {part.name.removesuffix('.part')}"
        with writing(part), part.open("ab" if have else "wb") as out, Progress(what, total) as progress:
            progress.at(have)
            while block := _next(answer):
                have += len(block)
                if have > (total or BYTES_MAX):
                    out.truncate(0)
                    raise _RefusedError(f"it holds more than the {total} bytes expected")
                out.write(block)
                progress.at(have)
            out.flush()
            os.fsync(out.fileno())
    if have < total:
        raise _BrokenOffError(f"the connection ended after {have} of {total} bytes")


def _ask(url: str, have: int, part: Path) -> HTTPResponse:
    """Ask for a file from byte `have` on."""
    headers = {"User-Agent": "p2ptrain", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        answer: HTTPResponse = _opener().open(request.Request(url, headers=headers), timeout=TIMEOUT_S)  # noqa: S310 - the opener knows no other schemes than these
    except HTTPError as error:
        error.close()
        if error.code == UNSATISFIABLE and have:
            part.unlink(missing_ok=True)
            raise _BrokenOffError("the file has another size now") from None
        raise _RefusedError(f"the server answers {error.code} {error.reason}") from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise _RefusedError(f"no connection to {urlsplit(url).hostname} ({why})") from None
    if answer.status == PARTIAL and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        answer.close()
        part.unlink(missing_ok=True)
        raise _BrokenOffError("the server gives another part than it was asked for")
    return answer


def _next(answer: HTTPResponse) -> bytes:
    try:
        return answer.read(BLOCK_BYTES)
    except (HTTPException, OSError) as error:
        raise _BrokenOffError(f"the connection broke ({error})") from None


def _opener() -> request.OpenerDirector:
    """Speak http and https, through the proxy of the environment; no files, no ftp."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
        request.HTTPDefaultErrorHandler,
        request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _is_complete(known: Known, folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in layout) for layout in known.layouts)


def _digest(file: Path, expected: str) -> str:
    kind = "md5" if len(expected) == 32 else "sha256"
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def demand_room(folder: Path, size: int) -> None:
    """Demand so many bytes of a disk.

    Raises:
        ConfigError: it has too little room.
    """
    free = shutil.disk_usage(folder).free
    if size + SPARE_BYTES > free:
        raise ConfigError(
            f"{folder} has {free / 1e6:.0f} MB left, and {(size + SPARE_BYTES) / 1e6:.0f} MB are needed",
            "make room there, or put the files into a folder elsewhere and name it with --data",
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into a sentence.

    Raises:
        ConfigError: no room, no right to write, or another fault of the disk.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else error.strerror or str(error)
        raise ConfigError(
            f"{path} cannot be written: {why}",
            "make room there, or put the files into a folder elsewhere and name it with --data",
        ) from None
