"""Averaging, word by word: one node on the table, with other settings than the defaults."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2ptrain.core.effects import Combine, Effect, Evaluate, Fetch, Publish, Send
from p2ptrain.core.inputs import Evaluated, Fetched, PeerDown, Published, TimerFired, Trained
from p2ptrain.core.lifecycle import State
from p2ptrain.core.types import OWN
from p2ptrain.strategies.gossip import MESSAGES, Answer, Busy, Give, Swap, Took
from tests.helpers import READY, Author, Table, blob, only, peer

ANNA, BERT = 2, 3
STEPS = 2000
KNOWN = replace(READY, numbers=8)


def measured(tag: str, *losses: float) -> Evaluated:
    count = len(losses)
    return Evaluated(tag, losses, (0.0,) * count, (0.5,) * count, (0.0, 0.5)[:count], 128)


def table(others: tuple[int, ...] = (ANNA,), **config: Any) -> Table:
    """Let a node measure its start and take a round's steps."""
    node = Table(strategy="gossip", others=others, steps=STEPS, config=config)
    node.feed(KNOWN, measured("own", 0.6), Published("keep", blob(9), 64))
    return node


def said(effects: list[Effect], kind: type) -> list[Any]:
    return [send.message for send in only(Send, effects) if isinstance(send.message, kind)]


def share_of(combine: Combine) -> float:
    """Return the coefficient of Anna's weights."""
    (share,) = [part for part, ref in combine.terms if ref == blob(2)]
    return share


class Anna(Author):
    def __init__(self, number: int = ANNA) -> None:
        super().__init__(number, private=MESSAGES)


# -- ages ------------------------------------------------------------------------------------------


def swapped(own_step: int, their_age: int, mixed: float) -> tuple[list[Effect], list[Effect]]:
    """Meet Anna after so many steps; return what is measured, and what follows from it."""
    node, anna = table(), Anna()
    asked = node.feed(Trained(own_step, 1, 0.5, 1.0), Published("swap:1", blob(1), 64))
    (swap,) = said(asked, Swap)
    assert swap.age == own_step
    node.feed(anna.sends(Answer(1, blob(2), 64, their_age)))
    measuring = node.feed(Fetched(blob(2), anna.peer))
    return measuring, node.feed(measured("mix:1", 0.6, mixed))


@pytest.mark.parametrize(("age", "share"), [(500, 0.5), (450, 0.5), (100, 1 / 6), (0, 0.1), (1500, 0.75)])
def test_who_has_far_fewer_steps_counts_by_them(age: int, share: float) -> None:
    measuring, then = swapped(500, age, 0.5)
    (mix,) = only(Combine, measuring)
    assert share_of(mix) == pytest.approx(share)
    (move,) = only(Combine, then)
    assert move.out == OWN
    assert {ref: part for part, ref in move.terms} == pytest.approx(
        {OWN: 1.0, blob(2): share, blob(1): -share}
    )


def test_a_claim_to_be_old_pulls_further_only_where_that_helps() -> None:
    _, then = swapped(500, 10**9, 0.61)
    assert only(Combine, then) == []


# -- pieces ----------------------------------------------------------------------------------------


def test_who_gives_way_in_another_turn_shows_the_piece_of_that_turn() -> None:
    node, anna = table(fragments=8), Anna()
    asked = node.feed(Trained(50, 1, 0.5, 1.0), Published("swap:1", blob(1), 8))
    (first,) = only(Publish, asked)
    (again,) = only(Publish, node.feed(anna.sends(Swap(7, blob(2), 8, 0))))
    assert again.tag == "swap:2"
    assert first.ranges != again.ranges
    (answer,) = said(node.feed(Published("swap:2", blob(3), 8)), Answer)
    assert (answer.number, answer.blob) == (7, blob(3))


def test_a_piece_alone_is_never_taken_for_weights() -> None:
    """Whose whole weights cannot be mixed in, they are looked at as they are."""
    kinds = []
    for fragments in (1, 4):
        node, anna = table(fragments=fragments), Anna()
        node.feed(Trained(50, 1, 0.5, 1.0), Published("swap:1", blob(1), 64))
        node.feed(anna.sends(Answer(1, blob(2), 64, 50)), Fetched(blob(2), anna.peer))
        kinds.append([one.tag for one in only(Evaluate, node.feed(measured("mix:1", 0.6, 9.0)))])
    assert kinds == [["join"], []]


# -- push-sum --------------------------------------------------------------------------------------


def given(node: Table, give: Give, mixed: float = 0.5) -> list[Effect]:
    """Let Anna give, and the mixture be measured."""
    anna = Anna()
    assert only(Fetch, node.feed(anna.sends(give)))
    node.feed(Fetched(give.blob, anna.peer))
    return node.feed(measured("taking-mix:1", 0.6, mixed))


