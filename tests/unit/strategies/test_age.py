"""Which weights count more, by the steps behind them."""

import pytest

from p2ptrain.strategies.gossip.age import AGE_MAX, RATIO_MAX, Age


def age(alike_from: float = 0.5) -> Age:
    return Age(200, alike_from)


@pytest.mark.parametrize(("own", "theirs"), [(0, 0), (0, 200), (150, 350), (1000, 2000), (2000, 1000)])
def test_peers_of_nearly_one_age_count_alike(own: int, theirs: int) -> None:
    assert age().ratio(own, theirs) == 1.0


@pytest.mark.parametrize(("own", "theirs", "ratio"), [(1000, 2500, 2.5), (1000, 250, 0.25)])
def test_others_count_by_their_steps_and_both_see_the_same(own: int, theirs: int, ratio: float) -> None:
    assert age().ratio(own, theirs) == pytest.approx(ratio)
    assert age().ratio(theirs, own) == pytest.approx(1 / ratio)


@pytest.mark.parametrize("theirs", [300, 10**6, AGE_MAX])
def test_nobody_counts_more_than_so_often(theirs: int) -> None:
    assert age().ratio(0, theirs) == RATIO_MAX
    assert age().ratio(theirs, 0) == 1 / RATIO_MAX


def test_it_can_be_turned_off() -> None:
    assert age(0.0).ratio(0, 10**6) == 1.0


def test_a_mixture_is_as_old_as_the_mean() -> None:
    young = age()
    young.mix(100, 900, 0.5)
    assert young.at(100) == 500
    assert young.at(150) == 550


def test_weights_that_are_taken_over_are_as_old_as_they_were() -> None:
    late = age()
    late.take_over(50, 1000)
    assert late.at(60) == 1010


def test_what_others_claim_makes_nobody_ancient() -> None:
    young = age()
    young.mix(0, AGE_MAX, 0.9)
    assert young.at(0) <= RATIO_MAX * 200
    young.take_over(AGE_MAX, AGE_MAX)
    assert young.at(AGE_MAX) <= AGE_MAX
