"""A silence is longer than what is usual."""

from p2ptrain.core.rhythm import Rhythm


def test_silence_is_so_many_times_the_usual_interval() -> None:
    rhythm = Rhythm()
    rhythm.heard = 100.0
    for now in (102.0, 104.0, 106.0):
        rhythm.hear(now)
    assert not rhythm.is_silent(112.0, 3.0, least_s=0.0)
    assert rhythm.is_silent(112.1, 3.0, least_s=0.0)
    assert not rhythm.is_silent(112.1, 3.0, least_s=5.0)


def test_what_is_usual_changes_slowly() -> None:
    rhythm = Rhythm()
    rhythm.hear(1.0)
    rhythm.hear(11.0)  # usual: .7 of 1 s and .3 of 10 s
    assert not rhythm.is_silent(14.7, 1.0, least_s=0.0)
    assert rhythm.is_silent(14.71, 1.0, least_s=0.0)


def test_before_anything_came_the_least_counts() -> None:
    rhythm = Rhythm()
    assert rhythm.is_silent(6.1, 3.0, least_s=2.0)
    assert not rhythm.is_silent(6.0, 3.0, least_s=2.0)
