"""How an issuer decides who may join. Pure: bytes in, a membership or a refusal out, and a book to keep."""

import itertools
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum

import msgspec
from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError, RefusedError
from p2ptrain.core.types import PeerId, peer_text
from p2ptrain.net.members.invite import INVITE_DOMAIN, JOIN_DOMAIN, TERMS, VERSION
from p2ptrain.net.trust.authority import Issuer
from p2ptrain.net.trust.certificates import Clock, Member, Membership, Role, wall_clock
from p2ptrain.net.trust.identity import verify

_REQUEST = struct.Struct(f">{TERMS.size}s32s64s32s64s")
JOIN_REQUEST_BYTES = _REQUEST.size
_ROLES = tuple(Role)


class Refusal(StrEnum):
    """Why a peer was not admitted: the word that travels. Append only."""

    MALFORMED = "malformed"
    FORGED = "forged"
    EXPIRED = "expired"
    USED_UP = "used-up"
    REVOKED = "revoked"
    FULL = "full"
    BUSY = "busy"
    CLOSED = "closed"


_NEW_INVITE = "ask for a new invite"
_WORDS = {
    Refusal.MALFORMED: ("the issuer did not understand the request", "update p2ptrain on both sides"),
    Refusal.FORGED: ("the issuer does not recognise this invite as its swarm's", _NEW_INVITE),
    Refusal.EXPIRED: ("this invite has expired", _NEW_INVITE),
    Refusal.USED_UP: ("this invite has been used as often as it may be", _NEW_INVITE),
    Refusal.REVOKED: ("this invite or this peer was turned away by the swarm", "ask whoever invited you"),
    Refusal.FULL: ("the swarm is full", "try again when a member has left"),
    Refusal.BUSY: ("the issuer is busy", "try again in a minute"),
    Refusal.CLOSED: ("the issuer's own certificate has expired", "tell whoever runs the swarm"),
}


class JoinRefusedError(RefusedError):
    """An issuer said no; `refusal` is the reason in one word."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(*_WORDS[refusal])
        self.refusal = refusal


class Admitted(Struct, frozen=True):
    """One entry of the book. `invite`: key of the invite, empty for who came without one."""

    slot: int
    role: Role
    invite: bytes = b""


class AdmissionBook(Struct, frozen=True):
    """Whom an issuer admitted, by peer text, and which invites it no longer accepts."""

    members: dict[str, Admitted] = {}
    revoked: tuple[bytes, ...] = ()

    def uses(self, invite: bytes) -> int:
        """Return how many peers an invite admitted."""
        return sum(entry.invite == invite for entry in self.members.values())

    def encode(self) -> bytes:
        """Return the bytes of the book's file."""
        return msgspec.msgpack.encode(self)


