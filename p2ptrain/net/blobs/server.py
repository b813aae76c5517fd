"""Serves weights: `GET /v1/blob/{id}` with Range, and `/chunks`, the hashes that the id is made of.

A blob is a file named by its id in one folder. Over TLS neither `FileResponse` nor one large body
will do: both cost the server many times the CPU of writes of 256 KiB.
"""

import asyncio
import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from aiohttp import web

from p2ptrain.core import limits
from p2ptrain.core.blobid import blob_id, chunk_digest
from p2ptrain.core.types import BlobId, PeerId, Ref, Seconds
from p2ptrain.net.channel.bandwidth import Cap
from p2ptrain.net.channel.gate import peer_of

WRITE_BYTES = 256 * limits.KIB
"""asyncio copies what is left of a larger write again and again (research: net 1.2)."""

READ_BYTES = limits.MIB
"""One visit to the disk, in a thread, for four writes: half of it costs 15 % more of a core (measured)."""

STALLED_S: Seconds = 30.0
"""A reader that takes nothing for so long is given up: longer than one with a bound needs to empty the
buffers of its system (guess)."""

TRANSFERS_MAX = 32
TRANSFERS_PER_PEER_MAX = 4
"""A home line is full with one or two; more only make each of them slower."""

LISTS_MAX = 64
"""Chunk lists kept: 3 KiB for a blob of 100 MB."""

_ID = "[0-9a-f]{64}"


class BlobServer:
    """Serves the blobs of one folder.

    Args:
        folder: holds blobs, each named by its id, and each whole since its name appeared.
        sent: is told how many bytes went to whom.
        refused: asked again while a transfer lasts.
        cap: bounds all transfers together; None: nothing does.
    """

    def __init__(
        self,
        folder: Path,
        sent: Callable[[PeerId, int], None],
        refused: Callable[[PeerId], bool],
        cap: Cap | None = None,
    ) -> None:
        self._folder = folder
        self._sent = sent
        self._refused = refused
        self._cap = cap or Cap()
        self._lists: OrderedDict[BlobId, bytes] = OrderedDict()
        self._transfers: Counter[PeerId] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [
            web.get(f"/v1/blob/{{id:{_ID}}}", self._bytes, allow_head=False),
            web.get(f"/v1/blob/{{id:{_ID}}}/chunks", self._chunks, allow_head=False),
        ]

    async def _chunks(self, request: web.Request) -> web.StreamResponse:
        blob, peer = BlobId(Ref(request.match_info["id"])), peer_of(request)
        with self._transfer(peer):
            digests = self._lists.get(blob) or await asyncio.to_thread(_digests, self._folder / blob)
            if digests is None:
                raise web.HTTPNotFound
            self._lists[blob] = digests
            if len(self._lists) > LISTS_MAX:
                self._lists.popitem(last=False)
            response = web.StreamResponse()
            response.content_length = len(digests)
            await response.prepare(request)
            await self._write(response, memoryview(digests), peer)
            return response

    async def _bytes(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        try:
            file = (self._folder / request.match_info["id"]).open("rb")
        except OSError:
            raise web.HTTPNotFound from None
        with file, self._transfer(peer):
            size = os.fstat(file.fileno()).st_size
            start, stop = _range(request, size)
            partial = "Range" in request.headers
            response = web.StreamResponse(status=206 if partial else 200)
            if partial:
                response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
            response.content_length = stop - start
            await response.prepare(request)
            await self._stream(response, file, start, stop, peer)
            return response

    async def _stream(
        self, response: web.StreamResponse, file: BinaryIO, start: int, stop: int, peer: PeerId
    ) -> None:
        file.seek(start)
        reading = _read(file, stop - start)
        try:
            while start < stop:
                piece = memoryview(await reading)
                if not piece or self._refused(peer):
                    raise ConnectionError("nothing more for this peer")
                start += len(piece)
                last = max(0, len(piece) - WRITE_BYTES)
                await self._write(response, piece[:last], peer)
                reading = _read(file, stop - start)  # while the rest travels: who takes nothing costs no more
                await self._write(response, piece[last:], peer)
        finally:
            await asyncio.wait([reading])  # the file must not be closed under the thread

    async def _write(self, response: web.StreamResponse, piece: memoryview, peer: PeerId) -> None:
        step = self._cap.piece_bytes(WRITE_BYTES)
        for at in range(0, len(piece), step):
            part = piece[at : at + step]
            await self._cap.pay(len(part))
            try:
                async with asyncio.timeout(STALLED_S):
                    await response.write(part)
            except TimeoutError:
                raise ConnectionError("the peer takes nothing") from None
            self._sent(peer, len(part))

    @contextmanager
    def _transfer(self, peer: PeerId) -> Iterator[None]:
        """Hold a place in line; there is none for a peer that takes too many."""
        if self._transfers.total() >= TRANSFERS_MAX or self._transfers[peer] >= TRANSFERS_PER_PEER_MAX:
            raise web.HTTPServiceUnavailable
        self._transfers[peer] += 1
        try:
            yield
        finally:
            self._transfers[peer] -= 1
            if not self._transfers[peer]:
                del self._transfers[peer]


def _read(file: BinaryIO, most: int) -> asyncio.Future[bytes]:
    return asyncio.get_running_loop().run_in_executor(None, file.read, min(READ_BYTES, most))


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """Return the first byte asked for and the one after the last."""
    try:
        asked = request.http_range
    except ValueError:
        asked = slice(size, None)
    start, stop, _ = asked.indices(size)
    if start >= stop:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, stop


def _digests(path: Path) -> bytes | None:
    """Return the chunk hashes of a blob, or None: it is not there, or is not what its name says."""
    digests = []
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while chunk := file.read(limits.BLOB_CHUNK_BYTES):
                digests.append(chunk_digest(chunk))
    except OSError:
        return None
    return b"".join(digests) if blob_id(size, digests) == path.name else None
