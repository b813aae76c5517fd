"""Can others dial this node? Members try it, and the proof comes in by the front door.

POST /v1/dial-back     an array [port, token] -> an array [outcome, address, clock], see `Told`
PUT  /v1/dial-back     the token, on the connection that was dialled back -> 204

Only the address that a question came from is dialled: nobody can send a member to somebody else. And
"reached" is believed only when the token came in over the connection that was dialled, so a liar can
do no more than keep silent about a success; that is why more than one is asked.
"""

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.addresses import PORT_MIN, Address, AddressFilter, parse_address
from p2ptrain.net.channel.gate import peer_of
from p2ptrain.net.channel.rates import Buckets, TokenBucket
from p2ptrain.net.channel.sockets import cut
from p2ptrain.net.reach.ask import Asker, ask, read_body
from p2ptrain.net.trust.certificates import Clock, host_name, wall_clock
from p2ptrain.net.trust.tls import PeerContext
from p2ptrain.net.ways import Path

DIAL_BACK_PATH = "/v1/dial-back"

TRY_S: Seconds = 3.0
"""Dialling, handshake and token together: once around the world takes 0.3 s (guess)."""

ASKED_MAX = 2
"""One of two is honest more often than one of one; more would only cost others connections."""

TRIES_PER_S = 0.1
TRIES_BURST = 4
"""From one peer: a start, a change of address and an owner who looks twice (guess)."""

TRIES_ALL_PER_S = 2.0
TRIES_ALL_BURST = 16
"""From all: a handshake costs 1 ms of CPU and 3 kB (research: net 2.3)."""

TRIES_AT_ONCE = 8
"""Sockets that wait for silence to end."""

QUESTIONS_MAX = 16
"""Own tokens on their way: two questions by each part of the daemon that may ask."""

TOKEN_BYTES = 16
ASK_BYTES_MAX = 64
TOLD_BYTES_MAX = 256
STATUS_BYTES_MAX = 256
"""Both arrays and the first line of an answer, with room for fields of newer versions."""


class Outcome(StrEnum):
    """What came of dialling back. The value travels and never changes."""

    REACHED = "reached"
    SILENT = "silent"
    """Nothing answered: a router or a firewall drops what comes in."""
    REFUSED = "refused"
    """A computer is there, but nothing listens on that port."""
    NO_ROUTE = "no route"
    NOT_TLS = "not tls"
    """Something listens there that does not speak p2ptrain."""
    STRANGER = "stranger"
    """Another p2ptrain answers there, or one of another swarm."""
    TURNED_AWAY = "turned away"
    """The right one answers, and hung up or did not take the token."""
    UNSEEN = "unseen"
    """The question came through a relay: its sender's address is not known."""
    FORBIDDEN = "forbidden"
    """That address and port may not be dialled."""
    BUSY = "busy"
    """Asked too often."""
    NO_ANSWER = "no answer"
    """The member that was asked did not answer, or in no way that this version knows."""


class Question(Struct, frozen=True, array_like=True):
    """Dial my address, at that port, and bring me the token."""

    port: Annotated[int, Meta(ge=PORT_MIN, le=65535)]
    token: Annotated[bytes, Meta(min_length=TOKEN_BYTES, max_length=TOKEN_BYTES)]


class Told(Struct, frozen=True, array_like=True):
    """What a member says it saw.

    address: where the question came from, with the port that was dialled; empty: it does not know.
    clock_ms: its wall clock, milliseconds since 1970.
    """

    outcome: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]
    address: Annotated[str, Meta(max_length=limits.ADDRESS_CHARS_MAX)] = ""
    clock_ms: Annotated[int, Meta(ge=0, le=1 << 53)] = 0


class Seen(NamedTuple):
    """What one member found.

    outcome: REACHED is proven; everything else is that member's word.
    address: from which it saw this node come, None: it does not say. Its word: use it for others only
        when two say the same, see `agreed`.
    via: the IP address from which the token came in; empty: none came. Proven too.
    offset_s: its clock less this one, less the way of its answer; its word. None: it does not say.
    """

    peer: PeerId
    outcome: Outcome
    address: Address | None = None
    via: str = ""
    offset_s: Seconds | None = None


def agreed(seen: Iterable[Seen]) -> tuple[Address, ...]:
    """Return the addresses that two members named, or the only one of its family that anyone did."""
    named = [one.address for one in seen if one.address is not None]
    families = [":" in address.host for address in named]
    return tuple(
        dict.fromkeys(
            address
            for address, family in zip(named, families, strict=True)
            if families.count(family) == 1 or named.count(address) > 1
        )
    )


def proven(seen: Collection[Seen]) -> tuple[Address, ...]:
    """Return the agreed addresses at which a member got through."""
    reached = [one.address for one in seen if one.outcome is Outcome.REACHED]
    return tuple(address for address in agreed(seen) if address in reached)


class _Awaited(Struct):
    """A token on its way: who must bring it, and from where it came."""

    peer: PeerId
    via: str = ""


