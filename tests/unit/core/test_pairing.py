"""Who meets whom. ALGORITHMS 2.6, invariant A3."""

from random import Random

import pytest

from p2ptrain.core.pairing import AHEAD_MAX, Circle, Draws, Turns, partner_of
from p2ptrain.core.types import PeerId
from tests.helpers import peer

COUNTS = [2, 3, 4, 5, 8, 13, 16, 64, 100]


def members(count: int) -> list[PeerId]:
    return [peer(number) for number in range(count)]


def everyone(_: PeerId) -> bool:
    return True


@pytest.mark.parametrize("count", COUNTS)
def test_everyone_is_the_partner_of_their_partner(count: int) -> None:
    them = members(count)
    for turn in range(50):
        partners = {me: partner_of(them, me, turn) for me in them}
        assert all(partner is None or partners[partner] == me for me, partner in partners.items())
        assert all(partner != me for me, partner in partners.items())
        assert sum(partner is None for partner in partners.values()) <= (1 if count % 2 else 2)


@pytest.mark.parametrize("count", [1, 2, 4, 8, 64])
def test_a_power_of_two_comes_to_the_exact_mean(count: int) -> None:
    them = members(count)
    values = {me: float(number) for number, me in enumerate(them)}
    for turn in range(5, 5 + count.bit_length() - 1):
        values = {me: (values[me] + values[partner_of(them, me, turn) or me]) / 2 for me in them}
    assert set(values.values()) == {(count - 1) / 2}


@pytest.mark.parametrize("count", [3, 5, 13, 100])
def test_any_other_number_comes_close_to_it(count: int) -> None:
    them = members(count)
    values = {me: float(number) for number, me in enumerate(them)}
    for turn in range(4 * count.bit_length()):
        values = {me: (values[me] + values[partner_of(them, me, turn) or me]) / 2 for me in them}
    assert max(values.values()) - min(values.values()) < 0.05 * count


def test_who_is_no_member_has_no_partner() -> None:
    assert partner_of([], peer(1), 0) is None
    assert partner_of([peer(1)], peer(1), 0) is None
    assert partner_of(members(4), peer(7), 0) is None


def test_a_partner_who_cannot_is_replaced_at_once() -> None:
    them, turns = members(4), Turns()
    turns.begin(0, 1)
    assert partner_of(them, them[0], 0) == them[1]
    assert turns.partner(them, them[0], lambda who: who == them[3], 0) == them[3]
    assert turns.partner(them, them[0], lambda who: False, 0) is None


def test_a_partner_who_is_busy_is_replaced_when_patience_is_over() -> None:
    them, turns = members(8), Turns()
    turns.begin(0, 1)
    for _ in range(3):
        assert turns.partner(them, them[0], everyone, 2) == them[1]
        turns.fail()
    assert turns.partner(them, them[0], everyone, 2) != them[1]
    turns.begin(0, 1)
    assert turns.partner(them, them[0], everyone, 2) == them[1]


def test_who_came_first_need_not_be_asked() -> None:
    them, turns = members(4), Turns()
    turns.begin(0, 2)
    turns.meet(them, them[0], them[2], 1)
    assert not turns.is_met
    turns.end()
    assert turns.is_met
    turns.end()
    assert (turns.now, turns.due, turns.is_met) == (2, 0, False)


def test_only_the_partner_of_a_turn_near_by_counts_as_met() -> None:
    them, turns = members(4), Turns()
    turns.begin(10, 1)
    turns.meet(them, them[0], them[3], 10)
    turns.meet(them, them[0], them[1], 8)
    turns.meet(them, them[0], them[1], 10 + AHEAD_MAX)
    for turn in range(10, 12 + AHEAD_MAX):
        turns.begin(turn, 1)
        assert not turns.is_met


def test_only_those_ahead_wait() -> None:
    turns = Turns()
    turns.begin(10, 3)
    assert [turns.reaches(turn) for turn in (9, 10, 11, 12, 13)] == [False, False, True, True, False]


@pytest.mark.parametrize("count", [2, 5, 12, 16])
def test_in_a_circle_everybody_addresses_one_and_is_addressed_by_one(count: int) -> None:
    them = members(count)
    for turn in range(20):
        addressed = []
        for me in them:
            circle = Circle()
            circle.begin(turn, 1)
            assert not circle.is_free(them, me)
            addressed.append(circle.partner(them, me, everyone, 3))
        assert sorted(who for who in addressed if who) == them


def test_chance_leaves_nobody_out_and_expects_nobody() -> None:
    them, draws = members(8), Draws(Random(1))
    draws.begin(0, 1)
    assert {draws.partner(them, them[0], everyone, 3) for _ in range(100)} == {*them[1:]}
    assert not draws.reaches(0)
    assert not draws.is_free(them, them[0])


def test_who_was_asked_has_met_somebody() -> None:
    """Or by chance everybody would meet twice a round: once by its own question, once by another's."""
    draws = Draws(Random(1))
    draws.meet([], peer(0), peer(1), 0)
    draws.begin(3, 2)
    assert draws.due == 1
    draws.meet([], peer(0), peer(2), 3)
    assert draws.due == 0
    draws.begin(5, 2)
    assert draws.due == 2
