"""Every member's contact, as it signed it: learned in any order, forgotten when it is not renewed.

Nobody's clock is asked (decision 0004). A record ages here by this node's own time since its (boot, sequence)
was first seen; whoever passes it on may say how old it is already, and is believed up to `AGE_BELIEVED_S`.
A record that expired does not come back to life: only a newer one of its subject does, or the subject itself.
Records lie in buckets that are never changed but replaced, so that many nodes of a simulation may share them.
"""

from collections.abc import Collection, Iterable, Iterator
from hashlib import blake2b

import msgspec
from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.envelope import Verified
from p2ptrain.core.messages import BUCKETS_MAX, ID_BYTES, TAG_BYTES, Contact
from p2ptrain.core.types import PeerId, Seconds

RENEW_S: Seconds = 300.0
"""Every member signs its contact again after that long, a fifth more or less (net 4.3)."""

LIFE_S: Seconds = 600.0
"""A record that nobody renewed for so long is of a member that is gone (net 4.3)."""

AGE_BELIEVED_S: Seconds = LIFE_S - 1.2 * RENEW_S
"""Who passes records on cannot make them look older: what is left is enough for the next renewal."""

CHANGES_MAX = 4.0
CHANGE_AGAIN_S: Seconds = 60.0
"""A member's changes that are passed on at once, and the time until one more is: each costs everybody."""

Introduced = Verified[Contact]


def name_of(raw: bytes) -> bytes:
    """Return the 16 bytes that name a signed contact among neighbours."""
    return blake2b(raw, digest_size=ID_BYTES).digest()


def issuer_of(certificate: bytes) -> bytes:
    """Return what tells issuers apart; the border has checked the chain, here only its second part counts."""
    try:
        authority = msgspec.msgpack.decode(certificate, type=tuple[bytes, bytes])[1]
    except msgspec.MsgspecError:
        return b""
    return blake2b(authority, digest_size=TAG_BYTES).digest()


class Record(Struct, frozen=True):
    """One member's newest contact.

    name: of the signed bytes; its first 8 bytes are the record's tag.
    seen: since when it is known here, less the age that it came with.
    urgent: whether it is passed on at once.
    credit: more changes of this member that would be.
    place: where the member is found by those who may ask it for a link, see `links`.
    """

    contact: Introduced
    name: bytes
    seen: Seconds
    urgent: bool
    credit: float
    place: int
    issuer: bytes

    @property
    def tag(self) -> bytes:
        """Tell this record from others of the same bucket."""
        return self.name[:TAG_BYTES]


def place_of(contact: Introduced) -> int:
    """Return a member's place: nobody can choose it, because an issuer signed what it follows from."""
    data = contact.message.certificate + contact.sender
    return int.from_bytes(blake2b(data, digest_size=8, person=b"place").digest(), "big")


class Bucket:
    """Records whose subjects' ids begin with the same byte; never changed."""

    __slots__ = ("_hash", "oldest", "records")

    def __init__(self, records: dict[PeerId, Record], oldest: Seconds) -> None:
        self.records = records
        self.oldest = oldest
        """No record was seen before that."""
        self._hash: bytes | None = None

    def plus(self, peer: PeerId, record: Record) -> "Bucket":
        """The same with a record replaced or added."""
        return Bucket({**self.records, peer: record}, min(self.oldest, record.seen))

    def minus(self, gone: Collection[PeerId]) -> "Bucket":
        """The same without some."""
        records = {peer: record for peer, record in self.records.items() if peer not in gone}
        return Bucket(records, min((record.seen for record in records.values()), default=float("inf")))

    @property
    def hash(self) -> bytes:
        """Eight bytes, equal for equal records in whatever order they came."""
        if self._hash is None:
            tags = b"".join(sorted(record.tag for record in self.records.values()))
            self._hash = blake2b(tags, digest_size=TAG_BYTES).digest() if tags else bytes(TAG_BYTES)
        return self._hash


EMPTY = Bucket({}, float("inf"))


