"""From where others see this node's port, and whether all see the same.

GET /v1/where -> an array [address, port], see `Where`

A router that gives every destination another port is called symmetric: nobody can dial what one peer saw
(research: net 3.2). The question goes out from the port that is listened on, to two places.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Literal, NamedTuple

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.addresses import Address, AddressBook, parse_address, plain_host
from p2ptrain.net.channel.gate import peer_of
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.channel.sockets import extra
from p2ptrain.net.reach.ask import ask
from p2ptrain.net.reach.connector import PeerConnector, connect
from p2ptrain.net.reach.dialling import open_session
from p2ptrain.net.reach.punch import bound
from p2ptrain.net.trust.certificates import host_name
from p2ptrain.net.trust.tls import PeerContext
from p2ptrain.net.ways import Opened, Path

WHERE_PATH = "/v1/where"
WHERE_BYTES_MAX = 128

PLACES_MAX = 3
"""Members that are asked: one may be gone."""

QUESTIONS_PER_S = 0.1
QUESTIONS_BURST = 8
"""From one peer: two at a start, and at each change of address (guess)."""


SEEN_S: Seconds = 600.0
"""What was seen counts so long: routers keep their kind, and a new network is noticed otherwise (guess)."""

SEEN_AGAIN_S: Seconds = 20.0
"""The same where nobody answered."""


class Where(Struct, frozen=True, array_like=True):
    """From where a question came, as the one who was asked saw it.

    address: empty: it came through a relay.
    second: another port at which the same can be asked; 0: none.
    """

    address: Annotated[str, Meta(max_length=limits.ADDRESS_CHARS_MAX)]
    second: Annotated[int, Meta(ge=0, le=65535)] = 0


class Reflection(NamedTuple):
    """This node, seen from outside. What others say of it: a reason to try, and never proof.

    outer: where its port is seen; None: nobody could say.
    symmetric: whether each destination sees another port; None: less than two could say.
    """

    outer: Address | None = None
    symmetric: bool | None = None


class Reflector:
    """Tells members from where they come.

    Args:
        ports: says on which TCP ports this node listens, the usual one first.
    """

    def __init__(self, ports: Callable[[], Collection[int]]) -> None:
        self._ports = ports
        self._rates = Buckets(QUESTIONS_PER_S, QUESTIONS_BURST, limits.PEERS_MAX)

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [web.get(WHERE_PATH, self._answer, allow_head=False)]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not self._rates.take(peer_of(request), asyncio.get_running_loop().time()):
            raise web.HTTPTooManyRequests
        name, own = extra(request, "peername"), extra(request, "sockname")
        address, (_, *more) = "", self._ports()
        # The other end of a connection that this node opened may be a relay.
        if isinstance(name, tuple) and isinstance(own, tuple) and own[1] in self._ports():
            address = str(Address(plain_host(name[0]), name[1]))
        return web.Response(body=msgspec.msgpack.encode(Where(address, more[0] if more else 0)))


class _FromPort:
    """The way to one address, from the port that is listened on."""

    name: Literal["direct"] = "direct"

    def __init__(self, here: Address, there: Address) -> None:
        self._here, self._there = here, there

    async def open(self, peer: PeerId) -> Opened:
        made = bound(self._here, self._there)
        # Ends with a reset: the next question to the same place need not wait for this port for a minute.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return Opened(await connect(self._there, made), Path("direct", self._there))


class Mirror:
    """Asks members where this node is seen, and remembers it for a while.

    Args:
        book: where they are.
        context: whom this node trusts and what it shows.
        opened: told of every socket.
        here: says what this node listens on.
        peers: says which members can be dialled, the best first.
    """

    def __init__(
        self,
        book: AddressBook,
        context: PeerContext,
        opened: Callable[[socket.socket, Path], None],
        here: Callable[[], Address],
        peers: Callable[[], Iterable[PeerId]],
    ) -> None:
        self._book = book
        self._context = context
        self._opened = opened
        self._here = here
        self._peers = peers
        self._seen = Reflection()
        self._until: Seconds = 0.0
        self._looking = asyncio.Lock()

    def forget(self) -> None:
        """This computer is on another network."""
        self._until = 0.0

    async def observed(self) -> tuple[Address, ...]:
        """Return where others can expect this node's port; none: not known, or nowhere for long."""
        async with self._looking:
            if (now := asyncio.get_running_loop().time()) >= self._until:
                self._seen = await self.look()
                self._until = now + (SEEN_S if self._seen.outer else SEEN_AGAIN_S)
        outer, symmetric = self._seen
        return (outer,) if outer and not symmetric else ()

    async def look(self) -> Reflection:
        """Ask up to `PLACES_MAX` members; only IPv4 has routers that hide ports."""
        here = self._here()
        places = [
            (peer, address)
            for peer in dict.fromkeys(self._peers())
            for address in self._book.addresses_of(peer)[:1]
            if ":" not in address.host
        ][:PLACES_MAX]
        answers = await asyncio.gather(*(self._ask(here, *place) for place in places))
        seen = [answer for answer in answers if answer and answer.address]
        if len(seen) == 1 and seen[0].second:
            peer, address = places[answers.index(seen[0])]
            second = Address(address.host, seen[0].second)
            if self._book.allow(second) and (answer := await self._ask(here, peer, second)):
                seen.append(answer)
        named = [where for one in seen if (where := _parse(one.address))]
        if not named:
            return Reflection()
        return Reflection(named[0], len(set(named)) > 1 if len(named) > 1 else None)

    async def _ask(self, here: Address, peer: PeerId, there: Address) -> Where | None:
        connector = PeerConnector(
            AddressBook(self._book.allow), self._context, ways=[_FromPort(here, there)], opened=self._opened
        )
        async with open_session(connector) as session:
            with contextlib.suppress(
                UnreachableError, RemoteProtocolError, msgspec.DecodeError, UnicodeDecodeError
            ):
                answer = await ask(_Once(session), "GET", peer, WHERE_PATH, bytes_max=WHERE_BYTES_MAX)
                if answer.status == 200:
                    return msgspec.msgpack.decode(answer.body, type=Where)
        return None


class _Once:
    """Asks over a session of its own."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def request(
        self,
        method: str,
        peer: PeerId,
        path: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        url = f"https://{host_name(peer)}{path}"
        return self._session.request(method, url, headers=headers, data=data, allow_redirects=False)


def _parse(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None
