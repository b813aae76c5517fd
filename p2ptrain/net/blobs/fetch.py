"""Fetches weights from several sources at once: each chunk is checked before it is kept.

What arrived stays in a partial blob, whatever happens to a source or to this process (`blob_part`).
Which source brings what is decided in `blob_plan`.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from p2ptrain.core import limits
from p2ptrain.core.blobid import DIGEST_BYTES, blob_id, chunk_count
from p2ptrain.core.errors import (
    LocalProtocolError,
    Offence,
    P2PTrainError,
    RefusedError,
    RemoteProtocolError,
    UnreachableError,
)
from p2ptrain.core.types import BlobId, PeerId, Seconds, short
from p2ptrain.net.blobs.part import Partial, clear_parts, part_path, reserved
from p2ptrain.net.blobs.plan import Plan, Work
from p2ptrain.net.reach.dialling import explain
from p2ptrain.net.transport import Transport

SOURCES_AT_ONCE = 4
"""More connections fill no home line better (research: net 1.2)."""

STREAM_BYTES_PER_S = 256 * limits.KIB
"""Under a bound, fewer sources are asked, so that none takes this node for one that takes nothing (guess)."""

NEXT_LIST_S: Seconds = 1.0
"""The next source is asked for the hashes too when one takes longer (guess)."""

TICK_S: Seconds = 0.1
"""How often a source without work looks for one that is too slow, or has failed (guess)."""

Lied = Callable[[PeerId, RemoteProtocolError], None]


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
    bringing = _Bringing(transport, [source], blob, size_bytes, folder, lambda *_: None)
    if await bringing.run(timeout_s) is None:
        raise bringing.failures[-1]


async def fetch_from_any(
    transport: Transport,
    sources: Sequence[PeerId],
    blob: BlobId,
    size_bytes: int,
    folder: Path,
    timeout_s: Seconds,
    lied: Lied,
) -> PeerId:
    """Bring a blob from several sources at once, into `folder / blob`.

    Whoever fails is replaced by the next, and asked again only if it gave something before. Whoever is
    slow loses its chunks to those that have nothing left to do. Whoever gives wrong bytes is out.

    Args:
        transport: this node's.
        sources: who is asked, the first ones first.
        blob: what is wanted.
        size_bytes: what the offer said, which the caller found plausible.
        folder: where it goes.
        timeout_s: for all of it.
        lied: is told of every source that gave something else.

    Returns:
        The source that gave most.

    Raises:
        UnreachableError: they did not give all of it; says why of each.
        P2PTrainError: it cannot be written here.
    """
    bringing = _Bringing(transport, sources, blob, size_bytes, folder, lied)
    source = await bringing.run(timeout_s)
    if source is None:
        failures = "; ".join(dict.fromkeys(error.message for error in bringing.failures))
        raise UnreachableError(f"nobody gave the weights: {failures or 'nobody has them'}")
    return source


def forget(folder: Path, blob: BlobId) -> None:
    """Delete a blob and what there is of it."""
    (folder / blob).unlink(missing_ok=True)
    part_path(folder, blob).unlink(missing_ok=True)


class _Bringing:
    """One blob on its way. `failures`: what went wrong with which source."""

    def __init__(
        self,
        transport: Transport,
        sources: Sequence[PeerId],
        blob: BlobId,
        size_bytes: int,
        folder: Path,
        lied: Lied,
    ) -> None:
        if not 0 < size_bytes <= limits.BLOB_BYTES_MAX or len(blob) != 64:
            raise LocalProtocolError(f"no blob is called {blob} and has {size_bytes} bytes")
        self.failures: list[P2PTrainError] = []
        self._transport = transport
        self._cap = transport.bandwidth.down
        self._sources = tuple(dict.fromkeys(sources))
        self._blob = blob
        self._size_bytes = size_bytes
        self._folder = folder
        self._lied = lied
        self._waiting = deque(self._sources)
        self._given: Counter[PeerId] = Counter()
        self._given_lately: Counter[PeerId] = Counter()
        self._partial: Partial
        self._plan: Plan

    async def run(self, timeout_s: Seconds) -> PeerId | None:
        """Bring it; return who gave most, or None: nobody gives the rest."""
        if (self._folder / self._blob).exists():
            return self._sources[0] if self._sources else None
        try:
            async with asyncio.timeout(timeout_s):
                with reserved(self._folder, self._blob):
                    return await self._bring()
        except TimeoutError:
            who = short(self._sources[0]) if len(self._sources) == 1 else "they"
            self.failures.append(UnreachableError(f"{who} did not give the weights in time"))
            return None
        except OSError as error:
            raise P2PTrainError(
                f"weights cannot be written to {self._folder}: {error.strerror}", "make room on the disk"
            ) from None

    async def _bring(self) -> PeerId | None:
        digests = await self._chunk_list()
        if digests is None:
            return None
        await asyncio.to_thread(clear_parts, self._folder)
        self._partial = await asyncio.to_thread(Partial, self._folder, self._blob, self._size_bytes, digests)
        try:
            self._plan = Plan(self._partial.missing)
            await self._bring_chunks()
            if not self._plan.done:
                return None
            await asyncio.to_thread(self._partial.finish)
        finally:
            self._partial.close()
        most = self._given.most_common(1)
        return most[0][0] if most else self._waiting[0]

    # -- the hashes --------------------------------------------------------------------------------

    async def _chunk_list(self) -> list[bytes] | None:
        """Return the hashes from the first source that gives the right ones; it stays the first."""
        unasked = deque(self._sources)
        asked: dict[asyncio.Task[list[bytes]], PeerId] = {}
        try:
            while unasked or asked:
                if unasked:
                    source = unasked.popleft()
                    asked[asyncio.create_task(self._ask_chunk_list(source))] = source
                done, _ = await asyncio.wait(
                    asked, timeout=NEXT_LIST_S if unasked else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    source = asked.pop(task)
                    self._waiting.remove(source)
                    with self._fault_of(source):
                        digests = task.result()
                        self._waiting.appendleft(source)
                        return digests
            return None
        finally:
            await _cancel(asked)

    async def _ask_chunk_list(self, source: PeerId) -> list[bytes]:
        """Return the hashes, proved by the id; nothing is read beyond what the size allows."""
        expected = chunk_count(self._size_bytes) * DIGEST_BYTES
        async with self._transport.get(source, f"/v1/blob/{self._blob}/chunks") as answer:
            _check_answer(answer, 200, expected, source)
            data = await answer.content.readexactly(expected)
        self._transport.traffic.add("blobs_down", source, len(data))
        await self._cap.pay(len(data))
        digests = [data[at : at + DIGEST_BYTES] for at in range(0, expected, DIGEST_BYTES)]
        if blob_id(self._size_bytes, digests) != self._blob:
            raise RemoteProtocolError(Offence.WRONG_BYTES, "the chunks do not lead to the blob's id")
        return digests

    # -- the chunks --------------------------------------------------------------------------------

    async def _bring_chunks(self) -> None:
        """Ask several sources at once, until all is here or all have failed."""
        count = self._cap.streams(min(SOURCES_AT_ONCE, len(self._waiting)), STREAM_BYTES_PER_S)
        lanes = {asyncio.create_task(self._use_sources()) for _ in range(count)}
        pending = lanes
        try:
            while pending and not self._plan.done:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for lane in done:
                    lane.result()
        finally:
            await _cancel(lanes)

    async def _use_sources(self) -> None:
        """Use one source after the other."""
        while self._waiting and not self._plan.done:
            source = self._waiting.popleft()
            with self._fault_of(source):
                await self._use(source)
                return

    async def _use(self, source: PeerId) -> None:
        """Have one source bring what it can, until all is here."""
        while not self._plan.done:
            work = self._plan.take(source, _now())
            await (self._do(work) if work else asyncio.sleep(TICK_S))

    async def _do(self, work: Work) -> None:
        """Bring a range, unless another source takes it over."""
        try:
            async with asyncio.timeout(None) as limit:
                work.abandon = lambda: limit.reschedule(_now())
                await self._ask_chunks(work)
        except TimeoutError:
            if not work.lost:
                raise
        finally:
            self._plan.end(work, _now())

    async def _ask_chunks(self, work: Work) -> None:
        span = self._partial.span(range(work.next, work.stop))
        headers = {"Range": f"bytes={span.start}-{span.stop - 1}"}
        async with self._transport.get(work.source, f"/v1/blob/{self._blob}", headers) as answer:
            _check_answer(answer, 206, len(span), work.source)
            while work.next < work.stop:
                chunk = await self._read_chunk(answer, work)
                await asyncio.to_thread(self._partial.write, work.next, chunk)
                work.keep()
                self._given[work.source] += 1
                self._given_lately[work.source] += 1

    async def _read_chunk(self, answer: aiohttp.ClientResponse, work: Work) -> bytearray:
        length = len(self._partial.span(range(work.next, work.next + 1)))
        chunk = bytearray()
        while len(chunk) < length:
            piece = await answer.content.read(length - len(chunk))
            if not piece:
                raise ConnectionError("the answer ended early")
            chunk += piece
            work.hear(len(piece), _now())
            self._transport.traffic.add("blobs_down", work.source, len(piece))
            await self._cap.pay(len(piece))
        return chunk

    @contextmanager
    def _fault_of(self, source: PeerId) -> Iterator[None]:
        """Keep what goes wrong with a source; it gets another chance if it has given something since."""
        try:
            yield
        except RemoteProtocolError as error:
            self.failures.append(error)
            del self._given[source]
            self._lied(source, error)
            return
        except (RefusedError, UnreachableError) as error:
            self.failures.append(error)
        except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError) as error:
            reason = f"{short(source)} stopped giving weights: {explain(error)}"
            self.failures.append(UnreachableError(reason))
        else:
            return
        if self._given_lately.pop(source, 0):
            self._waiting.append(source)


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _now() -> Seconds:
    return asyncio.get_running_loop().time()


def _check_answer(answer: aiohttp.ClientResponse, status: int, length: int, source: PeerId) -> None:
    why = {
        404: "no longer has these weights",
        503: "is busy",
        401: "turned this computer away",
        403: "turned this computer away",
    }
    if answer.status != status:
        raise RefusedError(f"{short(source)} {why.get(answer.status, 'does not give these weights')}")
    if answer.content_length != length:
        raise RemoteProtocolError(Offence.WRONG_BYTES, "the blob has another size than was said")