class Directory:
    """The records that this node has.

    Args:
        start: a directory to begin with; its records are shared, its changes are not.
    """

    __slots__ = ("_buckets", "_count", "_former", "_issuers", "_places")

    def __init__(self, start: "Directory | None" = None) -> None:
        self._buckets: list[Bucket] = list(start._buckets) if start else [EMPTY] * BUCKETS_MAX
        self._count: int = start._count if start else 0
        self._issuers: dict[bytes, int] = dict(start._issuers) if start else {}
        self._former: dict[PeerId, Introduced] = {}
        self._places = start.places if start else None

    # -- questions ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        for bucket in self._buckets if self._count else ():
            yield from bucket.records.values()

    def get(self, peer: PeerId) -> Record | None:
        """One member's record."""
        return self._buckets[peer[0]].records.get(peer)

    @property
    def former(self) -> Iterable[Introduced]:
        """Contacts of members that are gone, the last one last: the last resort of who is alone."""
        return self._former.values()

    @property
    def places(self) -> list[tuple[int, PeerId]]:
        """All members by their places; not to be changed."""
        if self._places is None:
            self._places = sorted((record.place, record.contact.sender) for record in self)
        return self._places

    def group(self, count: int, number: int) -> list[Bucket]:
        """The buckets that are one where there are only `count`, a power of 2."""
        width = BUCKETS_MAX // count
        return self._buckets[number * width : (number + 1) * width]

    def hashes(self, count: int) -> list[bytes]:
        """What to compare two directories by: eight bytes for each of `count` groups, a power of 2."""
        if count == BUCKETS_MAX:
            return [bucket.hash for bucket in self._buckets]
        groups = (self.group(count, number) for number in range(count))
        return [blake2b(b"".join(b.hash for b in g), digest_size=TAG_BYTES).digest() for g in groups]

    def knows_better(self, contact: Introduced) -> bool:
        """Say whether a contact is old: known here, replaced by a newer one, or expired."""
        known = self.get(contact.sender)
        old = known.contact if known else self._former.get(contact.sender)
        if old is None:
            return False
        # An author may sign two under one number: everyone must keep the same one.
        return (contact.boot, contact.sequence, contact.raw) <= (old.boot, old.sequence, old.raw)

    # -- changes -----------------------------------------------------------------------------------

    def learn(
        self,
        contact: Introduced,
        now: Seconds,
        age: Seconds = 0.0,
        kept: Collection[PeerId] = (),
        *,
        own: bool = False,
    ) -> Record | None:
        """Take a contact in, if it is new; return its record.

        Args:
            contact: from anybody.
            now: see `Node.handle`.
            age: how long its bearer has known it.
            kept: who must not give way when the directory is full.
            own: it is this node's, for which there is always room.
        """
        peer = contact.sender
        if self.knows_better(contact):
            return None
        known, issuer = self.get(peer), issuer_of(contact.message.certificate)
        full = known is None and not own and self._count >= limits.PEERS_MAX
        if full and not self._make_room(issuer, kept):
            return None
        credit = _credit(known, now)
        record = Record(
            contact=contact,
            name=name_of(contact.raw),
            seen=now - min(max(age, 0.0), AGE_BELIEVED_S),
            urgent=credit >= 1,
            credit=credit - 1 if credit >= 1 else credit,
            place=place_of(contact),
            issuer=issuer,
        )
        if known is None or known.place != record.place:
            self._places = None
        if known is not None:
            self._uncount(known)
        self._issuers[issuer] = self._issuers.get(issuer, 0) + 1
        self._count += 1
        self._buckets[peer[0]] = self._buckets[peer[0]].plus(peer, record)
        self._former.pop(peer, None)
        return record

    def revive(self, peer: PeerId, now: Seconds) -> None:
        """The subject itself is here: what it signed last holds, however old."""
        contact = self._former.pop(peer, None)
        if contact is not None:
            self.learn(contact, now)

    def expire(self, now: Seconds, living: Collection[PeerId]) -> list[PeerId]:
        """Forget who did not renew its record; `living` are known to be there and begin anew."""
        gone: list[PeerId] = []
        for number, bucket in enumerate(self._buckets):
            if now - bucket.oldest <= LIFE_S:
                continue
            old = {p: r for p, r in bucket.records.items() if now - r.seen > LIFE_S}
            fresh = {p: msgspec.structs.replace(r, seen=now) for p, r in old.items() if p in living}
            dead = [peer for peer in old if peer not in fresh]
            for peer in dead:
                self._bury(old[peer])
            renewed = Bucket({**bucket.records, **fresh}, now)
            self._buckets[number] = renewed.minus(dict.fromkeys(dead))
            gone += dead
        return gone

    # -- steps -------------------------------------------------------------------------------------

    def _bury(self, record: Record) -> None:
        self._uncount(record)
        self._places = None
        self._former[record.contact.sender] = record.contact
        if len(self._former) > limits.PEERS_MAX:
            del self._former[next(iter(self._former))]

    def _uncount(self, record: Record) -> None:
        self._count -= 1
        self._issuers[record.issuer] -= 1
        if not self._issuers[record.issuer]:
            del self._issuers[record.issuer]

    def _make_room(self, issuer: bytes, kept: Collection[PeerId]) -> bool:
        """Let the oldest of the issuer with the most members give way, if that is fairer."""
        most = max(self._issuers, key=lambda each: self._issuers[each])
        if self._issuers.get(issuer, 0) + 1 >= self._issuers[most]:
            return False
        old = [record for record in self if record.issuer == most and record.contact.sender not in kept]
        if not old:
            return False
        oldest = min(old, key=lambda record: record.seen)
        peer = oldest.contact.sender
        self._bury(oldest)
        self._buckets[peer[0]] = self._buckets[peer[0]].minus((peer,))
        return True


def _credit(known: Record | None, now: Seconds) -> float:
    if known is None:
        return CHANGES_MAX
    return min(CHANGES_MAX, known.credit + max(0.0, now - known.seen) / CHANGE_AGAIN_S)
