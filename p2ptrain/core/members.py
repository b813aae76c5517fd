"""Who belongs, as one value that many nodes of a simulation share."""

from collections.abc import Collection, Iterable

from p2ptrain.core.directory import Directory
from p2ptrain.core.types import PeerId


class Members:
    """An unchangeable sorted list of peers that many nodes of a simulation may share.

    Args:
        peers: who belongs.
        directory: their contacts, as far as they are known from the beginning.

    order: sorted; index: for looking one up.
    """

    def __init__(self, peers: Iterable[PeerId], directory: Directory | None = None) -> None:
        self.order: tuple[PeerId, ...] = tuple(sorted(dict.fromkeys(peers)))
        self.directory = directory
        self.index = dict.fromkeys(self.order)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self.index

    def __len__(self) -> int:
        return len(self.order)

    def plus(self, *peers: PeerId) -> "Members":
        """The same list with more."""
        more = [peer for peer in peers if peer not in self.index]
        return Members((*self.order, *more)) if more else self

    def minus(self, peers: Collection[PeerId]) -> "Members":
        """The same list with fewer."""
        return Members(peer for peer in self.order if peer not in peers) if peers else self
