"""Offers that could not be used: which are left alone, and for how long."""

import math

from p2ptrain.core.types import BlobId, Seconds

RETRY_FIRST_S = 0.5
RETRY_DOUBLINGS_MAX = 4
"""Weights that could not be fetched are tried again after 0.5, 1, 2 ... 8 s (ALGORITHMS 2.1, period 2 s)."""

TRIED_MAX = 64
"""Offers that failed are remembered up to that number, the oldest forgotten first."""


class Tried:
    """What one node tried in vain."""

    __slots__ = ("_tries",)

    def __init__(self) -> None:
        self._tries: dict[BlobId, tuple[int, Seconds]] = {}

    def __len__(self) -> int:
        return len(self._tries)

    def may_try(self, blob: BlobId, now: Seconds) -> bool:
        """Say whether an offer is not to be left alone now."""
        return now >= self._tries.get(blob, (0, 0.0))[1]

    def on_lost(self, blob: BlobId, now: Seconds) -> Seconds:
        """It did not come: leave it alone for twice as long as the last time; return how long."""
        wait_s = RETRY_FIRST_S * 2.0 ** min(self._tries.get(blob, (0, 0.0))[0], RETRY_DOUBLINGS_MAX)
        self._leave(blob, now + wait_s)
        return wait_s

    def on_lie(self, blob: BlobId) -> None:
        """It is not what was claimed: leave it alone for ever."""
        self._leave(blob, math.inf)

    def _leave(self, blob: BlobId, until: Seconds) -> None:
        tries = self._tries.pop(blob, (0, 0.0))[0]
        self._tries[blob] = (tries + 1, until)
        if len(self._tries) > TRIED_MAX:
            del self._tries[next(iter(self._tries))]
