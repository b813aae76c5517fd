"""What makes a peer a member: a chain of three certificates, root, issuer, leaf.

    root     self-signed, names the swarm; its key may be offline
    issuer   signed by the root, may admit members but not make further issuers
    leaf     signed by an issuer; its key is the member's identity

Everything here reads and checks; `authority` makes.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError, Offence, RemoteProtocolError
from p2ptrain.core.manifest import DOMAIN as MANIFEST_DOMAIN
from p2ptrain.core.types import PeerId, SwarmId, peer_from_text, peer_text
from p2ptrain.net.trust.identity import verify

SWARM_DOMAIN = b"p2ptrain-swarm-v1\0"
HOST_SUFFIX = ".peer.invalid"
ROLE_URI = "p2ptrain:role:"
SLOT_URI = "p2ptrain:slot:"
DELEGATE_PREFIX = "p2ptrain by "
"""With the 52 letters of a peer id that is 64: as much as a common name may have."""

_SLOT = re.compile(r"0|[1-9][0-9]{0,6}")

_UNREADABLE = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""Whatever `cryptography` raises for a certificate that somebody invented."""

_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)

Clock = Callable[[], datetime]
"""Tells the wall-clock time, with time zone."""


def wall_clock() -> datetime:
    """Return the time of day: certificates and invites expire by it, nothing else may use it."""
    return datetime.now(UTC)


class Role(StrEnum):
    """What a member may do. The order is that of the invite's four bits."""

    MEMBER = "member"
    OBSERVER = "observer"
    ISSUER = "issuer"


class Member(Struct, frozen=True):
    """What a leaf certificate says.

    slot: numbers the members from 0, for dividing data.
    issuer: the member that admitted or renewed it, if the root lets that member issue by its own key.
    """

    peer: PeerId
    role: Role
    slot: int
    expires: datetime
    issuer: PeerId | None = None


class Chain(Struct, frozen=True, array_like=True):
    """A member's certificates as contacts carry them, DER."""

    leaf: bytes
    issuer: bytes


class Membership(Struct, frozen=True, forbid_unknown_fields=True):
    """This node's own certificates, DER: what it shows to others, and the root it trusts."""

    leaf: bytes
    issuer: bytes
    root: bytes

    @property
    def chain(self) -> bytes:
        """The certificates as contacts carry them; at most `limits.CERTIFICATE_BYTES_MAX`."""
        return msgspec.msgpack.encode(Chain(self.leaf, self.issuer))

    @property
    def member(self) -> Member:
        """What the own leaf says; whether it still holds is not asked."""
        return read_leaf(self.leaf)

    @property
    def root_key(self) -> bytes:
        """The root's public key, 32 bytes."""
        return _ed25519(x509.load_der_x509_certificate(self.root))

    @property
    def swarm(self) -> SwarmId:
        """The swarm that this is a membership of."""
        return swarm_id(self.root_key)

    def encode(self) -> bytes:
        """Return the bytes of the membership file."""
        return msgspec.msgpack.encode(self)


def decode_membership(data: bytes) -> Membership:
    """Read a membership file.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        membership = msgspec.msgpack.decode(data, type=Membership)
        _follow(membership.root, membership.issuer, membership.leaf)
        read_leaf(membership.leaf)
    except (msgspec.DecodeError, RemoteProtocolError, *_UNREADABLE):
        raise ConfigError("the membership file is damaged", "join again with the same invite") from None
    return membership


def swarm_id(root_key: bytes) -> SwarmId:
    """Return the id of the swarm of that root key."""
    return SwarmId(hashlib.sha256(SWARM_DOMAIN + root_key).digest())


def host_name(peer: PeerId) -> str:
    """Return the name by which TLS knows a peer; no name server ever hears it."""
    return peer_text(peer) + HOST_SUFFIX


def manifest_is_signed(root_key: bytes, signature: bytes, manifest: bytes) -> bool:
    """Say whether the root signed these bytes as the swarm's manifest."""
    return verify(root_key, signature, MANIFEST_DOMAIN + manifest)


def check_member(root: bytes, chain: bytes, now: datetime) -> Member:
    """Follow a chain to the root and return what its leaf says.

    Args:
        root: certificate of the swarm's root, DER, trusted.
        chain: an encoded `Chain`, from anybody.
        now: with time zone.

    Raises:
        RemoteProtocolError: it is not a valid chain of this swarm now.
    """
    if len(chain) > limits.CERTIFICATE_BYTES_MAX:
        raise _foreign(f"{len(chain)} bytes of certificates")
    try:
        carried = msgspec.msgpack.decode(chain, type=Chain)
        for certificate in _follow(root, carried.issuer, carried.leaf):
            _check_validity(certificate, now)
    except (msgspec.DecodeError, *_UNREADABLE):
        raise _foreign("the certificates do not lead to the root of this swarm") from None
    return read_leaf(carried.leaf)


