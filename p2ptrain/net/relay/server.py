"""Brings peers together that cannot dial each other, and passes on what they say where nothing else helps.

GET  /v1/relay                     a reservation, see `calls`
POST /v1/relay/{peer}              a call to who holds one
GET  /v1/relay/session/{token}     one end of a session as a WebSocket; a splice is the other kind

A session carries the same TLS as any connection, so a relay can drop bytes and count them, and that is all.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial

import msgspec
from aiohttp import web
from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.types import PeerId, Seconds, peer_from_text
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.bandwidth import BYTES_PER_MBIT, Cap
from p2ptrain.net.channel.gate import peer_of
from p2ptrain.net.channel.preamble import TOKEN_S, Arrival, Arrivals, Kind, Preamble
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.channel.sockets import cut
from p2ptrain.net.reach.ask import read_body
from p2ptrain.net.relay.calls import CALL_BYTES_MAX, RELAY, RELAY_PATH, Ask, Told, decode
from p2ptrain.net.relay.guest import Guest
from p2ptrain.net.relay.legs import PIECE_BYTES, SESSION_PATH, pair, pump
from p2ptrain.net.relay.splice import PIECE_BYTES as SPLICE_BYTES
from p2ptrain.net.relay.splice import splice

RESERVATIONS_MAX = 128
"""Half of the connections that a node takes; a swarm with more peers of that kind has more relays (guess)."""

SESSIONS_MAX = 64
SESSIONS_PER_PEER_MAX = 12
"""Eight links and four transfers: with fewer, five homes that meet only here could not exchange weights."""

IDLE_S: Seconds = 60.0
"""A connection of p2ptrain says something every 5 s."""

HEARTBEAT_S: Seconds = 25.0
"""Holds the way through a router open: some forget a silent connection after a minute (guess)."""

CLOSE_S: Seconds = 1.0

CALLS_PER_S = 0.5
CALLS_BURST = 12
"""By one member: three ways to each of four peers at once, then one every 2 s (guess)."""

DAY_S: Seconds = 86_400.0


class RelayBounds(Struct, frozen=True):
    """What this node gives to others. mbit: 10^6 bit/s, all sessions together; 0 is no bound, of both."""

    mbit: float = 0.0
    gb_a_day: float = 0.0


class _Session(Struct, frozen=True, eq=False):
    """Two peers that meet here; an `Arrival` for the end of each."""

    caller: PeerId
    callee: PeerId
    first: Arrival
    second: Arrival


class Relay:
    """The relay's side.

    Args:
        arrivals: where the ends of sessions come in.
        refused: says whether a peer was turned away; asked again while a session lasts.
        bounds: the owner's.
        opened: told of every socket.

    carried_bytes: passed on since the start.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        refused: Callable[[PeerId], bool],
        bounds: RelayBounds,
        opened: Callable[[socket.socket], None],
    ) -> None:
        self.carried_bytes = 0
        self._arrivals = arrivals
        self._refused = refused
        self._opened = opened
        self._cap = Cap(bounds.mbit * BYTES_PER_MBIT)
        self._allowance = Allowance(bounds.gb_a_day * 1e9)
        self._guests: dict[PeerId, Guest] = {}
        self._sessions: set[_Session] = set()
        self._rates = Buckets(CALLS_PER_S, CALLS_BURST, limits.PEERS_MAX)
        self._background = Background()

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [
            web.get(RELAY_PATH, self._reserve, allow_head=False),
            web.post(f"{RELAY_PATH}/{{peer:[a-z2-7]{{52}}}}", self._call),
            web.get(f"{SESSION_PATH}{{token:[0-9a-f]{{32}}}}", self._end, allow_head=False),
        ]

    @property
    def guests(self) -> list[PeerId]:
        """Who can be called here."""
        return list(self._guests)

    @property
    def sessions(self) -> int:
        """How many pairs talk through here."""
        return len(self._sessions)

    async def close(self) -> None:
        """End all sessions and reservations."""
        await self._background.cancel()
        await asyncio.gather(*(one.websocket.close() for one in list(self._guests.values())))

    # -- reservations ----------------------------------------------------------------------------------

    async def _reserve(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        self._count(peer)
        if len(self._guests) >= RESERVATIONS_MAX and peer not in self._guests:
            raise web.HTTPServiceUnavailable
        websocket = _websocket(CALL_BYTES_MAX, HEARTBEAT_S)
        await websocket.prepare(request)
        old, mine = self._guests.get(peer), Guest(websocket)
        self._guests[peer] = mine
        if old:
            self._background.start(old.websocket.close())
        try:
            await mine.run()
        finally:
            if self._guests.get(peer) is mine:
                del self._guests[peer]
        await websocket.close()
        return websocket

    # -- calls -----------------------------------------------------------------------------------------

    async def _call(self, request: web.Request) -> web.StreamResponse:
        caller, callee = peer_of(request), peer_from_text(request.match_info["peer"])
        self._count(caller)
        try:
            ask = decode(await read_body(request, CALL_BYTES_MAX), Ask)
        except RemoteProtocolError:
            raise web.HTTPBadRequest from None
        guest = self._guests.get(callee)
        if guest is None or self._refused(callee):
            raise web.HTTPNotFound
        meeting = None
        if ask.way == RELAY:
            session = self._open(caller, callee, ask.token)
            ask = Ask(RELAY, session.second.token)
            meeting = self._background.start(self._carry(session))
            meeting.add_done_callback(lambda _: self._forget(session))
        agreed = False
        try:
            reply = await guest.call(caller, ask)
            agreed = reply.agreed
        except OSError:
            raise web.HTTPGatewayTimeout from None
        finally:
            if meeting and not agreed:
                meeting.cancel()
        if not agreed:
            raise web.HTTPForbidden
        return web.Response(body=msgspec.msgpack.encode(Told(reply.addresses)))

    def _count(self, peer: PeerId) -> None:
        if not self._rates.take(peer, asyncio.get_running_loop().time()):
            raise web.HTTPTooManyRequests

    # -- sessions --------------------------------------------------------------------------------------

    def _open(self, caller: PeerId, callee: PeerId, token: bytes) -> _Session:
        for peer in (caller, callee):
            if sum(peer in (one.caller, one.callee) for one in self._sessions) >= SESSIONS_PER_PEER_MAX:
                raise web.HTTPServiceUnavailable
        if len(self._sessions) >= SESSIONS_MAX or not self._allowance.is_left(_now()):
            raise web.HTTPServiceUnavailable
        try:
            second = self._arrivals.expect(Kind.SPLICE, peer=callee)
            with contextlib.ExitStack() as undo:
                undo.callback(second.close)
                first = self._arrivals.expect(Kind.SPLICE, token, caller)
                undo.pop_all()
        except OSError:
            raise web.HTTPServiceUnavailable from None
        session = _Session(caller, callee, first, second)
        self._sessions.add(session)
        return session

    async def _carry(self, session: _Session) -> None:
        try:
            with contextlib.ExitStack() as ends:
                async with asyncio.timeout(TOKEN_S), asyncio.TaskGroup() as both:
                    first = both.create_task(_come(session.first, ends))
                    second = both.create_task(_come(session.second, ends))
                size = self._cap.piece_bytes(SPLICE_BYTES)
                await splice(first.result(), second.result(), partial(self._pay, session), IDLE_S, size)
        except* OSError:
            pass  # both ends see that it ended

    async def _pay(self, session: _Session, count: int) -> None:
        if self._refused(session.caller) or self._refused(session.callee):
            raise ConnectionError("one of them was turned away")
        if not self._allowance.take(count, _now()):
            raise ConnectionError("enough for today")
        self.carried_bytes += count
        await self._cap.pay(count)

    def _forget(self, session: _Session) -> None:
        self._sessions.discard(session)
        session.first.close()
        session.second.close()

    async def _end(self, request: web.Request) -> web.StreamResponse:
        """Take one end of a session as a WebSocket."""
        preamble = Preamble(Kind.SPLICE, bytes.fromhex(request.match_info["token"]))
        ours, theirs = pair(self._opened)
        if not self._arrivals.bring(preamble, theirs, peer_of(request)):
            ours.close()
            theirs.close()
            raise web.HTTPNotFound
        try:
            websocket = _websocket(PIECE_BYTES, None)
            await websocket.prepare(request)
            await pump(websocket, ours)
        finally:
            cut(ours)
            ours.close()
        return websocket


class Allowance:
    """So many bytes in a day; 0: no bound. The day begins with the first byte after the last one."""

    def __init__(self, bytes_a_day: float) -> None:
        self._bytes_a_day = bytes_a_day
        self._since: Seconds = float("-inf")
        self._used = 0

    def is_left(self, now: Seconds) -> bool:
        """Say whether there is anything left."""
        if now - self._since >= DAY_S:
            self._since, self._used = now, 0
        return not self._bytes_a_day or self._used < self._bytes_a_day

    def take(self, count: int, now: Seconds) -> bool:
        """Count bytes, unless nothing was left."""
        left = self.is_left(now)
        self._used += count if left else 0
        return left


async def _come(arrival: Arrival, ends: contextlib.ExitStack) -> socket.socket:
    """Wait for one end, and answer it: so it knows that it is expected here."""
    connection = await arrival.wait()
    ends.callback(connection.close)
    with contextlib.suppress(OSError):  # the inner end of a WebSocket has no such delay
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answer = bytes(Preamble(Kind.SPLICE, arrival.token))
    await asyncio.get_running_loop().sock_sendall(connection, answer)
    return connection


def _websocket(bytes_max: int, heartbeat_s: Seconds | None) -> web.WebSocketResponse[bool]:
    return web.WebSocketResponse(
        timeout=CLOSE_S,
        heartbeat=heartbeat_s,
        max_msg_size=bytes_max + 1,
        compress=False,
        decode_text=False,
    )


def _now() -> Seconds:
    return asyncio.get_running_loop().time()
