"""Passes bytes on between two sockets, without looking at them."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from p2ptrain.core import limits
from p2ptrain.core.types import Seconds
from p2ptrain.net.channel.sockets import cut

PIECE_BYTES = 256 * limits.KIB
"""Twice this is what a session costs a relay in memory, besides the system's own buffers."""

Pay = Callable[[int], Awaitable[None]]
"""Is told how many bytes came, before they are passed on: it may wait, or raise OSError to end it all."""


async def splice(
    one: socket.socket, two: socket.socket, pay: Pay, idle_s: Seconds, piece_bytes: int = PIECE_BYTES
) -> None:
    """Pass on what comes, both ways, until both sides have ended; a side may end before the other.

    The sockets stay open; at a failure both are cut, so that both ends notice.

    Args:
        one: connected and non-blocking.
        two: the same.
        pay: told of every piece.
        idle_s: ends it when nothing came from either side for so long.
        piece_bytes: the largest piece.

    Raises:
        OSError: a side broke off, `pay` refused, or nothing came for long (TimeoutError).
    """
    loop = asyncio.get_running_loop()

    async def pour(source: socket.socket, sink: socket.socket) -> None:
        buffer = memoryview(bytearray(piece_bytes))
        while count := await loop.sock_recv_into(source, buffer):
            if not patience.expired():
                patience.reschedule(loop.time() + idle_s)
            await pay(count)
            await loop.sock_sendall(sink, buffer[:count])
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    try:
        async with asyncio.timeout(idle_s) as patience, asyncio.TaskGroup() as both:
            both.create_task(pour(one, two))
            both.create_task(pour(two, one))
    except ExceptionGroup as errors:
        raise ConnectionError(str(errors.exceptions[0])) from None
    finally:
        cut(one)
        cut(two)
