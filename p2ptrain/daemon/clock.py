"""The only place of the daemon that reads the monotonic clock."""

import asyncio

from p2ptrain.core.types import Seconds


def now() -> Seconds:
    """Return monotonic seconds, the ones that the event loop's timers count in."""
    return asyncio.get_running_loop().time()
