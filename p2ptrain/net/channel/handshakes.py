"""Room for connections that have proved nothing yet: the slow give way to those that come."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from p2ptrain.core.types import Seconds
from p2ptrain.net.channel.sockets import cut

HANDSHAKES_MAX = 32
"""TLS handshakes at once: each takes 0.3 MB (measured), ten times what the connection took before."""

SLOW_S: Seconds = 1.0
"""Two round trips around the world and the work of a slow computer take less (guess)."""

LOOK_S: Seconds = 0.02
"""How often those who wait look for a place."""


class Handshakes:
    """Connections between their beginning and the end of their TLS handshake."""

    def __init__(self) -> None:
        self._unproved: dict[socket.socket, None] = {}
        self._shaking: dict[socket.socket, Seconds] = {}

    @contextmanager
    def watch(self, connection: socket.socket) -> Iterator[None]:
        """Count a connection as one that has proved nothing, until the end of the block."""
        self._unproved[connection] = None
        try:
            yield
        finally:
            self._unproved.pop(connection, None)
            self._shaking.pop(connection, None)

    async def place(self, connection: socket.socket) -> None:
        """Wait for a place; whoever has one for long is cut. The caller bounds the time."""
        loop = asyncio.get_running_loop()
        while len(self._shaking) >= HANDSHAKES_MAX:
            oldest, since = next(iter(self._shaking.items()))
            if loop.time() - since > SLOW_S:
                cut(oldest)
            await asyncio.sleep(LOOK_S)
        self._shaking[connection] = loop.time()

    def make_room(self) -> bool:
        """Cut the oldest that has proved nothing; False: all have."""
        oldest = next(iter(self._unproved), None)
        if oldest is None:
            return False
        del self._unproved[oldest]
        cut(oldest)
        return True
