"""What a node knows of everybody's losses: one report a peer, the newest. Merging is order-free.

Reports are claims. The ledger orders them; whoever acts on one measures it first.
"""

from collections.abc import Iterator

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.envelope import Verified
from p2ptrain.core.messages import Offer, Report
from p2ptrain.core.types import PeerId, Seconds

Stated = Verified[Report]


class Entry(Struct, frozen=True):
    """A peer's newest report and when it came to be known here."""

    report: Stated
    seen: Seconds


Rank = tuple[float, str, bytes]
WORST: Rank = (float("inf"), "", b"")


def rank(report: Stated) -> Rank:
    """Order reports by the loss of the offered weights; ties by content, then by author."""
    offer = report.message.offer
    if offer is None:
        return (float("inf"), "", report.sender)
    return (offer.loss, offer.blob, report.sender)


class Ledger:
    """Reports by author, and the best of them.

    best_rank: of the best one; worse than any if nobody offers weights.
    """

    __slots__ = ("_best", "_entries", "_turn", "best_rank")

    def __init__(self) -> None:
        self.best_rank = WORST
        self._entries: dict[PeerId, Entry] = {}
        self._best: Stated | None = None
        self._turn: dict[PeerId, None] = {}

    def learn(self, report: Stated, now: Seconds) -> bool:
        """Take a report in; say whether it is newer than what was known of its author."""
        known = self._entries.get(report.sender)
        if known is not None:
            old = known.report
            if old is report:
                return False
            # An author may sign two reports under one number: everyone must keep the same one.
            if (report.boot, report.sequence, report.raw) <= (old.boot, old.sequence, old.raw):
                return False
            self._turn.pop(report.sender, None)
        self._entries[report.sender] = Entry(report, now)
        self._turn[report.sender] = None
        if report.message.offer is not None and (place := rank(report)) < self.best_rank:
            self._best, self.best_rank = report, place
        elif known is not None and self._best is known.report:
            self._find_best()
        if known is None and len(self._entries) > limits.REPORTS_MAX:
            self._shrink(report.sender)
        return True

    def forget(self, peer: PeerId) -> None:
        """Drop a peer's report, for instance because it was false."""
        entry = self._entries.pop(peer, None)
        self._turn.pop(peer, None)
        if entry is not None and entry.report is self._best:
            self._find_best()

    def best(self) -> Stated | None:
        """The report that offers the weights of the lowest loss."""
        return self._best

    def of(self, peer: PeerId) -> Entry | None:
        """What is known of one peer."""
        return self._entries.get(peer)

    def entries(self) -> Iterator[Entry]:
        """All that is known, the longest known author first."""
        return iter(self._entries.values())

    def next_in_turn(self) -> Stated | None:
        """One report after the other, the newest first: so everybody's comes to be known everywhere."""
        if not self._turn:
            self._turn = dict.fromkeys(self._entries)
        entry = self._entries.get(self._turn.popitem()[0]) if self._turn else None
        return entry.report if entry is not None else None

    def telling(self, author: PeerId, others: int) -> dict[bytes, Stated]:
        """What to tell: the best report, an author's own, and others in turn, by their bytes."""
        found: dict[bytes, Stated] = {}
        if self._best is not None:
            found[self._best.raw] = self._best
        own = self._entries.get(author)
        if own is not None:
            found[own.report.raw] = own.report
        for _ in range(others):
            report = self.next_in_turn()
            if report is None or len(found) == limits.REPORTS_PER_NEWS_MAX:
                break
            found[report.raw] = report
        return found

    def ranked(self, now: Seconds, fresh_s: Seconds, without: PeerId) -> list[tuple[Stated, Offer]]:
        """Reports not older than `fresh_s` that offer weights, best first, without one author."""
        oldest = now - fresh_s
        found = [
            (entry.report, offer)
            for entry in self._entries.values()
            if entry.seen >= oldest
            and (offer := entry.report.message.offer) is not None
            and entry.report.sender != without
        ]
        return sorted(found, key=lambda pair: rank(pair[0]))

    def _find_best(self) -> None:
        offering = [e.report for e in self._entries.values() if e.report.message.offer is not None]
        self._best = min(offering, key=rank, default=None)
        self.best_rank = rank(self._best) if self._best is not None else WORST

    def _shrink(self, newest: PeerId) -> None:
        """Keep the best three quarters: dropping one at a time would sort at each report."""
        order = sorted(self._entries.values(), key=lambda entry: rank(entry.report))
        for entry in order[limits.REPORTS_MAX * 3 // 4 :]:
            if entry.report.sender != newest:
                del self._entries[entry.report.sender]
                self._turn.pop(entry.report.sender, None)
