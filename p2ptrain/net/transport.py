"""This node's place on the network: it listens, dials, and keeps one connection to each peer.

GET  /v1/ws                   messages, both ways
GET  /v1/blob/{id}            weights, with Range
GET  /v1/blob/{id}/chunks     the hashes that the id is made of
POST /v1/join                 on issuers; the only one for strangers
POST /v1/renew                on issuers: a fresh certificate, see `renewal`
GET, PUT /v1/state            what the root says of members, see `spreading`
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

import aiohttp
from aiohttp import web

from p2ptrain.core import limits
from p2ptrain.core.errors import LocalProtocolError, Offence, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net import tls
from p2ptrain.net.addresses import Address, AddressBook, AddressFilter, is_dialable
from p2ptrain.net.background import Background
from p2ptrain.net.bandwidth import Bandwidth
from p2ptrain.net.blob_server import BlobServer
from p2ptrain.net.certificates import Membership, host_name
from p2ptrain.net.dialling import explain, open_session
from p2ptrain.net.gate import make_runner, peer_of
from p2ptrain.net.identity import Identity
from p2ptrain.net.join import Reception
from p2ptrain.net.link import CLOSE_S, Ending, Link, WebSocket, are_simultaneous, is_better
from p2ptrain.net.listener import Listener
from p2ptrain.net.rates import Buckets
from p2ptrain.net.sockets import Sockets
from p2ptrain.net.traffic import TrafficBook

WS_PATH = "/v1/ws"

DIAL_S: Seconds = 8.0
"""All addresses of a peer together; less than `link.SIMULTANEOUS_S`."""

HEARTBEAT_S: Seconds = 5.0
"""A silent peer is asked after that long, and given up after half as much again."""

RETIRED_S: Seconds = 0.5
"""A superseded connection is read that long: what was on its way arrives."""

GREETINGS_PER_S = 0.5
GREETINGS_BURST = 8
"""How often one peer may connect: a lost line is one, a quarrel with itself is many."""

MESSAGE_BYTES_MAX = limits.FRAME_BYTES_MAX + 1
"""aiohttp's `max_msg_size` is the first size that it refuses."""

GET_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=DIAL_S, sock_read=15.0)


class Events(Protocol):
    """What a transport tells. It calls from its own tasks, never from inside its methods."""

    def peer_up(self, peer: PeerId) -> None:
        """A connection to a member stands."""

    def peer_down(self, peer: PeerId, reason: str) -> None:
        """It ended, or a dial failed."""

    def received(self, peer: PeerId, frame: bytes) -> None:
        """A frame came; nothing in it was looked at."""

    def offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        """The peer broke a rule of the transport; `peer_down` follows."""


