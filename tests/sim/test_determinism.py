"""Equal seeds give equal runs, byte for byte, on any hash seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2ptrain.sim.faults import draw
from p2ptrain.sim.scenario import run
from p2ptrain.sim.swarm import scenario
from p2ptrain.strategies import names

REPOSITORY = Path(__file__).parents[2]

every_strategy = pytest.mark.parametrize("strategy", names())

IN_ANOTHER_PROCESS = """
from p2ptrain.sim.faults import draw
from p2ptrain.sim.scenario import run
from p2ptrain.strategies import names
from p2ptrain.sim.swarm import scenario
print(*[run(scenario(name, peers=12, seed=5, faults=draw(5))).trace_digest for name in names()])
"""


def digest(strategy: str, seed: int) -> str:
    return run(scenario(strategy, peers=12, seed=seed, faults=draw(seed))).trace_digest


@every_strategy
@pytest.mark.parametrize("seed", [5, 6])
def test_the_same_seed_gives_the_same_run(strategy: str, seed: int) -> None:
    assert digest(strategy, seed) == digest(strategy, seed)


@every_strategy
def test_another_seed_gives_another_run(strategy: str) -> None:
    digests = [run(scenario(strategy, seed=seed)).trace_digest for seed in range(5)]
    assert len(dict.fromkeys(digests)) == 5


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_a_run_does_not_depend_on_the_process(hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [digest(name, 5) for name in names()]


def test_weather_is_drawn_from_its_seed_alone() -> None:
    assert [draw(seed) for seed in range(50)] == [draw(seed) for seed in range(50)]
    assert len(dict.fromkeys(map(repr, map(draw, range(50))))) == 50
