"""Deadlines that adapt: ALGORITHMS 2.4, median + 3 MAD of the last 32."""

import pytest

from p2ptrain.core.arrivals import REMEMBERED, SLACK, Arrivals


def after(*times: float) -> Arrivals:
    arrivals = Arrivals(0.5, 60.0)
    for time in times:
        arrivals.add(time)
    return arrivals


def test_before_the_first_answer_the_longest_is_waited() -> None:
    assert after().deadline_s == 60.0
    assert after().usual_s is None


def test_it_follows_the_middle_and_the_spread() -> None:
    assert after(2, 2, 2).deadline_s == pytest.approx(2 * SLACK)
    assert after(1, 2, 3, 4, 5).deadline_s == pytest.approx(3 * SLACK + 3 * 1)


def test_one_very_late_answer_changes_little() -> None:
    assert after(2, 2, 2, 2, 50).deadline_s == pytest.approx(2 * SLACK)


def test_it_forgets() -> None:
    assert after(*[30.0] * 10, *[1.0] * REMEMBERED).deadline_s == pytest.approx(SLACK)


def test_it_stays_in_its_bounds() -> None:
    assert after(0.001).deadline_s == 0.5
    assert after(1000.0).deadline_s == 60.0