class Transport:
    """Connections to members.

    Args:
        identity: this node.
        membership: its certificates.
        events: is told what happens.
        blobs: folder of blobs to serve, each named by its id; None: none.
        reception: admits strangers; None: this node is no issuer.
        routes: what members may ask besides.
        refused: says whether a peer was turned away; asked in every handshake and request.
        distrusted: says whether certificates that a member issued are worth nothing.
        allow: says which addresses may be dialled.
        heartbeat_s: see `HEARTBEAT_S`.
        bandwidth: bounds on weights in each direction; None: none.
    """

    def __init__(
        self,
        identity: Identity,
        membership: Membership,
        events: Events,
        *,
        blobs: Path | None = None,
        reception: Reception | None = None,
        routes: Iterable[web.RouteDef] = (),
        refused: Callable[[PeerId], bool] = lambda _: False,
        distrusted: Callable[[PeerId], bool] = lambda _: False,
        allow: AddressFilter = is_dialable,
        heartbeat_s: Seconds = HEARTBEAT_S,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        self.traffic = TrafficBook()
        self.bandwidth = bandwidth or Bandwidth()
        self._identity = identity
        self._events = events
        self._refused = refused
        self._heartbeat_s = heartbeat_s
        self._book = AddressBook(allow)
        self._client = tls.client_context(identity, membership, refused, distrusted)
        admits = reception is not None and reception.admits
        self._server = tls.server_context(identity, membership, refused, distrusted, admits=admits)
        self._links: dict[PeerId, Link] = {}
        self._running: set[Link] = set()
        self._dials: dict[PeerId, asyncio.Task[bool]] = {}
        self._greetings = Buckets(GREETINGS_PER_S, GREETINGS_BURST, limits.PEERS_MAX)
        self._background = Background()
        self._sockets = Sockets()
        self._session: aiohttp.ClientSession | None = None
        self._listener: Listener | None = None
        self._leaving = False
        routes = [*routes, web.get(WS_PATH, self._accept, allow_head=False)]
        if blobs:
            sent = partial(self.traffic.add, "blobs_up")
            routes += BlobServer(blobs, sent, refused, self.bandwidth.up).routes()
        if reception:
            routes += reception.routes()
        self._runner = make_runner(routes, refused)

    # -- life ------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The TCP port that this node listens on."""
        return self._listener.port if self._listener else 0

    async def start(self, host: str = "", port: int = 0) -> None:
        """Listen, and be ready to dial.

        Args:
            host: an IP address of this computer; empty for all of them.
            port: 0 for any free one.

        Raises:
            P2PTrainError: the address or the port is not to be had.
        """
        await self._runner.setup()
        assert self._runner.server is not None
        listener = Listener(self._runner.server, self._server, self._sockets.add)
        listener.start(host, port)
        self._listener = listener
        self._session = open_session(self._book, self._client, self._sockets.add)

    async def close(self, reason: str = "this computer leaves") -> None:
        """Send what waits in the outboxes, end all connections in order, and leave no socket behind."""
        self._leaving = True
        if self._listener:
            await self._listener.close()
        for dial in list(self._dials.values()):
            dial.cancel()
        for link in self._running:
            link.close(reason, Ending.LEAVING)
        await self._background.finish(2 * CLOSE_S)
        await self._background.cancel()
        if self._session:
            await self._session.close()
        await self._runner.cleanup()
        await self._sockets.closed(CLOSE_S)

    def renew(self, membership: Membership) -> None:
        """Show a new membership from the next handshake on."""
        tls.show(self._client, self._identity, membership)
        tls.show(self._server, self._identity, membership)

    def admit_strangers(self, admits: bool) -> None:
        """Let strangers ask for admission from now on, or no more."""
        tls.let_strangers_in(self._server, admits)

    # -- peers -----------------------------------------------------------------------------------------

    @property
    def connected(self) -> Collection[PeerId]:
        """The peers that a frame can be sent to now."""
        return [peer for peer, link in self._links.items() if link.ending is None]

    def path(self, peer: PeerId) -> str:
        """Say how a peer is connected, for people; empty: it is not."""
        link = self._links.get(peer)
        return link.path if link else ""

    def learn(self, peer: PeerId, addresses: Iterable[str]) -> None:
        """Remember where a peer can be reached."""
        self._book.learn(peer, addresses)

    def meet(self, peer: PeerId, addresses: Iterable[Address]) -> None:
        """Connect to a peer that is said to be nearby; the outcome comes as that of `dial`."""
        self._book.hint(peer, addresses)
        if not self._is_up(peer) and not self._leaving and not self._refused(peer):
            self._background.start(self.dial(peer))

    async def dial(self, peer: PeerId, addresses: Iterable[str] = ()) -> bool:
        """Connect, if that is not done already; the outcome also comes as `peer_up` or `peer_down`."""
        self.learn(peer, addresses)
        if self._is_up(peer) or self._leaving:
            return self._is_up(peer)
        if peer not in self._dials:
            self._dials[peer] = self._background.start(self._dial(peer))
        return await asyncio.shield(self._dials[peer])

    def send(self, peer: PeerId, frame: bytes) -> None:
        """Put a frame into a peer's outbox; without a connection it is lost.

        Raises:
            LocalProtocolError: it is longer than `limits.FRAME_BYTES_MAX`.
        """
        if len(frame) > limits.FRAME_BYTES_MAX:
            raise LocalProtocolError(f"a frame of {len(frame)} bytes")
        if self._is_up(peer):
            self._links[peer].send(frame)

    def hangup(self, peer: PeerId, reason: str) -> None:
        """End the connection to a peer; `reason` is told to it."""
        if link := self._links.get(peer):
            link.close(reason)

    def get(
        self, peer: PeerId, path: str, headers: dict[str, str] | None = None
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Get something from a peer: see `request`."""
        return self.request("GET", peer, path, headers)

    def request(
        self,
        method: str,
        peer: PeerId,
        path: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask a peer over HTTP, at the addresses given last to `dial` or `learn`.

        Raises:
            UnreachableError: this node is about to stop, or the peer was turned away.
        """
        if self._leaving or self._session is None:
            raise UnreachableError("this computer leaves")
        if self._refused(peer):  # a connection may stand since before that
            raise UnreachableError("this peer is refused here")
        url = f"https://{host_name(peer)}{path}"
        return self._session.request(
            method, url, headers=headers, data=data, allow_redirects=False, timeout=GET_TIMEOUT
        )

    # -- connections -----------------------------------------------------------------------------------

    async def _dial(self, peer: PeerId) -> bool:
        assert self._session is not None
        try:
            if self._refused(peer):
                raise OSError("this peer is refused here")
            async with asyncio.timeout(DIAL_S):
                socket = await self._session.ws_connect(
                    f"https://{host_name(peer)}{WS_PATH}",
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    heartbeat=self._heartbeat_s,
                    autoping=False,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    decode_text=False,
                )
        except (OSError, aiohttp.ClientError) as error:
            if not self._is_up(peer):
                self._events.peer_down(peer, explain(error))
            return self._is_up(peer)
        finally:
            del self._dials[peer]
        self._begin(peer, socket, self._identity.peer)
        return True

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        if not self._greetings.take(peer, asyncio.get_running_loop().time()):
            raise web.HTTPTooManyRequests
        socket = web.WebSocketResponse(
            timeout=CLOSE_S,
            heartbeat=self._heartbeat_s,
            autoping=False,
            max_msg_size=MESSAGE_BYTES_MAX,
            compress=False,
            decode_text=False,
        )
        await socket.prepare(request)
        await self._begin(peer, socket, peer)
        return socket

    def _begin(self, peer: PeerId, socket: WebSocket, dialler: PeerId) -> asyncio.Task[None]:
        """Use a new connection, unless another one to the same peer is the better."""
        link = Link(peer, socket, dialler, asyncio.get_running_loop().time(), self.traffic)
        old = self._links.get(peer)
        if old and old.ending is None and are_simultaneous(link, old):
            if is_better(link, old):
                link.take_over(old)
                self._links[peer] = link
                self._retire(old)
            else:
                self._retire(link)
        else:
            if old:
                old.close("replaced by a newer connection", Ending.SUPERSEDED)
                self._down(old, old.ending or "")
            self._links[peer] = link
            self._events.peer_up(peer)
        if self._leaving:
            link.close("this computer leaves", Ending.LEAVING)
        return self._background.start(self._run(link))

    async def _run(self, link: Link) -> None:
        reason = "this computer ended the connection"
        self._running.add(link)
        try:
            reason = await link.run(partial(self._received, link))
        except RemoteProtocolError as error:
            reason = error.offence
            self._events.offended(link.peer, error.offence, error.detail)
        finally:
            self._running.discard(link)
            self._down(link, reason)

    def _received(self, link: Link, frame: bytes) -> None:
        self.traffic.add("messages_down", link.peer, len(frame))
        if link.ending is None:
            self._events.received(link.peer, frame)

    def _down(self, link: Link, reason: str) -> None:
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            self._events.peer_down(link.peer, reason)

    def _retire(self, link: Link) -> None:
        asyncio.get_running_loop().call_later(
            RETIRED_S, link.close, "one connection is enough", Ending.SUPERSEDED
        )

    def _is_up(self, peer: PeerId) -> bool:
        link = self._links.get(peer)
        return link is not None and link.ending is None
