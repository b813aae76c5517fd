"""Who belongs, who can be reached, whom to dial and when."""

from random import Random

import pytest

from p2ptrain.core import limits, links
from p2ptrain.core.conduct import Conduct
from p2ptrain.core.effects import Dial, Effect, Remember, Send, SetTimer
from p2ptrain.core.envelope import Opener
from p2ptrain.core.errors import Offence
from p2ptrain.core.links import BACKOFF_FIRST_S, BACKOFF_MAX_S
from p2ptrain.core.membership import Members, Membership
from p2ptrain.core.messages import Contact, Contacts, Push
from p2ptrain.core.types import PeerId
from p2ptrain.sim.keys import SWARM, SimVerifier
from tests.helpers import Author, codec, notes, only, peer

ME, ANNA, BERT = 5, 1, 9
AGAIN = SetTimer(links.TIMER, links.DIAL_EVERY_S)


def member(known: tuple[int, ...] = (), seed: int = 0) -> Membership:
    return Membership(peer(ME), Random(seed), Conduct(), Members(map(peer, known)))


def introduced(*numbers: int) -> Membership:
    """Know members by their contacts, each at one address."""
    them = member()
    them.start([Author(number).contact(f"192.0.2.{number}:1") for number in numbers], now=0.0)
    return them


def dialled(effects: list[Effect]) -> list[PeerId]:
    return [dial.peer for dial in only(Dial, effects)]


def introductions(effects: list[Effect], to: int) -> list[PeerId]:
    """Open what is said to a peer, as that peer would."""
    opener = Opener(SimVerifier(), SWARM, codec(()))
    return [
        opener.open_statement(raw).sender
        for send in only(Send, effects)
        if send.to == peer(to) and isinstance(send.message, Contacts | Push)
        for raw in send.message.carried
    ]


# -- who belongs -----------------------------------------------------------------------------------


def test_members_are_sorted_and_each_is_there_once() -> None:
    assert Members([peer(3), peer(1), peer(3)]).plus(peer(2)).order == (peer(1), peer(2), peer(3))
    assert Members([peer(1)]).plus(peer(1)).order == (peer(1),)


def test_one_is_always_a_member_oneself_but_never_a_partner() -> None:
    them = member(known=(ANNA, BERT))
    assert them.members == (peer(ANNA), peer(ME), peer(BERT))
    assert them.partners(now=0.0) == [peer(ANNA), peer(BERT)]


def test_who_is_heard_or_connected_becomes_a_member() -> None:
    them = member()
    them.on_heard(peer(ANNA))
    them.on_up(peer(BERT), now=0.0)
    assert them.partners(now=0.0) == [peer(ANNA), peer(BERT)]


def test_a_stranger_is_neither_trusted_nor_reachable() -> None:
    them, said = member(known=(BERT,)), [Author(number).reports(0.5) for number in (ANNA, BERT)]
    assert them.trusted(said, now=0.0) == said[1:]
    assert not them.reachable(peer(ANNA), now=0.0)


def test_who_cannot_be_reached_is_no_partner_until_heard_again() -> None:
    them = member(known=(ANNA,))
    them.on_down(peer(ANNA), "no answer", now=0.0)
    assert them.partners(now=0.0) == []
    assert them.trouble(peer(ANNA)) == "no answer"
    them.on_heard(peer(ANNA))
    assert them.partners(now=0.0) == [peer(ANNA)]
    assert them.trouble(peer(ANNA)) == ""


def test_a_reason_from_outside_is_cut() -> None:
    them = member(known=(ANNA,))
    effects = them.on_down(peer(ANNA), "x" * 10_000, now=0.0)
    assert len(them.trouble(peer(ANNA))) == 200
    assert len(effects[0].fields["reason"]) == 200  # type: ignore[attr-defined]


def test_the_owner_reads_once_that_a_peer_is_gone() -> None:
    them = member(known=(ANNA,))
    assert notes(them.on_down(peer(ANNA), "gone", now=0.0)) == ["peer_down"]
    assert notes(them.on_down(peer(ANNA), "still gone", now=9.0)) == []
    assert notes(them.on_up(peer(ANNA), now=20.0)) == ["peer_up"]
    assert notes(them.on_down(peer(ANNA), "gone again", now=30.0)) == ["peer_down"]


# -- who trains ------------------------------------------------------------------------------------


def test_a_bootstrap_is_told_everything_but_is_no_partner() -> None:
    them = member(known=(ANNA, BERT))
    them.start([Author(ANNA).contact(trains=False)], now=0.0)
    assert (them.trains(peer(ANNA)), them.trains(peer(BERT))) == (False, True)
    assert them.trainers == (peer(ME), peer(BERT))
    assert them.partners(now=0.0) == [peer(BERT)]
    assert them.others(now=0.0) == [peer(ANNA), peer(BERT)]
    assert them.members == (peer(ANNA), peer(ME), peer(BERT))


