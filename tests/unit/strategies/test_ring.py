"""Who is put into rings with whom, and when."""

from random import Random
from typing import cast

import pytest

from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.effects import Send
from p2ptrain.core.shares import bounded
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import PeerId
from p2ptrain.strategies.allreduce.coordinator import CALL_EVERY_S, LATE_MAX, Coordinator
from p2ptrain.strategies.allreduce.words import COUNT_BITS, Call, Outcome, Ready, Ring, Shown
from tests.helpers import blob, peer

LEAST_S, WAIT_S = 2.0, 20.0
TERM = 3


class World:
    """What a coordinator looks at of a context."""

    def __init__(self) -> None:
        self.me = peer(0)
        self.now = 100.0
        self.rng = Random(1)
        self.liars: set[PeerId] = set()
        self.gone: set[PeerId] = set()

    def trusts(self, who: PeerId) -> bool:
        return who not in self.liars

    def is_partner(self, who: PeerId) -> bool:
        return who not in self.gone


class Desk:
    """A coordinator and members, by number."""

    def __init__(self, count: int, ring_max: int = 16) -> None:
        self.world = World()
        self.ctx = cast("Context", self.world)
        self.still = [peer(number) for number in range(count)]
        self.times = Arrivals(LEAST_S, WAIT_S)
        self.coordinator = Coordinator(ring_max, 0.5, LEAST_S, self.times)
        self.numbers = dict.fromkeys(range(count), 0)

    def ready(self, *members: int, turn: int = 0, **said: object) -> list[Send]:
        effects: list[Send] = []
        for member in members:
            self.numbers[member] += 1
            message = Ready(TERM, self.numbers[member], turn, **said)  # type: ignore[arg-type]
            effects += self.coordinator.take(self.ctx, peer(member), message, TERM)  # type: ignore[arg-type]
        return effects

    @property
    def due(self) -> bool:
        return self.coordinator.is_due(self.ctx, self.still)

    def form(self) -> list[list[int]]:
        self.rings: list[Ring] = self.coordinator.form(self.ctx, self.still, TERM)
        groups = [[self.still.index(member) for member in ring.group] for ring in self.rings]
        return sorted(sorted(group) for group in groups)


def test_a_ring_is_formed_when_all_are_ready() -> None:
    desk = Desk(3)
    desk.ready(0, 1)
    assert not desk.due
    desk.ready(2)
    assert desk.due
    assert desk.form() == [[0, 1, 2]]
    assert not desk.due


def test_or_when_the_usual_time_is_over_and_half_are() -> None:
    desk = Desk(4)
    desk.ready(0, 1)
    desk.world.now += WAIT_S - 0.1
    assert not desk.due
    desk.world.now += 0.1
    assert desk.due
    assert desk.form() == [[0, 1]]


def test_fewer_wait_longer_and_then_go_on_alone() -> None:
    desk = Desk(4)
    desk.ready(1)
    desk.world.now += 2 * WAIT_S - 0.1
    assert not desk.due
    desk.world.now += 0.1
    assert desk.form() == [[1]]


def test_the_deadline_adapts_to_what_rounds_take() -> None:
    desk = Desk(3)
    for _ in range(3):
        desk.ready(0, 1, 2, turn=desk.rings[0].turn if desk.numbers[0] else 0)
        desk.form()
        desk.world.now += 4.0
    desk.ready(0, 1, turn=desk.rings[0].turn)
    assert not desk.due
    desk.world.now += LEAST_S
    assert desk.due


def test_who_is_late_twice_is_not_waited_for_until_it_comes() -> None:
    desk = Desk(3)
    for _ in range(LATE_MAX):
        desk.ready(0, 1)
        desk.form()
    desk.ready(0, 1)
    assert desk.due
    desk.ready(2)
    assert desk.form() == [[0, 1, 2]]
    desk.ready(0, 1)
    assert not desk.due


def test_who_was_silent_is_not_waited_for_until_it_speaks() -> None:
    desk = Desk(4)
    desk.ready(0, 1, 2, 3)
    desk.form()
    turn = desk.rings[0].turn
    desk.ready(0, 1, 3, turn=turn, outcome=Outcome.FAILED, silent=peer(2))
    assert desk.due
    assert desk.form() == [[0, 1, 3]]


def test_a_blame_of_somebody_of_another_ring_means_nothing() -> None:
    desk = Desk(4, ring_max=2)
    desk.ready(0, 1, 2, 3)
    desk.form()
    (mine,) = [ring for ring in desk.rings if peer(0) in ring.group]
    (other, *_) = [member for member in desk.still if member not in mine.group]
    desk.ready(0, turn=mine.turn, outcome=Outcome.FAILED, silent=other)
    desk.ready(*(at for at, member in enumerate(desk.still) if at and member != other), turn=mine.turn)
    assert not desk.due


def test_who_is_not_trusted_or_gone_comes_into_no_ring() -> None:
    desk = Desk(4)
    desk.ready(0, 1, 2, 3)
    desk.world.liars.add(peer(1))
    desk.world.gone.add(peer(2))
    assert desk.form() == [[0, 3]]


