"""An invite: a string that lets its holder join.

    p2pt1 + base32, lower case, no padding, of
      0   1 version   1   1 flags: bit 0 public, bits 4-7 role   2   4 expires, Unix seconds   6   2 uses
      8  32 root key   40  16 seed   56  64 root's signature
    120   1 count of addresses, each: kind 4, 6 or 1 (a name, with its length), host, port u16, peer 32
    end   4 SHA-256 of all before, first bytes

The root signs what is before the seed, and a key made from the seed. The seed never travels: the
joiner signs with that key, for one issuer and for its own identity.
"""

import base64
import binascii
import hashlib
import ipaddress
import re
import struct
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import InviteError
from p2ptrain.core.types import PeerId, SwarmId, short
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import Role, swarm_id
from p2ptrain.net.trust.identity import Identity, verify

PREFIX = "p2pt1"
URL_PREFIX = "p2ptrain://join/#"
INVITE_DOMAIN = b"p2ptrain-invite-v1\0"
JOIN_DOMAIN = b"p2ptrain-join-v1\0"
TERMS = struct.Struct(">BBIH32s")
"""Version, flags, expiry, uses, root key: what the root signs, with the invite's key after it."""

VERSION = 1
SEED_BYTES = 16
INVITE_CHARS_MAX = 4096
"""Eight addresses of the longest names make 1,400 letters; line breaks and blanks come on top."""

_URL = re.compile(r"(?:p2ptrain|https)://[^#]*#")
_SIGNED = struct.Struct(f">{TERMS.size}s{SEED_BYTES}s64s")
_CHECKSUM_BYTES = 4
_NAME_KIND = 1
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_ROLES = tuple(Role)


class Door(Struct, frozen=True):
    """Where an issuer can be asked: a hint that nobody signed. `host`: an IP address or a DNS name."""

    host: str
    port: int
    peer: PeerId


class Invite(Struct, frozen=True):
    """An invite as read, its signature checked.

    expires: Unix seconds.
    uses: how many peers it may admit.
    """

    root_key: bytes
    role: Role
    public: bool
    expires: int
    uses: int
    seed: bytes
    signature: bytes
    doors: tuple[Door, ...] = ()

    @property
    def swarm(self) -> SwarmId:
        """The swarm that it leads to."""
        return swarm_id(self.root_key)

    @property
    def terms(self) -> bytes:
        """What the root signed, without the invite's key."""
        flags = int(self.public) | _ROLES.index(self.role) << 4
        return TERMS.pack(VERSION, flags, self.expires, self.uses, self.root_key)

    @property
    def key(self) -> bytes:
        """The public key by which issuers count and revoke this invite."""
        return _bearer(self.seed, self.swarm).public_key().public_bytes_raw()

    @property
    def id(self) -> str:
        """Eight letters by which its maker names it; they tell nothing of the secret in it."""
        return short(PeerId(self.key))

    @property
    def expires_at(self) -> datetime:
        """When it stops to admit new peers."""
        return datetime.fromtimestamp(self.expires, UTC)

    def check_expiry(self, now: datetime) -> None:
        """Demand that it still admits new peers; those that it admitted may always renew by it.

        Raises:
            InviteError: it does not.
        """
        if now >= self.expires_at:
            raise InviteError(f"this invite expired on {self.expires_at:%Y-%m-%d}", "ask for a new one")

    def request(self, identity: Identity, issuer: PeerId) -> bytes:
        """Return the bytes that ask one issuer to admit one identity."""
        bearer = _bearer(self.seed, self.swarm)
        proof = bearer.sign(JOIN_DOMAIN + issuer + identity.peer)
        key = bearer.public_key().public_bytes_raw()
        return self.terms + key + self.signature + identity.peer + proof

    def encode(self) -> str:
        """Return the text that people pass on."""
        data = _SIGNED.pack(self.terms, self.seed, self.signature)
        data += bytes([len(self.doors)]) + b"".join(_encode_door(door) for door in self.doors)
        data += _checksum(data)
        return PREFIX + _base32(data)

    def url(self) -> str:
        """Return the form that a click opens."""
        return URL_PREFIX + self.encode()


def create_invite(
    root: Root,
    seed: bytes,
    expires: datetime,
    uses: int = 1,
    role: Role = Role.MEMBER,
    doors: tuple[Door, ...] = (),
    *,
    public: bool = False,
) -> Invite:
    """Sign a new invite.

    Args:
        root: of the swarm.
        seed: 16 fresh random bytes.
        expires: with time zone; before the year 2106.
        uses: 1 to 65,535.
        role: of those that it admits.
        doors: at most 8, the likeliest first.
        public: whoever finds it may use it.
    """
    assert len(seed) == SEED_BYTES
    assert 1 <= uses < 1 << 16
    assert len(doors) <= limits.ADDRESSES_MAX
    unsigned = Invite(root.public_key, role, public, int(expires.timestamp()), uses, seed, b"", doors)
    signature = root.sign(INVITE_DOMAIN + unsigned.terms + unsigned.key)
    return Invite(unsigned.root_key, role, public, unsigned.expires, uses, seed, signature, doors)


