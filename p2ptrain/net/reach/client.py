"""What this node asks of others over HTTPS, by whatever way they are reached."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import aiohttp

from p2ptrain.core.errors import UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.addresses import AddressBook
from p2ptrain.net.channel.link import CLOSE_S
from p2ptrain.net.reach.connector import LastPaths, PeerConnector
from p2ptrain.net.reach.dialling import open_session
from p2ptrain.net.trust.certificates import host_name
from p2ptrain.net.trust.tls import PeerContext
from p2ptrain.net.ways import Path, Way

DIAL_S: Seconds = 8.0
"""All ways to a peer together; less than `link.SIMULTANEOUS_S`."""

GET_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=DIAL_S, sock_read=15.0)


class Client:
    """Connections to peers that others opened, for a request or a WebSocket.

    Args:
        book: where they are.
        context: whom this node trusts and what it shows.
        refused: says whether a peer was turned away.
        opened: told of every socket.

    ways: how peers are reached besides being dialled, in the order in which they are tried.
    """

    def __init__(
        self,
        book: AddressBook,
        context: PeerContext,
        refused: Callable[[PeerId], bool],
        opened: Callable[[socket.socket, Path], None],
    ) -> None:
        self.ways: list[Way] = []
        self._book = book
        self._context = context
        self._refused = refused
        self._opened = opened
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._connectors: list[PeerConnector] = []

    def open(self) -> None:
        """Be ready; an event loop runs."""
        last = LastPaths()
        for relayed in (True, False):
            connector = PeerConnector(
                self._book, self._context, ways=self.ways, opened=self._opened, last=last, relayed=relayed
            )
            self._connectors.append(connector)
            self._sessions[relayed] = open_session(connector)

    async def close(self) -> None:
        """End all connections."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()

    def leave_relays(self, peer: PeerId) -> None:
        """Use no relay to a peer any more, once what runs there has ended: there is a better way."""
        for connector in self._connectors:
            connector.leave_relays(peer)

    def request(
        self,
        method: str,
        peer: PeerId,
        path: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask a peer over HTTP.

        Raises:
            UnreachableError: this node is about to stop, or the peer was turned away.
        """
        url = f"https://{host_name(peer)}{path}"
        return self._session(peer).request(
            method, url, headers=headers, data=data, allow_redirects=False, timeout=GET_TIMEOUT
        )

    async def connect(
        self,
        peer: PeerId,
        path: str,
        bytes_max: int,
        *,
        heartbeat_s: Seconds | None = None,
        autoping: bool = True,
        relayed: bool = True,
    ) -> aiohttp.ClientWebSocketResponse[bool]:
        """Open a WebSocket to a peer; whoever asked for it closes it, and bounds the time.

        Args:
            peer: the other end.
            path: on its HTTP server.
            bytes_max: the largest message.
            heartbeat_s: a silent peer is asked after that long; None: never.
            autoping: answer pings out of sight.
            relayed: whether a relay will do.

        Raises:
            OSError, aiohttp.ClientError: see `explain`.
            UnreachableError: as `request`.
        """
        return await self._session(peer, relayed).ws_connect(
            f"https://{host_name(peer)}{path}",
            timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
            heartbeat=heartbeat_s,
            autoping=autoping,
            max_msg_size=bytes_max + 1,  # aiohttp's is the first size that it refuses
            decode_text=False,
        )

    @contextlib.asynccontextmanager
    async def websocket(
        self, peer: PeerId, path: str, bytes_max: int, heartbeat_s: Seconds | None = None
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
        """The same for as long as a block lasts."""
        async with asyncio.timeout(DIAL_S):
            websocket = await self.connect(peer, path, bytes_max, heartbeat_s=heartbeat_s)
        try:
            yield websocket
        finally:
            await websocket.close()

    def _session(self, peer: PeerId, relayed: bool = True) -> aiohttp.ClientSession:
        if not self._sessions:
            raise UnreachableError("this computer leaves")
        if self._refused(peer):  # a connection may stand since before that
            raise UnreachableError("this peer is refused here")
        return self._sessions[relayed]