def decode_book(data: bytes) -> AdmissionBook:
    """Read a book's file.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return msgspec.msgpack.decode(data, type=AdmissionBook)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError("the book of admitted peers is damaged", "restore it from a backup") from None


class Admission:
    """Admits by invite, counts, and gives each new member the lowest free slot.

    Args:
        issuer: signs the certificates.
        book: as it was when the daemon stopped.
        save: makes a book last on disk; called before any answer.
        refused: says whether a peer was turned away.
        clock: invites expire by it.
        taken: slots of members that other issuers admitted, as far as they are known here.
        withdrawn: says whether the swarm's root took an invite back, by the invite's key.
    """

    def __init__(
        self,
        issuer: Issuer,
        book: AdmissionBook,
        save: Callable[[AdmissionBook], None],
        refused: Callable[[PeerId], bool],
        clock: Clock = wall_clock,
        withdrawn: Callable[[bytes], bool] = lambda _: False,
        taken: Callable[[], Iterable[int]] = lambda: (),
    ) -> None:
        self.issuer = issuer
        self.book = book
        self._save = save
        self._refused = refused
        self._clock = clock
        self._withdrawn = withdrawn
        self._taken = taken

    def admit(self, request: bytes, here: PeerId, known: Member | None = None) -> Membership:
        """Answer a join request; the same peer again gets a new certificate and costs no use.

        Args:
            request: bytes from a stranger.
            here: the identity of this node: a request to another issuer is worth nothing.
            known: what the certificate of who asks says, if it is a member already.

        Raises:
            JoinRefusedError: the answer is no.
        """
        try:
            terms, key, signature, joiner, proof = _REQUEST.unpack(request)
        except struct.error:
            raise JoinRefusedError(Refusal.MALFORMED) from None
        version, flags, expires, uses, root_key = TERMS.unpack(terms)
        if version != VERSION or flags >> 4 >= len(_ROLES):
            raise JoinRefusedError(Refusal.MALFORMED)
        if (
            root_key != self.issuer.root_key
            or not verify(root_key, signature, INVITE_DOMAIN + terms + key)
            or not verify(key, proof, JOIN_DOMAIN + here + joiner)
        ):
            raise JoinRefusedError(Refusal.FORGED)
        peer = PeerId(joiner)
        if key in self.book.revoked or self._withdrawn(key) or self._refused(peer):
            raise JoinRefusedError(Refusal.REVOKED)
        if peer_text(peer) not in self.book.members:
            if self._clock() >= datetime.fromtimestamp(expires, UTC):
                raise JoinRefusedError(Refusal.EXPIRED)
            if self.book.uses(key) >= uses:
                raise JoinRefusedError(Refusal.USED_UP)
        slot = known.slot if known is not None and known.peer == peer else None
        return self.enroll(peer, _ROLES[flags >> 4], key, slot)

    def enroll(self, peer: PeerId, role: Role, invite: bytes = b"", slot: int | None = None) -> Membership:
        """Make a peer a member without asking; a known one keeps its slot and role.

        Args:
            peer: who.
            role: what it may do.
            invite: key of the invite that let it in; empty: none did.
            slot: None: the lowest that is free.

        Raises:
            JoinRefusedError: there is no room, or this issuer may no longer sign.
        """
        now = self._clock()
        if now >= self.issuer.expires:
            raise JoinRefusedError(Refusal.CLOSED)
        name = peer_text(peer)
        entry = self.book.members.get(name)
        if entry is None:
            if len(self.book.members) >= limits.PEERS_MAX:
                raise JoinRefusedError(Refusal.FULL)
            entry = Admitted(self._free_slot() if slot is None else slot, role, invite)
            self._keep(AdmissionBook({**self.book.members, name: entry}, self.book.revoked))
        return self.issuer.certify(peer, entry.role, entry.slot, now)

    def renew(self, member: Member) -> Membership:
        """Certify a member once more, in its role and slot; another issuer may have admitted it.

        Args:
            member: what the certificate says by which TLS knows it.

        Raises:
            JoinRefusedError: it was turned away, or this issuer may no longer sign.
        """
        now = self._clock()
        if self._refused(member.peer):
            raise JoinRefusedError(Refusal.REVOKED)
        if now >= min(self.issuer.expires, member.expires):
            raise JoinRefusedError(Refusal.CLOSED)
        name = peer_text(member.peer)
        if name not in self.book.members and len(self.book.members) < limits.PEERS_MAX:
            entry = Admitted(member.slot, member.role)
            self._keep(AdmissionBook({**self.book.members, name: entry}, self.book.revoked))
        return self.issuer.certify(member.peer, member.role, member.slot, now)

    def revoke_invite(self, invite: bytes) -> None:
        """Accept an invite no more, by its key; whom it admitted stays."""
        if invite not in self.book.revoked:
            self._keep(AdmissionBook(self.book.members, (*self.book.revoked, invite)))

    def _free_slot(self) -> int:
        taken = {entry.slot for entry in self.book.members.values()} | set(self._taken())
        return next(slot for slot in itertools.count() if slot not in taken)

    def _keep(self, book: AdmissionBook) -> None:
        self._save(book)
        self.book = book
