"""What a member announces on a local network: a sealed record that only members can read.

    s=<12 nonce> <ChaCha20-Poly1305 of: peer, time, port, IP addresses>

The key comes from the swarm's id, which members and holders of an invite know. The nonce is new in every
record: nobody else can tell two records of one swarm, or of one computer, from any others. Port and
addresses are sealed too, since a port that is kept for years is as good as a name, and since a copy with
another address would show its maker who dials it.
"""

import ipaddress
import os
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, Seconds, SwarmId
from p2ptrain.net.addresses import PORT_MIN, Address

DOMAIN = b"p2ptrain-lan-v1"
KEY = b"s="
NONCE_BYTES = 12

TEXT_BYTES_MAX = 256
"""One string of a TXT record, with its length before it. Eight IPv6 addresses make 225."""

AGE_MAX_S: Seconds = 3 * 3600.0
"""Records are made anew every hour; the rest is for clocks and caches (guess). Older ones are replays."""

_Host = Annotated[bytes, Meta(min_length=4, max_length=16)]


class _Content(Struct, frozen=True, array_like=True):
    peer: Annotated[bytes, Meta(min_length=32, max_length=32)]
    made: int
    port: Annotated[int, Meta(ge=PORT_MIN, le=65535)]
    hosts: Annotated[tuple[_Host, ...], Meta(max_length=limits.ADDRESSES_MAX)]


class Found(Struct, frozen=True):
    """Where a member says that some member is: a hint, since any member can write it of any other."""

    peer: PeerId
    addresses: tuple[Address, ...]


class LanSeal:
    """Makes and reads the records of one swarm."""

    def __init__(self, swarm: SwarmId) -> None:
        key = HKDF(algorithm=SHA256(), length=32, salt=None, info=DOMAIN).derive(swarm)
        self._cipher = ChaCha20Poly1305(key)

    def seal(self, peer: PeerId, port: int, hosts: Iterable[str], now: datetime) -> bytes:
        """Return the content of a TXT record; of many IP addresses the first eight."""
        packed = tuple(ipaddress.ip_address(host).packed for host in hosts)[: limits.ADDRESSES_MAX]
        content = msgspec.msgpack.encode(_Content(peer, int(now.timestamp()), port, packed))
        nonce = os.urandom(NONCE_BYTES)
        text = KEY + nonce + self._cipher.encrypt(nonce, content, DOMAIN)
        return bytes([len(text)]) + text

    def open(self, text: bytes, now: datetime) -> Found | None:
        """Read the content of a TXT record; None: it is another swarm's, too old, or rubbish."""
        start = 1 + len(KEY)
        if not start + NONCE_BYTES < len(text) <= TEXT_BYTES_MAX:
            return None
        if text[0] != len(text) - 1 or text[1:start] != KEY:
            return None
        nonce, sealed = text[start : start + NONCE_BYTES], text[start + NONCE_BYTES :]
        try:
            content = msgspec.msgpack.decode(self._cipher.decrypt(nonce, sealed, DOMAIN), type=_Content)
            hosts = [str(ipaddress.ip_address(host)) for host in content.hosts]
        except (InvalidTag, ValueError):  # also of msgspec and ipaddress
            return None
        if abs(now.timestamp() - content.made) > AGE_MAX_S:
            return None
        return Found(PeerId(content.peer), tuple(Address(host, content.port) for host in hosts))
