"""Accepts connections: TLS first, few per address, and none that stays silent."""

import asyncio
import errno
import socket
from collections.abc import Callable

from aiohttp import web

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import plain_host
from p2ptrain.net.background import Background
from p2ptrain.net.sockets import extra
from p2ptrain.net.tls import PeerContext

CONNECTIONS_MAX = 256
"""Sixteen neighbours with five connections each leave room for those who come and go."""

CONNECTIONS_PER_ADDRESS_MAX = 64
"""A dozen peers behind one home router; swarms that are tried out on one machine."""

STRANGERS_MAX = 32
"""Connections without a certificate: they can only join."""

HANDSHAKE_S: Seconds = 5.0
STRANGER_S: Seconds = 10.0
"""How long a stranger may stay: joining takes one request."""

EXHAUSTED_S: Seconds = 0.1
"""How long to wait when the system has no more sockets to give."""

SHUTDOWN_S: Seconds = 1.0
"""How long a peer may take to end TLS in order."""


class Listener:
    """Hands encrypted connections to an HTTP server.

    Args:
        server: makes a protocol a connection.
        context: whom this node trusts and what it shows.
        opened: told of every socket.
    """

    def __init__(
        self, server: web.Server, context: PeerContext, opened: Callable[[socket.socket], None]
    ) -> None:
        self._server = server
        self._context = context
        self._opened = opened
        self._socket: socket.socket | None = None
        self._open: dict[socket.socket, str] = {}
        self._strangers: set[socket.socket] = set()
        self._background = Background()

    @property
    def port(self) -> int:
        """The TCP port; 0 while not listening."""
        return int(self._socket.getsockname()[1]) if self._socket else 0

    def start(self, host: str, port: int) -> None:
        """Listen.

        Args:
            host: an IP address of this computer; empty for all of them.
            port: 0 for any free one.

        Raises:
            P2PTrainError: the address or the port is not to be had.
        """
        self._socket = _listen(host, port)
        self._socket.setblocking(False)
        self._background.start(self._accept(self._socket))

    async def close(self) -> None:
        """Accept no more, and drop those that are still shaking hands."""
        await self._background.cancel()
        if self._socket:
            self._socket.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, where = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(EXHAUSTED_S)
                continue
            host = plain_host(where[0])
            self._open = {one: name for one, name in self._open.items() if one.fileno() != -1}
            if len(self._open) >= CONNECTIONS_MAX or (
                sum(name == host for name in self._open.values()) >= CONNECTIONS_PER_ADDRESS_MAX
            ):
                connection.close()
                continue
            self._open[connection] = host
            self._opened(connection)
            self._background.start(self._greet(connection))

    async def _greet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                self._server,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError:
            return
        proved = extra(transport, "ssl_object")
        if proved is not None and proved.peer is None:
            self._strangers = {one for one in self._strangers if one.fileno() != -1}
            self._strangers.add(connection)
            delay_s = STRANGER_S if len(self._strangers) <= STRANGERS_MAX else 0.0
            loop.call_later(delay_s, transport.abort)


def _listen(host: str, port: int) -> socket.socket:
    try:
        if host:
            return socket.create_server((host, port), family=_family(host))
        return _listen_everywhere(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise P2PTrainError(
                f"port {port} is in use by another program", "choose another port, or stop that program"
            ) from None
        raise P2PTrainError(
            f"this computer cannot listen on {host or 'any address'} port {port}: {error.strerror}",
            "choose an address of this computer and a port from 1024 on",
        ) from None


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server(("", port))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
