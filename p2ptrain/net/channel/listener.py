"""Accepts connections: few per address, none that stays silent, and TLS, or who was expected.

Connections that this node made itself for a peer to use, to a relay or to whoever asked to be dialled, are
greeted in the same way: `adopt`.
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable

from aiohttp import web

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import plain_host
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.handshakes import Handshakes
from p2ptrain.net.channel.preamble import Arrivals, read_preamble
from p2ptrain.net.channel.sockets import extra, share
from p2ptrain.net.trust.tls import PeerContext
from p2ptrain.net.ways import Path

CONNECTIONS_MAX = 256
"""Sixteen neighbours with five connections each leave room for those who come and go."""

CONNECTIONS_PER_ADDRESS_MAX = 64
"""A dozen peers behind one home router; swarms that are tried out on one machine."""

STRANGERS_MAX = 32
"""Connections without a certificate: they can only join."""

HANDSHAKE_S: Seconds = 5.0
"""From a connection's beginning to the end of its TLS handshake."""

HANDSHAKE_MIN_S: Seconds = 0.1
"""For whoever began at the last moment: asyncio wants more than 0."""

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
        opened: told of every socket, and how it leads to a peer if it did not come to the port.
        arrivals: takes those that begin with something else.
    """

    def __init__(
        self,
        server: web.Server,
        context: PeerContext,
        opened: Callable[[socket.socket, Path | None], None],
        arrivals: Arrivals,
    ) -> None:
        self._server = server
        self._context = context
        self._opened = opened
        self._arrivals = arrivals
        self._socket: socket.socket | None = None
        self._open: dict[socket.socket, str] = {}
        self._strangers: set[socket.socket] = set()
        self._handshakes = Handshakes()
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
        share(self._socket)
        self._socket.setblocking(False)
        self._accepting = self._background.start(self._accept(self._socket))

    async def close(self) -> None:
        """Accept no more, and drop those that are still shaking hands."""
        if self._socket:
            with contextlib.suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().remove_reader(self._socket)
            await asyncio.sleep(0)  # whoever was just accepted would be lost if that were cancelled now
            self._accepting.cancel()
            await asyncio.sleep(0)  # and closes it only if it began
        await self._background.cancel()
        if self._socket:
            self._socket.close()
            self._socket = None

    def adopt(self, connection: socket.socket, path: Path) -> None:
        """Serve whoever is at the other end of a socket that did not come to the port.

        Args:
            connection: connected and non-blocking; belongs to the listener from now on.
            path: how the other end is reached.
        """
        if self._admit(connection, str(path.relay or path.address), path):
            self._background.start(self._serve(connection, HANDSHAKE_S))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, where = await loop.sock_accept(listening)
            except OSError:
                await asyncio.sleep(EXHAUSTED_S)
                continue
            if self._admit(connection, plain_host(where[0])):
                self._background.start(self._watch(connection))

    async def _watch(self, connection: socket.socket) -> None:
        with self._handshakes.watch(connection):
            await self._greet(connection)

    def _admit(self, connection: socket.socket, host: str, path: Path | None = None) -> bool:
        """Count a connection, or close it if there are too many."""
        self._open = {one: name for one, name in self._open.items() if one.fileno() != -1}
        if sum(name == host for name in self._open.values()) >= CONNECTIONS_PER_ADDRESS_MAX or (
            len(self._open) >= CONNECTIONS_MAX and not self._handshakes.make_room()
        ):
            connection.close()
            return False
        self._open[connection] = host
        self._opened(connection, path)
        return True

    async def _greet(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HANDSHAKE_S
        try:
            async with asyncio.timeout_at(deadline):
                preamble = await read_preamble(connection)
                if preamble is None:
                    await self._handshakes.place(connection)
        except OSError:  # a time-out is one
            connection.close()
            return
        except asyncio.CancelledError:
            connection.close()
            raise
        if preamble is None:
            await self._serve(connection, deadline - loop.time())
        elif not self._arrivals.bring(preamble, connection):
            connection.close()

    async def _serve(self, connection: socket.socket, handshake_s: Seconds) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.connect_accepted_socket(
                self._server,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=max(handshake_s, HANDSHAKE_MIN_S),
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
