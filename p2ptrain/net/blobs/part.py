"""Blobs that are partly here: `<id>.part`, resumed when somebody goes on, cleared away when nobody does.

What a partial blob is worth is found out by hashing it, so no second file can disagree with it, any
number of sources may have written it, and a process that was killed loses no chunk that it had kept.
"""

import errno
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from p2ptrain.core import limits
from p2ptrain.core.blobid import chunk_digest
from p2ptrain.core.errors import LocalProtocolError, Offence, RemoteProtocolError
from p2ptrain.core.types import BlobId, Seconds
from p2ptrain.net.trust.certificates import wall_clock

PARTS_MAX = 4
"""Partial blobs that nobody writes: twice as many as are fetched at once (guess)."""

PARTS_BYTES_MAX = limits.BLOB_BYTES_MAX
"""All of them together: the largest blob can still be resumed."""

PART_AGE_MAX_S: Seconds = 24 * 3600
"""Nobody offers weights of yesterday (guess)."""

_in_use: set[Path] = set()
"""What this process writes now; the lock of the home keeps other processes away."""


def part_path(folder: Path, blob: BlobId) -> Path:
    """Return where the beginnings of a blob are."""
    return folder / f"{blob}.part"


@contextmanager
def reserved(folder: Path, blob: BlobId) -> Iterator[None]:
    """Hold a partial blob against `clear_parts` and a second writer.

    Raises:
        LocalProtocolError: it is being written.
    """
    path = part_path(folder, blob)
    if path in _in_use:
        raise LocalProtocolError(f"blob {blob} is fetched twice at once")
    _in_use.add(path)
    try:
        yield
    finally:
        _in_use.discard(path)


def clear_parts(folder: Path, now: datetime | None = None) -> None:
    """Delete partial blobs that nobody writes, but for the latest `PARTS_MAX` of a day.

    Args:
        folder: where they are.
        now: by the wall clock, as the times of files are.
    """
    seconds = (now or wall_clock()).timestamp()
    found = []
    for path in folder.glob("*.part"):
        with suppress(FileNotFoundError):
            found.append((path.stat(), path))
    count = size = 0
    for stat, path in sorted(found, key=lambda one: one[0].st_mtime, reverse=True):
        if path in _in_use:
            continue
        fits = count < PARTS_MAX and size + stat.st_size <= PARTS_BYTES_MAX
        if fits and seconds - stat.st_mtime <= PART_AGE_MAX_S:
            count += 1
            size += stat.st_size
        else:
            with suppress(OSError):  # it will be tried again
                path.unlink()


class Partial:
    """A blob that is being written; its methods may be called from several threads.

    Args:
        folder: where `<id>.part` is, and `<id>` will be.
        blob: the id.
        size_bytes: of the whole.
        digests: of its chunks; they lead to the id.

    missing: chunks that were not there when it was opened, in order.

    Raises:
        OSError: the file cannot be written, or the disk has no room for what is missing.
    """

    def __init__(self, folder: Path, blob: BlobId, size_bytes: int, digests: Sequence[bytes]) -> None:
        self._path = part_path(folder, blob)
        self._whole = folder / blob
        self._size_bytes = size_bytes
        self._digests = digests
        self._lock = threading.Lock()
        self._path.touch()
        self._file = self._path.open("r+b", buffering=0)
        self.missing = [index for index in range(len(digests)) if not self._holds(index)]
        if shutil.disk_usage(folder).free < len(self.missing) * limits.BLOB_CHUNK_BYTES:
            self._file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def span(self, chunks: range) -> range:
        """Return the bytes of these chunks."""
        step = limits.BLOB_CHUNK_BYTES
        return range(chunks.start * step, min(chunks.stop * step, self._size_bytes))

    def write(self, index: int, chunk: bytes | bytearray) -> None:
        """Keep a chunk: once this returns, it survives the process.

        Raises:
            RemoteProtocolError: it is not the one that the id means.
            OSError: it cannot be written.
        """
        if chunk_digest(chunk) != self._digests[index]:
            raise RemoteProtocolError(Offence.WRONG_BYTES, f"chunk {index} does not match its hash")
        rest = memoryview(chunk)
        with self._lock:
            self._file.seek(index * limits.BLOB_CHUNK_BYTES)
            while rest:
                rest = rest[self._file.write(rest) :]

    def finish(self) -> None:
        """Give the blob its name: every chunk was kept."""
        with self._lock:
            self._file.truncate(self._size_bytes)
            os.fsync(self._file.fileno())
            self._file.close()
        self._path.replace(self._whole)

    def close(self) -> None:
        """Keep what is there for another time."""
        with self._lock:  # a number closed under a thread that writes could name another file
            self._file.close()

    def _holds(self, index: int) -> bool:
        span = self.span(range(index, index + 1))
        self._file.seek(span.start)
        chunk = self._file.read(len(span))
        return len(chunk) == len(span) and chunk_digest(chunk) == self._digests[index]
