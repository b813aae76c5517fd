"""Functions with many or hidden minima, searched by swarms: figure A4 of ALGORITHMS 6.

`python -m tests.sim.figures a4` says how many swarms of eight find the minimum, by strategy.
The local method is a (1+1) evolution strategy with the one-fifth rule; a peer has so many evaluations for
it and for all that it measures of others, and then its point does not move any more.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random
from statistics import median
from typing import NamedTuple

from p2ptrain.core.effects import Adopt, Effect, Evaluate, Fresh, Guide, OptimizerState
from p2ptrain.core.inputs import Adopted, Evaluated, Input, LearnFailed, Trained
from p2ptrain.core.manifest import Manifest, Settings
from p2ptrain.core.types import OWN
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.scenario import Scenario, own_seed
from p2ptrain.sim.swarm import Swarm
from p2ptrain.sim.toy import BATCH, SIZE, ToyBlobs, ToyLearner, Vector

PEERS = 8
FOUND = 0.1
"""A swarm has found the minimum, which is 0, if its best peer is below this (ALGORITHMS 4.2)."""

SIDE = 5.0
"""Peers start in a cube of twice that side."""

SHIFT = 2.0
"""The minimum lies in a cube of twice that side, by chance."""

WIDTH = 0.5
"""Of the first steps."""

STUCK = 1e-4
"""A peer alone starts anew when its steps are smaller than this."""


class Function(NamedTuple):
    """Something to minimise.

    evaluations: each peer has so many. ALGORITHMS does not say how many: chosen on seeds 0 to 19 so that
        restarts find as few as there; the figure is of other seeds.
    """

    name: str
    dimensions: int
    evaluations: int
    value: Callable[[Sequence[float]], float]
    restarts_most: float
    chains_least: float


def rastrigin(x: Sequence[float]) -> float:
    return sum(v * v - 10 * math.cos(2 * math.pi * v) + 10 for v in x)


def rosenbrock(x: Sequence[float]) -> float:
    """The minimum of the usual form is at (1, 1, ...)."""
    y = [v + 1 for v in x]
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(y))


RASTRIGIN = Function("Rastrigin", 2, 400, rastrigin, 0.4, 0.9)
ROSENBROCK = Function("Rosenbrock", 5, 1250, rosenbrock, 0.3, 0.6)

SETTINGS: dict[str, Settings] = {
    "polytope": {"ladder": "simplex", "round_steps": 20, "examples": 1},
    "restart": {"round_steps": 20},
    "alone": {"round_steps": 20},
}


class Searcher(ToyLearner):
    """A peer that searches; what the toy has more coordinates than the function stays 0.

    starts_anew: whether it goes to another random point when it is stuck.
    """

    def __init__(
        self, function: Function, seed: int, own_seed: int, blobs: ToyBlobs, *, starts_anew: bool
    ) -> None:
        super().__init__(seed, own_seed, blobs)
        self._function, self._starts_anew = function, starts_anew
        place = Random(f"minimum {seed}")
        self._minimum = [place.uniform(-SHIFT, SHIFT) for _ in range(function.dimensions)]
        self._left = function.evaluations
        self._width = WIDTH
        self._own = self._random_point(Random(seed))
        self._best = self._value(self._own)
        self._saved = (self._own, 0, 1.0, b"")

    def score(self) -> tuple[float, float | None]:
        """Return the best that this peer has: where it is, or was before it started anew."""
        return min(self._best, self._value(self._own)), None

    def perform(self, effect: Effect) -> Input | None:
        """Carry out one effect."""
        match effect:
            case Fresh() if effect.out == OWN:
                self._own, self._width = self._random_point(Random(effect.seed)), WIDTH
                return Adopted("fresh")
            case Adopt(optimizer=OptimizerState.RESET):
                self._width = WIDTH
        return super().perform(effect)

    def _random_point(self, rng: Random) -> Vector:
        rest = (0.0,) * (SIZE - self._function.dimensions)
        return (*(rng.uniform(-SIDE, SIDE) for _ in range(self._function.dimensions)), *rest)

    def _value(self, vector: Vector) -> float:
        near = [x - m for x, m in zip(vector, self._minimum, strict=False)]
        return self._function.value(near) if all(map(math.isfinite, near)) else math.nan

    def _train(self, steps: int, guide: Guide | None) -> Trained | LearnFailed:
        assert guide is None
        value = self._value(self._own)
        for _ in range(min(steps, self._left)):
            value = self._try(value)
        self._left = max(0, self._left - steps)
        self._step += steps
        return Trained(self._step, self._step * BATCH, value, 0.0)

    def _try(self, value: float) -> float:
        """Take one step of the evolution strategy; return the value after it."""
        if self._starts_anew and self._width < STUCK:
            self._best = min(self._best, value)
            self._own, self._width = self._random_point(self._rng), WIDTH
            return self._value(self._own)
        moves = [self._rng.gauss(0, self._width) for _ in range(self._function.dimensions)]
        there = (*(x + m for x, m in zip(self._own, moves, strict=False)), *self._own[len(moves) :])
        reached = self._value(there)
        if reached < value:
            self._own, self._width = there, self._width * 1.5
            return reached
        self._width *= 1.5**-0.25
        return value

    def _evaluate(self, effect: Evaluate) -> Input:
        vectors = [self._find(ref) for ref in effect.refs]
        found = [vector for vector in vectors if vector is not None]
        if len(found) < len(vectors):
            return LearnFailed(effect.tag, "no such weights")
        self._left -= len(found)
        zeros = (0.0,) * len(found)
        losses = tuple(map(self._value, found))
        distances = tuple(math.dist(found[0], vector) for vector in found)
        return Evaluated(effect.tag, losses, zeros, (math.nan,) * len(found), distances, 1, 0.0, zeros)


def search(function: Function, strategy: str, seed: int, **more: object) -> float:
    """Return the lowest value that a swarm of eight finds. `alone`: nobody hears of anybody."""
    alone = strategy == "alone"
    manifest = Manifest(
        name="t",
        task="toy",
        strategy="restart" if alone else strategy,
        steps=function.evaluations,
        seed=seed,
        strategy_config=SETTINGS[strategy] | more,  # type: ignore[operator]
    )
    faults = Faults(loss=1.0) if alone else Faults()
    described = Scenario(manifest=manifest, peers=PEERS, faults=faults, seed=seed, for_s=0.0, step_s=0.05)
    blobs: ToyBlobs = {}

    def learner(number: int) -> Searcher:
        own = own_seed(described, number)
        return Searcher(function, seed, own, blobs, starts_anew=alone)

    swarm = Swarm(described, learner)
    assert swarm.finish()
    return min(swarm.losses())


def share_found(function: Function, strategy: str, seeds: range, **more: object) -> tuple[float, float]:
    """Return the share of the swarms that find the minimum, and the median of what they find."""
    lowest = [search(function, strategy, seed, **more) for seed in seeds]
    return sum(value < FOUND for value in lowest) / len(lowest), median(lowest)
