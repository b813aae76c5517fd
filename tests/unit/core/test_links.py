"""Which connections are wanted: all in a small swarm, a few by chance in a large one, none unused."""

from random import Random

import msgspec
import pytest

from p2ptrain.core import limits, links, lots
from p2ptrain.core.conduct import Conduct
from p2ptrain.core.directory import Directory
from p2ptrain.core.effects import Dial, Effect, Hangup, Send
from p2ptrain.core.links import (
    DIALLED,
    IDLE_S,
    LINKS_MAX,
    MESH_AGAIN,
    ROTATE_S,
    SPARE_MAX,
    Links,
    networks_of,
)
from p2ptrain.core.messages import Contact, Link
from p2ptrain.core.types import PeerId
from tests.helpers import Author, only, peer

ME = peer(1)
YES, NO = Link(True), Link(False)


def directory(count: int, network: str = "10.0") -> Directory:
    made = Directory()
    for n in range(1, count + 1):
        made.learn(Author(n).contact(f"{network}.{n >> 8}.{n & 255}:7070"), 0.0)
    return made


def large(count: int = 20, seed: int = 1, network: str = "10.0") -> Links:
    return Links(ME, Random(seed), Conduct(), directory(count, network))


def dialled(effects: list[Effect]) -> list[PeerId]:
    return [dial.peer for dial in only(Dial, effects)]


def answer(effects: list[Effect], to: PeerId) -> list[Link]:
    return [send.message for send in only(Send, effects) if send.to == to and isinstance(send.message, Link)]


def linked(count: int = 20, seed: int = 1) -> Links:
    """Have all the links of one's own."""
    them = large(count, seed)
    for other in dialled(them.look(0.0)):
        them.on_up(other, 0.0)
        them.on_link(other, True, 0.0)
    assert len(them.neighbours) == DIALLED
    return them


def ask(them: Links, other: PeerId, now: float = 0.0) -> list[Link]:
    them.on_up(other, now)
    return answer(them.on_link(other, True, now), other)


def test_up_to_nine_everybody_is_dialled_and_a_connection_is_a_link() -> None:
    them = large(limits.MESH_PEERS_MAX)
    assert len(dialled(them.look(0.0))) == 8
    for n in range(2, 10):
        assert only(Send, them.on_up(peer(n), 0.0)) == []
    assert them.is_mesh
    assert len(them.neighbours) == 8


def test_in_a_larger_swarm_four_are_dialled_and_become_links_when_they_agree() -> None:
    them = large()
    chosen = dialled(them.look(0.0))
    assert len(chosen) == DIALLED
    assert ME not in chosen
    assert answer(them.on_up(chosen[0], 0.0), chosen[0]) == [YES]
    assert them.neighbours == ()
    them.on_link(chosen[0], True, 0.1)
    assert them.neighbours == (chosen[0],)


def test_who_refuses_is_replaced_at_once_and_let_go() -> None:
    them = large()
    first = dialled(them.look(0.0))[0]
    them.on_up(first, 0.0)
    assert len(dialled(them.on_link(first, False, 0.0))) == 1
    assert [each.peer for each in only(Hangup, them.look(links.LINGER_S))] == [first]


def test_a_link_that_dies_is_replaced_at_once_but_an_unused_connection_is_not_missed() -> None:
    them = linked()
    unexpected, effects = them.on_down(them.neighbours[0], 1.0)
    assert unexpected
    assert len(dialled(effects)) == 1
    taken = {**them.connected, **them._asked}
    spare = next(peer(n) for n in range(2, 21) if peer(n) not in taken)
    them.on_up(spare, 1.0)
    assert them.on_down(spare, 2.0)[0] is False


def test_four_more_are_accepted_and_then_only_nearer_ones() -> None:
    them = linked()
    others = [peer(n) for n in range(2, 21) if peer(n) not in them.neighbours]
    answers = [ask(them, other) for other in others]
    assert answers[: LINKS_MAX - DIALLED] == [[YES]] * (LINKS_MAX - DIALLED)
    assert len(them.neighbours) == LINKS_MAX
    nearest = sorted(others, key=them._distance)[: LINKS_MAX - DIALLED]
    assert sorted(them._accepted) == sorted(nearest)


