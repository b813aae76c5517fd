"""What members of rings and their coordinator say to each other."""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural
from p2ptrain.core.types import PeerId

RING_MAX = 64
"""Members that a message can name; settings allow fewer."""

AVOIDS_MAX = 16
"""Members that one may avoid: whoever avoids more is better alone (guess)."""

COUNT_BITS = 20
"""Contributions of one run of the program; the digits before them are drawn when it starts."""

PeerName = Annotated[bytes, Meta(min_length=32, max_length=32)]
RingName = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Outcome(IntEnum):
    """What came of a member's last ring."""

    WELL = 0
    FAILED = 1
    REFUSED = 2
    """There is a mean, and it is worse than what this member has."""


class Shown(Struct, frozen=True, array_like=True):
    """A contribution that others may look at."""

    blob: BlobName
    size_bytes: BlobBytes


class Ready(Message, frozen=True):
    """I took my steps and wait for a ring.

    term: of the coordinator that I turn to.
    number: of my contribution: the same when this is said again.
    turn: of the last ring that I took part in.
    outcome: what came of it.
    silent: who gave nothing in it.
    shown: my contribution; only after a ring that went wrong.
    avoids: whom I do not trust: in a ring with them I get no good mean.
    """

    term: Natural
    number: Natural
    turn: Natural
    outcome: Outcome = Outcome.WELL
    silent: PeerName | None = None
    shown: Shown | None = None
    avoids: Annotated[tuple[PeerName, ...], Meta(max_length=AVOIDS_MAX)] = ()


class Place(Struct, frozen=True, array_like=True):
    """A member of a ring, and what it gives."""

    peer: PeerName
    number: Natural
    shown: Shown | None = None


class Ring(Message, frozen=True):
    """Average now. Alone in a ring is who should go on alone.

    term: of the coordinator that says this.
    turn: counts rings.
    name: of the reduction.
    members: in the order of the ring.
    """

    term: Natural
    turn: Natural
    name: RingName
    members: Annotated[tuple[Place, ...], Meta(min_length=1, max_length=RING_MAX)]

    @property
    def group(self) -> tuple[PeerId, ...]:
        """Who is in it, in order."""
        return tuple(PeerId(place.peer) for place in self.members)


class Call(Message, frozen=True):
    """I coordinate in that term, and wait for others."""

    term: Natural
