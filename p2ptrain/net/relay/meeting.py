"""Two peers that meet at one moment: both dial each other, and whichever way it comes about, it is one.

Between routers that open for what goes out, both attempts become one connection (TCP simultaneous open).
Where only one router lets the other's attempt in, it comes to a listening port instead. So each side says
first for which meeting it comes, and waits to hear the same.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from p2ptrain.core.types import Seconds
from p2ptrain.net.addresses import Address
from p2ptrain.net.channel.preamble import Arrival, Kind, Preamble
from p2ptrain.net.reach.race import race
from p2ptrain.net.relay.legs import known
from p2ptrain.net.ways import Opened, WayError

MEET_S: Seconds = 3.0
"""97 % of those that succeed do so at the first try (research: net 3.1)."""

Punch = Callable[[Sequence[Address]], Awaitable[Opened]]
"""Dials addresses from the listening port, again and again; raises OSError when it gives up."""

Observed = Callable[[], Awaitable[Sequence[Address]]]
"""Says from which addresses others see this node's listening port come; none: not known, or not always the
same."""


async def meet(arrival: Arrival, punch: Punch, targets: Sequence[Address]) -> socket.socket:
    """Dial, and be dialled; return the first connection that is the one meant.

    Args:
        arrival: what comes to the listening port.
        punch: see `Punch`.
        targets: where the other side is.

    Raises:
        OSError: neither within `MEET_S`.
    """
    preamble = Preamble(Kind.PUNCH, arrival.token)
    errors: list[OSError] = []
    async with asyncio.timeout(MEET_S):
        met = await race(
            [partial(_outward, punch, targets, preamble), partial(_inward, arrival, preamble)],
            0.0,
            errors.append,
            socket.socket.close,
        )
    if met is None:
        raise WayError(f"both sides dialled, and neither came through ({errors[0]})")
    return met


async def _outward(punch: Punch, targets: Sequence[Address], preamble: Preamble) -> socket.socket:
    connection, _ = await punch(targets)
    return await known(await _say(connection, preamble), preamble)


async def _inward(arrival: Arrival, preamble: Preamble) -> socket.socket:
    return await _say(await arrival.wait(), preamble)


async def _say(connection: socket.socket, preamble: Preamble) -> socket.socket:
    try:
        await asyncio.get_running_loop().sock_sendall(connection, bytes(preamble))
    except BaseException:
        connection.close()
        raise
    return connection