def test_far_ones_are_refused_in_a_large_swarm() -> None:
    """Nobody can become everybody's neighbour by asking."""
    them = large(1000)
    them.look(0.0)
    own = them._directory.get(ME)
    assert own is not None
    answers = [ask(them, peer(n)) for n in range(2, 1001)]
    near = [r for r in them._directory if r.contact.sender != ME and them._may_ask(r.contact, own.place)]
    assert 2 <= len(near) <= 30
    assert sum(each == [YES] for each in answers) <= len(near)


def test_whom_one_may_ask_are_those_who_would_not_refuse() -> None:
    made = directory(1000)
    for number in range(1, 50):
        asker = made.get(peer(number))
        assert asker is not None
        found = set(lots.nearest(asker.contact, made))
        near = {r.contact.sender for r in made if lots.distance(asker.contact, r.place, 1000) <= lots.REACH}
        assert found == near, number


def test_a_stranger_gets_no_link() -> None:
    assert ask(linked(), peer(999)) == [NO]


def test_no_more_than_two_links_lead_into_one_public_network() -> None:
    crowd = large(20, network="198.41")
    for n in range(2, 21):
        contact = Author(n, boot=2).contact(f"198.41.0.{n}:7070")
        crowd._directory.learn(contact, 0.0)
    assert len(dialled(crowd.look(0.0))) == links.NETWORK_LINKS_MAX
    assert len(dialled(large(20, network="192.168").look(0.0))) == DIALLED


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("198.41.0.7:1", ["198.41.0.0/24"]),
        ("[2606:4700:1:2::3]:1", ["2606:4700:1::/48"]),
        ("192.168.1.2:1", []),
        ("via:abc", []),
        ("\x00", []),
        ("[::1%lo]:1", []),
    ],
)
def test_networks_are_read_from_whatever_members_say(text: str, network: list[str]) -> None:
    assert networks_of((text,)) == network


def test_one_link_of_four_is_replaced_every_ten_minutes() -> None:
    them = linked()
    them.look(0.0)
    before = them.neighbours
    effects = them.look(1.3 * ROTATE_S)
    (ended,) = [send.to for send in only(Send, effects) if send.message == NO]
    assert ended in before
    assert len(dialled(effects)) == 1
    assert dialled(effects) != [ended]


def test_connections_that_nothing_uses_end_and_used_ones_do_not() -> None:
    them = linked()
    one, other = [peer(n) for n in range(2, 21) if peer(n) not in them.neighbours][:2]
    them.on_up(one, 0.0)
    them.on_up(other, 0.0)
    them.on_used(other, IDLE_S / 2)
    assert [each.peer for each in only(Hangup, them.look(IDLE_S))] == [one]


def test_of_too_many_unused_connections_the_oldest_end() -> None:
    them = linked(60)
    others = [peer(n) for n in range(2, 61) if peer(n) not in them.neighbours]
    ended = [each.peer for n, other in enumerate(others) for each in only(Hangup, them.on_up(other, n / 100))]
    assert ended[:5] == others[:5]
    assert len(ended) == len(others) - SPARE_MAX


def test_nothing_changes_to_and_fro_between_small_and_large() -> None:
    them = large(limits.MESH_PEERS_MAX + 1)
    them.look(0.0)
    assert not them.is_mesh
    old = them._directory
    for gone in range(limits.MESH_PEERS_MAX + 1, MESH_AGAIN, -1):
        assert not them.is_mesh
        them._directory = directory(gone - 1)
        them.look(1.0)
    assert them.is_mesh
    them._directory = old


def test_a_wish_without_an_answer_ends() -> None:
    them = large()
    chosen = dialled(them.look(0.0))
    for other in chosen:
        them.on_up(other, 0.0)
    again = dialled(them.look(links.ANSWER_S))
    assert len(again) == DIALLED
    assert not {*again} & {*chosen}


def test_who_has_no_link_dials_anybody_to_hear_what_is_new() -> None:
    them = large(200)
    them.look(0.0)
    assert len(dialled(them.stray(0.0))) == 1
    assert linked().stray(0.0) == []


def test_where_a_member_is_found_follows_from_what_its_issuer_signed() -> None:
    made = directory(2)
    contact = made.get(ME).contact  # type: ignore[union-attr]
    again = Author(1, boot=2).contact("203.0.113.1:1")
    other = msgspec.structs.replace(again, message=Contact(b"another certificate"))
    places = []
    for each in (contact, again, other):
        fresh = Directory()
        places.append(fresh.learn(each, 0.0).place)  # type: ignore[union-attr]
    assert places[0] == places[1] != places[2]
