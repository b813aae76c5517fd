"""Who is asked in a round, and when it may close. ALGORITHMS 2.5, F5."""

import math

import pytest

from p2ptrain.core.types import PeerId
from p2ptrain.strategies.federated.roll import GRACE, GRACE_S, MOST_S, Roll, drawn
from tests.helpers import peer

PEERS = [peer(number) for number in range(1, 11)]


def everybody(_: PeerId) -> bool:
    return True


def opened(quorum: float = 0.7) -> Roll:
    roll = Roll(quorum, misses_max=2)
    roll.open(1, 0.0, PEERS)
    return roll


@pytest.mark.parametrize("count", [1, 5, 10, 20])
def test_a_draw_is_the_same_for_all_and_another_in_each_round(count: int) -> None:
    steps = dict.fromkeys(PEERS, 0)
    rounds = [drawn(7, number, steps, count) for number in range(20)]
    assert rounds == [drawn(7, number, dict.fromkeys(reversed(PEERS), 0), count) for number in range(20)]
    assert all(len(dict.fromkeys(one)) == min(count, len(PEERS)) for one in rounds)
    assert count >= len(PEERS) or len({tuple(one) for one in rounds}) > 1


def test_everybody_gets_a_turn() -> None:
    steps = dict.fromkeys(PEERS, 0)
    for number in range(10):
        for one in drawn(7, number, steps, 4):
            steps[one] += 50
        assert max(steps.values()) - min(steps.values()) <= 50


@pytest.mark.parametrize(("quorum", "needed"), [(0.7, 7), (0.75, 8), (1.0, 10), (0.01, 1)])
def test_no_quorum_before_that_share_answered(quorum: float, needed: int) -> None:
    roll = opened(quorum)
    for answered, one in enumerate(PEERS):
        assert roll.is_quorum(everybody) == (answered >= needed)
        roll.answer(1.0 + answered, one, in_time=True)
        assert one not in roll.missing(everybody)
    assert roll.is_quorum(everybody)


def test_who_is_gone_is_not_missed() -> None:
    roll = opened()
    roll.answer(1.0, PEERS[0], in_time=True)
    assert roll.is_quorum(lambda one: one in PEERS[:1])
    assert roll.missing(lambda one: one in PEERS[:2]) == [PEERS[1]]


def test_who_is_silent_for_two_deadlines_is_not_awaited_until_it_speaks() -> None:
    roll = opened()
    for one in PEERS[:4]:
        roll.answer(1.0, one, in_time=True)
    assert roll.expire(5.0, everybody) == PEERS[4:]
    assert not roll.is_quorum(everybody)
    roll.expire(10.0, everybody)
    assert roll.missing(everybody) == []
    assert roll.is_quorum(everybody)
    assert roll.is_absent(PEERS[9])
    roll.answer(11.0, PEERS[9], in_time=False)
    assert not roll.is_absent(PEERS[9])


def test_the_deadline_follows_from_how_long_answers_take() -> None:
    roll = opened()
    assert roll.deadline_s == 0.0
    assert roll.until >= MOST_S
    for one in PEERS[:5]:
        roll.answer(8.0, one, in_time=True)
    assert roll.deadline_s == pytest.approx(10.0)
    assert roll.until == pytest.approx(GRACE * 10.0 + GRACE_S)
    roll.answer(math.inf, PEERS[5], in_time=False)
    assert roll.deadline_s == pytest.approx(10.0), "late answers say nothing of this round"


def test_who_takes_over_expects_what_others_found_right() -> None:
    roll = Roll(0.7, misses_max=2)
    roll.expect(0.0)
    assert roll.deadline_s == 0.0
    roll.expect(20.0)
    assert roll.deadline_s == pytest.approx(20.0)
    roll.expect(50.0)
    assert roll.deadline_s == pytest.approx(20.0), "what was seen here counts"