@lru_cache(maxsize=1024)
def read_chain(chain: bytes) -> Member:
    """Return what the leaf of an encoded `Chain` says; nothing is checked.

    Raises:
        RemoteProtocolError: it cannot be read.
    """
    try:
        return read_leaf(msgspec.msgpack.decode(chain, type=Chain).leaf)
    except msgspec.DecodeError:
        raise _foreign("the certificates cannot be read") from None


def read_leaf(der: bytes) -> Member:
    """Read a leaf whose key, name and host name all say the same peer. Its signature is not checked here.

    Raises:
        RemoteProtocolError: it is not a leaf of p2ptrain.
    """
    try:
        leaf = x509.load_der_x509_certificate(der)
        peer = PeerId(_ed25519(leaf))
        names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        alternative = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = alternative.get_values_for_type(x509.DNSName)
        if [name.value for name in names] != [peer_text(peer)] or hosts != [host_name(peer)]:
            raise _foreign("the certificate names another peer than its key")
        _check_leaf_use(leaf)
        role, slot = _role_and_slot(alternative.get_values_for_type(x509.UniformResourceIdentifier))
        return Member(peer, role, slot, leaf.not_valid_after_utc, _delegate(leaf.issuer))
    except _UNREADABLE:
        raise _foreign("the certificate cannot be read") from None


def _follow(root_der: bytes, issuer_der: bytes, leaf_der: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates, each signed by the one before; time is another question."""
    root, issuer = _authorities(root_der, issuer_der)
    leaf = x509.load_der_x509_certificate(leaf_der)
    leaf.verify_directly_issued_by(issuer)
    return root, issuer, leaf


@lru_cache(maxsize=64)
def _authorities(root_der: bytes, issuer_der: bytes) -> tuple[x509.Certificate, x509.Certificate]:
    """Demand that the root made this issuer; only success is remembered."""
    root = x509.load_der_x509_certificate(root_der)
    issuer = x509.load_der_x509_certificate(issuer_der)
    root.verify_directly_issued_by(root)
    issuer.verify_directly_issued_by(root)
    for certificate in (root, issuer):
        _ed25519(certificate)
        _check_critical(certificate)
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        if not basic.ca or not usage.key_cert_sign:
            raise ValueError("may not sign certificates")
    return root, issuer


def _check_validity(certificate: x509.Certificate, now: datetime) -> None:
    if now < certificate.not_valid_before_utc:
        raise _foreign(f"a certificate is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}")
    if now >= certificate.not_valid_after_utc:
        raise _foreign(f"a certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}")


def _check_leaf_use(leaf: x509.Certificate) -> None:
    _check_critical(leaf)
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if basic.ca or usage.key_cert_sign or not usage.digital_signature:
        raise _foreign("the certificate is not a member's")
    if not {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH} <= set(purposes):
        raise _foreign("the certificate is not for connections")


def _check_critical(certificate: x509.Certificate) -> None:
    if any(part.critical and part.oid not in _UNDERSTOOD for part in certificate.extensions):
        raise ValueError("a critical extension that is not understood")


def _role_and_slot(uris: list[str]) -> tuple[Role, int]:
    if len(uris) != 2 or not uris[0].startswith(ROLE_URI) or not uris[1].startswith(SLOT_URI):
        raise ValueError("no role or no slot")
    slot = uris[1].removeprefix(SLOT_URI)
    if not _SLOT.fullmatch(slot):
        raise ValueError("not a slot")
    return Role(uris[0].removeprefix(ROLE_URI)), int(slot)


def delegate_name(peer: PeerId) -> x509.Name:
    """Name an issuer whose key is a member's own; chains are followed by names, so a leaf tells it."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DELEGATE_PREFIX + peer_text(peer))])


def read_delegate(der: bytes) -> PeerId:
    """Return the member that a certificate lets issue; its signature is not checked here.

    Raises:
        RemoteProtocolError: it is not a certificate of that kind.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        peer = PeerId(_ed25519(certificate))
        if certificate.subject == delegate_name(peer):
            return peer
    except _UNREADABLE:
        pass
    raise _foreign("not a certificate that lets a member issue")


def _delegate(name: x509.Name) -> PeerId | None:
    texts = [str(part.value) for part in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(texts) != 1 or not texts[0].startswith(DELEGATE_PREFIX):
        return None
    return peer_from_text(texts[0].removeprefix(DELEGATE_PREFIX))


def _ed25519(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return key.public_bytes_raw()


def _foreign(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError(Offence.FOREIGN, detail)
