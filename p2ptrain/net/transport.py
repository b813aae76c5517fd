"""This node's place on the network: it listens, dials, and keeps one connection to each peer.

GET  /v1/ws                   messages, both ways; `?instead`: in the place of a relayed connection
GET  /v1/blob/{id}            weights, with Range
GET  /v1/blob/{id}/chunks     the hashes that the id is made of
GET  /v1/flow/{name}          a stream for one reader, see `flows`
POST /v1/join                 on issuers; the only one for strangers
POST /v1/renew                on issuers: a fresh certificate, see `renewal`
GET, PUT /v1/state            what the root says of members, see `spreading`
POST, PUT /v1/dial-back       whether this node can be dialled, see `dial_back`
GET, PUT /v1/speed            how fast the line is, see `speed`
GET  /v1/where                how others see this node, see `reflection`
/v1/relay                     calls and what is passed on, see `relay`
"""

import asyncio
import random
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import aiohttp
from aiohttp import web

from p2ptrain.core import limits
from p2ptrain.core.errors import LocalProtocolError, P2PTrainError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net import ways
from p2ptrain.net.addresses import Address, AddressBook, AddressFilter, is_dialable
from p2ptrain.net.blobs.server import BlobServer
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.channel.gate import make_runner, peer_of
from p2ptrain.net.channel.link import CLOSE_S, Ending, Link, WebSocket
from p2ptrain.net.channel.listener import Listener
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.channel.sockets import Sockets
from p2ptrain.net.channel.switchboard import Events, Switchboard
from p2ptrain.net.channel.traffic import TrafficBook
from p2ptrain.net.channel.waiting import Waiting
from p2ptrain.net.flows.flows import Flows
from p2ptrain.net.members.join import Reception
from p2ptrain.net.reach.client import DIAL_S, Client
from p2ptrain.net.reach.dial_back import DialBack
from p2ptrain.net.reach.dialling import explain
from p2ptrain.net.reach.punch import punch
from p2ptrain.net.reach.reflection import Mirror, Reflector
from p2ptrain.net.reach.upgrade import SOON_S, Upgrades
from p2ptrain.net.relay.rendezvous import Rendezvous
from p2ptrain.net.relay.server import RelayBounds
from p2ptrain.net.speed import SpeedDesk
from p2ptrain.net.trust import tls
from p2ptrain.net.trust.certificates import Membership
from p2ptrain.net.trust.identity import Identity

WS_PATH = "/v1/ws"
INSTEAD = "instead"
"""The query of who dials again because it found a better way: the session goes on."""

HEARTBEAT_S: Seconds = 5.0
"""A silent peer is asked after that long, and given up after half as much again."""

GREETINGS_PER_S = 0.5
GREETINGS_BURST = 8
"""How often one peer may connect: a lost line is one, a quarrel with itself is many."""

NEW_ADDRESSES_PER_S = 20 / 3600
NEW_ADDRESSES_BURST = 20
"""Who names one address after the other may be looking through somebody's network (net 7)."""


