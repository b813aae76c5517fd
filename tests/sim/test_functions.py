"""A4 in small: chains find minima that restarts miss."""

from tests.sim.functions import RASTRIGIN, ROSENBROCK, share_found


def test_chains_find_the_lowest_of_many_minima() -> None:
    """Measured on 20 seeds: .95 against .25 by restarts and .40 alone."""
    seeds = range(100, 108)
    assert share_found(RASTRIGIN, "polytope", seeds)[0] >= 0.75
    assert share_found(RASTRIGIN, "restart", seeds)[0] <= 0.5


def test_chains_follow_a_curved_valley() -> None:
    """Measured on 20 seeds: .95 against .30."""
    seeds = range(100, 106)
    assert share_found(ROSENBROCK, "polytope", seeds)[0] >= 0.6
    assert share_found(ROSENBROCK, "alone", seeds)[0] <= 0.5