def test_nobody_is_put_together_with_whom_it_avoids() -> None:
    desk = Desk(5)
    desk.ready(0, 1, 2, avoids=(peer(4),))
    desk.ready(3, 4)
    groups = desk.form()
    assert [4] in groups or [3, 4] in groups
    assert all(not {0, 1, 2} & set(group) for group in groups if 4 in group)
    assert any({0, 1, 2} <= set(group) for group in groups)


def test_who_avoids_all_is_alone() -> None:
    desk = Desk(4)
    desk.ready(0, avoids=tuple(desk.still))
    desk.ready(1, 2, 3)
    assert desk.form() == [[0], [1, 2, 3]]


@pytest.mark.parametrize(("count", "sizes"), [(9, [3, 3, 3]), (5, [2, 3]), (4, [4]), (1, [1])])
def test_too_many_for_one_ring_form_several_of_equal_size(count: int, sizes: list[int]) -> None:
    desk = Desk(count, ring_max=4)
    desk.ready(*range(count))
    assert sorted(map(len, desk.form())) == sizes


def test_rings_have_other_names_orders_and_turns_each_time() -> None:
    desk = Desk(6)
    rings = []
    for _ in range(3):
        desk.ready(*range(6))
        desk.form()
        rings += desk.rings
    assert len({ring.name for ring in rings}) == 3
    assert len({ring.group for ring in rings}) > 1
    assert [ring.turn for ring in rings] == [1, 2, 3]


def test_a_ring_that_failed_for_no_known_reason_is_formed_in_parts() -> None:
    desk = Desk(6)
    desk.ready(*range(6))
    desk.form()
    desk.ready(*range(6), turn=desk.rings[0].turn, outcome=Outcome.FAILED)
    groups = desk.form()
    assert sorted(map(len, groups)) == [3, 3]
    good, bad = groups
    turn = desk.rings[0].turn
    desk.ready(*good, turn=turn)
    desk.ready(*bad, turn=turn, outcome=Outcome.REFUSED)
    again = desk.form()
    assert good in again
    assert sorted(map(len, again)) == [1, 2, 3]


def test_a_few_that_complain_do_not_break_a_ring_up() -> None:
    desk = Desk(6)
    desk.ready(*range(6))
    desk.form()
    turn = desk.rings[0].turn
    desk.ready(0, 1, turn=turn, outcome=Outcome.REFUSED, shown=Shown(blob(1), 64))
    desk.ready(2, 3, 4, 5, turn=turn)
    assert desk.coordinator.evidence() == []
    assert desk.form() == [[0, 1, 2, 3, 4, 5]]


def test_what_was_given_to_a_bad_ring_is_named() -> None:
    desk = Desk(3)
    desk.ready(0, 1, 2)
    desk.form()
    turn = desk.rings[0].turn
    desk.ready(1, 2, turn=turn, outcome=Outcome.REFUSED, shown=Shown(blob(7), 64))
    desk.ready(0, turn=turn)
    assert [(who, offer.blob) for who, offer in desk.coordinator.evidence()] == [
        (peer(1), blob(7)),
        (peer(2), blob(7)),
    ]


def test_a_question_asked_again_is_heard_and_a_lost_ring_is_named_again() -> None:
    desk = Desk(2)
    said = Ready(TERM, 5, 0)
    take = desk.coordinator.take
    assert take(desk.ctx, peer(1), said, TERM) == []
    assert take(desk.ctx, peer(1), said, TERM) == [Send(peer(1), Call(TERM))]
    desk.ready(0)
    desk.form()
    assert take(desk.ctx, peer(1), said, TERM) == [Send(peer(1), desk.rings[0])]
    assert take(desk.ctx, peer(1), Ready(TERM, 4, 0), TERM) == []
    assert not desk.coordinator.is_asked
    assert take(desk.ctx, peer(1), Ready(TERM, 9 << COUNT_BITS, 0), TERM) == []
    assert desk.coordinator.is_asked


def test_who_is_missing_is_called_now_and_then() -> None:
    desk = Desk(3)
    desk.ready(0, 1)
    assert desk.coordinator.call(desk.ctx, desk.still, TERM) == []
    desk.world.now += LEAST_S
    assert desk.coordinator.call(desk.ctx, desk.still, TERM) == [Send(peer(2), Call(TERM))]
    desk.world.now += CALL_EVERY_S - 0.1
    assert desk.coordinator.call(desk.ctx, desk.still, TERM) == []
    desk.world.now += 0.1
    assert desk.coordinator.call(desk.ctx, desk.still, TERM) == [Send(peer(2), Call(TERM))]


def test_turns_that_are_lies_do_not_use_up_all_turns() -> None:
    desk = Desk(2)
    desk.ready(0, 1, turn=2**53)
    desk.form()
    assert desk.rings[0].turn == 1


@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([1.0, 1.0, 1e300], [1.0, 1.0, 4.0]),
        ([1e300, 1.0], [4.0, 1.0]),
        ([0.0, 0.0, 5.0], [0.0, 0.0, 5.0]),
        ([0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_nobody_counts_more_than_a_few_others(said: list[float], counts: list[float]) -> None:
    assert bounded(said) == counts
