"""Every socket of this node: how it came about, and that the end waits for the last one."""

import asyncio
import contextlib
import os
import socket
import weakref
from asyncio.trsock import TransportSocket
from typing import Any, Protocol

from p2ptrain.core import limits
from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import Address, plain_host
from p2ptrain.net.ways import Path

POLL_S: Seconds = 0.005

UNSENT_BYTES = 128 * limits.KIB
"""What waits in the system beyond what the other side has room for: two writes of TLS (guess)."""

CAN_SHARE = hasattr(socket, "SO_REUSEPORT")
"""Whether a port can be listened on and dialled from."""


def share(listening: socket.socket) -> None:
    """Let connections begin from the port of a listening socket.

    After it is bound, not before: so a second program that wants to listen there is still refused.
    """
    if CAN_SHARE:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


class Sockets:
    """Sockets that asyncio owns and closes at its own pace."""

    def __init__(self) -> None:
        self._sockets: weakref.WeakKeyDictionary[socket.socket, Path | None] = weakref.WeakKeyDictionary()

    def add(self, one: socket.socket, path: Path | None = None) -> None:
        """Watch a socket; `path`: how it leads to a peer, if that is not just a connection that came in."""
        _hold_back(one)
        self._sockets[one] = path

    def path(self, connection: "HasExtraInfo") -> Path | None:
        """Say how a connection runs; None: it is closed."""
        number = raw.fileno() if (raw := extra(connection, "socket")) else -1
        if number == -1:
            return None
        known = next((path for one, path in self._sockets.items() if one.fileno() == number), None)
        name = extra(connection, "peername")
        return known or (Path("direct", Address(plain_host(name[0]), name[1])) if name else None)

    async def closed(self, patience_s: Seconds) -> None:
        """Wait until all are closed; what is left after a while is cut, whatever the other side does.

        What nobody closes after that either, because a task ended before it began, is closed here.
        """
        for end in (cut, socket.socket.close):
            await self._wait(patience_s)
            for one in self._open():
                end(one)

    async def _wait(self, patience_s: Seconds) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while self._open():
            if loop.time() >= deadline:
                return
            await asyncio.sleep(POLL_S)

    def _open(self) -> list[socket.socket]:
        return [one for one in self._sockets if one.fileno() != -1]


class HasNumber(Protocol):
    """A socket, or what stands for one."""

    def fileno(self) -> int: ...


class HasExtraInfo(Protocol):
    """A transport, a request or a WebSocket."""

    def get_extra_info(self, name: str, /) -> Any: ...


def extra(connection: HasExtraInfo, name: str) -> Any:
    """Ask a connection for what asyncio knows about it; None: nothing any more."""
    try:
        return connection.get_extra_info(name)
    except AttributeError:
        # asyncio's TLS transport loses its inside when it is closed twice.
        return None


def _hold_back(one: socket.socket) -> None:
    """Let the system take no more than it can send: what a killed reader never reads travelled for nothing.

    Measured on loopback: half as much travels twice. Windows has no such option, a pair of local sockets
    does not take it.
    """
    if option := getattr(socket, "TCP_NOTSENT_LOWAT", None):
        with contextlib.suppress(OSError):
            one.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)


def cut(one: HasNumber) -> None:
    """End a connection in both directions; its owner notices and closes the socket."""
    with contextlib.suppress(OSError):
        if isinstance(one, socket.socket | TransportSocket):
            one.shutdown(socket.SHUT_RDWR)
            return
        # What uvloop shows instead cannot do it; its number is -1 once the socket was closed.
        with socket.socket(fileno=os.dup(one.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)