class DialBack:
    """Dials members back when they ask, and asks them to.

    Args:
        context: whom this node trusts and what it shows when it dials.
        allow: says which addresses may be dialled.
        path: says how the connection of a request runs; None: it does no more.
        opened: told of every socket.
        clock: told to who asks.
    """

    def __init__(
        self,
        context: PeerContext,
        allow: AddressFilter,
        path: Callable[[web.Request], Path | None],
        *,
        opened: Callable[[socket.socket], None] = lambda _: None,
        clock: Clock = wall_clock,
    ) -> None:
        self._context = context
        self._allow = allow
        self._path = path
        self._opened = opened
        self._clock = clock
        self._each = Buckets(TRIES_PER_S, TRIES_BURST, limits.PEERS_MAX)
        self._all = TokenBucket(TRIES_ALL_PER_S, TRIES_ALL_BURST)
        self._trying = 0
        self._awaited: dict[bytes, _Awaited] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [web.post(DIAL_BACK_PATH, self._try), web.put(DIAL_BACK_PATH, self._take)]

    # -- being asked ---------------------------------------------------------------------------------

    async def _try(self, request: web.Request) -> web.StreamResponse:
        try:
            question = msgspec.msgpack.decode(await read_body(request, ASK_BYTES_MAX), type=Question)
        except (RemoteProtocolError, msgspec.DecodeError):
            raise web.HTTPBadRequest from None
        peer, path = peer_of(request), self._path(request)
        seen = path.address if path and not path.is_relayed else None
        address = Address(seen.host, question.port) if seen else None
        now = asyncio.get_running_loop().time()
        if address is None:
            outcome = Outcome.UNSEEN
        elif not self._allow(address):
            outcome = Outcome.FORBIDDEN
        elif self._trying >= TRIES_AT_ONCE or not self._each.take(peer, now) or not self._all.take(now):
            outcome = Outcome.BUSY
        else:
            self._trying += 1
            try:
                outcome = await reach(peer, address, question.token, self._context, self._opened)
            finally:
                self._trying -= 1
        told = Told(outcome, str(address or ""), round(1000 * self._clock().timestamp()))
        return web.Response(body=msgspec.msgpack.encode(told))

    # -- asking --------------------------------------------------------------------------------------

    async def ask_some(self, asker: Asker, peers: Iterable[PeerId], port: int) -> list[Seen]:
        """Ask up to `ASKED_MAX` of the peers, the first ones, at the same time."""
        asked = list(dict.fromkeys(peers))[:ASKED_MAX]
        return list(await asyncio.gather(*(self.ask(asker, peer, port) for peer in asked)))

    async def ask(self, asker: Asker, peer: PeerId, port: int) -> Seen:
        """Ask one member to dial this node's address, as it sees it, at a port.

        Args:
            asker: reaches members.
            peer: whom to ask.
            port: where others would dial: the one that is listened on, or that a router maps to it.
        """
        if len(self._awaited) >= QUESTIONS_MAX:
            return Seen(peer, Outcome.BUSY)
        token, awaited = secrets.token_bytes(TOKEN_BYTES), _Awaited(peer)
        self._awaited[token] = awaited
        try:
            data = msgspec.msgpack.encode(Question(port, token))
            answer = await ask(asker, "POST", peer, DIAL_BACK_PATH, data=data, bytes_max=TOLD_BYTES_MAX)
            told = msgspec.msgpack.decode(answer.body, type=Told) if answer.status == 200 else Told("")
        except (UnreachableError, RemoteProtocolError, msgspec.DecodeError, UnicodeDecodeError):
            told = Told("")
        finally:
            del self._awaited[token]
        outcome = Outcome.REACHED if awaited.via else _word(told.outcome)
        offset_s = told.clock_ms / 1000 - self._clock().timestamp() if told.clock_ms else None
        return Seen(peer, outcome, _address(told.address), awaited.via, offset_s)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        """Take a token from whom it was given to, if it came straight from outside."""
        try:
            token = await read_body(request, TOKEN_BYTES)
        except RemoteProtocolError:
            raise web.HTTPBadRequest from None
        awaited, path = self._awaited.get(token), self._path(request)
        came_in = path.address if path and path.way == "direct" else None
        if awaited is None or awaited.peer != peer_of(request) or came_in is None:
            raise web.HTTPNotFound
        awaited.via = came_in.host
        return web.Response(status=204)


async def reach(
    peer: PeerId,
    address: Address,
    token: bytes,
    context: PeerContext,
    opened: Callable[[socket.socket], None] = lambda _: None,
) -> Outcome:
    """Dial a peer at one address and bring it a token; takes at most `TRY_S`."""
    made = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)
    made.setblocking(False)
    opened(made)
    step = Outcome.SILENT
    try:
        async with asyncio.timeout(TRY_S):
            await asyncio.get_running_loop().sock_connect(made, (address.host, address.port))
            step = Outcome.NOT_TLS
            reader, writer = await asyncio.open_connection(
                sock=made, ssl=context, server_hostname=host_name(peer), limit=STATUS_BYTES_MAX
            )
            step = Outcome.TURNED_AWAY
            try:
                writer.write(_request(peer, token))
                status = await reader.readline()
            finally:
                writer.transport.abort()
            return Outcome.REACHED if status.split(b" ")[1:2] == [b"204"] else step
    except TimeoutError:
        return step
    except ssl.SSLCertVerificationError:
        return Outcome.STRANGER
    except (OSError, ValueError) as error:
        return step if step is not Outcome.SILENT else _failure(error)
    finally:
        if made.fileno() != -1:
            cut(made)
            made.close()


def _request(peer: PeerId, token: bytes) -> bytes:
    head = f"PUT {DIAL_BACK_PATH} HTTP/1.1\r\nHost: {host_name(peer)}\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(token)}\r\n\r\n".encode() + token


def _failure(error: OSError | ValueError) -> Outcome:
    """Say in which way a TCP connection was not to be had."""
    return Outcome.REFUSED if isinstance(error, ConnectionRefusedError) else Outcome.NO_ROUTE


def _word(text: str) -> Outcome:
    """Read what a member says; that it got through is not a matter of words."""
    try:
        outcome = Outcome(text)
    except ValueError:
        return Outcome.NO_ANSWER
    return Outcome.NO_ANSWER if outcome is Outcome.REACHED else outcome


def _address(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None