NO_BOUNDS = RelayBounds()


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
        relay: bounds on what this node passes on for others; None: nothing.

    rendezvous: whoever knows them sets `own` and `candidates` of it.
    flows: streams that this node offers and reads.
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
        relay: RelayBounds | None = NO_BOUNDS,
    ) -> None:
        self.traffic = TrafficBook()
        self.bandwidth = bandwidth or Bandwidth()
        self._identity = identity
        self._events = events
        self._refused = refused
        self._heartbeat_s = heartbeat_s
        self._new_addresses = Buckets(NEW_ADDRESSES_PER_S, NEW_ADDRESSES_BURST, limits.PEERS_MAX)
        self._book = AddressBook(allow, self._may_name_another)
        self._sockets = Sockets()
        self._context = tls.client_context(identity, membership, refused, distrusted)
        self.client = Client(self._book, self._context, refused, self._sockets.add)
        admits = reception is not None and reception.admits
        self._server = tls.server_context(identity, membership, refused, distrusted, admits=admits)
        self._switchboard = Switchboard(events, self.traffic)
        self._waiting = Waiting()
        rng = random.Random(identity.peer)
        self._upgrades = Upgrades(self._relayed, self._upgrade, rng)
        self.mirror = Mirror(self._book, self._context, self._sockets.add, self._here, self._seers)
        self.rendezvous = Rendezvous(
            self.client,
            self._book,
            refused=refused,
            opened=self._sockets.add,
            adopt=self._adopt,
            punch=lambda targets: punch(self._here(), targets, allow),
            observed=self.mirror.observed,
            bounds=relay,
            rng=rng,
        )
        self.client.ways += self.rendezvous.ways
        self._dials: dict[PeerId, asyncio.Task[bool]] = {}
        self._greetings = Buckets(GREETINGS_PER_S, GREETINGS_BURST, limits.PEERS_MAX)
        self._background = Background()
        self._listeners: list[Listener] = []
        self._host = ""
        self._leaving = False
        self.dial_back = DialBack(self._context, allow, self._sockets.path, opened=self._sockets.add)
        routes = [*routes, *self.dial_back.routes(), *SpeedDesk(self.bandwidth).routes()]
        routes += Reflector(lambda: [one.port for one in self._listeners]).routes()
        routes += self.rendezvous.routes()
        self.flows = Flows(identity.peer, self, refused)
        routes += self.flows.routes()
        routes += [web.get(WS_PATH, self._accept, allow_head=False)]
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
        return self._listeners[0].port if self._listeners else 0

    async def start(self, host: str = "", port: int = 0, *, second: bool = False) -> None:
        """Listen, and be ready to dial.

        Args:
            host: an IP address of this computer; empty for all of them.
            port: 0 for any free one.
            second: listen on another free port too: for a relay that others ask how they are seen.

        Raises:
            P2PTrainError: the address or the port is not to be had.
        """
        await self._runner.setup()
        assert self._runner.server is not None
        self._host = host
        for number in (port, 0) if second else (port,):
            listener = Listener(
                self._runner.server, self._server, self._sockets.add, self.rendezvous.arrivals
            )
            listener.start(host, number)
            self._listeners.append(listener)
        self.client.open()
        self.rendezvous.start()
        self._background.start(self._upgrades.run())

    async def close(self, reason: str = "this computer leaves") -> None:
        """Send what waits in the outboxes, end all connections in order, and leave no socket behind."""
        self._leaving = True
        for listener in self._listeners:
            await listener.close()
        await self._background.cancel()
        await self._switchboard.close(reason, 2 * CLOSE_S)
        await self.rendezvous.close()
        await self.client.close()
        await self._runner.cleanup()
        await self._sockets.closed(CLOSE_S)

    def renew(self, membership: Membership) -> None:
        """Show a new membership from the next handshake on."""
        tls.show(self._context, self._identity, membership)
        tls.show(self._server, self._identity, membership)

    def admit_strangers(self, admits: bool) -> None:
        """Let strangers ask for admission from now on, or no more."""
        tls.let_strangers_in(self._server, admits)

    # -- peers -----------------------------------------------------------------------------------------

    @property
    def connected(self) -> Collection[PeerId]:
        """The peers that a frame can be sent to now."""
        return [link.peer for link in self._switchboard.links()]

    def path(self, peer: PeerId) -> str:
        """Say how a peer is connected, for people; empty: it is not."""
        return str(self.way(peer) or "")

    def way(self, peer: PeerId) -> ways.Path | None:
        """Say how a peer is connected; None: it is not, or no more."""
        link = self._switchboard.link(peer)
        return link.path if link else None

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
        """Put a frame into a peer's outbox; a known peer without a connection is dialled for it.

        Raises:
            LocalProtocolError: it is longer than `limits.FRAME_BYTES_MAX`.
        """
        if len(frame) > limits.FRAME_BYTES_MAX:
            raise LocalProtocolError(f"a frame of {len(frame)} bytes")
        if link := self._switchboard.link(peer):
            link.send(frame)
        elif not self._leaving and not self._refused(peer) and self._book.knows(peer):
            if self._waiting.put(peer, frame, asyncio.get_running_loop().time()):
                self._background.start(self.dial(peer))
            else:
                self.traffic.add("dropped", peer, 1)

    def hangup(self, peer: PeerId, reason: str) -> None:
        """End the connection to a peer; `reason` is told to it."""
        if link := self._switchboard.link(peer):
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
        if self._leaving:
            raise UnreachableError("this computer leaves")
        return self.client.request(method, peer, path, headers, data)

    def address_changed(self) -> None:
        """This computer is on another network: what went through relays may now go without."""
        self.mirror.forget()
        self._upgrades.hurry()

    # -- connections -----------------------------------------------------------------------------------

    async def _dial(self, peer: PeerId) -> bool:
        try:
            websocket = await self._connect(peer)
        except (OSError, aiohttp.ClientError, P2PTrainError) as error:
            lost = self._waiting.give_up(peer, asyncio.get_running_loop().time())
            self.traffic.add("dropped", peer, lost)
            if not self._is_up(peer):
                self._events.peer_down(peer, explain(error))
            return self._is_up(peer)
        finally:
            del self._dials[peer]
        self._begin(peer, websocket, self._identity.peer)
        return True

    def _may_name_another(self, peer: PeerId) -> bool:
        return self._new_addresses.take(peer, asyncio.get_running_loop().time())

    def _here(self) -> Address:
        return Address(self._host, self.port)

    def _seers(self) -> list[PeerId]:
        """Return who may say how this node is seen: relays, then others that were dialled."""
        dialled = [link.peer for link in self._switchboard.links() if link.dialler == self._identity.peer]
        return [*self.rendezvous.reservations.relays, *self.rendezvous.candidates(), *dialled]

    def _adopt(self, connection: socket.socket, path: ways.Path) -> None:
        if not self._listeners or self._leaving:
            connection.close()
            return
        self._listeners[0].adopt(connection, path)
        self._sockets.add(connection, path)

    def _relayed(self) -> list[PeerId]:
        return [link.peer for link in self._switchboard.links() if link.is_relayed]

    async def _upgrade(self, peer: PeerId) -> None:
        """Put a direct connection in the place of a relayed one, if there is a way now."""
        try:
            websocket = await self._connect(peer, instead=True)
        except (OSError, aiohttp.ClientError, P2PTrainError):
            return
        self._begin(peer, websocket, self._identity.peer, instead=True)
        self.client.leave_relays(peer)

    async def _connect(self, peer: PeerId, *, instead: bool = False) -> aiohttp.ClientWebSocketResponse[bool]:
        async with asyncio.timeout(DIAL_S):
            return await self.client.connect(
                peer,
                f"{WS_PATH}?{INSTEAD}" if instead else WS_PATH,
                limits.FRAME_BYTES_MAX,
                heartbeat_s=self._heartbeat_s,
                autoping=False,
                relayed=not instead,
            )

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        if not self._greetings.take(peer, asyncio.get_running_loop().time()):
            raise web.HTTPTooManyRequests
        websocket = web.WebSocketResponse(
            timeout=CLOSE_S,
            heartbeat=self._heartbeat_s,
            autoping=False,
            max_msg_size=limits.FRAME_BYTES_MAX + 1,  # the first size that aiohttp refuses
            compress=False,
            decode_text=False,
        )
        await websocket.prepare(request)
        await self._begin(peer, websocket, peer, instead=INSTEAD in request.query)
        return websocket

    def _begin(
        self, peer: PeerId, websocket: WebSocket, dialler: PeerId, *, instead: bool = False
    ) -> asyncio.Task[None]:
        path, now = self._sockets.path(websocket), asyncio.get_running_loop().time()
        link = Link(peer, websocket, dialler, path, now, self.traffic)
        running = self._switchboard.begin(link, instead=instead)
        if link.is_relayed:
            asyncio.get_running_loop().call_later(SOON_S, self._upgrades.hurry)
        for frame in self._waiting.take(peer):
            self.send(peer, frame)
        if self._leaving:
            link.close("this computer leaves", Ending.LEAVING)
        return running

    def _is_up(self, peer: PeerId) -> bool:
        return self._switchboard.link(peer) is not None
