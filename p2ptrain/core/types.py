"""The few names that every part of the program shares."""

import base64
from functools import lru_cache
from typing import NewType

PeerId = NewType("PeerId", bytes)
"""A peer: its Ed25519 public key, 32 bytes. As text: 52 lower-case base32 letters."""

SwarmId = NewType("SwarmId", bytes)
"""A swarm: SHA-256 over its root key, 32 bytes."""

Ref = NewType("Ref", str)
"""Any weights that the trainer can name: a blob or a slot."""

BlobId = NewType("BlobId", Ref)
"""Weights by content, 64 hex digits: the same on every peer."""

Slot = NewType("Slot", Ref)
"""Weights by place, a short word: only this trainer knows it."""

OWN = Slot(Ref("own"))
"""The weights that the trainer is training now."""

Ranges = tuple[tuple[int, int], ...]
"""Numbers of the vector of weights, each range from its first to before its second; none: all of them."""

Seconds = float
"""Monotonic seconds. Peers' clocks are never compared."""


@lru_cache(maxsize=16_384)
def peer_text(peer: PeerId) -> str:
    """Write a peer id as people and host names carry it: 52 letters."""
    return base64.b32encode(peer).decode().rstrip("=").lower()


def peer_from_text(text: str) -> PeerId:
    """Read 52 base32 letters; raises ValueError for anything else."""
    if len(text) != 52:
        raise ValueError(f"a peer id has 52 letters, not {len(text)}")
    return PeerId(base64.b32decode(text.upper() + "===="))


def short(peer: PeerId) -> str:
    """Eight letters: enough to tell peers apart on a screen, never used as a key."""
    return peer_text(peer)[:8]


def is_blob(ref: Ref) -> bool:
    """Tell content from place: slots are short words."""
    return len(ref) == 64
