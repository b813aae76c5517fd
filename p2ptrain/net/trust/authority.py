"""Makes what `certificates` checks: the root of a new swarm, its issuers, and the members' leaves."""

from datetime import datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.manifest import DOMAIN as MANIFEST_DOMAIN
from p2ptrain.core.types import PeerId, SwarmId, peer_text
from p2ptrain.net.trust.certificates import (
    ROLE_URI,
    SLOT_URI,
    Membership,
    Role,
    delegate_name,
    host_name,
    swarm_id,
)
from p2ptrain.net.trust.identity import Identity

ROOT_LIFE = timedelta(days=3650)
ISSUER_LIFE = timedelta(days=90)
LEAF_LIFE = timedelta(days=30)
"""How long a peer that left or was revoked may still meet somebody who has not heard of it."""

RENEW_SHARE = 1 / 3
"""A certificate with less of its life left is replaced: ten days of a leaf's thirty (research: net 2.3)."""

BACKDATED = timedelta(hours=24)
"""Home computers' clocks are wrong by time zones and empty batteries."""


class _Secret(Struct, frozen=True, forbid_unknown_fields=True):
    """What a root file or an issuer file holds; `root` is empty in a root file."""

    key: bytes
    certificate: bytes
    root: bytes = b""


class Root:
    """The key that a swarm is named after. It may be kept offline: only invites and issuers need it."""

    def __init__(self, key: Ed25519PrivateKey, certificate: bytes) -> None:
        self._key = key
        self.certificate = certificate

    @classmethod
    def create(cls, now: datetime) -> "Root":
        """Found a swarm."""
        key = Ed25519PrivateKey.generate()
        name = _name("root", key.public_key())
        return cls(key, _authority(name, key.public_key(), name, key, (now, now + ROOT_LIFE), path_length=1))

    @property
    def public_key(self) -> bytes:
        """32 bytes: what invites carry."""
        return self._key.public_key().public_bytes_raw()

    @property
    def swarm(self) -> SwarmId:
        """The swarm of this root."""
        return swarm_id(self.public_key)

    def sign(self, data: bytes) -> bytes:
        """Return a 64-byte signature; `data` begins with the domain of its purpose."""
        return self._key.sign(data)

    def sign_manifest(self, manifest: bytes) -> bytes:
        """Return the signature that makes these bytes the swarm's manifest."""
        return self.sign(MANIFEST_DOMAIN + manifest)

    def appoint(self, now: datetime) -> "Issuer":
        """Make an issuer with a key of its own."""
        key = Ed25519PrivateKey.generate()
        root = x509.load_der_x509_certificate(self.certificate)
        life = (now, min(now + ISSUER_LIFE, root.not_valid_after_utc))
        name = _name("issuer", key.public_key())
        certificate = _authority(name, key.public_key(), root.subject, self._key, life, path_length=0)
        return Issuer(key, certificate, self.certificate)

    def delegate(self, peer: PeerId, now: datetime) -> bytes:
        """Return a certificate, DER, that lets a member issue by its own key: nothing secret travels."""
        key = Ed25519PublicKey.from_public_bytes(peer)
        root = x509.load_der_x509_certificate(self.certificate)
        life = (now, min(now + ISSUER_LIFE, root.not_valid_after_utc))
        return _authority(delegate_name(peer), key, root.subject, self._key, life, path_length=0)

    def encode(self) -> bytes:
        """Return the bytes of the root file: a secret."""
        return msgspec.msgpack.encode(_Secret(self._key.private_bytes_raw(), self.certificate))


