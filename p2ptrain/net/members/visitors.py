"""The issuer's side of `knock`: who stands at the door, and whom the owner lets in."""

import asyncio
import hmac
import os
from collections.abc import Callable

import msgspec
from aiohttp import web
from msgspec import Struct

from p2ptrain.core.errors import RefusedError, RemoteProtocolError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.addresses import plain_host
from p2ptrain.net.channel.gate import KNOCK_PATH
from p2ptrain.net.channel.rates import Buckets, TokenBucket
from p2ptrain.net.members.join import Welcome
from p2ptrain.net.members.knock import (
    KNOCK_BYTES_MAX,
    NONCE_BYTES,
    Greeting,
    Hello,
    Knock,
    Question,
    code_of,
    commit,
    statement,
)
from p2ptrain.net.reach.ask import read_body
from p2ptrain.net.trust.identity import verify

VISITORS_MAX = 32
"""A class room joins at once; who comes when it is full is told to come again."""

FORGOTTEN_S: Seconds = 15.0
"""Who has not asked for so long is gone: it asks every 2 s."""

HELLOS_PER_S = 0.2
"""All together: somebody who needs a certain code has 150 guesses in ten minutes, of a million."""

HELLOS_BURST = 4
HELLOS_PER_ADDRESS_S = 0.03
ADDRESSES_MAX = 1024
"""One computer asks once, and again if its owner made a mistake (guess). So many are remembered."""

TICKET_BYTES = 16


class Visitor(Struct):
    """Somebody who asks to be admitted.

    code: as on its screen; empty: it has not proved yet who it is.
    since, seen: of the loop's clock.
    """

    peer: PeerId
    commitment: bytes
    nonce: bytes
    address: str
    since: Seconds
    seen: Seconds
    code: str = ""
    admitted: bool = False


class Visitors:
    """Answers strangers who knock.

    Args:
        here: this node.
        welcome: makes somebody a member; raises RefusedError if that cannot be.
        is_open: says whether anybody may ask now.
        asked: told of everyone who asks, for the owner.
    """

    def __init__(
        self,
        here: PeerId,
        welcome: Callable[[PeerId], Welcome],
        is_open: Callable[[], bool],
        asked: Callable[[Visitor], None],
    ) -> None:
        self._here = here
        self._welcome = welcome
        self._is_open = is_open
        self._asked = asked
        self._visitors: dict[bytes, Visitor] = {}
        self._all = TokenBucket(HELLOS_PER_S, VISITORS_MAX)
        self._each = Buckets(HELLOS_PER_ADDRESS_S, HELLOS_BURST, ADDRESSES_MAX)

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [web.post(KNOCK_PATH, self.answer)]

    @property
    def waiting(self) -> list[Visitor]:
        """Who waits to be admitted, longest first."""
        self._forget(asyncio.get_running_loop().time())
        return [visitor for visitor in self._visitors.values() if visitor.code and not visitor.admitted]

    def admit(self, code: str) -> Visitor | None:
        """Let in whoever shows that code; None: nobody does. It hears of it when it asks again."""
        meant = [
            visitor for visitor in self.waiting if visitor.code.replace(" ", "") == code.replace(" ", "")
        ]
        if len(meant) != 1:  # of two with one code, at most one is who it says
            return None
        meant[0].admitted = True
        return meant[0]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Greet a stranger, or say to a known one whether it was admitted."""
        if not self._is_open():
            raise web.HTTPNotFound
        try:
            question = msgspec.msgpack.decode(await read_body(request, KNOCK_BYTES_MAX), type=Question)
        except (RemoteProtocolError, msgspec.DecodeError, UnicodeDecodeError):
            raise web.HTTPBadRequest from None
        now = asyncio.get_running_loop().time()
        self._forget(now)
        if isinstance(question, Hello):
            return self._greet(question, plain_host(request.remote or "::"), now)
        return self._hear(question, now)

    def _greet(self, hello: Hello, address: str, now: Seconds) -> web.Response:
        full = len(self._visitors) >= VISITORS_MAX
        if full or not self._each.take(address, now) or not self._all.take(now):
            raise web.HTTPTooManyRequests
        greeting = Greeting(os.urandom(TICKET_BYTES), os.urandom(NONCE_BYTES))
        peer = PeerId(hello.peer)
        self._visitors[greeting.ticket] = Visitor(peer, hello.commitment, greeting.nonce, address, now, now)
        return web.Response(body=msgspec.msgpack.encode(greeting))

    def _hear(self, knock: Knock, now: Seconds) -> web.Response:
        visitor = self._visitors.get(knock.ticket)
        if visitor is None or not hmac.compare_digest(visitor.commitment, commit(visitor.peer, knock.nonce)):
            raise web.HTTPForbidden
        stated = statement(self._here, visitor.peer, knock.nonce, visitor.nonce)
        if not verify(visitor.peer, knock.signature, stated):
            raise web.HTTPForbidden
        visitor.seen = now
        if not visitor.code:
            visitor.code = code_of(stated)
            self._asked(visitor)
        if not visitor.admitted:
            return web.Response(status=202)
        try:
            return web.Response(body=msgspec.msgpack.encode(self._welcome(visitor.peer)))
        except RefusedError:
            raise web.HTTPForbidden from None

    def _forget(self, now: Seconds) -> None:
        gone = [ticket for ticket, one in self._visitors.items() if now - one.seen > FORGOTTEN_S]
        for ticket in gone:
            del self._visitors[ticket]
