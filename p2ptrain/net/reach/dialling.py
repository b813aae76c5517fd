"""How this node dials: sessions that can reach peers and nothing else, and words for what went wrong."""

import os

import aiohttp

from p2ptrain.core.errors import P2PTrainError, RemoteProtocolError
from p2ptrain.net.reach.connector import PeerConnector
from p2ptrain.net.trust.certificates import HOST_SUFFIX
from p2ptrain.net.ways import WayError


def open_session(connector: PeerConnector) -> aiohttp.ClientSession:
    """Make a session that keeps nothing, decompresses nothing, and reaches peers only."""
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
        case aiohttp.ClientConnectorError(os_error=WayError() as cause):
            return str(cause)
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
        case (
            aiohttp.ServerDisconnectedError() | aiohttp.ClientConnectionResetError() | aiohttp.ClientOSError()
        ) if _was_connected(error):
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
