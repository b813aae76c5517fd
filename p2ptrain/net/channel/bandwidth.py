"""Bounds on how many bytes of weights a second leave and enter this computer."""

import asyncio
from collections.abc import Awaitable, Callable

from p2ptrain.core import limits
from p2ptrain.core.types import Seconds

BYTES_PER_MBIT = 125_000

BURST_S: Seconds = 0.1
"""What may be made up for after a pause (guess): too short to be felt by others on the line."""

PIECE_S: Seconds = 0.05
"""A capped sender writes so much at once (guess): the line stays even, and every reader hears in time."""

PIECE_BYTES_MIN = 16 * limits.KIB
"""One TLS record."""


def _loop_time() -> Seconds:
    return asyncio.get_running_loop().time()


class Cap:
    """A token bucket on bytes that all transfers in one direction share.

    Who moves bytes when the bucket is empty goes into debt and waits until it is paid. So one piece may
    be larger than the bucket, those who wait are served in order, and the rate holds in the long run.

    Args:
        bytes_per_s: 0 for no bound.
        clock: monotonic, in seconds; the event loop's by default.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        bytes_per_s: float = 0.0,
        clock: Callable[[], Seconds] = _loop_time,
        sleep: Callable[[Seconds], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._paid_at: Seconds = float("-inf")

    def owe(self, count: int, now: Seconds) -> Seconds:
        """Count bytes, and return how long to wait for them."""
        if not self.bytes_per_s:
            return 0.0
        self._paid_at = max(self._paid_at, now - BURST_S) + count / self.bytes_per_s
        return max(0.0, self._paid_at - now)

    async def pay(self, count: int) -> None:
        """Count bytes, and wait until the bound allows them."""
        if self.bytes_per_s and (wait_s := self.owe(count, self._clock())):
            await self._sleep(wait_s)

    def piece_bytes(self, most: int) -> int:
        """Return how much to move at once, at most `most`."""
        if not self.bytes_per_s:
            return most
        return min(most, max(PIECE_BYTES_MIN, int(self.bytes_per_s * PIECE_S)))

    def streams(self, most: int, stream_bytes_per_s: float) -> int:
        """Return how many transfers at once leave each of them that rate: from 1 to `most`."""
        if not self.bytes_per_s:
            return most
        return min(most, max(1, int(self.bytes_per_s / stream_bytes_per_s)))


class Bandwidth:
    """The owner's bounds on weights, one for each direction; messages are small and never wait.

    Args:
        up_mbit: 10^6 bit/s of payload, 2 % less than the line carries; 0 for no bound.
        down_mbit: the same, for what comes in.
    """

    def __init__(self, up_mbit: float = 0.0, down_mbit: float = 0.0) -> None:
        self.up = Cap(up_mbit * BYTES_PER_MBIT)
        self.down = Cap(down_mbit * BYTES_PER_MBIT)