def test_who_came_later_is_among_those_who_train() -> None:
    them = member()
    them.start([Author(ANNA).contact(trains=False)], now=0.0)
    assert them.trainers == (peer(ME),)
    them.on_heard(peer(BERT))
    assert them.trainers == (peer(ME), peer(BERT))


def test_a_bootstrap_that_began_to_train_is_a_partner_and_the_other_way_round() -> None:
    author, them = Author(ANNA), member()
    for trains in (False, True, False):
        them.start([author.contact(trains=trains)], now=0.0)
        assert them.partners(now=0.0) == ([peer(ANNA)] if trains else [])


def test_a_bootstrap_does_not_count_itself_among_those_who_train() -> None:
    them = member(known=(ANNA,))
    them.on_own_contact(Author(ME).contact(trains=False), now=0.0)
    assert them.trainers == (peer(ANNA),)


# -- introductions ---------------------------------------------------------------------------------


def test_a_contact_is_remembered_once() -> None:
    them, anna = member(), Author(ANNA).contact("192.0.2.1:1")
    news = Author(BERT).sends(Contacts((anna.raw,))).message
    first = them.on_message(peer(BERT), news, now=0.0)
    assert only(Remember, first) == [Remember(peer(ANNA), anna.raw)]
    assert them.on_message(peer(BERT), news, now=1.0) == []


def test_only_a_newer_contact_replaces_one() -> None:
    author = Author(ANNA)
    old, new = author.contact("192.0.2.1:1"), author.contact("192.0.2.1:2")
    them = member()
    for contact in (new, old):
        them.on_message(peer(BERT), Author(BERT).sends(Contacts((contact.raw,))).message, now=0.0)
    assert them.contact(peer(ANNA)) == new.message


def test_what_others_say_of_oneself_is_ignored() -> None:
    them, myself = member(), Author(ME).contact("192.0.2.66:1")
    assert them.on_message(peer(BERT), Author(BERT).sends(Contacts((myself.raw,))).message, now=0.0) == []
    assert them.contact(peer(ME)) is None


def test_somebody_who_signs_with_the_own_key_after_this_start_is_noticed() -> None:
    them, told = member(), Author(BERT)
    them.on_own_contact(Author(ME, boot=7).contact("192.0.2.5:1"), now=0.0)
    for boot, seen in ((6, []), (7, []), (8, ["identity_used_elsewhere"])):
        other = Author(ME, boot=boot).contact("192.0.2.66:1")
        effects = them.on_message(peer(BERT), told.sends(Contacts((other.raw,))).message, now=0.0)
        assert notes(effects) == seen


def test_whoever_connects_is_introduced_to_all_others_and_not_to_itself() -> None:
    them = introduced(ANNA, BERT)
    them.on_own_contact(Author(ME).contact("192.0.2.5:1"), now=0.0)
    assert sorted(introductions(them.on_up(peer(ANNA), now=0.0), to=ANNA)) == [peer(ME), peer(BERT)]


def test_a_new_address_is_told_to_everyone_connected() -> None:
    them = introduced(ANNA, BERT)
    them.on_up(peer(ANNA), now=0.0)
    effects = them.on_own_contact(Author(ME).contact("192.0.2.5:1"), now=0.0)
    assert introductions(effects, to=ANNA) == [peer(ME)]
    assert introductions(effects, to=BERT) == []


def test_who_introduces_itself_is_introduced_to_everyone_connected() -> None:
    """Two that come at the same moment would never hear of each other otherwise."""
    them, anna = member(), Author(ANNA)
    for number in (ANNA, BERT):
        them.on_up(peer(number), now=0.0)
    effects = them.on_message(peer(ANNA), anna.sends(Contacts((anna.contact().raw,))).message, now=0.0)
    assert introductions(effects, to=BERT) == [peer(ANNA)]
    assert introductions(effects, to=ANNA) == []


def test_what_others_say_of_others_is_not_passed_on() -> None:
    """Or every contact would be told by everyone to everyone."""
    them = member()
    for number in (ANNA, BERT):
        them.on_up(peer(number), now=0.0)
    news = Author(ANNA).sends(Contacts((Author(77).contact().raw,)))
    assert introductions(them.on_message(peer(ANNA), news.message, now=0.0), to=BERT) == []


def test_introductions_fit_into_frames_however_much_members_say_of_themselves() -> None:
    wordy = ("\U0001f999" * limits.ADDRESS_CHARS_MAX,) * limits.ADDRESSES_MAX
    them = member()
    them.start([Author(n).says(Contact(bytes(1200), wordy, "🦙" * 40)) for n in range(100, 130)], now=0.0)
    sent = only(Send, them.on_up(peer(ANNA), now=0.0))
    assert sum(len(send.message.carried) for send in sent) == 30
    for send in sent:
        assert len(Author(ME).says(send.message).raw) <= limits.FRAME_BYTES_MAX


