"""Flows: ordered streams of bytes that one peer offers and one other reads, once.

    writer = transport.flows.offer(name, reader, silence_s)    # there
    await writer.write(data); await writer.end()               # or writer.abort("why")
    async with transport.flows.read(peer, name, silence_s) as reader:
        await reader.read_into(buffer); await reader.expect_end()

`GET /v1/flow/<name>` over the same mutual TLS as weights, by whatever way the peer is reached. The reader's
pace is the back pressure; both owners' bounds on weights hold. A name is known to whoever was told it, and
that is not what protects it: only the peer that is meant gets the bytes, all others are told what they would
be told of a name that does not exist. Whoever asks before there is an offer waits.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aiohttp import web

from p2ptrain.core import limits
from p2ptrain.core.errors import LocalProtocolError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.channel.gate import peer_of
from p2ptrain.net.flows.frames import BEAT_S, HEAD, PATH
from p2ptrain.net.flows.reader import Getter, Reader
from p2ptrain.net.flows.writer import Writer

NAME = "[0-9a-z-]{16,80}"

OFFERS_MAX = 64
"""Flows that this node offers at once: a pipeline of 16 stages has four for each (guess)."""

READERS_MAX = 64
READERS_PER_PEER_MAX = 8
"""Requests at once, those among them that wait for an offer."""

ABSENT_S: Seconds = 5.0
"""So long a reader waits for an offer before it has to ask again: less than proxies and time-outs bear."""

WRITE_BYTES = 64 * limits.KIB
"""Less than a piece: on a slow line each write shows that it goes on."""

LOOK_S: Seconds = 0.1
"""How often a quiet flow looks whether its reader is still there."""


class Flows:
    """All flows of one node.

    Args:
        me: this node.
        getter: its transport; asked when something is read.
        refused: says whether a peer was turned away; asked again while a flow lasts.
    """

    def __init__(self, me: PeerId, getter: Getter, refused: Callable[[PeerId], bool]) -> None:
        self.me = me
        self._getter = getter
        self._refused = refused
        self._offers: dict[tuple[PeerId, str], Writer] = {}
        self._offered = asyncio.Event()
        self._requests: Counter[PeerId] = Counter()

    def offer(self, name: str, reader: PeerId, silence_s: Seconds) -> Writer:
        """Offer a flow to one peer.

        Args:
            name: 16 to 80 digits, small letters and hyphens; of no other flow to that peer.
            reader: who may read it.
            silence_s: how long a reader may take nothing, or not come, before writing fails.

        Raises:
            LocalProtocolError: there is one of that name, or there are too many.
        """
        self._offers = {key: writer for key, writer in self._offers.items() if not writer.is_over}
        if (reader, name) in self._offers or len(self._offers) >= OFFERS_MAX:
            raise LocalProtocolError(f"the flow {name} cannot be offered: {len(self._offers)} are")
        writer = self._offers[reader, name] = Writer(name, reader, silence_s)
        self._offered.set()
        self._offered = asyncio.Event()
        return writer

    def read(self, peer: PeerId, name: str, silence_s: Seconds) -> Reader:
        """Read a flow of a peer; it need not be there yet. See `Reader` for what may go wrong.

        Args:
            peer: who offers it.
            name: as there.
            silence_s: how long the peer may show no sign of life.
        """
        return Reader(self._getter, peer, name, silence_s)

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [web.get(f"{PATH}/{{name:{NAME}}}", self._serve, allow_head=False)]

    # -- serving -----------------------------------------------------------------------------------

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        peer, name = peer_of(request), request.match_info["name"]
        with self._place(peer):
            writer = await self._wait_for(request, peer, name)
            if writer is None:
                raise web.HTTPNotFound
            try:
                return await self._pass_on(request, writer)
            finally:
                writer.lose("it broke off")

    async def _wait_for(self, request: web.Request, peer: PeerId, name: str) -> Writer | None:
        """Return the flow, which nobody gets a second time; None: there is none so far."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ABSENT_S
        while (writer := self._offers.pop((peer, name), None)) is None:
            if loop.time() >= until or _is_gone(request):
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._offered.wait()
        return None if writer.is_over else writer

    async def _pass_on(self, request: web.Request, writer: Writer) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        quiet_s = 0.0
        while not writer.is_over:
            if _is_gone(request) or self._refused(writer.reader):
                raise ConnectionError("nobody reads any more")
            frame = await writer.take(LOOK_S)
            if frame:
                quiet_s = 0.0
                await self._write(response, frame, writer)
                writer.taken()
            elif (quiet_s := quiet_s + LOOK_S) >= BEAT_S:
                quiet_s = 0.0
                await self._write(response, HEAD.pack(0), writer)
        return response

    async def _write(self, response: web.StreamResponse, frame: bytes, writer: Writer) -> None:
        cap = self._getter.bandwidth.up
        step = cap.piece_bytes(WRITE_BYTES)
        for at in range(0, len(frame), step):
            piece = frame[at : at + step]
            await cap.pay(len(piece))
            try:
                async with asyncio.timeout(writer.silence_s):
                    await response.write(piece)
            except TimeoutError:
                raise ConnectionError("the peer takes nothing") from None
            writer.progressed()
            self._getter.traffic.add("blobs_up", writer.reader, len(piece))

    @contextmanager
    def _place(self, peer: PeerId) -> Iterator[None]:
        """Hold a place in line; there is none for a peer that takes too many."""
        if self._requests.total() >= READERS_MAX or self._requests[peer] >= READERS_PER_PEER_MAX:
            raise web.HTTPServiceUnavailable
        self._requests[peer] += 1
        try:
            yield
        finally:
            self._requests[peer] -= 1
            if not self._requests[peer]:
                del self._requests[peer]


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
