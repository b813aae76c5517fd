"""Mutual TLS 1.3, and one rule more: the key that was proved must be the peer that is meant.

OpenSSL follows the chain to the swarm's root and compares the host name. The pin here stops what it
cannot see: an issuer that certifies a name for a key of somebody else. It runs inside the handshake,
before any application byte in either direction.
"""

import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from p2ptrain.core.errors import P2PTrainError, RemoteProtocolError
from p2ptrain.core.types import PeerId
from p2ptrain.net.trust.certificates import Membership, host_name, read_leaf
from p2ptrain.net.trust.identity import Identity


class PeerContext(ssl.SSLContext):
    """A TLS context that pins peers.

    refused: asked in every handshake about who proved its key,
    distrusted: and about the member that issued its certificate.
    """

    refused: Callable[[PeerId], bool]
    distrusted: Callable[[PeerId], bool]


class PeerObject(ssl.SSLObject):
    """A TLS connection of asyncio; `peer` is who is at the other end, None: nobody proved anything."""

    peer: PeerId | None = None

    def do_handshake(self) -> None:
        """Finish the handshake, or raise SSLCertVerificationError for the wrong peer."""
        super().do_handshake()
        self.peer = _proved_peer(self)


class PeerSocket(ssl.SSLSocket):
    """The same for blocking sockets: a context that skipped the pin here would be a trap."""

    peer: PeerId | None = None

    def do_handshake(self, block: bool = False) -> None:
        """Finish the handshake, or raise SSLCertVerificationError for the wrong peer."""
        super().do_handshake(block)
        self.peer = _proved_peer(self)


PeerContext.sslobject_class = PeerObject
PeerContext.sslsocket_class = PeerSocket


def client_context(
    identity: Identity,
    membership: Membership,
    refused: Callable[[PeerId], bool],
    distrusted: Callable[[PeerId], bool] = lambda _: False,
) -> PeerContext:
    """Make the context for dialling members."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, refused, distrusted)
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = True
    _trust(context, membership.root)
    show(context, identity, membership)
    return context


def server_context(
    identity: Identity,
    membership: Membership,
    refused: Callable[[PeerId], bool],
    distrusted: Callable[[PeerId], bool] = lambda _: False,
    *,
    admits: bool,
) -> PeerContext:
    """Make the context for being dialled; `admits`: strangers get through too, to ask for admission."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, refused, distrusted)
    let_strangers_in(context, admits)
    context.num_tickets = 0
    _trust(context, membership.root)
    show(context, identity, membership)
    return context


def joining_context() -> PeerContext:
    """Make the context for asking an issuer for admission: no root is known yet, the pin is all."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, lambda _: False, lambda _: False)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def show(context: PeerContext, identity: Identity, membership: Membership) -> None:
    """Prove this identity in handshakes from now on; called again when the membership was renewed."""
    chain = "".join(ssl.DER_cert_to_PEM_cert(der) for der in (membership.leaf, membership.issuer))
    # OpenSSL reads keys from files only; mkstemp makes them 0600.
    handle, name = tempfile.mkstemp(prefix="p2ptrain-")
    try:
        with open(handle, "wb") as file:
            file.write(chain.encode() + identity.private_pem())
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()


def let_strangers_in(context: PeerContext, admits: bool) -> None:
    """Decide for the handshakes to come whether a client needs a certificate."""
    context.verify_mode = ssl.CERT_OPTIONAL if admits else ssl.CERT_REQUIRED


def _context(
    protocol: int, refused: Callable[[PeerId], bool], distrusted: Callable[[PeerId], bool]
) -> PeerContext:
    if sys.version_info[:3] < (3, 11, 5):
        raise P2PTrainError(
            f"Python {sys.version.split()[0]} has a hole in its TLS (CVE-2023-40217)",
            "install Python 3.11.5 or newer",
        )
    context = PeerContext(protocol)
    context.refused = refused
    context.distrusted = distrusted
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


def _trust(context: PeerContext, root: bytes) -> None:
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=root)


def _proved_peer(connection: PeerObject | PeerSocket) -> PeerId | None:
    """Return whose key the other side proved to hold, after all that OpenSSL demands."""
    context = connection.context
    assert isinstance(context, PeerContext)
    certificate = connection.getpeercert(binary_form=True)
    if certificate is None:
        if connection.server_side and context.verify_mode == ssl.CERT_OPTIONAL:
            return None
        raise ssl.SSLCertVerificationError("no certificate")
    try:
        member = read_leaf(certificate)
    except RemoteProtocolError as error:
        raise ssl.SSLCertVerificationError(error.detail) from None
    peer = member.peer
    if not connection.server_side and connection.server_hostname != host_name(peer):
        raise ssl.SSLCertVerificationError("another peer answers there")
    if context.refused(peer):
        raise ssl.SSLCertVerificationError("this peer is refused here")
    if member.issuer is not None and context.distrusted(member.issuer):
        raise ssl.SSLCertVerificationError("who issued its certificate was revoked")
    return peer
