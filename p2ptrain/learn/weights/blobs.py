"""Where blobs lie: in a folder that daemon and trainer share, or in memory for the simulator."""

import mmap
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.types import BlobId

Buffer = bytes | memoryview

_BLOB = re.compile("[0-9a-f]{64}")
_PART = ".trainer-part"
"""Ends the name of a file that the trainer is still writing."""


class GoneError(WeightsError):
    """Weights are not here, or not any more."""


class Blobs(Protocol):
    """Keeps bytes under the id that follows from them."""

    def put(self, pieces: Sequence[Buffer]) -> tuple[BlobId, int]:
        """Keep the joined pieces; return their id and size."""
        ...

    def open(self, blob: BlobId) -> AbstractContextManager[memoryview]:
        """Show a blob's bytes, valid inside the context. Raises GoneError if it is not here."""
        ...

    def drop(self, blob: BlobId) -> None:
        """Forget a blob; none of that name is fine too."""
        ...


class MemoryBlobs:
    """The blobs of one engine. `take` brings one over from another peer, without a copy."""

    def __init__(self) -> None:
        self._held: dict[BlobId, bytes] = {}

    def put(self, pieces: Sequence[Buffer]) -> tuple[BlobId, int]:
        """Keep the joined pieces; return their id and size."""
        data = b"".join(pieces)
        blob = hash_blob(data)
        self._held[blob] = data
        return blob, len(data)

    def take(self, blob: BlobId, source: "MemoryBlobs") -> bool:
        """Hold what another holds; say whether it did."""
        if blob in source._held:
            self._held[blob] = source._held[blob]
        return blob in source._held

    @contextmanager
    def open(self, blob: BlobId) -> Iterator[memoryview]:
        """Show a blob's bytes."""
        if blob not in self._held:
            raise _gone(blob)
        yield memoryview(self._held[blob])

    def drop(self, blob: BlobId) -> None:
        """Forget a blob."""
        self._held.pop(blob, None)


class FolderBlobs:
    """One file a blob, named by its id: a file of that name is always whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{_PART}"):
            leftover.unlink(missing_ok=True)

    def put(self, pieces: Sequence[Buffer]) -> tuple[BlobId, int]:
        """Write the joined pieces; return their id and size. Raises WeightsError if the disk refuses."""
        part = self._folder / f"{os.getpid()}{_PART}"
        try:
            with part.open("wb+") as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    size_bytes, blob = len(mapped), hash_blob(memoryview(mapped))
            part.replace(self._path(blob))
        except OSError as error:
            raise WeightsError(
                f"the weights could not be written: {error}", "free some disk space"
            ) from error
        return blob, size_bytes

    @contextmanager
    def open(self, blob: BlobId) -> Iterator[memoryview]:
        """Map a blob's file into memory."""
        try:
            with self._path(blob).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise _gone(blob) from error
        with mapped, memoryview(mapped) as view:
            yield view

    def drop(self, blob: BlobId) -> None:
        """Delete a blob's file."""
        with suppress(FileNotFoundError, PermissionError):  # Windows keeps a file that is being sent
            self._path(blob).unlink()

    def _path(self, blob: BlobId) -> Path:
        if not _BLOB.fullmatch(blob):
            raise _gone(blob)
        return self._folder / blob


def _gone(blob: BlobId) -> GoneError:
    return GoneError(f"the weights {blob[:12]} are not here")
