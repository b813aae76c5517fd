"""Bounds on how often."""

from collections import OrderedDict
from collections.abc import Hashable

from p2ptrain.core.types import Seconds


class TokenBucket:
    """Lets `burst` events through at once, and `per_s` a second in the long run."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._at: Seconds = 0.0

    def take(self, now: Seconds) -> bool:
        """Say whether one more event is within the rate, and count it if so."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Buckets:
    """A bucket a key, for the keys seen last."""

    def __init__(self, per_s: float, burst: float, keys_max: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._keys_max = keys_max
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def take(self, key: Hashable, now: Seconds) -> bool:
        """Say whether one more event of this key is within its rate."""
        bucket = self._buckets.setdefault(key, TokenBucket(self._per_s, self._burst))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._keys_max:
            self._buckets.popitem(last=False)
        return bucket.take(now)