def decode_invite(text: str) -> Invite:
    """Read an invite; blanks, line breaks, capitals and the form of a link do not matter.

    Whether it expired is another question: `Invite.check_expiry`.

    Raises:
        InviteError: it is none, damaged, of a newer version, or forged.
    """
    data = _unpack_text(text)
    if data[0] != VERSION:
        raise _newer()
    try:
        invite = _decode(data)
    except (ValueError, IndexError, struct.error):
        raise _damaged() from None
    if not verify(invite.root_key, invite.signature, INVITE_DOMAIN + invite.terms + invite.key):
        raise InviteError(
            "forged invite: the swarm that it names did not sign it",
            "do not use it; ask a person whom you know for another",
        )
    return invite


def _unpack_text(text: str) -> bytes:
    """Return the checked bytes of an invite, without the checksum."""
    letters = _URL.sub("", "".join(text[: 2 * INVITE_CHARS_MAX].lower().split()), count=1)
    if not letters.startswith(PREFIX):
        if re.match(r"p2pt[2-9]", letters):
            raise _newer()
        raise InviteError(
            "this is not a p2ptrain invite", f"an invite is a long word that begins with {PREFIX}"
        )
    try:
        body = letters.removeprefix(PREFIX).encode("ascii")
        data = base64.b32decode(body.upper() + b"=" * (-len(body) % 8))
    except (binascii.Error, UnicodeEncodeError):
        raise _damaged() from None
    # Equal again only if no letter was changed in the bits that base32 ignores.
    if len(letters) > INVITE_CHARS_MAX or PREFIX + _base32(data) != letters:
        raise _damaged()
    content, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if not content or _checksum(content) != checksum:
        raise _damaged()
    return content


def _decode(data: bytes) -> Invite:
    terms, seed, signature = _SIGNED.unpack_from(data)
    _, flags, expires, uses, root_key = TERMS.unpack(terms)
    if flags & 0b1110 or uses < 1:
        raise ValueError("unknown flags")
    at = _SIGNED.size + 1
    doors = []
    for _ in range(data[at - 1]):
        door, at = _decode_door(data, at)
        doors.append(door)
    if at != len(data) or len(doors) > limits.ADDRESSES_MAX:
        raise ValueError("not as long as it says")
    role = _ROLES[flags >> 4]
    return Invite(root_key, role, bool(flags & 1), expires, uses, seed, signature, tuple(doors))


def _encode_door(door: Door) -> bytes:
    try:
        ip = ipaddress.ip_address(door.host)
        host = bytes([ip.version]) + ip.packed
    except ValueError:
        assert len(door.host) <= limits.ADDRESS_CHARS_MAX
        host = bytes([_NAME_KIND, len(door.host)]) + door.host.encode("ascii")
    return host + struct.pack(">H32s", door.port, door.peer)


def _decode_door(data: bytes, at: int) -> tuple[Door, int]:
    kind = data[at]
    if kind == _NAME_KIND:
        start = at + 2
        end = start + data[at + 1]
        host = data[start:end].decode("ascii")
        if len(host) > limits.ADDRESS_CHARS_MAX or not _NAME.fullmatch(host):
            raise ValueError("not a name")
    elif kind in (4, 6):
        start = at + 1
        end = start + (4 if kind == 4 else 16)
        host = str(ipaddress.ip_address(data[start:end]))
    else:
        raise ValueError("unknown kind of address")
    port, peer = struct.unpack_from(">H32s", data, end)
    if port == 0:
        raise ValueError("no port")
    return Door(host, port, PeerId(peer)), end + 34


def _bearer(seed: bytes, swarm: SwarmId) -> Ed25519PrivateKey:
    kdf = HKDF(algorithm=SHA256(), length=32, salt=swarm, info=b"p2ptrain-invite-v1")
    return Ed25519PrivateKey.from_private_bytes(kdf.derive(seed))


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_CHECKSUM_BYTES]


def _damaged() -> InviteError:
    return InviteError("damaged invite: part of it is missing or mistyped", "copy the whole of it once more")


def _newer() -> InviteError:
    return InviteError("this invite needs a newer p2ptrain", "update p2ptrain and try again")
