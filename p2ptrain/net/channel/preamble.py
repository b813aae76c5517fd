"""How a connection begins: with TLS, or with a few bytes by which one that was arranged is known.

    magic "P2cn" | kind u8 | token 16 bytes

One port does everything: members dial it, relays are given the two ends of a session there, and peers that
were asked to dial back say here for whom they come.
"""

import asyncio
import secrets
import socket
from enum import IntEnum
from typing import NamedTuple

from p2ptrain.core.types import PeerId, Seconds

MAGIC = b"P2cn"
TOKEN_BYTES = 16
PREAMBLE_BYTES = len(MAGIC) + 1 + TOKEN_BYTES

TLS_HANDSHAKE = b"\x16"
"""The first byte of every TLS connection."""

TOKEN_S: Seconds = 10.0
"""How long a token is good: a TCP handshake around the world takes 0.3 s, and twice 3 s where a packet
is lost (research: net 3.3)."""

AWAITED_MAX = 256
"""Connections that are awaited at once: two for each session of a relay, and the own calls."""

POLL_S: Seconds = 0.02
"""Where an event loop cannot say that bytes have come (Windows), they are looked for so often."""


class Kind(IntEnum):
    """What a connection is for. The value travels and never changes."""

    SPLICE = 1
    """One end of a session of a relay."""
    REVERSE = 2
    """Asked for by the side that listens, which does TLS as client."""
    PUNCH = 3
    """Both sides dialled at the same moment; both send this, and who called does TLS as client."""


class Preamble(NamedTuple):
    """What a connection is for, and which one of those it is."""

    kind: Kind
    token: bytes

    def __bytes__(self) -> bytes:
        return MAGIC + bytes([self.kind]) + self.token


async def read_preamble(connection: socket.socket) -> Preamble | None:
    """Read how a connection begins; None: with TLS, of which nothing was taken.

    The caller bounds the time.

    Raises:
        OSError: it ended, or begins with something else.
    """
    if await _first_byte(connection) == TLS_HANDSHAKE:
        return None
    return await receive_preamble(connection)


async def receive_preamble(connection: socket.socket) -> Preamble:
    """Read a preamble where nothing else may come.

    Raises:
        OSError: it ended, or something else came.
    """
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < PREAMBLE_BYTES:
        piece = await loop.sock_recv(connection, PREAMBLE_BYTES - len(data))
        data += piece
        if not piece or not data.startswith(MAGIC[: len(data)]):
            raise ConnectionError("not the beginning of a connection of p2ptrain")
    try:
        return Preamble(Kind(data[len(MAGIC)]), data[-TOKEN_BYTES:])
    except ValueError:
        raise ConnectionError("a connection for something unknown") from None


async def _first_byte(connection: socket.socket) -> bytes:
    while True:
        try:
            return connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            await _readable(connection)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came: asyncio.Future[None] = loop.create_future()
    try:
        loop.add_reader(connection, _done, came)
    except NotImplementedError:
        await asyncio.sleep(POLL_S)
        return
    try:
        await came
    finally:
        loop.remove_reader(connection)


def _done(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


class Arrival:
    """One connection that is awaited. Whoever made it closes it.

    token: by which it is known.
    peer: who alone may bring it where that is known before; None: whoever has the token.
    """

    def __init__(self, book: "Arrivals", kind: Kind, token: bytes, peer: PeerId | None) -> None:
        self.token = token
        self.peer = peer
        self._key = kind, token
        self._book = book
        self._came: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self._taken = False

    async def wait(self) -> socket.socket:
        """Wait for it; from then on it belongs to who waited."""
        connection = await asyncio.shield(self._came)
        self._taken = True
        return connection

    def close(self) -> None:
        """Wait no more; what came and was not taken is closed."""
        self._book.forget(self._key)
        if not self._came.done():
            self._came.cancel()
        elif not self._taken and not self._came.cancelled():
            self._came.result().close()

    def bring(self, connection: socket.socket) -> None:
        """Hand over what came."""
        self._came.set_result(connection)


class Arrivals:
    """The connections that are awaited. A token counts once, and says nothing about who brings it."""

    def __init__(self) -> None:
        self._awaited: dict[tuple[Kind, bytes], Arrival] = {}

    def expect(self, kind: Kind, token: bytes = b"", peer: PeerId | None = None) -> Arrival:
        """Await a connection from now on; without a token, one is made.

        Raises:
            OSError: too many are awaited, or one with that token.
        """
        token = token or secrets.token_bytes(TOKEN_BYTES)
        if len(self._awaited) >= AWAITED_MAX or (kind, token) in self._awaited:
            raise ConnectionError("too many connections are awaited")
        arrival = self._awaited[kind, token] = Arrival(self, kind, token, peer)
        return arrival

    def bring(self, preamble: Preamble, connection: socket.socket, peer: PeerId | None = None) -> bool:
        """Hand over a connection; False: it was not awaited, and still belongs to the caller.

        Args:
            preamble: how it began.
            connection: what comes after that.
            peer: who brings it; None: that is not known.
        """
        arrival = self._awaited.get((preamble.kind, preamble.token))
        if arrival is None or (peer is not None and arrival.peer not in (None, peer)):
            return False
        self.forget((preamble.kind, preamble.token))
        arrival.bring(connection)
        return True

    def forget(self, key: tuple[Kind, bytes]) -> None:
        """A connection is awaited no more."""
        self._awaited.pop(key, None)
