"""Which source brings which chunks of a blob, and who takes over from a slow one. Pure: time is given."""

from collections.abc import Callable, Iterable

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, Seconds

RANGE_CHUNKS = 16
"""One request: small enough to come from different sources, large enough not to wait for each."""

PATIENCE_S: Seconds = 1.0
"""A source is not judged sooner, and is left alone if it needs no longer (guess)."""

SILENT_S: Seconds = 3.0
"""Who gives nothing for so long loses all of its range, if another source has time (guess)."""

FASTER = 2.0
"""A chunk that is on its way is fetched again if that takes less than half of the time (guess)."""


class Work:
    """A run of chunks that one source was asked for.

    next: the chunk that is on its way. stop: the first one that is not wanted of it; comes nearer when
    another source takes chunks over. lost: another source has taken everything. abandon: is called then.
    """

    def __init__(self, source: PeerId, chunks: range, now: Seconds) -> None:
        self.source = source
        self.next = chunks.start
        self.stop = chunks.stop
        self.lost = False
        self.abandon: Callable[[], None] = lambda: None
        self._begun = self._heard = now
        self._bytes = 0
        self._kept = 0

    def hear(self, count: int, now: Seconds) -> None:
        """Bytes came."""
        self._bytes += count
        self._heard = now

    def keep(self) -> None:
        """The chunk that was on its way is here."""
        self.next += 1
        self._kept += 1

    def rate(self, now: Seconds) -> float:
        """Return the bytes a second since it was asked."""
        return self._bytes / max(now - self._begun, 1e-3)

    def bytes_left(self) -> int:
        """Return how many bytes are to come, at most."""
        begun = self._bytes - self._kept * limits.BLOB_CHUNK_BYTES
        return max(0, (self.stop - self.next) * limits.BLOB_CHUNK_BYTES - begun)

    def seconds_left(self, now: Seconds) -> Seconds:
        """Return how long the rest will take; infinite for a silent source, 0 when it is too early to say."""
        if now - self._heard >= SILENT_S:
            return float("inf")
        if not self._bytes or now - self._begun < PATIENCE_S:
            return 0.0
        return self.bytes_left() / self.rate(now)


class Plan:
    """The chunks of a blob that are not here yet.

    Args:
        missing: their numbers, in order.
    """

    def __init__(self, missing: Iterable[int]) -> None:
        self._free = list(missing)
        self._works: list[Work] = []
        self._rates: dict[PeerId, float] = {}

    @property
    def done(self) -> bool:
        """Whether every chunk is here."""
        return not self._free and not self._works

    def take(self, source: PeerId, now: Seconds) -> Work | None:
        """Give a source something to do: what nobody does, or what another one does too slowly."""
        chunks = self._next_free() or self._take_over(source, now)
        if not chunks:
            return None
        work = Work(source, chunks, now)
        self._works.append(work)
        return work

    def end(self, work: Work, now: Seconds) -> None:
        """A source is finished, gave up, or lost its work; whatever is missing becomes free."""
        self._rates[work.source] = work.rate(now)
        if work in self._works:
            self._works.remove(work)
            self._free = sorted([*self._free, *range(work.next, work.stop)])

    def _next_free(self) -> range:
        free = self._free
        count = 0
        while count < min(RANGE_CHUNKS, len(free)) and free[count] == free[0] + count:
            count += 1
        if not count:
            return range(0)
        chunks = range(free[0], free[0] + count)
        del free[:count]
        return chunks

    def _take_over(self, source: PeerId, now: Seconds) -> range:
        if not self._works:
            return range(0)
        slowest = max(self._works, key=lambda work: work.seconds_left(now))
        left_s = slowest.seconds_left(now)
        if left_s < PATIENCE_S:
            return range(0)
        if left_s == float("inf"):
            return self._take_all(slowest)
        theirs = slowest.rate(now)
        mine = self._rates.get(source, theirs)
        share = int((slowest.stop - slowest.next - 1) * mine / (mine + theirs))
        if share:
            slowest.stop -= share
            return range(slowest.stop, slowest.stop + share)
        count = slowest.stop - slowest.next
        if FASTER * count * limits.BLOB_CHUNK_BYTES < left_s * mine:
            return self._take_all(slowest)
        return range(0)

    def _take_all(self, work: Work) -> range:
        self._works.remove(work)
        work.lost = True
        work.abandon()
        return range(work.next, work.stop)
