"""How fast the line to a member is, measured with few bytes when the owner asks.

GET /v1/speed/{bytes}     -> so many bytes that mean nothing, at most `PIECE_BYTES_MAX`
PUT /v1/speed             up to as many bytes, thrown away -> 204

Owners' bounds on weights hold here too.
"""

import asyncio
import os

from aiohttp import web
from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.channel.bandwidth import Bandwidth, Cap
from p2ptrain.net.channel.gate import peer_of
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.reach.ask import ASK_S, Asker, ask, read_body

SPEED_PATH = "/v1/speed"

PIECE_BYTES_MAX = limits.MIB
PIECES_BYTES = (64 * limits.KIB, 256 * limits.KIB, PIECE_BYTES_MAX, PIECE_BYTES_MAX)
"""Each piece is worth sending only if the one before was fast: 1 Mbit/s ends after the first."""

ENOUGH_S: Seconds = 0.4
"""A piece that took so long says how fast the line is (guess)."""

ROUND_TRIPS = 3
"""The fastest counts: the first may have dialled, any may have waited for other traffic."""

REQUESTS_PER_S = 0.2
REQUESTS_BURST = 32
"""From one peer: two looks of its owner, at most 9 MiB. A blob is more (guess)."""

WRITE_BYTES = 64 * limits.KIB

REFUSAL_BYTES_MAX = 1024
"""What aiohttp says besides a status."""


class Speed(Struct, frozen=True):
    """What was measured with one member. Rates in bytes a second; `moved`: bytes in both directions."""

    up: float
    down: float
    moved: int


class SpeedDesk:
    """Lets members measure.

    Args:
        bandwidth: the owner's bounds.
    """

    def __init__(self, bandwidth: Bandwidth) -> None:
        self._bandwidth = bandwidth
        self._rates = Buckets(REQUESTS_PER_S, REQUESTS_BURST, limits.PEERS_MAX)

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [
            web.get(f"{SPEED_PATH}/{{bytes:[0-9]{{1,7}}}}", self._give, allow_head=False),
            web.put(SPEED_PATH, self._take),
        ]

    async def _give(self, request: web.Request) -> web.StreamResponse:
        left = min(int(request.match_info["bytes"]), PIECE_BYTES_MAX)
        self._count(request)
        response = web.StreamResponse()
        response.content_length = left
        await response.prepare(request)
        try:
            async with asyncio.timeout(ASK_S):  # after that nobody waits for it
                while left:
                    piece = os.urandom(min(left, self._bandwidth.up.piece_bytes(WRITE_BYTES)))
                    await self._bandwidth.up.pay(len(piece))
                    await response.write(piece)
                    left -= len(piece)
        except TimeoutError:
            raise ConnectionError("the peer takes nothing") from None
        return response

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self._count(request)
        try:
            body = await read_body(request, PIECE_BYTES_MAX)
        except RemoteProtocolError:
            raise web.HTTPBadRequest from None
        await self._bandwidth.down.pay(len(body))
        return web.Response(status=204)

    def _count(self, request: web.Request) -> None:
        if not self._rates.take(peer_of(request), asyncio.get_running_loop().time()):
            raise web.HTTPTooManyRequests


async def round_trip(asker: Asker, peer: PeerId) -> Seconds:
    """Return how long a question and its answer take.

    Raises:
        UnreachableError: there was no answer.
        RemoteProtocolError: it was longer than asked for.
    """
    return min([await _take_time(asker, "GET", peer, 0, Cap()) for _ in range(ROUND_TRIPS)])


async def measure(asker: Asker, peer: PeerId, bandwidth: Bandwidth) -> Speed:
    """Measure both directions, one after the other.

    Args:
        asker: reaches members.
        peer: with whom.
        bandwidth: the owner's bounds, which hold here too.

    Raises:
        UnreachableError: there was no answer.
        RemoteProtocolError: it was longer than asked for.
    """
    trip_s = await round_trip(asker, peer)
    down, got = await _rate(asker, "GET", peer, trip_s, bandwidth.down)
    up, given = await _rate(asker, "PUT", peer, trip_s, bandwidth.up)
    return Speed(up, down, got + given)


async def _rate(asker: Asker, method: str, peer: PeerId, trip_s: Seconds, cap: Cap) -> tuple[float, int]:
    """Move larger and larger pieces; return bytes a second of the last one, and the bytes of all."""
    moved, rate = 0, 0.0
    for size in PIECES_BYTES:
        took_s = await _take_time(asker, method, peer, size, cap)
        moved += size
        rate = size / max(took_s - trip_s, took_s / 2)
        if took_s >= ENOUGH_S:
            break
    return rate, moved


async def _take_time(asker: Asker, method: str, peer: PeerId, size: int, cap: Cap) -> Seconds:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await cap.pay(size)
    if method == "GET":
        answer = await ask(asker, "GET", peer, f"{SPEED_PATH}/{size}", bytes_max=size + REFUSAL_BYTES_MAX)
    else:
        answer = await ask(asker, "PUT", peer, SPEED_PATH, data=os.urandom(size), bytes_max=REFUSAL_BYTES_MAX)
    if answer.status not in (200, 204) or len(answer.body) != (size if method == "GET" else 0):
        raise UnreachableError("it does not let its line be measured now")
    return loop.time() - began
