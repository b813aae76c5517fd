"""Averaging with other settings than the defaults: what every strategy must do, and what each is for."""

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest
from msgspec.structs import replace

from p2ptrain.core.effects import Send, Train
from p2ptrain.core.errors import ManifestError
from p2ptrain.core.inputs import Input, TrainerReady
from p2ptrain.core.lifecycle import State
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.membership import Members
from p2ptrain.core.mixing import Mixing
from p2ptrain.core.node import Node, Setup
from p2ptrain.core.strategy import Rules
from p2ptrain.sim.conformance import REQUIREMENTS
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.scenario import Scenario, alone_score, toy_learner
from p2ptrain.sim.swarm import Swarm, Variant
from p2ptrain.sim.toy import SIZE
from p2ptrain.strategies import load, settings
from p2ptrain.strategies.gossip.exchange import Swap
from tests.chaos import ME
from tests.helpers import peer
from tests.sim.test_fuzz import Watched

Config = dict[str, Any]

VARIANTS: dict[str, Config] = {
    "random": {"partners": "random"},
    "momentum": {"outer": 0.5, "b": 0.7, "g": 0.7},
    "pieces": {"fragments": 4},
    "momentum, in pieces": {"fragments": 3, "outer": 0.3, "b": 0.7, "g": 0.5},
    "push-sum": {"mode": "push_sum"},
    "push-sum, random": {"mode": "push_sum", "partners": "random"},
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)

TRIED = (
    "ends with 1, 2, 3 and 5 peers",
    "comes further together than alone",
    "survives 30 % loss",
    "survives 30 % churn",
    "survives liars",
    "survives all of it",
    "comes back from NaN and harms nobody",
    "ends with a full disk",
    "fetches nothing from whom it does not believe",
    "can be paused",
    "goes on after its trainer died",
    "keeps to its budget of messages",
    "changes nothing after the end",
)
"""The others take as long as these together; they were tried once."""


@every_variant
@pytest.mark.parametrize("name", TRIED)
def test_it_does_what_every_strategy_must(config: Config, name: str) -> None:
    (requirement,) = [one for one in REQUIREMENTS if one.name == name]
    requirement.try_(Variant("gossip", config))


class Varied(Watched):
    """A node with these settings, and anything that may happen to it."""

    def __init__(self, config: Config, seed: int, *, wild: bool) -> None:
        self._config = config
        super().__init__("gossip", seed, wild=wild)

    def _node(self, rules: Rules, seed: int) -> Node:
        manifest = Manifest(name="t", task="toy", strategy="gossip", strategy_config=self._config, steps=300)
        setup = Setup(
            me=peer(ME), manifest=manifest, rules=rules, settings=settings(rules, manifest), seed=seed
        )
        return Node(setup, Members(map(peer, range(2, 18))))

    def _next(self) -> Input:
        event = super()._next()
        return replace(event, numbers=8) if isinstance(event, TrainerReady) else event


@every_variant
@pytest.mark.parametrize("seed", range(2))
def test_nothing_that_happens_breaks_it(config: Config, seed: int) -> None:
    Varied(config, seed, wild=False).run(1_500)
    Varied(config, seed, wild=True).run(1_500)


STEPS, STEP_S, ROUND = 200, 0.1, 25


def described(peers: int, faults: Faults | None = None, steps: int = STEPS, **config: Any) -> Scenario:
    config = {"exchange_steps": ROUND, **config}
    manifest = Manifest(name="t", task="toy", strategy="gossip", steps=steps, strategy_config=config)
    weather = faults or Faults(latency_s=0.05)
    return Scenario(manifest=manifest, peers=peers, faults=weather, for_s=0.0, step_s=STEP_S)


def swarm(peers: int, faults: Faults | None = None, steps: int = STEPS, **config: Any) -> Swarm:
    return Swarm(described(peers, faults, steps, **config))


