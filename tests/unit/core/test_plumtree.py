"""Broadcast: payloads along a tree, names elsewhere, and what does not come is asked for."""

import pytest

from p2ptrain.core import limits, plumtree
from p2ptrain.core.effects import Effect, Send, SetTimer
from p2ptrain.core.messages import Graft, Have, Prune, Push
from p2ptrain.core.plumtree import (
    ANNOUNCERS_MAX,
    FLOOD_PEERS_MAX,
    GRAFT_AFTER_S,
    GRAFT_AGAIN_S,
    HAVE_AFTER_S,
    SEEN_S,
    TIMER,
    Fresh,
    Plumtree,
)
from tests.helpers import only, peer

LINKS = [peer(number) for number in range(1, 5)]
NEW = Fresh(b"n" * 16, b"contact", peer(9))
OTHER = Fresh(b"o" * 16, b"another", peer(9))


def tree(members: int = FLOOD_PEERS_MAX + 1, eager: int = 4) -> Plumtree:
    """A node with four links; over so many of them everything goes."""
    made = Plumtree()
    made.use(LINKS, members)
    for link in LINKS[:eager]:
        made.on_graft(link, [])
    return made


def said(effects: list[Effect], kind: type) -> list[bytes]:
    return sorted(send.to for send in only(Send, effects) if isinstance(send.message, kind))


def timer(effects: list[Effect]) -> list[float]:
    return [round(each.after_s, 6) for each in only(SetTimer, effects) if each.key == TIMER]


def test_links_begin_lazy_and_what_comes_goes_on_but_not_back() -> None:
    made = tree(eager=0)
    assert said(made.pass_on([NEW], None, 0.0), Push) == []
    assert said(made.on_timer(HAVE_AFTER_S), Have) == LINKS
    assert said(tree().pass_on([NEW], LINKS[0], 0.0), Push) == LINKS[1:]


def test_who_has_no_place_in_the_tree_asks_at_once() -> None:
    made = tree(eager=0)
    assert timer(made.on_have(LINKS[2], [NEW.name], 0.0)) == [0.0]
    assert only(Send, made.on_timer(0.0)) == [Send(LINKS[2], Graft(NEW.name))]
    assert said(made.pass_on([OTHER], LINKS[0], 1.0), Push) == [LINKS[2]]


def test_a_link_that_brings_what_is_known_becomes_lazy_and_gets_names_only() -> None:
    made = tree()
    assert made.on_known(LINKS[1]) == [Send(LINKS[1], Prune())]
    assert made.on_known(LINKS[1]) == []
    effects = made.pass_on([NEW], LINKS[0], 0.0)
    assert said(effects, Push) == LINKS[2:]
    assert timer(effects) == [HAVE_AFTER_S]
    assert made.on_timer(HAVE_AFTER_S) == [Send(LINKS[1], Have(NEW.name))]
    assert made.on_timer(1.0) == []


def test_names_wait_for_each_other() -> None:
    made = tree()
    made.on_prune(LINKS[1])
    made.pass_on([NEW], None, 0.0)
    assert timer(made.pass_on([OTHER], None, 0.05)) == []
    assert made.on_timer(HAVE_AFTER_S) == [Send(LINKS[1], Have(NEW.name + OTHER.name))]


def test_among_few_everything_goes_over_every_link() -> None:
    made = tree(FLOOD_PEERS_MAX)
    assert made.on_known(LINKS[1]) == []
    made.on_prune(LINKS[2])
    assert said(made.pass_on([NEW], LINKS[0], 0.0), Push) == LINKS[1:]


def test_what_was_named_and_does_not_come_is_asked_of_one_after_the_other() -> None:
    made, now = tree(), GRAFT_AFTER_S
    assert timer(made.on_have(LINKS[0], [NEW.name], 0.0)) == [GRAFT_AFTER_S]
    made.on_have(LINKS[1], [NEW.name], 0.1)
    assert made.on_timer(now / 2) != []  # too early: only the timer again
    first = made.on_timer(now)
    assert only(Send, first) == [Send(LINKS[0], Graft(NEW.name))]
    assert timer(first) == [GRAFT_AGAIN_S]
    now += GRAFT_AGAIN_S
    assert only(Send, made.on_timer(now)) == [Send(LINKS[1], Graft(NEW.name))]
    assert made.on_timer(now + GRAFT_AGAIN_S) == []
    assert made._missing == {}


def test_what_came_in_time_is_not_asked_for() -> None:
    made = tree()
    made.on_have(LINKS[0], [NEW.name], 0.0)
    made.see(NEW.name, NEW.subject, 0.2)
    assert made.on_timer(GRAFT_AFTER_S) == []
    assert made.on_have(LINKS[1], [NEW.name], 1.0) == []


def test_whoever_asks_is_pushed_to_again_and_told_whose_contact_it_lacks() -> None:
    made = tree()
    made.on_prune(LINKS[1])
    made.see(NEW.name, NEW.subject, 0.0)
    assert made.on_graft(LINKS[1], [NEW.name, OTHER.name]) == [NEW.subject]
    assert LINKS[1] in said(made.pass_on([OTHER], None, 0.0), Push)


def test_who_is_no_neighbour_any_more_is_neither_told_nor_asked() -> None:
    made = tree()
    made.on_have(LINKS[0], [NEW.name], 0.0)
    made.on_prune(LINKS[1])
    made.pass_on([OTHER], None, 0.0)
    made.use(LINKS[2:], 100)
    assert only(Send, made.on_timer(GRAFT_AFTER_S)) == []
    assert said(made.pass_on([NEW], None, 1.0), Push) == LINKS[2:]
    made.use([peer(7), *LINKS], 100)
    assert said(made.pass_on([OTHER], None, 2.0), Push) == LINKS[2:]


def test_names_are_forgotten_in_time_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "IDS_MAX", 10)
    monkeypatch.setattr(limits, "MISSING_MAX", 5)
    made = tree()
    for number in range(100):
        made.see(number.to_bytes(16, "big"), peer(9), 0.0)
    assert len(made._seen) == 10
    made.see(NEW.name, NEW.subject, SEEN_S + 1)
    assert list(made._seen) == [NEW.name]
    for link in range(100):
        made.on_have(peer(link), [bytes([n]) * 16 for n in range(50)], 0.0)
    assert len(made._missing) == 5
    assert all(len(missing.announcers) <= ANNOUNCERS_MAX for missing in made._missing.values())


def test_a_timer_that_comes_a_hair_early_does_not_spin() -> None:
    made = tree()
    made.on_have(LINKS[0], [NEW.name], 0.0)
    assert said(made.on_timer(GRAFT_AFTER_S - plumtree.EARLY_S / 2), Graft) == [LINKS[0]]
