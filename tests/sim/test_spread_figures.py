"""How fast and how evenly news travel: the figures A1 and A2 of ALGORITHMS 6, in periods of the spread.

Measured means stand beside the bounds; where the present law does not reach a figure, the test says so.
"""

from statistics import fmean
from typing import Any

import pytest

from p2ptrain.core.spread import SpreadConfig
from p2ptrain.sim.faults import Faults
from tests.sim.spreading import PUSH_ONLY, Arrivals, Knowledge, swarm

PERIOD_S = SpreadConfig().period_s
ONCE = {"forward_fanout": 1, "forward_hops": 2}
"""Improvements passed on as in ALGORITHMS 1.3; the default passes them on further."""


def periods_until_all_know(peers: int, seeds: range, faults: Faults | None = None, **spread: Any) -> float:
    """Return the mean over seeds."""
    times = [Knowledge(swarm(peers, seed, faults, **spread)).time_for_all() for seed in seeds]
    return fmean(times) / PERIOD_S


def messages_per_period(peers: int, seed: int, periods: int, **spread: Any) -> float:
    """Return the mean over peers."""
    world = swarm(peers, seed, **spread)
    world.run(periods * PERIOD_S)
    return fmean(host.messages_sent for host in world.hosts.values()) / periods


# -- A1: no loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("peers", "most"), [(16, 3.0), (64, 4.5), (256, 6.0)])
def test_everyone_knows_the_best_after_a_few_periods(peers: int, most: float) -> None:
    """Measured 1.2, 1.5, 2.2."""
    assert periods_until_all_know(peers, range(20)) <= most


@pytest.mark.parametrize(("peers", "most"), [(16, 1.45), (64, 1.5), (256, 1.6)])
def test_a_storm_of_improvements_costs_few_messages(peers: int, most: float) -> None:
    """Ten periods from the start, when everything is news: measured 1.35, 1.40, 1.47; A1 asks for 1.35."""
    assert fmean(messages_per_period(peers, seed, 10) for seed in range(3)) <= most


def test_when_nothing_is_news_everyone_speaks_once_a_period() -> None:
    world = swarm(64, seed=1)
    world.run(10 * PERIOD_S)
    before = sum(host.messages_sent for host in world.hosts.values())
    world.run(40 * PERIOD_S)
    after = sum(host.messages_sent for host in world.hosts.values())
    assert (after - before) / 64 / 30 <= 1.05


@pytest.mark.parametrize(("peers", "most"), [(16, 4.5), (64, 7.0), (256, 9.5)])
def test_without_answers_and_passing_on_it_takes_the_logarithm(peers: int, most: float) -> None:
    """Measured 4.1, 6.4, 9.2."""
    assert periods_until_all_know(peers, range(20 if peers < 256 else 10), **PUSH_ONLY) <= most


@pytest.mark.parametrize("peers", [16, 64, 256])
def test_the_law_is_several_times_as_even_as_chance(peers: int) -> None:
    """Variation over peers of what 16 periods bring: measured .05 and .25.

    The longest silence is 3 periods against 6 to 11 by chance. A1 asks for 2.5: a word early in one
    period and one late in the next but one lie that far apart, as each is spoken with 10 % of jitter.
    """
    span = 2 * PERIOD_S, 18 * PERIOD_S
    even = [Arrivals(swarm(peers, seed, **PUSH_ONLY), *span) for seed in range(3)]
    chance = [Arrivals(swarm(peers, seed, **{**PUSH_ONLY, "law": "uniform"}), *span) for seed in range(3)]
    assert fmean(a.variation() for a in even) <= 0.065
    assert 0.2 <= fmean(a.variation() for a in chance) <= 0.3
    assert max(a.longest_silence() for a in even) <= 3.3 * PERIOD_S
    assert max(a.longest_silence() for a in chance) >= 5 * PERIOD_S


# -- A2: loss --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "peers", "most"), [(0.3, 16, 5.0), (0.3, 64, 8.0), (0.6, 16, 11.0), (0.6, 64, 16.0)]
)
def test_lost_messages_only_delay(loss: float, peers: int, most: float) -> None:
    """Measured 2.4, 3.6, 7.1, 9.7."""
    assert periods_until_all_know(peers, range(20), Faults(loss=loss)) <= most


def test_speaking_more_often_after_silence_helps_when_most_is_lost() -> None:
    """60 % loss, 16 peers, 40 seeds: measured 7.9 against 9.2 periods (A2 asks for 12 % less).

    With the default way of passing on it is 7.1 against 7.2: replies and news passed on already break
    the silence. It never costs.
    """
    storm, seeds = Faults(loss=0.6), range(40)
    adaptive = periods_until_all_know(16, seeds, storm, **ONCE)
    steady = periods_until_all_know(16, seeds, storm, **ONCE, adaptive=False)
    assert adaptive <= 0.92 * steady
    by_default = periods_until_all_know(16, seeds, storm)
    assert by_default <= 1.02 * periods_until_all_know(16, seeds, storm, adaptive=False)
    assert by_default <= adaptive
