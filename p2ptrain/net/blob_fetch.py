"""Fetches weights: chunk by chunk, each checked before it is kept, and resumed where it stopped.

A partial blob is `<id>.part`. What it is worth is found out by hashing it, so no second file can
disagree with it, and any number of sources may have written it.
"""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import aiohttp

from p2ptrain.core import limits
from p2ptrain.core.blobid import DIGEST_BYTES, blob_id, chunk_count, chunk_digest
from p2ptrain.core.errors import (
    LocalProtocolError,
    Offence,
    P2PTrainError,
    RefusedError,
    RemoteProtocolError,
    UnreachableError,
)
from p2ptrain.core.types import BlobId, PeerId, Seconds, short
from p2ptrain.net.dialling import explain
from p2ptrain.net.transport import Transport

RANGE_CHUNKS = 16
"""One request: small enough to come from different sources, large enough not to wait for each."""


class Partial:
    """A blob that is being written.

    Args:
        folder: where `<id>.part` is, and `<id>` will be.
        blob: the id.
        size_bytes: of the whole.
        digests: of its chunks; they lead to the id.

    Raises:
        OSError: the file cannot be written, or the disk has no room for what is missing.
    """

    def __init__(self, folder: Path, blob: BlobId, size_bytes: int, digests: Sequence[bytes]) -> None:
        self._path = folder / f"{blob}.part"
        self._whole = folder / blob
        self._size_bytes = size_bytes
        self._digests = digests
        self._path.touch()
        self._file = self._path.open("r+b")
        self._missing = [index for index in range(len(digests)) if not self._holds(index)]
        if shutil.disk_usage(folder).free < len(self._missing) * limits.BLOB_CHUNK_BYTES:
            self._file.close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def ranges(self) -> Iterator[range]:
        """Yield runs of missing chunks, each at most `RANGE_CHUNKS` long."""
        missing = list(self._missing)
        while missing:
            run = range(missing[0], missing[0] + 1)
            while len(run) < min(RANGE_CHUNKS, len(missing)) and missing[len(run)] == run.stop:
                run = range(run.start, run.stop + 1)
            del missing[: len(run)]
            yield run

    def span(self, chunks: range) -> range:
        """Return the bytes of these chunks."""
        step = limits.BLOB_CHUNK_BYTES
        return range(chunks.start * step, min(chunks.stop * step, self._size_bytes))

    def write(self, index: int, chunk: bytes | bytearray) -> None:
        """Keep a chunk.

        Raises:
            RemoteProtocolError: it is not the one that the id means.
        """
        if chunk_digest(chunk) != self._digests[index]:
            raise RemoteProtocolError(Offence.WRONG_BYTES, f"chunk {index} does not match its hash")
        self._file.seek(index * limits.BLOB_CHUNK_BYTES)
        self._file.write(chunk)
        self._missing.remove(index)

    def finish(self) -> None:
        """Give the blob its name: it is whole."""
        assert not self._missing
        self._file.truncate(self._size_bytes)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(self._whole)

    def close(self) -> None:
        """Keep what is there for another time."""
        self._file.close()

    def _holds(self, index: int) -> bool:
        span = self.span(range(index, index + 1))
        self._file.seek(span.start)
        chunk = self._file.read(len(span))
        return len(chunk) == len(span) and chunk_digest(chunk) == self._digests[index]


async def fetch(
    transport: Transport, source: PeerId, blob: BlobId, size_bytes: int, folder: Path, timeout_s: Seconds
) -> None:
    """Bring a blob from one peer into `folder / blob`; at most one call for the same blob at a time.

    Args:
        transport: this node's.
        source: who is asked; `transport` knows its addresses.
        blob: what is wanted.
        size_bytes: what the offer said, which the caller found plausible.
        folder: where it goes.
        timeout_s: for all of it.

    Raises:
        RemoteProtocolError: the source gave something else.
        RefusedError: the source does not give it.
        UnreachableError: the source did not answer, or stopped.
        P2PTrainError: it cannot be written here.
    """
    if not 0 < size_bytes <= limits.BLOB_BYTES_MAX or len(blob) != 64:
        raise LocalProtocolError(f"no blob is called {blob} and has {size_bytes} bytes")
    if (folder / blob).exists():
        return
    try:
        async with asyncio.timeout(timeout_s):
            digests = await _chunk_list(transport, source, blob, size_bytes)
            partial = await asyncio.to_thread(Partial, folder, blob, size_bytes, digests)
            try:
                for chunks in list(partial.ranges()):
                    await _fetch_range(transport, source, blob, partial, chunks)
                await asyncio.to_thread(partial.finish)
            finally:
                partial.close()
    except TimeoutError:
        raise UnreachableError(f"{short(source)} did not give the weights in time") from None
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError) as error:
        raise UnreachableError(f"{short(source)} stopped giving weights: {explain(error)}") from None
    except OSError as error:
        raise P2PTrainError(
            f"weights cannot be written to {folder}: {error.strerror}", "make room on the disk"
        ) from None


