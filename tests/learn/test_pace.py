"""The device works the share of the time that its owner allows."""

import pytest

from p2ptrain.learn.training.pace import SLICE_S, TICK_S, Pace


def live(pace: Pace, step_s: float, seconds: float) -> tuple[float, float]:
    """Work and rest as the worker does, by a clock of numbers; return time worked and longest stretch."""
    now = worked = longest = stretch = 0.0
    while now < seconds:
        if pace.owed:
            now, longest, stretch = now + pace.owed, max(longest, stretch), 0.0
            pace.rested(pace.owed)
        steps = max(1, round(pace.slice_s / step_s))
        now, worked, stretch = now + steps * step_s, worked + steps * step_s, stretch + steps * step_s
        pace.worked(steps * step_s)
    return worked / now, max(longest, stretch)


@pytest.mark.parametrize("duty", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("step_s", [0.0005, 0.02, 0.7])
def test_the_share_is_kept_however_long_steps_are(duty: float, step_s: float) -> None:
    share, longest = live(Pace(duty), step_s, 1000.0)
    assert share == pytest.approx(duty, rel=0.05)
    assert longest <= max(TICK_S + SLICE_S, 2 * step_s)


def test_who_may_work_all_the_time_never_rests() -> None:
    pace = Pace(1.0)
    assert live(pace, 0.01, 10.0)[0] == 1.0
    assert (pace.owed, pace.slice_s, pace.rests) == (0.0, SLICE_S, False)


def test_another_share_holds_at_once() -> None:
    pace = Pace(0.01)
    pace.worked(5.0)
    assert pace.owed > 100
    pace.rested(1.0)
    pace.change(0.5)
    assert pace.owed == 0.0
    assert live(pace, 0.01, 20.0)[0] == pytest.approx(0.5, rel=0.05)


def test_a_rest_that_was_interrupted_goes_on() -> None:
    pace = Pace(0.5)
    pace.worked(1.0)
    pace.rested(0.4)
    assert pace.owed == pytest.approx(0.6)
