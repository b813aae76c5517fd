"""What workers, servers and the coordinator of `parameter_server` say to each other."""

from typing import Annotated

from msgspec import Meta, Struct

from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Offer

SHARDS_MAX = 4
"""Of each shard a change and two versions are held: `limits.HELD_BLOBS_MAX` has room for so many."""

PeerName = Annotated[bytes, Meta(min_length=32, max_length=32)]
Shard = Annotated[int, Meta(ge=0, lt=SHARDS_MAX)]


class Piece(Struct, frozen=True, array_like=True):
    """Some of the numbers of the weights, to be fetched from the sender."""

    blob: BlobName
    size_bytes: BlobBytes

    @classmethod
    def of(cls, offer: Offer | None) -> "Piece | None":
        """Name what is on offer."""
        return cls(offer.blob, offer.size_bytes) if offer is not None else None

    @property
    def offer(self) -> Offer:
        """What to fetch; nothing is claimed of its loss."""
        return Offer(self.blob, self.size_bytes, 0.0)


class Servers(Message, frozen=True):
    """Who serves, as far as the sender knows; who knows better says so.

    term, holder: the coordinator that named them.
    number: counts what coordinators named.
    servers: by shard.
    """

    term: Natural
    holder: PeerName
    number: Natural
    servers: Annotated[tuple[PeerName, ...], Meta(max_length=SHARDS_MAX)]


class Grad(Message, frozen=True):
    """To a shard's server: my change, give me the next version.

    term, number: of the servers as the sender knows them.
    turn: the sender's count of rounds.
    version, known: what the change is from; None if nobody wrote it, or it is not here any more.
    change: None: the sender only wants the newest version.
    samples: examples it trained on for that.
    """

    term: Natural
    number: Natural
    shard: Shard
    turn: Natural
    version: Natural
    known: Piece | None = None
    change: Piece | None = None
    samples: Natural = 0


class Params(Message, frozen=True):
    """The answer: the shard's numbers of that version. turn: of the `Grad`."""

    term: Natural
    number: Natural
    shard: Shard
    turn: Natural
    version: Natural
    numbers: Piece


class Silent(Message, frozen=True):
    """To the coordinator of a term: I wait in vain for these shards."""

    term: Natural
    number: Natural
    shards: Annotated[tuple[Shard, ...], Meta(max_length=SHARDS_MAX)]