async def fetch_from_any(
    transport: Transport,
    sources: Sequence[PeerId],
    blob: BlobId,
    size_bytes: int,
    folder: Path,
    timeout_s: Seconds,
    lied: Callable[[PeerId, RemoteProtocolError], None],
) -> PeerId:
    """Bring a blob from the first source that gives it; each goes on where the one before stopped.

    Args:
        transport: this node's.
        sources: who is asked, in this order.
        blob: what is wanted.
        size_bytes: what the offer said, which the caller found plausible.
        folder: where it goes.
        timeout_s: for each source.
        lied: is told of every source that gave something else.

    Returns:
        The source that gave the rest.

    Raises:
        UnreachableError: none gave it; says why of each.
        P2PTrainError: it cannot be written here.
    """
    failures = []
    for source in sources:
        try:
            await fetch(transport, source, blob, size_bytes, folder, timeout_s)
        except RemoteProtocolError as error:
            lied(source, error)
            failures.append(f"{short(source)} gave wrong bytes")
        except (RefusedError, UnreachableError) as error:
            failures.append(error.message)
        else:
            return source
    raise UnreachableError("nobody gave the weights: " + ("; ".join(failures) or "nobody has them"))


async def _chunk_list(transport: Transport, source: PeerId, blob: BlobId, size_bytes: int) -> list[bytes]:
    """Return the chunk hashes, proved by the id; nothing is read beyond what the size allows."""
    expected = chunk_count(size_bytes) * DIGEST_BYTES
    async with transport.get(source, f"/v1/blob/{blob}/chunks") as answer:
        _check_status(answer, 200, source)
        if answer.content_length != expected:
            raise RemoteProtocolError(Offence.WRONG_BYTES, "the blob has another size than was said")
        data = await answer.content.readexactly(expected)
    transport.traffic.add("blobs_down", source, len(data))
    digests = [data[at : at + DIGEST_BYTES] for at in range(0, expected, DIGEST_BYTES)]
    if blob_id(size_bytes, digests) != blob:
        raise RemoteProtocolError(Offence.WRONG_BYTES, "the chunks do not lead to the blob's id")
    return digests


async def _fetch_range(
    transport: Transport, source: PeerId, blob: BlobId, partial: Partial, chunks: range
) -> None:
    span = partial.span(chunks)
    headers = {"Range": f"bytes={span.start}-{span.stop - 1}"}
    async with transport.get(source, f"/v1/blob/{blob}", headers) as answer:
        _check_status(answer, 206, source)
        if answer.content_length != len(span):
            raise RemoteProtocolError(Offence.WRONG_BYTES, "the blob has another size than was said")
        for index in chunks:
            length = len(partial.span(range(index, index + 1)))
            chunk = bytearray()
            while len(chunk) < length:
                piece = await answer.content.read(length - len(chunk))
                if not piece:
                    raise ConnectionError("the answer ended early")
                chunk += piece
                transport.traffic.add("blobs_down", source, len(piece))
            await asyncio.to_thread(partial.write, index, chunk)


def forget(folder: Path, blob: BlobId) -> None:
    """Delete a blob and what there is of it."""
    for name in (blob, f"{blob}.part"):
        (folder / name).unlink(missing_ok=True)


def _check_status(answer: aiohttp.ClientResponse, expected: int, source: PeerId) -> None:
    if answer.status == expected:
        return
    why = {
        404: "no longer has these weights",
        503: "is busy",
        401: "turned this computer away",
        403: "turned this computer away",
    }
    raise RefusedError(f"{short(source)} {why.get(answer.status, 'does not give these weights')}")
