"""Signatures that cost a microsecond: in a simulation nobody has to fear for keys."""

import hashlib

from p2ptrain.core.types import PeerId, SwarmId

SWARM = SwarmId(bytes(32))
CERTIFICATE = b"member"


def peer_number(number: int) -> PeerId:
    """Return the id of the n-th simulated peer: spread over the whole range, the same in every run."""
    return PeerId(hashlib.blake2b(number.to_bytes(8, "big"), digest_size=32).digest())


def _tag(peer: PeerId, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=64, key=peer).digest()


class SimSigner:
    """Signs for one peer."""

    def __init__(self, peer: PeerId) -> None:
        self.peer = peer

    def sign(self, data: bytes) -> bytes:
        """Return a tag over the data."""
        return _tag(self.peer, data)


class SimVerifier:
    """Checks tags; every simulated peer is a member."""

    def verify(self, peer: PeerId, signature: bytes, data: bytes) -> bool:
        """Say whether the tag is the peer's."""
        return _tag(peer, data) == signature

    def vouch(self, peer: PeerId, certificate: bytes) -> bool:
        """Everyone who says so is a member."""
        return certificate == CERTIFICATE
