"""Offers that could not be used are left alone. ALGORITHMS 2.1."""

from p2ptrain.core.tried import TRIED_MAX, Tried
from tests.helpers import blob


def test_what_did_not_come_is_tried_again_later_and_later() -> None:
    tried, now, waits = Tried(), 10.0, []
    for _ in range(6):
        assert tried.may_try(blob(1), now)
        waits.append(tried.on_lost(blob(1), now))
        assert not tried.may_try(blob(1), now + 0.99 * waits[-1])
        now += waits[-1]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert tried.may_try(blob(2), 0.0)


def test_a_lie_is_never_tried_again() -> None:
    tried = Tried()
    tried.on_lie(blob(1))
    assert not tried.may_try(blob(1), 1e12)


def test_only_so_many_are_remembered_and_the_oldest_is_forgotten() -> None:
    tried = Tried()
    for number in range(TRIED_MAX):
        tried.on_lie(blob(number))
    tried.on_lost(blob(0), 0.0)  # not the oldest any more
    tried.on_lie(blob(TRIED_MAX))
    assert len(tried) == TRIED_MAX
    assert tried.may_try(blob(1), 0.0)
    assert not tried.may_try(blob(0), 0.0)
