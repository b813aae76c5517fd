"""How many bytes went to and came from each peer."""

from collections import OrderedDict
from typing import Literal

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId

Kind = Literal["messages_up", "messages_down", "blobs_up", "blobs_down", "dropped"]


class Traffic(Struct):
    """Bytes of payload since the start, without the 2 % that HTTP, TLS and TCP add.

    dropped: frames that were too old to be sent when a slow peer was ready for more.
    """

    messages_up: int = 0
    messages_down: int = 0
    blobs_up: int = 0
    blobs_down: int = 0
    dropped: int = 0


class TrafficBook:
    """Counts per peer, for the peers met last, and in all."""

    def __init__(self) -> None:
        self.total = Traffic()
        self._peers: OrderedDict[PeerId, Traffic] = OrderedDict()

    def of(self, peer: PeerId) -> Traffic:
        """Return the counts of one peer."""
        return self._peers.get(peer, Traffic())

    def add(self, kind: Kind, peer: PeerId, count: int) -> None:
        """Count bytes, or frames that were dropped."""
        one = self._peers.setdefault(peer, Traffic())
        self._peers.move_to_end(peer)
        if len(self._peers) > limits.PEERS_MAX:
            self._peers.popitem(last=False)
        for traffic in (one, self.total):
            setattr(traffic, kind, getattr(traffic, kind) + count)
