"""Every socket of this node, so that the end can wait for the last one."""

import asyncio
import contextlib
import socket
import weakref
from asyncio.trsock import TransportSocket
from typing import Any, Protocol

from p2ptrain.core.types import Seconds

POLL_S: Seconds = 0.005


class Sockets:
    """Sockets that asyncio owns and closes at its own pace."""

    def __init__(self) -> None:
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def add(self, one: socket.socket) -> None:
        """Watch a socket."""
        self._sockets.add(one)

    async def closed(self, patience_s: Seconds) -> None:
        """Wait until all are closed; what is left after a while is cut, whatever the other side does."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while left := [one for one in self._sockets if one.fileno() != -1]:
            if loop.time() >= deadline:
                for one in left:
                    cut(one)
            await asyncio.sleep(POLL_S)


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


def cut(one: socket.socket | TransportSocket) -> None:
    """End a connection in both directions; its owner notices and closes the socket."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
