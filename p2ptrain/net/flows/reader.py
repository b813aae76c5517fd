"""The side of a flow that reads: it asks, waits for whoever is not there yet, and sets the pace."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import aiohttp

from p2ptrain.core.errors import Offence, P2PTrainError, RefusedError, RemoteProtocolError
from p2ptrain.core.types import PeerId, Seconds, short
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.channel.traffic import TrafficBook
from p2ptrain.net.flows.frames import (
    ABORT,
    END,
    HEAD,
    PATH,
    PIECE_BYTES,
    REASON_BYTES_MAX,
    AbortedError,
    SilentError,
    checked_length,
    reason_of,
)
from p2ptrain.net.reach.dialling import explain

RETRY_S: Seconds = 0.2
"""Who does not answer, or has nothing to say yet, is asked again after this (guess)."""


class Getter(Protocol):
    """What a transport offers."""

    bandwidth: Bandwidth
    traffic: TrafficBook

    def get(
        self, peer: PeerId, path: str, headers: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask a peer over HTTP."""
        ...


class Reader:
    """The bytes of one flow, in order, once. `async with` closes it, which its writer notices at once.

    Args:
        getter: this node's transport.
        peer, name: whose flow, and which.
        silence_s: a writer that shows no sign of life for so long is given up, also one that is not there.

    Everything here raises:
        SilentError: the writer is gone, or was silent for too long.
        AbortedError: it ended the flow before its end, and said why.
        RemoteProtocolError: it sends something else than a flow.
        RefusedError: it turned this node away.
    """

    def __init__(self, getter: Getter, peer: PeerId, name: str, silence_s: Seconds) -> None:
        self.peer = peer
        self._getter = getter
        self._path = f"{PATH}/{name}"
        self.silence_s = silence_s
        self._asking: AbstractAsyncContextManager[aiohttp.ClientResponse] | None = None
        self._stream: aiohttp.StreamReader | None = None
        self._left = 0
        self._ended = False

    async def __aenter__(self) -> "Reader":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Wait until the flow is there; reading does that too."""
        reason = "it does not offer it"
        try:
            async with asyncio.timeout(self.silence_s):
                while self._stream is None:
                    reason = await self._ask() or reason
                    if self._stream is None:
                        await asyncio.sleep(RETRY_S)
        except TimeoutError:
            raise SilentError(f"{short(self.peer)} gives nothing: {reason}") from None

    async def read_into(self, buffer: memoryview) -> None:
        """Fill a buffer of bytes; a flow that ends before that is no good one."""
        at = 0
        while at < len(buffer):
            if not await self._next():
                raise RemoteProtocolError(Offence.MALFORMED, "a flow ended too early")
            piece = await self._some(min(self._left, len(buffer) - at))
            buffer[at : at + len(piece)] = piece
            at += len(piece)

    async def read(self, count: int) -> bytes:
        """Return exactly so many bytes; the caller knows that they are not too many."""
        data = bytearray(count)
        await self.read_into(memoryview(data))
        return bytes(data)

    async def some(self) -> bytes:
        """Return what comes next, at most `PIECE_BYTES`; empty at the end."""
        return await self._some(self._left) if await self._next() else b""

    async def expect_end(self) -> None:
        """Wait for the end: more is no good flow."""
        if await self._next():
            raise RemoteProtocolError(Offence.OVERSIZED, "a flow goes on after its end")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.some():
            yield piece

    async def close(self) -> None:
        """Read no more."""
        asking, self._asking = self._asking, None
        if asking is not None:
            if self._stream is not None and not self._ended:
                self._response.close()
            await asking.__aexit__(None, None, None)

    # -- parts -------------------------------------------------------------------------------------

    async def _ask(self) -> str:
        """Ask once; return why it does not come yet, empty if it does."""
        asking = self._getter.get(self.peer, self._path)
        try:
            response = await asking.__aenter__()
        except (OSError, aiohttp.ClientError, P2PTrainError) as error:
            return explain(error)
        if response.status != 200:
            await asking.__aexit__(None, None, None)
            if response.status in (401, 403):
                raise RefusedError(f"{short(self.peer)} turned this computer away")
            return "it does not offer it" if response.status == 404 else "it is busy"
        self._asking, self._response, self._stream = asking, response, response.content
        return ""

    async def _next(self) -> bool:
        """Wait until a piece has bytes left; False: the flow has ended."""
        if self._stream is None:
            await self.open()
        while not self._left and not self._ended:
            length = checked_length(await self._exactly(HEAD.size), PIECE_BYTES)
            if length == ABORT:
                count = checked_length(await self._exactly(HEAD.size), REASON_BYTES_MAX)
                words = await self._exactly(min(count, REASON_BYTES_MAX))
                raise AbortedError(reason_of(words))
            self._ended = length == END
            self._left = 0 if self._ended else length
        return not self._ended

    async def _some(self, most: int) -> bytes:
        data = await self._within(self._content.read(most))
        if not data:
            raise SilentError(f"{short(self.peer)} broke off")
        self._left -= len(data)
        await self._count(len(data))
        return data

    async def _exactly(self, count: int) -> bytes:
        data = await self._within(self._content.readexactly(count))
        await self._count(count)
        return data

    @property
    def _content(self) -> aiohttp.StreamReader:
        assert self._stream is not None
        return self._stream

    async def _count(self, count: int) -> None:
        self._getter.traffic.add("blobs_down", self.peer, count)
        await self._getter.bandwidth.down.pay(count)

    async def _within(self, reading: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(self.silence_s):
                return await reading
        except TimeoutError:
            raise SilentError(f"{short(self.peer)} was silent for {self.silence_s:g} s") from None
        except (OSError, aiohttp.ClientError, asyncio.IncompleteReadError) as error:
            raise SilentError(f"{short(self.peer)} broke off: {explain(error)}") from None
