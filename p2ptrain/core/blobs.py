"""Which weights are here, who else has which, and which are on their way. Never the bytes."""

from p2ptrain.core import limits
from p2ptrain.core.effects import Drop, Effect
from p2ptrain.core.types import BlobId, PeerId

HOLDERS_MAX = 8
"""More sources for one blob are not remembered: two at a time are asked."""


class Blobs:
    """Weights by id: held here, held by others, being fetched."""

    __slots__ = ("_fetching", "_holders", "_pinned", "held")

    def __init__(self) -> None:
        self.held: dict[BlobId, None] = {}
        self._pinned: BlobId | None = None
        self._holders: dict[BlobId, list[PeerId]] = {}
        self._fetching: dict[BlobId, None] = {}

    def hold(self, blob: BlobId) -> list[Effect]:
        """A blob is here. The least recently used one goes if there are too many."""
        self.held.pop(blob, None)
        self.held[blob] = None
        effects: list[Effect] = []
        while len(self.held) > limits.HELD_BLOBS_MAX + (self._pinned in self.held):
            oldest = next(old for old in self.held if old != self._pinned)
            del self.held[oldest]
            effects.append(Drop(oldest))
        return effects

    def pin(self, blob: BlobId) -> None:
        """Keep a blob whatever comes: the own report names it."""
        self._pinned = blob

    def drop(self, blob: BlobId) -> list[Effect]:
        """A strategy does not need a blob any more; what the own report names stays."""
        if blob == self._pinned or blob not in self.held:
            return []
        del self.held[blob]
        return [Drop(blob)]

    def add_holder(self, blob: BlobId, peer: PeerId) -> None:
        """Somebody else has a blob."""
        holders = self._holders.setdefault(blob, [])
        if peer not in holders and len(holders) < HOLDERS_MAX:
            holders.append(peer)
        if len(self._holders) > limits.REPORTS_MAX:
            del self._holders[next(iter(self._holders))]

    def holders(self, blob: BlobId) -> list[PeerId]:
        """Others that said they have a blob."""
        return self._holders.get(blob, [])

    def is_fetching(self, blob: BlobId) -> bool:
        """Say whether a blob is on its way."""
        return blob in self._fetching

    def begin_fetch(self, blob: BlobId) -> bool:
        """Count a fetch; say no if too many run."""
        if len(self._fetching) >= limits.FETCHES_MAX:
            return False
        self._fetching[blob] = None
        return True

    def end_fetch(self, blob: BlobId) -> bool:
        """A fetch is over, well or not; say whether it was awaited."""
        if blob not in self._fetching:
            return False
        del self._fetching[blob]
        return True