def test_ordinary_introductions_come_by_the_message_full() -> None:
    them = introduced(*range(100, 130))
    sent = only(Send, them.on_up(peer(ANNA), now=0.0))
    assert [len(send.message.carried) for send in sent] == [24, 6]


def test_contacts_are_bounded_but_known_members_may_still_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEERS_MAX", 3)
    them = introduced(11, 12, 13, 14)
    assert them.contact(peer(14)) is None
    moved = Author(11, boot=2).contact("198.51.100.1:1")
    them.on_message(peer(BERT), Author(BERT).sends(Contacts((moved.raw,))).message, now=0.0)
    assert them.contact(peer(11)) == moved.message


# -- dialling --------------------------------------------------------------------------------------


def test_everyone_who_is_missing_is_dialled_at_once() -> None:
    contacts = [Author(number).contact(f"192.0.2.{number}:1") for number in (ANNA, BERT)]
    assert dialled(member().start(contacts, now=0.0)) == [peer(ANNA), peer(BERT)]


def test_the_addresses_are_those_of_the_contact() -> None:
    them = member()
    effects = them.start([Author(BERT).contact("192.0.2.9:1", "[2001:db8::9]:1")], now=0.0)
    assert only(Dial, effects) == [Dial(peer(BERT), ("192.0.2.9:1", "[2001:db8::9]:1"))]


def test_who_cannot_be_dialled_or_is_connected_is_not_dialled() -> None:
    them = member()
    assert dialled(them.start([Author(BERT).contact()], now=0.0)) == []
    them = introduced(BERT)
    them.on_up(peer(BERT), now=1.0)
    assert them.on_timer(links.TIMER, now=100.0) == []


def test_looking_for_members_goes_on_while_one_is_missing() -> None:
    them = member()
    assert AGAIN in them.start([Author(BERT).contact("192.0.2.9:1")], now=0.0)
    assert AGAIN in them.on_timer(links.TIMER, now=1.0)
    them.on_up(peer(BERT), now=2.0)
    assert AGAIN in them.on_down(peer(BERT), "gone", now=3.0)


def test_a_dial_under_way_is_not_repeated() -> None:
    them = introduced(BERT)
    assert dialled(them.on_timer(links.TIMER, now=1.0)) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_wait_between_two_dials_grows_and_is_bounded(seed: int) -> None:
    them, now, waits = member(seed=seed), 0.0, []
    them.start([Author(BERT).contact("192.0.2.9:1")], now)
    for _ in range(15):
        failed = now
        them.on_down(peer(BERT), "no answer", now)
        while peer(BERT) not in dialled(them.on_timer(links.TIMER, now)):
            now += 0.1
        waits.append(now - failed)
    for failures, wait_s in enumerate(waits, start=1):
        middle = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0**failures)
        assert 0.5 * middle - 0.2 <= wait_s <= 1.5 * middle + 0.2, (seed, failures)


def test_a_lost_connection_is_dialled_again_soon() -> None:
    them = introduced(BERT)
    for _ in range(10):
        them.on_down(peer(BERT), "no answer", now=0.0)
    them.on_up(peer(BERT), now=100.0)
    them.on_down(peer(BERT), "cable", now=200.0)
    assert dialled(them.on_timer(links.TIMER, now=200.0 + 2 * BACKOFF_FIRST_S)) == [peer(BERT)]


def test_a_new_address_is_dialled_at_once() -> None:
    them, author = member(), Author(BERT)
    them.start([author.contact("192.0.2.9:1")], now=0.0)
    for _ in range(10):
        them.on_down(peer(BERT), "no answer", now=0.0)
    moved = author.contact("198.51.100.9:1")
    effects = them.on_message(peer(ANNA), Author(ANNA).sends(Contacts((moved.raw,))).message, now=1.0)
    assert only(Dial, effects) == [Dial(peer(BERT), ("198.51.100.9:1",))]


def test_who_is_banned_is_not_dialled_before_the_ban_ends() -> None:
    conduct = Conduct()
    them = Membership(peer(ME), Random(0), conduct, Members([]))
    (_, hangup) = conduct.charge(peer(BERT), Offence.FORGED, "", now=0.0)
    assert dialled(them.start([Author(BERT).contact("192.0.2.9:1")], now=0.0)) == []
    assert dialled(them.on_timer(links.TIMER, now=hangup.refuse_s)) == [peer(BERT)]  # type: ignore[attr-defined]


# -- bounds ----------------------------------------------------------------------------------------


def test_strangers_that_go_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PEERS_MAX", 20)
    them = member()
    for number in range(100, 200):
        them.on_down(peer(number), "never seen", now=0.0)
        them.on_heard(peer(number))
        them.on_down(peer(number), "gone", now=0.0)
    assert len(them.members) <= 20
    assert len(them._down) <= 20
    assert len(them._links._attempts) <= 20