@pytest.fixture
def credulous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it does to the loss, weights are let in: here the arithmetic is looked at."""
    monkeypatch.setattr(Mixing, "accepts", lambda self, peer, own, mixed: True)
    monkeypatch.setattr(Mixing, "share", lambda self, distance: 1.0)


def width(learners: list[Any]) -> float:
    """How far apart two of them are at most."""
    return max(math.dist(one._own, other._own) for one in learners for other in learners)


def together(them: Swarm) -> float:
    return width([host.learner for host in them.hosts])


def alone(peers: int) -> float:
    """The width of peers that only train."""
    learners = [toy_learner(described(peers), number, {}) for number in range(peers)]
    for learner in learners:
        learner.perform(Train(STEPS))
    return width(learners)


def watch(them: Swarm, look: Callable[[Host, float], None]) -> None:
    them.world.observers.append(look)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"outer": 0.9}, "diverges in pairs"),
        ({"mode": "push_sum", "fragments": 2}, "no `fragments`"),
        ({"mode": "push_sum", "outer": 0.3}, "no `fragments`, `outer`"),
        ({"partners": "anybody"}, "anybody"),
        ({"g": 0.0}, "> 0"),
    ],
)
def test_what_is_known_to_fail_is_refused_with_a_sentence(config: Config, words: str) -> None:
    rules = load("gossip")
    with pytest.raises(ManifestError, match=words):
        settings(rules, Manifest(name="t", task="toy", strategy_config=config))


# -- pieces ----------------------------------------------------------------------------------------


def test_pieces_are_small_until_the_end_which_is_one_point(credulous: None) -> None:
    them, sizes = swarm(8, fragments=4), dict[int, list[int]]()

    def look(host: Host, now: float) -> None:
        swaps = [e.message for e in host.effects if isinstance(e, Send) and isinstance(e.message, Swap)]
        for swap in swaps:
            sizes.setdefault(swap.turn, []).append(swap.size_bytes)

    watch(them, look)
    assert them.finish()
    whole, last = 8 * SIZE, STEPS // ROUND
    assert {size for turn, found in sizes.items() if turn < last for size in found} == {whole // 4}
    assert {size for turn, found in sizes.items() if turn >= last for size in found} == {whole}
    assert together(them) < 1e-9


# -- partners --------------------------------------------------------------------------------------


def met(them: Swarm) -> list[int]:
    """With how many others each has averaged."""
    partners = [
        {note.fields["peer"] for _, note in host.notes if note.event == "averaged"} for host in them.hosts
    ]
    return [len(found) for found in partners]


def test_by_chance_everybody_meets_nearly_everybody(credulous: None) -> None:
    by_law, by_chance = swarm(8, steps=400, consensus=0), swarm(8, steps=400, consensus=0, partners="random")
    assert by_law.finish()
    assert by_chance.finish()
    assert set(met(by_law)) == {3}
    assert min(met(by_chance)) >= 4


# -- push-sum --------------------------------------------------------------------------------------


def mass(them: Swarm) -> float:
    """At hand and set aside, of all."""
    total = 0.0
    for host in them.hosts:
        strategy: Any = host.node._strategy
        aside = strategy._exchange.meeting.mass if strategy._exchange.meeting else 0.0
        total += strategy._gifts.mass.now + aside
    return total


def test_mass_is_kept_and_whoever_gives_comes_to_the_mean(credulous: None) -> None:
    them = swarm(8, mode="push_sum")
    assert them.finish()
    assert mass(them) == pytest.approx(8.0, abs=1e-6)
    assert together(them) < 0.25 * alone(8)


@pytest.mark.parametrize("seed", range(4))
def test_lost_doubled_and_late_messages_lose_no_mass(seed: int) -> None:
    weather = Faults(latency_s=0.2, loss=0.3, duplicate=0.2, reorder=0.3)
    them = swarm(8, weather, mode="push_sum")
    assert them.finish()
    assert mass(them) >= 8.0 - 1e-6


# -- peers that are not alike ----------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, *VARIANTS.values()], ids=["defaults", *VARIANTS])
def test_slow_peers_neither_hold_others_up_nor_are_lost(config: Config) -> None:
    """A third of them take ten times as long."""
    scenario = replace(described(9, Faults(latency_s=0.05, slow=0.3), **config), seed=3)
    them, ended = Swarm(scenario), dict[int, float]()

    def look(host: Host, now: float) -> None:
        if host.node.state is State.FINISHED:
            ended.setdefault(host.number, now)

    watch(them, look)
    assert them.finish()
    slow = [host for host in them.hosts if host.step_s > STEP_S]
    fast = [ended[host.number] for host in them.hosts if host not in slow]
    assert 2 <= len(slow) <= 5
    assert max(fast) < STEPS * STEP_S + 20.0 + 12 * 3.0, "settling, and 12 meetings, each with a slow one"
    assert min(ended[host.number] for host in slow) > 2 * max(fast)
    together, alone = (
        fmean(losses)
        for losses in zip(
            *((host.learner.score()[0], alone_score(scenario, host)[0]) for host in slow), strict=True
        )
    )
    assert together < 0.95 * alone
