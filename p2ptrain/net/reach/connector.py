"""How aiohttp gets a connection to a peer: all ways are raced, and the first finished handshake wins."""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, NoReturn
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, Seconds, peer_from_text
from p2ptrain.net.addresses import Address, AddressBook
from p2ptrain.net.channel.gate import IDLE_S
from p2ptrain.net.channel.sockets import cut
from p2ptrain.net.reach.race import Attempt, race
from p2ptrain.net.trust.certificates import HOST_SUFFIX
from p2ptrain.net.trust.tls import PeerContext
from p2ptrain.net.ways import NoWayError, Opened, Path, Way, WayError

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

CONNECTIONS_MAX = 256
CONNECTIONS_PER_PEER_MAX = 8
"""One for messages, four for blobs, three for flows."""

STAGGER_S: Seconds = 0.3
"""The head start of a better way, and of a better address: one round trip around the world (guess)."""

CONNECT_S: Seconds = 7.0
"""All ways together. Less than `transport.DIAL_S`, so that what went wrong is known before that ends."""

HANDSHAKE_S: Seconds = 5.0
"""The inner TLS; as long as a listener waits."""


HOSTNAME_MISMATCH = 62
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH: a good certificate of another member."""


class LastPaths:
    """How each peer was reached last, for the peers reached last."""

    def __init__(self) -> None:
        self._paths: OrderedDict[PeerId, Path] = OrderedDict()

    def of(self, peer: PeerId) -> Path | None:
        """Return how a peer was reached last."""
        return self._paths.get(peer)

    def remember(self, peer: PeerId, path: Path) -> None:
        """A peer was reached."""
        self._paths[peer] = path
        self._paths.move_to_end(peer)
        if len(self._paths) > limits.PEERS_MAX:
            self._paths.popitem(last=False)


class _Joined(NamedTuple):
    protocol: ResponseHandler
    path: Path


class PeerConnector(aiohttp.BaseConnector):
    """Connects to peers only, by every way there is.

    Args:
        book: where peers are.
        context: whom this node trusts and what it shows.
        ways: besides the addresses of the book, in the order in which they are tried.
        opened: told of every socket over which TLS begins.
        last: how peers were reached last, which is tried first; shared by connectors.
        relayed: whether a relay will do.
    """

    # aiohttp's own attributes begin with one underscore: two keep ours apart.

    def __init__(
        self,
        book: AddressBook,
        context: PeerContext,
        *,
        ways: Iterable[Way] = (),
        opened: Callable[[socket.socket, Path], None] = lambda *_: None,
        last: LastPaths | None = None,
        relayed: bool = True,
    ) -> None:
        super().__init__(
            keepalive_timeout=IDLE_S, limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_PER_PEER_MAX
        )
        self.__context = context
        self.__book = book
        self.__ways = ways
        self.__opened = opened
        self.__last = last or LastPaths()
        self.__relayed = relayed
        self.__detours: WeakKeyDictionary[ResponseHandler, PeerId] = WeakKeyDictionary()

    def close(self, *, abort_ssl: bool = True) -> Awaitable[None]:
        """Close all connections, without waiting for their other ends."""
        return super().close(abort_ssl=abort_ssl)

    def leave_relays(self, peer: PeerId) -> None:
        """End each relayed connection to a peer after its present request: there is a better way now."""
        for protocol, far in self.__detours.items():
            if far == peer:
                protocol.force_close()

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> ResponseHandler:
        """Do what aiohttp asks of every connector; its errors are those of aiohttp's own."""
        host = req.url.raw_host or ""
        try:
            peer = peer_from_text(host.removesuffix(HOST_SUFFIX))
        except ValueError:
            raise aiohttp.ClientError("not a peer") from None
        errors: list[OSError] = []
        try:
            async with asyncio.timeout(CONNECT_S):
                joined = await race(self.__attempts(peer, host, errors), STAGGER_S, errors.append, _drop)
        except TimeoutError as error:
            joined = None
            errors.append(error)
        if joined is None:
            _raise(max(errors, key=_tells), req)
        self.__last.remember(peer, joined.path)
        if joined.path.is_relayed:
            self.__detours[joined.protocol] = peer
        return joined.protocol

    def __attempts(self, peer: PeerId, host: str, errors: list[OSError]) -> list[Attempt[_Joined]]:
        """Return every way, the one that led there last time first."""
        last = self.__last.of(peer)
        joins: dict[str, Attempt[_Joined]] = {"direct": partial(self.__direct, peer, host, errors)}
        for way in self.__ways:
            joins[way.name] = partial(self.__join, partial(way.open, peer), host)
        if not self.__relayed:
            joins.pop("relay", None)
        first = joins.pop(last.way, None) if last else None
        return [first, *joins.values()] if first else list(joins.values())

    async def __direct(self, peer: PeerId, host: str, errors: list[OSError]) -> _Joined:
        """Race a peer's addresses, the one that it was reached at last first."""
        last = self.__last.of(peer)
        addresses = sorted(
            self.__book.addresses_of(peer), key=lambda address: last is None or address != last.address
        )
        if not addresses:
            raise NoWayError("no address is known")
        joins = [partial(self.__join, partial(_open, address), host) for address in addresses]
        joined = await race(joins, STAGGER_S, errors.append, _drop)
        if joined is None:
            raise max(errors, key=_tells)
        return joined

    async def __join(self, open_way: Callable[[], Awaitable[Opened]], host: str) -> _Joined:
        """Take one way, and see by TLS who is at its end."""
        made, path = await open_way()
        self.__opened(made, path)
        try:
            _, protocol = await self._loop.create_connection(
                self._factory,
                sock=made,
                ssl=self.__context,
                server_hostname=host,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except BaseException:
            cut(made)  # uvloop forgets a handshake that is cancelled before it began
            raise
        return _Joined(protocol, path)


async def connect(address: Address, bound: socket.socket | None = None) -> socket.socket:
    """Connect a socket, `bound` or a new one; it is closed if that fails.

    Raises:
        OSError: no connection.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = bound or socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (address.host, address.port))
    except BaseException:
        made.close()
        raise
    return made


async def _open(address: Address) -> Opened:
    return Opened(await connect(address), Path("direct", address))


def _drop(joined: _Joined) -> None:
    joined.protocol.abort()


def _tells(error: OSError) -> int:
    """Rank how much a failure tells of the peer itself; somebody else at an old address tells little."""
    match error:
        case ssl.SSLCertVerificationError() if getattr(error, "verify_code", 0) != HOSTNAME_MISMATCH:
            return 5
        case NoWayError():
            return 0
        case WayError():
            return 4
        case ssl.SSLError():
            return 3
        case OSError(errno=int()):
            return 2
        case _:
            return 1


def _raise(error: OSError, request: aiohttp.ClientRequest) -> NoReturn:
    """Raise what aiohttp's own connector would."""
    match error:
        case ssl.SSLCertVerificationError():
            raise aiohttp.ClientConnectorCertificateError(request.connection_key, error) from error
        case ssl.SSLError():
            raise aiohttp.ClientConnectorSSLError(request.connection_key, error) from error
        case TimeoutError():
            raise error
        case _:
            raise aiohttp.ClientConnectorError(request.connection_key, error) from error
