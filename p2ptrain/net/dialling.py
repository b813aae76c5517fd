"""How this node dials: sessions that can reach peers and nothing else, and words for what went wrong."""

import os
import socket
from collections.abc import Callable

import aiohttp
from aiohttp import AddrInfoType

from p2ptrain.core.errors import P2PTrainError, RemoteProtocolError
from p2ptrain.net.addresses import AddressBook
from p2ptrain.net.certificates import HOST_SUFFIX
from p2ptrain.net.gate import IDLE_S
from p2ptrain.net.tls import PeerContext

CONNECTIONS_MAX = 256
CONNECTIONS_PER_PEER_MAX = 5
"""One for messages, four for blobs."""


def open_session(
    book: AddressBook,
    context: PeerContext,
    opened: Callable[[socket.socket], None] = lambda _: None,
) -> aiohttp.ClientSession:
    """Make a session whose every connection goes to an address of the book and pins its peer.

    Args:
        book: where peers are.
        context: whom this node trusts and what it shows.
        opened: told of every socket.
    """

    def make_socket(address: AddrInfoType) -> socket.socket:
        made = socket.socket(*address[:3])
        opened(made)
        return made

    connector = aiohttp.TCPConnector(
        ssl=context,
        resolver=book,
        use_dns_cache=False,
        keepalive_timeout=IDLE_S,
        limit=CONNECTIONS_MAX,
        limit_per_host=CONNECTIONS_PER_PEER_MAX,
        socket_factory=make_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
        middlewares=(_peers_only,),
    )


def explain(error: BaseException) -> str:
    """Say why a connection failed, in words for the owner."""
    match error:
        case RemoteProtocolError():
            return error.detail
        case P2PTrainError():
            return error.message
        case aiohttp.ClientConnectorDNSError():
            return "no address is known"
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            return f"who answers there is not the peer that is meant ({_verdict(cause)})"
        case aiohttp.ClientConnectorSSLError():
            return "who answers there does not speak p2ptrain"
        case TimeoutError() | aiohttp.ClientConnectorError(errno=None):
            return "no answer"
        case aiohttp.WSServerHandshakeError(status=401 | 403):
            return "the peer turned this computer away"
        case aiohttp.WSServerHandshakeError(status=429):
            return "the peer wants to be called less often"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() if _was_connected(error):
            return "the peer hung up at once: a certificate expired, or it turned this computer away"
        case aiohttp.ClientPayloadError():
            return "the connection was lost"
        case OSError(errno=int(number)):
            return os.strerror(number)
        case OSError():
            return str(error)
        case _:
            return "it does not answer as a peer would"


async def _peers_only(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Refuse to be redirected elsewhere: an IP address in a link would bypass the book and the pin."""
    if request.url.scheme not in ("https", "wss") or not (request.url.host or "").endswith(HOST_SUFFIX):
        raise aiohttp.ClientError("redirected")
    return await handler(request)


def _was_connected(error: BaseException) -> bool:
    """In TLS 1.3 a refused client sees its handshake succeed, and then an end."""
    return not isinstance(error, aiohttp.ClientConnectorError)


def _verdict(cause: Exception) -> str:
    """Return OpenSSL's reason, or that of the pin."""
    return str(getattr(cause, "verify_message", "") or cause.args[-1])
