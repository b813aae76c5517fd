"""An issuer counts, and is not talked into anything."""

from datetime import timedelta

import pytest

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.types import PeerId, peer_text
from p2ptrain.net.members.admission import Admission, AdmissionBook, JoinRefusedError, Refusal, decode_book
from p2ptrain.net.members.invite import create_invite
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import Role, check_member, wall_clock
from p2ptrain.net.trust.identity import Identity

NOW = wall_clock()
ROOT = Root.create(NOW)
ISSUER = ROOT.appoint(NOW)
HERE = Identity.create().peer


class Desk:
    """An admission whose book is kept in a list, and whose clock can be set."""

    def __init__(self, book: AdmissionBook | None = None) -> None:
        self.saved: list[AdmissionBook] = []
        self.banned: set[PeerId] = set()
        self.now = NOW
        self.admission = Admission(
            ISSUER, book or AdmissionBook(), self.saved.append, self.banned.__contains__, lambda: self.now
        )

    def admit(self, invite, identity, issuer=HERE):
        return self.admission.admit(invite.request(identity, issuer), HERE)

    def refuse(self, refusal: Refusal, invite, identity=None, issuer=HERE) -> None:
        with pytest.raises(JoinRefusedError) as error:
            self.admit(invite, identity or Identity.create(), issuer)
        assert error.value.refusal is refusal
        assert error.value.hint


def invite(seed: int = 0, root: Root = ROOT, **options):
    return create_invite(root, bytes([seed] * 16), NOW + timedelta(days=7), **options)


def test_uses_are_counted_and_slots_given_in_order():
    desk = Desk()
    founder = desk.admission.enroll(HERE, Role.ISSUER)
    assert (founder.member.slot, founder.member.role) == (0, Role.ISSUER)
    three = invite(uses=3)
    for slot in (1, 2, 3):
        identity = Identity.create()
        membership = desk.admit(three, identity)
        member = check_member(ROOT.certificate, membership.chain, NOW)
        assert (member.peer, member.role, member.slot) == (identity.peer, Role.MEMBER, slot)
    desk.refuse(Refusal.USED_UP, three)
    assert desk.admission.book.uses(three.key) == 3
    desk.admit(invite(seed=1), Identity.create())


def test_a_retry_counts_once():
    desk = Desk()
    identity = Identity.create()
    once = invite()
    slots = {desk.admit(once, identity).member.slot for _ in range(3)}
    assert slots == {0}
    assert len(desk.saved) == 1
    desk.refuse(Refusal.USED_UP, once)


def test_a_member_renews_by_an_expired_invite():
    desk = Desk()
    identity = Identity.create()
    desk.admit(invite(), identity)
    desk.now = NOW + timedelta(days=60)
    assert desk.admit(invite(), identity).member.expires > desk.now
    desk.refuse(Refusal.EXPIRED, invite())


def test_the_book_is_saved_before_the_answer():
    def fail(_: AdmissionBook) -> None:
        raise OSError(28, "No space left on device")

    admission = Admission(ISSUER, AdmissionBook(), fail, lambda _: False)
    with pytest.raises(OSError, match="No space"):
        admission.admit(invite().request(Identity.create(), HERE), HERE)
    assert not admission.book.members


def test_the_book_survives_a_restart():
    desk = Desk()
    once, identity = invite(), Identity.create()
    desk.admit(once, identity)
    again = Desk(decode_book(desk.saved[-1].encode()))
    assert again.admit(once, identity).member.slot == 0
    again.refuse(Refusal.USED_UP, once)
    with pytest.raises(ConfigError, match="damaged"):
        decode_book(b"\xc1")


def test_a_freed_slot_is_given_again():
    desk = Desk()
    for seed in range(3):
        desk.admit(invite(seed), Identity.create())
    members = dict(desk.admission.book.members)
    del members[next(name for name, entry in members.items() if entry.slot == 1)]
    again = Desk(AdmissionBook(members))
    assert again.admit(invite(9), Identity.create()).member.slot == 1


def test_a_swapped_key():
    """Whoever relays a request cannot put in its own key."""
    desk = Desk()
    request = invite().request(Identity.create(), HERE)
    with pytest.raises(JoinRefusedError) as error:
        desk.admission.admit(request[:136] + Identity.create().peer + request[168:], HERE)
    assert error.value.refusal is Refusal.FORGED


def test_replayed_at_another_issuer():
    Desk().refuse(Refusal.FORGED, invite(), issuer=Identity.create().peer)


def test_expired():
    desk = Desk()
    desk.now = NOW + timedelta(days=8)
    desk.refuse(Refusal.EXPIRED, invite())


def test_of_another_swarm():
    Desk().refuse(Refusal.FORGED, invite(root=Root.create(NOW)))


def test_stretched_terms():
    """More uses or a better role than the root signed."""
    desk = Desk()
    request = invite().request(Identity.create(), HERE)
    for at, value in ((1, 0x20), (7, 99), (2, 0xFF)):
        with pytest.raises(JoinRefusedError) as error:
            desk.admission.admit(request[:at] + bytes([value]) + request[at + 1 :], HERE)
        assert error.value.refusal is Refusal.FORGED


def test_revoked():
    desk = Desk()
    desk.admission.revoke_invite(invite().key)
    desk.admission.revoke_invite(invite().key)
    assert len(desk.saved) == 1
    desk.refuse(Refusal.REVOKED, invite())
    banned = Identity.create()
    desk.banned.add(banned.peer)
    desk.refuse(Refusal.REVOKED, invite(1), banned)


def test_full(monkeypatch):
    monkeypatch.setattr(limits, "PEERS_MAX", 1)
    desk = Desk()
    desk.admit(invite(), Identity.create())
    desk.refuse(Refusal.FULL, invite(1))


def test_an_issuer_past_its_time():
    desk = Desk()
    identity = Identity.create()
    desk.admit(invite(), identity)
    desk.now = NOW + timedelta(days=91)
    desk.refuse(Refusal.CLOSED, invite(), identity)


@pytest.mark.parametrize("size", [0, 1, 231, 233])
def test_malformed(size):
    with pytest.raises(JoinRefusedError) as error:
        Desk().admission.admit(bytes(size), HERE)
    assert error.value.refusal is Refusal.MALFORMED


def test_the_book_names_members_as_people_do():
    desk = Desk()
    identity = Identity.create()
    desk.admit(invite(), identity)
    assert list(desk.saved[-1].members) == [peer_text(identity.peer)]
