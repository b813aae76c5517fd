"""Who trains what, and how long anybody is waited for. ALGORITHMS 2.3, 4.3."""

import pytest

from p2ptrain.core.inputs import Layer
from p2ptrain.strategies.layerwise.roster import SPACE_S, STEPS_MAX, STEPS_MIN, Roster
from tests.helpers import peer

LAYERS = tuple(Layer(((at, at + 1),), 1.0) for at in range(6))
FOUR = [peer(number) for number in range(4)]


def roster(group: int = 2, turns: int = 1, steps: int = 16) -> Roster:
    return Roster(LAYERS, group=group, lead=0.0, turns=turns, steps=steps, least_s=1.0, most_s=60.0)


def given(one: Roster, workers: list[bytes], number: int = 0) -> list[tuple[int, int]]:
    one.begin(0.0, number, workers)  # type: ignore[arg-type]
    return [one.give(who, 0.0, 999)[0] for who in workers]  # type: ignore[arg-type]


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("group", [1, 2, 4, 9])
def test_blocks_are_the_same_for_all_and_each_has_somebody(count: int, group: int) -> None:
    workers = [peer(number) for number in range(count)]
    blocks = given(roster(group), workers)
    cut = sorted(dict.fromkeys(blocks))
    assert [layer for first, last in cut for layer in range(first, last)] == list(range(6))
    counts = [blocks.count(block) for block in cut]
    assert max(counts) - min(counts) <= 1
    assert len(cut) == min(count, max(2, 6 // group))


def test_everybody_comes_to_every_block_in_turn() -> None:
    one = roster(group=2, turns=2)
    seen = [given(one, FOUR[:3], number)[0] for number in range(6)]
    assert seen == [(0, 2), (0, 2), (2, 4), (2, 4), (4, 6), (4, 6)]


def test_who_asks_again_gets_the_same() -> None:
    one = roster()
    one.begin(0.0, 0, FOUR)
    assert one.give(FOUR[0], 0.0, 99) == one.give(FOUR[0], 9.0, 99)


def test_nobody_gets_more_steps_than_are_left() -> None:
    one = roster()
    one.begin(0.0, 0, FOUR)
    assert one.give(FOUR[0], 0.0, 5)[1] == 5


def test_who_is_slow_takes_fewer_steps() -> None:
    one = roster()
    for who in FOUR[:3]:
        one.clock(who, 16, 1.6)
    one.clock(FOUR[3], 16, 16.0)
    one.begin(0.0, 0, FOUR)
    assert [one.give(who, 0.0, 99)[1] for who in FOUR] == [16, 16, 16, 1]


def test_a_round_is_as_long_as_what_comes_in_between() -> None:
    """0.05 s a step; 2 s for weights and messages."""
    one = roster(steps=0)
    assert one.steps == STEPS_MIN
    one.begin(0.0, 0, FOUR[:2])
    for who in FOUR[:2]:
        one.give(who, 0.0, 99)
        one.take(who, 2.8, 16, 0.8)
    assert one.steps == 40
    one.begin(3.0, 1, FOUR[:2])
    for who in FOUR[:2]:
        one.give(who, 3.0, 99)
        one.take(who, 60.0, 16, 0.8)
    assert one.steps == STEPS_MAX


def test_a_round_of_many_is_so_long_that_one_can_talk_to_all() -> None:
    one = roster(steps=0)
    many = [peer(number) for number in range(12)]
    one.begin(0.0, 0, many)
    for who in many:
        one.give(who, 0.0, 99)
        one.take(who, 1.6, 16, 1.6)
    assert one.steps == pytest.approx(12 * SPACE_S / 0.1, abs=1)


def test_the_deadline_follows_what_is_usual() -> None:
    one = roster()
    one.begin(0.0, 0, FOUR)
    assert one.deadline_s == 60.0
    for who in FOUR:
        one.give(who, 0.0, 99)
    one.take(FOUR[0], 4.0, 16, 3.0)
    assert one.deadline_s == 9.0, "twice as long to begin with, and what comes in between"
    assert one.wait_s(5.0) == 4.0
    for who in FOUR[1:]:
        one.take(who, 4.0, 16, 3.0)
    assert one.deadline_s == 6.0, "a little more, where all take the same time"


def test_a_longer_round_is_waited_for_longer() -> None:
    """Else a slow half would be called late when rounds grow, and never be counted on again."""
    one = roster(steps=0)
    one.begin(0.0, 0, FOUR)
    for who in FOUR:
        one.give(who, 0.0, 99)
        one.take(who, 4.0, 16, 2.0)
    one.begin(0.0, 1, FOUR)
    assert one.give(FOUR[0], 0.0, 99)[1] == 16
    short_s = one.deadline_s
    for who in FOUR:
        one.clock(who, 16, 1.0)
    one.begin(0.0, 2, FOUR)
    assert one.give(FOUR[0], 0.0, 99)[1] == 32
    assert one.deadline_s > 1.7 * short_s


def test_who_was_late_is_not_counted_on_until_it_is_back_in_time() -> None:
    one = roster(group=1)
    given(one, FOUR)
    for who in FOUR[:3]:
        one.take(who, 1.0, 16, 1.0)
    assert one.out == FOUR[3:]
    blocks = given(one, FOUR, 1)
    assert len(dict.fromkeys(blocks)) == 3
    assert one.was_late(FOUR[3])
    one.take(FOUR[3], 1.0, 16, 1.0)
    assert not one.was_late(FOUR[3])
    given(one, FOUR, 2)
    given(one, FOUR, 3)
    assert one.was_late(FOUR[3])
    one.forgive(FOUR[3])
    assert not one.was_late(FOUR[3])