def test_a_gift_is_mixed_in_by_its_mass_and_acknowledged() -> None:
    then = given(table(mode="push_sum"), Give(4, blob(2), 64, 0.5))
    (move,) = only(Combine, then)
    assert share_of(move) == pytest.approx(1 / 3)
    assert said(then, Took) == [Took(4, pytest.approx(0.5))]


def test_a_gift_that_comes_again_is_not_taken_again() -> None:
    """Its acknowledgement was lost."""
    node = table(mode="push_sum")
    (took,) = said(given(node, Give(4, blob(2), 64, 0.5)), Took)
    again = node.feed(Anna().sends(Give(4, blob(2), 64, 0.5)))
    assert said(again, Took) == [took]
    assert only(Fetch, again) == []
    assert only(Fetch, node.feed(Anna().sends(Give(4, blob(3), 64, 0.5)))), "Anna began anew"


def test_a_gift_that_makes_things_worse_goes_back() -> None:
    then = given(table(mode="push_sum"), Give(4, blob(2), 64, 0.5), mixed=9.0)
    assert only(Combine, then) == []
    assert said(then, Took) == [Took(4, 0.0)]


def test_who_gives_offers_half_again_and_again_until_it_hears() -> None:
    node = table(mode="push_sum")
    asked = node.feed(Trained(50, 1, 0.5, 1.0), Published("swap:1", blob(1), 64))
    (give,) = said(asked, Give)
    assert (give.mass, give.blob, give.age) == (0.5, blob(1), 50)
    assert only(Fetch, asked) == []
    assert said(node.feed(TimerFired("strategy:exchange"), at=1.0), Give) == [give]
    node.feed(Anna().sends(Took(1, 0.5)))
    assert said(node.feed(TimerFired("strategy:exchange"), at=2.0), Give) == []
    next_round = node.feed(Trained(100, 1, 0.5, 1.0), Published("swap:2", blob(4), 64))
    assert [one.mass for one in said(next_round, Give)] == [0.25]


def test_what_nobody_took_is_given_to_the_next() -> None:
    node = table(mode="push_sum")
    node.feed(Trained(50, 1, 0.5, 1.0), Published("swap:1", blob(1), 64), Anna().sends(Busy(1)))
    next_round = node.feed(Trained(100, 1, 0.5, 1.0), Published("swap:2", blob(4), 64))
    assert [one.mass for one in said(next_round, Give)] == [0.5]


def done() -> Table:
    node = Table(strategy="gossip", others=[ANNA], steps=50, config={"mode": "push_sum"})
    node.feed(KNOWN, PeerDown(peer(ANNA), "gone"))
    node.feed(Trained(50, 1, 0.5, 1.0), measured("own", 0.5), Published("keep", blob(1), 64))
    node.feed(TimerFired("strategy:turn"), measured("own", 0.5), Published("keep", blob(1), 64))
    assert node.node.state is State.FINISHED
    return node


def test_who_is_done_takes_nothing_and_gives_its_result() -> None:
    said_then = only(Send, done().feed(Anna().sends(Give(4, blob(2), 64, 0.5))))
    assert [send.message for send in said_then] == [
        Took(4, 0.0),
        Give(4, blob(1), 64, 0.5, age=50, final=True),
    ]


def test_two_that_are_done_do_not_give_to_each_other_for_ever() -> None:
    then = done().feed(Anna().sends(Give(4, blob(2), 64, 0.5, final=True)))
    assert [send.message for send in only(Send, then)] == [Took(4, 0.0)]


@pytest.mark.parametrize("mode", ["swap", "push_sum"])
def test_words_of_the_other_mode_mean_nothing(mode: str) -> None:
    node, anna = table(mode=mode), Anna()
    node.feed(Trained(50, 1, 0.5, 1.0), Published("swap:1", blob(1), 64))
    words = [Give(1, blob(2), 64, 0.5), Took(1, 0.5)] if mode == "swap" else [Swap(1, blob(2), 64)]
    words += [] if mode == "swap" else [Answer(1, blob(2), 64)]
    assert [node.feed(anna.sends(word)) for word in words] == [[]] * len(words)


def test_nothing_is_given_to_whom_nothing_is_taken_from() -> None:
    """Liars take, and what they give is refused: they would have all of the mass in the end."""
    node = table(others=(ANNA, BERT), mode="push_sum")
    given(node, Give(4, blob(2), 64, 0.5), mixed=9.0)
    receivers = []
    for turn in range(4):
        asked = node.feed(
            Trained(50 * (turn + 1), 1, 0.5, 1.0), Published(f"swap:{turn + 1}", blob(10 + turn), 64)
        )
        receivers += [send.to for send in only(Send, asked) if isinstance(send.message, Give)]
        node.feed(Anna(BERT).sends(Busy(turn + 1)))
    assert set(receivers) == {peer(BERT)}
