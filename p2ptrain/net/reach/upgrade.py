"""Relayed connections are tried again without the relay: now and then, and when an address changed."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable

from p2ptrain.core.types import PeerId, Seconds

UPGRADE_EVERY_S: Seconds = 300.0
"""A try costs both sides a few packets and the relay two calls (guess)."""

SOON_S: Seconds = 15.0
"""After a connection began with a relay: that may have won by a moment (guess)."""

JITTER = 0.2
"""Either way, as a part of that: two ends that started together need not try together."""

AT_ONCE = 4
"""Tries at the same time: after a change of address, all neighbours are tried."""


class Upgrades:
    """Tries again.

    Args:
        relayed: says which peers are reached through a relay now.
        attempt: tries one of them; does not raise.
        rng: decides on the jitter.
    """

    def __init__(
        self,
        relayed: Callable[[], Iterable[PeerId]],
        attempt: Callable[[PeerId], Awaitable[object]],
        rng: random.Random,
    ) -> None:
        self._relayed = relayed
        self._attempt = attempt
        self._rng = rng
        self._changed = asyncio.Event()

    def hurry(self) -> None:
        """Try all of them now."""
        self._changed.set()

    async def run(self) -> None:
        """Try again, for ever."""
        while True:
            self._changed.clear()
            pause_s = UPGRADE_EVERY_S * (1 + JITTER * (2 * self._rng.random() - 1))
            try:
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            await self._try_all()

    async def _try_all(self) -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def attempt(peer: PeerId) -> None:
            async with free:
                await self._attempt(peer)

        async with asyncio.TaskGroup() as tries:
            for peer in list(self._relayed()):
                tries.create_task(attempt(peer))
