"""What is advised, and that the reasons hold."""

from typing import Any

import pytest
from msgspec.structs import replace

from p2ptrain.cli.advice import BUSY_ENOUGH, STEPS_MAX, Advice, Facts, Fit, advise
from p2ptrain.core.costs import Situation
from p2ptrain.core.manifest import Manifest
from p2ptrain.strategies import load, names, settings

HOME = Situation(weights_bytes=1.1e6, peers=4, up=2.5e6, down=12.5e6, step_s=0.05)
DEEP = (1.0, 2.0, 3.0, 3.0, 2.0, 1.0)


def advice(**changes: Any) -> dict[str, Advice]:
    """For a small net in four homes, but for what is said."""
    now = {name: changes.pop(name) for name in list(changes) if hasattr(HOME, name)}
    facts = Facts(now=replace(HOME, **now), layers=DEEP, activation_bytes=4e6)
    return {one.strategy: one for one in advise(replace(facts, **changes))}


def best(**changes: Any) -> str:
    return next(iter(advice(**changes)))


def test_every_strategy_is_looked_at_and_its_settings_are_its_own() -> None:
    for facts in ({}, {"uneven": True}, {"unsure": True}, {"weights_bytes": 1e9}):
        found = advice(**facts)
        assert sorted(found) == names()
        for name, one in found.items():
            settings(load(name), Manifest(name="t", task="t", strategy=name, strategy_config=one.settings))


def test_homes_are_told_to_gossip() -> None:
    assert best() == "gossip"
    assert best(weights_bytes=1e8) == "gossip"


def test_a_round_is_as_long_as_the_lines_want() -> None:
    fast, slow = advice(up=1.25e8, down=1.25e8)["allreduce"], advice()["allreduce"]
    assert fast.settings == {}
    assert slow.settings["round_steps"] > 16
    assert slow.busy >= BUSY_ENOUGH
    assert advice(weights_bytes=1e11)["allreduce"].settings == {"round_steps": STEPS_MAX}


def test_who_does_not_know_the_rate_searches() -> None:
    assert best(unsure=True) in ("restart", "polytope")
    assert advice()["restart"].fit is Fit.POSSIBLE


def test_uneven_data_change_the_settings() -> None:
    found = advice(uneven=True)
    assert found["gossip"].settings["exchanges"] == 2
    assert found["federated"].settings["algorithm"] == "scaffold"


def test_what_fits_nowhere_whole_is_cut() -> None:
    found = advice(fits=False)
    assert next(iter(found)) == "pipeline"
    assert "does not fit" in found["gossip"].why


def test_what_cannot_be_cut_is_not() -> None:
    found = advice(layers=(1.0,))
    assert {name for name, one in found.items() if "cannot be cut" in one.why} == {"layerwise", "pipeline"}
    assert found["pipeline"].fit is Fit.POOR


def test_short_sessions_cost_those_who_wait_for_all() -> None:
    stable, restless = advice(), advice(session_s=30.0)
    assert restless["allreduce"].speed < stable["allreduce"].speed
    assert "somebody leaves" in restless["allreduce"].why
    assert restless["gossip"].speed == stable["gossip"].speed


@pytest.mark.parametrize("peers", [2, 3, 16, 1000])
def test_nothing_is_faster_than_all_together(peers: int) -> None:
    for one in advice(peers=peers).values():
        assert 0 <= one.busy <= 1
        assert one.speed <= peers * 1.5 or one.strategy == "pipeline"
