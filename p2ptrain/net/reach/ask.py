"""Small questions to members over HTTPS, with answers that cannot grow."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import aiohttp
from aiohttp import web

from p2ptrain.core.errors import Offence, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.reach.dialling import explain

ASK_S: Seconds = 10.0
"""One question and its answer, all addresses of the peer together (guess)."""

BODY_S: Seconds = 5.0
"""How long a question may take to arrive: all are small (guess)."""


class Asker(Protocol):
    """What a transport offers."""

    def request(
        self,
        method: str,
        peer: PeerId,
        path: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask a peer over HTTP."""
        ...


class Answer(NamedTuple):
    """What a member said: an HTTP status and the whole body."""

    status: int
    body: bytes


async def ask(
    asker: Asker,
    method: str,
    peer: PeerId,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    data: bytes | None = None,
    bytes_max: int,
) -> Answer:
    """Ask a member one thing.

    Raises:
        UnreachableError: there was no answer.
        RemoteProtocolError: it answered with more than `bytes_max` bytes.
    """
    try:
        async with asyncio.timeout(ASK_S), asker.request(method, peer, path, headers, data) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > bytes_max:
                    raise RemoteProtocolError(Offence.OVERSIZED, f"more than {bytes_max} bytes of answer")
            return Answer(response.status, bytes(body))
    except (OSError, aiohttp.ClientError) as error:
        raise UnreachableError(explain(error)) from None


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """Read what a member sends.

    Raises:
        RemoteProtocolError: it is longer than `bytes_max`, or takes longer than `BODY_S`.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > bytes_max:
                    raise RemoteProtocolError(Offence.OVERSIZED, f"more than {bytes_max} bytes")
    except TimeoutError:
        raise RemoteProtocolError(Offence.MALFORMED, f"a body that took over {BODY_S:g} s") from None
    return bytes(body)
