"""Attempts race each other, in virtual time: who starts when, who wins, and that nothing goes on after it."""

import asyncio

import pytest

from p2ptrain.net.reach.race import race
from tests.net.virtual import run

STAGGER_S = 0.3


class Course:
    """Attempts, each with the time that it takes and an error or none; and what became of them."""

    def __init__(self, *attempts: tuple[float, BaseException | None]) -> None:
        self.started: list[float] = []
        self.cancelled: list[int] = []
        self.errors: list[OSError] = []
        self.discarded: list[int] = []
        self._attempts = attempts

    async def _attempt(self, number: int, takes_s: float, outcome: BaseException | None) -> int:
        self.started.append(round(asyncio.get_running_loop().time(), 6))
        try:
            await asyncio.sleep(takes_s)
        except asyncio.CancelledError:
            self.cancelled.append(number)
            raise
        if outcome:
            raise outcome
        return number

    async def run(self) -> int | None:
        starts = [
            lambda number=number, one=one: self._attempt(number, *one)
            for number, one in enumerate(self._attempts)
        ]
        return await race(starts, STAGGER_S, self.errors.append, self.discarded.append)


def refused() -> OSError:
    return ConnectionRefusedError(111, "refused")


def test_each_starts_later_than_the_one_before_and_the_first_to_finish_wins():
    course = Course((9.0, None), (0.5, None), (9.0, None), (9.0, None))
    assert run(course.run()) == 1
    assert course.started == [0.0, 0.3, 0.6]
    assert course.cancelled == [0, 2]


def test_a_failure_starts_the_next_at_once():
    course = Course((0.1, refused()), (0.05, refused()), (9.0, None), (0.1, None))
    assert run(course.run()) == 3
    assert course.started == [0.0, 0.1, 0.15, 0.45]
    assert len(course.errors) == 2


def test_who_is_fast_enough_races_alone():
    course = Course((0.29, None), (0.0, None))
    assert run(course.run()) == 0
    assert course.started == [0.0]


def test_all_fail():
    course = Course((0.4, refused()), (0.4, TimeoutError()))
    assert run(course.run()) is None
    assert [type(error) for error in course.errors] == [ConnectionRefusedError, TimeoutError]


def test_none_at_all():
    assert run(Course().run()) is None


def test_the_earlier_wins_a_tie_and_the_other_is_discarded():
    course = Course((0.6, None), (0.3, None))
    assert run(course.run()) == 0
    assert course.discarded + course.cancelled == [1]


def test_what_is_no_failure_of_the_network_ends_the_race():
    course = Course((9.0, None), (0.1, ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run(course.run())
    assert course.cancelled == [0]


def test_a_race_that_is_cancelled_leaves_nothing_behind():
    course = Course((9.0, None), (9.0, None))

    async def cut_short() -> int:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await course.run()
        return len(asyncio.all_tasks())

    assert run(cut_short()) == 1
    assert course.cancelled == [0, 1]


def test_a_loser_that_succeeds_while_it_is_cancelled_is_discarded():
    discarded: list[str] = []

    async def stubborn() -> str:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            return "late"
        return "on time"

    async def quick() -> str:
        return "quick"

    async def both() -> str | None:
        return await race([stubborn, quick], STAGGER_S, lambda _: None, discarded.append)

    assert run(both()) == "quick"
    assert discarded == ["late"]
