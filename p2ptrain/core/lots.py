"""Who may ask whom for a link in a large swarm, so that hostile members get no more links than others.

Every member has eight points and one place on a ring of 2^64, all of them hashes of its certificate: an
issuer signed it, so nobody can choose them. A member may ask those whose places follow its points closely,
some twelve of all; the asked one can check that. So a member that asks everybody is refused by nearly
everybody, and the 20 % of members that are hostile are about 20 % of those who may ask.
"""

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from heapq import heapify, heapreplace

from p2ptrain.core import limits
from p2ptrain.core.directory import Directory, Introduced
from p2ptrain.core.types import PeerId

POINTS = 8
RING = 1 << 64

FREE_MAX = 32
"""Among so few everybody may ask everybody (guess)."""

REACH = 12.0
"""A member may ask about so many: with fewer some have nobody to ask, with more hostile askers get more links
(measured, LOG.md)."""


@lru_cache(maxsize=limits.PEERS_MAX)
def points_of(certificate: bytes, peer: PeerId) -> list[int]:
    """Return a member's points."""
    data = certificate + peer
    digest = blake2b(data, digest_size=8 * POINTS, person=b"points").digest()
    return [int.from_bytes(digest[at : at + 8], "big") for at in range(0, len(digest), 8)]


def distance(asker: Introduced, place: int, members: int) -> float:
    """Return about how many members are nearer to the asker than the one at that place."""
    nearest = min((place - point) % RING for point in points_of(asker.message.certificate, asker.sender))
    return nearest / RING * POINTS * members


def nearest(asker: Introduced, directory: Directory) -> Iterator[PeerId]:
    """Name the members that one may ask, the nearest first; some may come twice."""
    ring = directory.places
    reach = int(REACH / POINTS / len(ring) * RING)
    heads = []
    for point in points_of(asker.message.certificate, asker.sender):
        at = bisect_left(ring, (point,))
        heads.append(((ring[at % len(ring)][0] - point) % RING, at, point))
    heapify(heads)
    while heads[0][0] <= reach:
        _, at, point = heads[0]
        yield ring[at % len(ring)][1]
        heapreplace(heads, ((ring[(at + 1) % len(ring)][0] - point) % RING, at + 1, point))
