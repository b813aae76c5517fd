"""200 weathers drawn from their seeds, 16 peers each: everyone ends and is informed, no invariant breaks."""

import pytest

from p2ptrain.core.manifest import Manifest
from p2ptrain.sim.faults import draw
from p2ptrain.sim.scenario import Scenario, run
from p2ptrain.strategies import names

SEEDS = 200
CHUNK = 10


def check(seed: int) -> None:
    strategy = names()[seed % len(names())]
    faults = draw(seed)
    manifest = Manifest(name="t", task="toy", strategy=strategy, steps=300)
    summary = run(Scenario(manifest=manifest, faults=faults, peers=16, for_s=0, seed=seed, alone=False))
    assert summary.finished_share == 1.0, f"seed {seed}, {strategy}: {summary}"
    if not faults.liars:
        assert summary.informed_share == 1.0, f"seed {seed}, {strategy}: {summary}"


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_living_peer_ends_and_knows_the_best(first: int) -> None:
    for seed in range(first, first + CHUNK):
        check(seed)


def test_who_was_away_when_all_others_ended_ends_too() -> None:
    """Seed 1723: of five peers one was there, and had finished."""
    faults = draw(1723)
    manifest = Manifest(name="t", task="toy", strategy="restart", steps=300)
    summary = run(Scenario(manifest=manifest, faults=faults, peers=5, for_s=0, seed=1723, alone=False))
    assert summary.finished_share == 1.0
