"""The two ends of a relayed connection: a plain socket that the relay splices, or else a WebSocket.

Both come out as a socket, on which the inner TLS runs. The plain one costs half the CPU; the WebSocket
works wherever HTTPS to the relay does (measured: research, net 3.2).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

import aiohttp
from aiohttp import WSMsgType, web

from p2ptrain.core import limits
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.addresses import Address, plain_host
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.preamble import TOKEN_S, Kind, Preamble, receive_preamble
from p2ptrain.net.channel.sockets import cut
from p2ptrain.net.reach.connector import connect
from p2ptrain.net.reach.dialling import explain
from p2ptrain.net.reach.race import race

SESSION_PATH = "/v1/relay/session/"

PIECE_BYTES = 64 * limits.KIB
"""One WebSocket message: larger ones gain nothing (research: net 1.2)."""

SPLICE_S: Seconds = 2.0
"""How long splicing may take to begin; there is the WebSocket yet (guess)."""

STAGGER_S: Seconds = 0.3

ADDRESSES_MAX = 3
"""Addresses of the relay that are tried before that."""

WebSocket = web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool]


class Line(Protocol):
    """What legs need of a transport."""

    def websocket(
        self, peer: PeerId, path: str, bytes_max: int, heartbeat_s: Seconds | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse[bool]]:
        """Open a WebSocket to a member, for messages of at most so many bytes.

        Raises:
            UnreachableError: this node is about to stop, or the peer was turned away.
        """
        ...


class Legs:
    """Opens ends of relayed connections.

    Args:
        line: reaches relays over HTTPS.
        addresses: says where a relay's port is, the best first.
        opened: told of every socket.
    """

    def __init__(
        self,
        line: Line,
        addresses: Callable[[PeerId], Sequence[Address]],
        opened: Callable[[socket.socket], None],
    ) -> None:
        self._line = line
        self._addresses = addresses
        self._opened = opened
        self._pumps = Background()

    async def open(self, relay: PeerId, token: bytes) -> socket.socket:
        """Open the end that a token stands for.

        Raises:
            OSError: the relay cannot be reached, or does not know the token.
        """
        preamble = Preamble(Kind.SPLICE, token)
        dials = [
            partial(self._open_splice, address, preamble)
            for address in self._addresses(relay)[:ADDRESSES_MAX]
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SPLICE_S):
                made = await race(dials, STAGGER_S, lambda _: None, socket.socket.close)
                if made:
                    return made
        async with asyncio.timeout(TOKEN_S):
            return await known(await self._open_websocket(relay, token), preamble)

    async def close(self) -> None:
        """End all that go by WebSocket."""
        await self._pumps.cancel()

    async def _open_splice(self, address: Address, preamble: Preamble) -> socket.socket:
        return await known(await dial(address, preamble, self._opened), preamble)

    async def _open_websocket(self, relay: PeerId, token: bytes) -> socket.socket:
        stack, path = contextlib.AsyncExitStack(), SESSION_PATH + token.hex()
        try:
            websocket = await stack.enter_async_context(self._line.websocket(relay, path, PIECE_BYTES))
        except (aiohttp.ClientError, P2PTrainError) as error:
            raise ConnectionError(f"the relay: {explain(error)}") from None
        ours, theirs = pair(self._opened)

        async def run() -> None:
            async with stack:
                await pump(websocket, ours)

        self._pumps.start(run())
        return theirs


async def dial(
    address: Address, preamble: Preamble, opened: Callable[[socket.socket], None]
) -> socket.socket:
    """Connect, and say for what.

    Raises:
        OSError: nobody is there. The caller bounds the time.
    """
    made = await connect(address)
    opened(made)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_sendall(made, bytes(preamble))
    except BaseException:
        made.close()
        raise
    return made


async def known(connection: socket.socket, preamble: Preamble) -> socket.socket:
    """Return a connection once the other side has answered with the same preamble; else close it.

    Raises:
        OSError: it ended, or something else came. The caller bounds the time.
    """
    try:
        if await receive_preamble(connection) != preamble:
            raise ConnectionError("not the connection that was arranged")
    except BaseException:
        connection.close()
        raise
    return connection


def far_end(connection: socket.socket) -> Address | None:
    """Return the address at the other end; None: this one leads through a WebSocket, or is gone."""
    with contextlib.suppress(OSError):
        name = connection.getpeername()
        if isinstance(name, tuple):
            return Address(plain_host(name[0]), name[1])
    return None


def pair(opened: Callable[[socket.socket], None]) -> tuple[socket.socket, socket.socket]:
    """Make two sockets that are connected with each other."""
    both = socket.socketpair()
    for one in both:
        one.setblocking(False)
        opened(one)
    return both


async def pump(websocket: WebSocket, inner: socket.socket) -> None:
    """Pass bytes on between a WebSocket and a socket until either ends; then both have."""
    ways = {asyncio.create_task(_drain(websocket, inner)), asyncio.create_task(_fill(websocket, inner))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        cut(inner)
        inner.close()
        with contextlib.suppress(OSError):
            await websocket.close()


async def _drain(websocket: WebSocket, inner: socket.socket) -> None:
    loop, buffer = asyncio.get_running_loop(), bytearray(PIECE_BYTES)
    with contextlib.suppress(OSError, aiohttp.ClientError):
        while count := await loop.sock_recv_into(inner, buffer):
            await websocket.send_bytes(bytes(memoryview(buffer)[:count]))


async def _fill(websocket: WebSocket, inner: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while (message := await websocket.receive()).type is WSMsgType.BINARY:
            await loop.sock_sendall(inner, message.data)
