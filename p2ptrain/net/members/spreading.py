"""How the swarm's state reaches every member: whoever meets compares, whoever learns tells.

GET /v1/state     -> the signed state, empty for none; 304 if `If-None-Match` names it
PUT /v1/state     the signed state -> 204, or 400 for one that the root did not sign
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from aiohttp import web

from p2ptrain.core import limits
from p2ptrain.core.errors import Offence, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.gate import peer_of
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.members.state import STATE_BYTES_MAX, StateKeeper
from p2ptrain.net.reach.ask import Asker, ask, read_body

STATE_PATH = "/v1/state"

COMPARE_EVERY_S: Seconds = 60.0
"""A member that nobody can dial learns by asking one of the others (guess): an answer of "the same" is 100
bytes, but a question may cost a handshake."""

EXCHANGES_PER_S = 0.5
EXCHANGES_BURST = 16
"""Each connection asks once, each change tells once (guess)."""


class Line(Asker, Protocol):
    """What spreading needs of a transport."""

    @property
    def connected(self) -> Collection[PeerId]:
        """The peers that are connected now."""
        ...


class Spreading:
    """Passes the state on.

    Args:
        keeper: holds it.
        line: to the members; set before anything else is called.
        offended: told which rule a peer broke.
    """

    def __init__(self, keeper: StateKeeper, offended: Callable[[PeerId, Offence, str], None]) -> None:
        self.line: Line
        self._keeper = keeper
        self._offended = offended
        self._rates = Buckets(EXCHANGES_PER_S, EXCHANGES_BURST, limits.PEERS_MAX)
        self._background = Background()

    # -- being asked ---------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [web.get(STATE_PATH, self._show, allow_head=False), web.put(STATE_PATH, self._hear)]

    async def _show(self, request: web.Request) -> web.StreamResponse:
        self._count(request)
        tag = tag_of(self._keeper.raw)
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(body=self._keeper.raw, headers={"ETag": tag})

    async def _hear(self, request: web.Request) -> web.StreamResponse:
        self._count(request)
        peer = peer_of(request)
        try:
            self._take(await read_body(request, STATE_BYTES_MAX), peer)
        except RemoteProtocolError as error:
            self._offended(peer, error.offence, error.detail)
            raise web.HTTPBadRequest from None
        return web.Response(status=204)

    def _count(self, request: web.Request) -> None:
        if not self._rates.take(peer_of(request), asyncio.get_running_loop().time()):
            raise web.HTTPTooManyRequests

    # -- asking --------------------------------------------------------------------------------------

    def greet(self, peer: PeerId) -> None:
        """Compare with a peer that was just connected."""
        self._background.start(self.compare(peer))

    def tell_all(self, source: PeerId | None = None) -> None:
        """Tell everyone connected, but for who told this node."""
        for peer in self.line.connected:
            if peer != source:
                self._background.start(self._tell(peer))

    async def run(self) -> None:
        """Compare with one after the other of those connected, for ever."""
        turns: deque[PeerId] = deque()
        while True:
            await asyncio.sleep(COMPARE_EVERY_S)
            up = self.line.connected
            turns = deque(peer for peer in turns if peer in up) or deque(up)
            if turns:
                await self.compare(turns.popleft())

    async def close(self) -> None:
        """Ask nothing more."""
        await self._background.cancel()

    async def compare(self, peer: PeerId) -> None:
        """Take a peer's state if it is newer, and give it this node's if that is."""
        headers = {"If-None-Match": tag_of(self._keeper.raw)}
        try:
            answer = await ask(self.line, "GET", peer, STATE_PATH, headers=headers, bytes_max=STATE_BYTES_MAX)
            if answer.status == 200 and not self._take(answer.body, peer) and answer.body != self._keeper.raw:
                await self._tell(peer)
        except RemoteProtocolError as error:
            self._offended(peer, error.offence, error.detail)
        except UnreachableError:
            pass  # it may be able to ask here, or it will be asked again

    async def _tell(self, peer: PeerId) -> None:
        try:
            await ask(self.line, "PUT", peer, STATE_PATH, data=self._keeper.raw, bytes_max=STATE_BYTES_MAX)
        except RemoteProtocolError as error:
            self._offended(peer, error.offence, error.detail)
        except UnreachableError:
            pass  # it will ask

    def _take(self, raw: bytes, source: PeerId) -> bool:
        newer = self._keeper.take(raw)
        if newer:
            self.tell_all(source)
        return newer


def tag_of(raw: bytes) -> str:
    """Return the HTTP entity tag of a state."""
    return f'"{hashlib.sha256(raw).hexdigest()[:32]}"'
