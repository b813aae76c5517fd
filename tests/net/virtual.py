"""Transfers in virtual time: an event loop that never waits, and sources that are slow, silent or wrong."""

import asyncio
import contextlib
import re
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import aiohttp

from p2ptrain.core import limits
from p2ptrain.core.blobid import chunk_digest
from p2ptrain.core.errors import UnreachableError
from p2ptrain.core.types import PeerId
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.channel.traffic import TrafficBook
from p2ptrain.net.reach.client import GET_TIMEOUT

PIECE_BYTES = 64 * limits.KIB


class _Selector(selectors.DefaultSelector):
    """Lets time pass instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if ready := super().select(0):
            return ready
        assert timeout is not None, "everything waits, and for nothing"
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time is what the timers say; threads do their work at once."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        async def call() -> Any:
            return func(*args)

        return self.create_task(call())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in virtual time, from 0 s."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


@dataclass
class Source:
    """Somebody who gives a blob, in some way.

    rate: bytes a second. latency_s: before each answer. silent_after, broken_after: bytes of each answer.
    broken_times: how often. wrong: chunks that are given wrong. asked: the ranges, in order.
    """

    peer: PeerId
    data: bytes
    rate: float = 1e7
    latency_s: float = 0.02
    silent_after: int | None = None
    broken_after: int | None = None
    broken_times: int = 1_000_000
    wrong: frozenset[int] = frozenset()
    status: int = 0
    asked: list[range] = field(default_factory=list)

    def lie(self, span: range) -> bytes:
        given = bytearray(self.data[span.start : span.stop])
        for index in self.wrong:
            at = index * limits.BLOB_CHUNK_BYTES
            if at in span:
                given[at - span.start] ^= 1
        return bytes(given)


class Answer:
    """What a source answers, as far as a reader looks at it."""

    def __init__(self, source: Source, status: int, body: bytes) -> None:
        self.status = source.status or status
        self.content_length = len(body)
        self.content = self
        self._source = source
        self._body = body
        self._at = 0

    async def read(self, most: int) -> bytes:
        source = self._source
        piece = self._body[self._at : self._at + min(most, PIECE_BYTES)]
        if source.silent_after is not None and self._at >= source.silent_after:
            await asyncio.sleep(GET_TIMEOUT.sock_read or 0)
            raise aiohttp.SocketTimeoutError
        if source.broken_after is not None and self._at >= source.broken_after and source.broken_times:
            source.broken_times -= 1
            raise aiohttp.ClientPayloadError
        await asyncio.sleep(len(piece) / source.rate)
        self._at += len(piece)
        return piece

    async def readexactly(self, count: int) -> bytes:
        assert count == self.content_length
        return self._body


class Transport:
    """What a fetch needs of a transport. `moved`: bytes that came in."""

    def __init__(self, *sources: Source, down_mbit: float = 0.0) -> None:
        self.sources = {source.peer: source for source in sources}
        self.traffic = TrafficBook()
        self.bandwidth = Bandwidth(0.0, down_mbit)

    @property
    def moved(self) -> int:
        return self.traffic.total.blobs_down

    @contextlib.asynccontextmanager
    async def get(
        self, peer: PeerId, path: str, headers: dict[str, str] | None = None
    ) -> AsyncIterator[SimpleNamespace | Answer]:
        source = self.sources.get(peer)
        if source is None:
            raise UnreachableError("no address is known")
        await asyncio.sleep(source.latency_s)
        if path.endswith("/chunks"):
            step = limits.BLOB_CHUNK_BYTES
            parts = (source.data[at : at + step] for at in range(0, len(source.data), step))
            yield Answer(source, 200, b"".join(map(chunk_digest, parts)))
            return
        first, last = map(int, re.findall(r"\d+", (headers or {})["Range"]))
        span = range(first, last + 1)
        source.asked.append(span)
        yield Answer(source, 206, source.lie(span))
