"""The HTTP server that stands behind TLS: who a request is from, and what that allows."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware

from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.channel.sockets import extra
from p2ptrain.net.trust.tls import PeerObject

JOIN_PATH = "/v1/join"
KNOCK_PATH = "/v1/knock"
FOR_STRANGERS = (JOIN_PATH, KNOCK_PATH)
"""The only places for strangers."""

IDLE_S: Seconds = 15.0
"""An unused or silent connection is kept that long; aiohttp's default is an hour."""

ANSWER_S: Seconds = 15.0
"""How long a peer may take for an answer, all of which are small; weights are streamed, see `blob_server`."""

SHUTDOWN_S: Seconds = 1.0
"""How long requests may take to end when this node stops."""

_PEER = web.RequestKey("peer", bytes)

http_logger = logging.getLogger("p2ptrain.net.http")


def make_runner(routes: Iterable[web.RouteDef], refused: Callable[[PeerId], bool]) -> web.AppRunner:
    """Make an HTTP server that answers members, and strangers at `FOR_STRANGERS` only.

    Args:
        routes: what it answers.
        refused: says whether a peer was turned away, perhaps since its connection began.
    """
    application = web.Application(middlewares=[_deliver, _make_gate(refused)])
    application.add_routes(routes)
    return web.AppRunner(
        application,
        access_log=None,
        logger=http_logger,
        keepalive_timeout=IDLE_S,
        lingering_time=0.0,
        auto_decompress=False,
        shutdown_timeout=SHUTDOWN_S,
    )


def peer_of(request: web.BaseRequest) -> PeerId:
    """Return the member that a request is from."""
    return PeerId(request[_PEER])


def is_member(request: web.BaseRequest) -> bool:
    """Say whether a request is from a member; strangers may ask for admission."""
    return _PEER in request


def leaf_of(request: web.BaseRequest) -> bytes:
    """Return the certificate, DER, by which TLS knows the member that a request is from."""
    connection = extra(request, "ssl_object")
    certificate = connection.getpeercert(binary_form=True) if connection else None
    if certificate is None:
        raise web.HTTPUnauthorized
    return bytes(certificate)


def _make_gate(refused: Callable[[PeerId], bool]) -> Middleware:
    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = extra(request, "ssl_object")
        peer = connection.peer if isinstance(connection, PeerObject) else None
        if peer is None:
            if request.path not in FOR_STRANGERS:
                raise web.HTTPUnauthorized
        elif refused(peer):
            raise web.HTTPForbidden
        else:
            request[_PEER] = peer
        return await handler(request)

    return gate


@web.middleware
async def _deliver(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Send the answer here: aiohttp would wait for ever for a peer that takes none."""
    try:
        answer = await handler(request)
    except web.HTTPException as refusal:
        answer = refusal
    try:
        async with asyncio.timeout(None if answer.prepared else ANSWER_S):
            await answer.prepare(request)
            await answer.write_eof()
    except TimeoutError:
        if request.transport:
            request.transport.abort()
        raise ConnectionError("the peer takes nothing") from None
    if isinstance(answer, web.HTTPException):
        raise answer  # aiohttp wants refusals raised, and sends no second one
    return answer


OTHERS_FAULTS = (HttpProcessingError, ConnectionError, UnicodeError)
"""Malformed requests, lost lines, and what is no text in a header that aiohttp repeats in its answer."""


def _is_own_fault(record: logging.LogRecord) -> bool:
    """Keep others from filling the log: aiohttp reports malformed requests and lost lines with tracebacks."""
    return not (record.exc_info and isinstance(record.exc_info[1], OTHERS_FAULTS))


http_logger.addFilter(_is_own_fault)
