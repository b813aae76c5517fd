"""Who gave wrong bytes of which blob. They are not asked for it again, whatever ban of theirs has ended."""

from collections import OrderedDict
from collections.abc import Iterable

from p2ptrain.core import limits
from p2ptrain.core.types import BlobId, PeerId

LIARS_MAX = 64
"""Of one blob: several times as many as are asked in one fetch (guess). The first are forgotten first."""


class Liars:
    """Remembers for the blobs that were lied about last, as many as there are reports."""

    def __init__(self) -> None:
        self._liars: OrderedDict[BlobId, OrderedDict[PeerId, None]] = OrderedDict()

    def add(self, blob: BlobId, peer: PeerId) -> None:
        """A peer gave something else under that name."""
        liars = self._liars.setdefault(blob, OrderedDict())
        self._liars.move_to_end(blob)
        liars[peer] = None
        if len(liars) > LIARS_MAX:
            liars.popitem(last=False)
        if len(self._liars) > limits.REPORTS_MAX:
            self._liars.popitem(last=False)

    def without(self, blob: BlobId, sources: Iterable[PeerId]) -> tuple[PeerId, ...]:
        """Return the sources that have not lied about a blob, in their order."""
        liars = self._liars.get(blob, ())
        return tuple(source for source in sources if source not in liars)