class Issuer:
    """Admits members in the root's name."""

    def __init__(self, key: Ed25519PrivateKey, certificate: bytes, root: bytes) -> None:
        self._key = key
        self.certificate = certificate
        self.root = root

    @classmethod
    def delegated(cls, identity: Identity, certificate: bytes, root: bytes) -> "Issuer":
        """Make the issuer of a member whom `Root.delegate` lets issue."""
        key = serialization.load_pem_private_key(identity.private_pem(), password=None)
        assert isinstance(key, Ed25519PrivateKey)
        return cls(key, certificate, root)

    @property
    def root_key(self) -> bytes:
        """The root's public key, 32 bytes."""
        return _raw_key(self.root)

    @property
    def expires(self) -> datetime:
        """When the root has to appoint a new one."""
        return x509.load_der_x509_certificate(self.certificate).not_valid_after_utc

    def certify(self, peer: PeerId, role: Role, slot: int, now: datetime) -> Membership:
        """Make a peer a member."""
        issuer = x509.load_der_x509_certificate(self.certificate)
        key = Ed25519PublicKey.from_public_bytes(peer)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, peer_text(peer))])
        life = (now, min(now + LEAF_LIFE, issuer.not_valid_after_utc))
        leaf = (
            _certificate(name, key, issuer.subject, self._key, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.DNSName(host_name(peer)),
                        x509.UniformResourceIdentifier(f"{ROLE_URI}{role}"),
                        x509.UniformResourceIdentifier(f"{SLOT_URI}{slot}"),
                    ]
                ),
                critical=False,
            )
            .sign(self._key, None)
        )
        return Membership(_der(leaf), self.certificate, self.root)

    def encode(self) -> bytes:
        """Return the bytes of the issuer file: a secret."""
        return msgspec.msgpack.encode(_Secret(self._key.private_bytes_raw(), self.certificate, self.root))


def renewal_due(certificate: bytes) -> datetime:
    """Return when a certificate, DER, is to be replaced: when a third of its life is left."""
    read = x509.load_der_x509_certificate(certificate)
    life = read.not_valid_after_utc - read.not_valid_before_utc - BACKDATED
    return read.not_valid_after_utc - max(life, timedelta()) * RENEW_SHARE


def is_due(certificate: bytes, now: datetime) -> bool:
    """Say whether a certificate, DER, is to be replaced now."""
    return now >= renewal_due(certificate)


def decode_root(data: bytes) -> Root:
    """Read a root file.

    Raises:
        ConfigError: it is damaged.
    """
    key, secret = _decode(data, "root")
    return Root(key, secret.certificate)


def decode_issuer(data: bytes) -> Issuer:
    """Read an issuer file.

    Raises:
        ConfigError: it is damaged.
    """
    key, secret = _decode(data, "issuer")
    return Issuer(key, secret.certificate, secret.root)


def _decode(data: bytes, kind: str) -> tuple[Ed25519PrivateKey, _Secret]:
    try:
        secret = msgspec.msgpack.decode(data, type=_Secret)
        key = Ed25519PrivateKey.from_private_bytes(secret.key)
        intact = _raw_key(secret.certificate) == key.public_key().public_bytes_raw()
        if kind == "issuer":
            _raw_key(secret.root)
    except (msgspec.DecodeError, ValueError):
        intact = False
    if not intact:
        raise ConfigError(f"the {kind} file of this swarm is damaged", "restore it from a backup")
    return key, secret


def _authority(
    name: x509.Name,
    key: Ed25519PublicKey,
    signer_name: x509.Name,
    signer: Ed25519PrivateKey,
    life: tuple[datetime, datetime],
    path_length: int,
) -> bytes:
    builder = _certificate(name, key, signer_name, signer, life)
    return _der(
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .sign(signer, None)
    )


def _certificate(
    name: x509.Name,
    key: Ed25519PublicKey,
    signer_name: x509.Name,
    signer: Ed25519PrivateKey,
    life: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    signer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(signer_name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(life[0] - BACKDATED)
        .not_valid_after(life[1])
        .add_extension(signer_id, critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(kind: str, key: Ed25519PublicKey) -> x509.Name:
    """Name an authority after its key: certificate chains are matched by these names."""
    label = f"p2ptrain {kind} {key.public_bytes_raw()[:8].hex()}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)])


def _raw_key(der: bytes) -> bytes:
    key = x509.load_der_x509_certificate(der).public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return key.public_bytes_raw()


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)
