"""When results are compared, where losers start again, and what is said of descent. ALGORITHMS 2.1, 4.1."""

import math
from collections import Counter
from statistics import fmean
from typing import Any

import pytest

from p2ptrain.core.effects import Adopt, Combine, Evaluate, Fresh
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import is_blob
from p2ptrain.sim import lineage
from p2ptrain.sim.conformance import WEATHERS
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.lineage import Step, starts_of_results
from p2ptrain.sim.scenario import Scenario, alone_score
from p2ptrain.sim.swarm import Swarm
from p2ptrain.strategies.restart import OTHER, POINT
from tests.sim.test_fuzz import Watched

WAYS: list[dict[str, Any]] = [
    {"compare": "always"},
    {"compare": "end"},
    {"again": "shrunken"},
    {"again": "perturbed"},
    {"again": "perturbed", "compare": "always", "lr_spread": 1.0},
]
ids = [" ".join(map(str, way.values())) for way in WAYS]


def scenario(way: dict[str, Any], faults: Faults | None = None, seed: int = 1) -> Scenario:
    manifest = Manifest(name="t", task="toy", strategy="restart", steps=300, strategy_config=way)
    return Scenario(manifest=manifest, peers=8, faults=faults or Faults(), seed=seed, for_s=0.0)


def swarm(way: dict[str, Any], faults: Faults | None = None, seed: int = 1) -> Swarm:
    return Swarm(scenario(way, faults, seed))


def notes(them: Swarm) -> Counter[str]:
    total: Counter[str] = Counter()
    for host in them.hosts:
        total.update(host.note_counts)
    return total


@pytest.mark.parametrize("way", WAYS, ids=ids)
@pytest.mark.parametrize("weather", ["calm", "all of it"])
def test_every_way_ends_better_than_alone_in_any_weather(way: dict[str, Any], weather: str) -> None:
    together, alone = [], []
    for seed in (1, 2, 3):
        described = scenario(way, WEATHERS[weather], seed)
        them = Swarm(described)
        assert them.finish(), f"seed {seed}"
        together += them.losses()
        alone += [alone_score(described, host)[0] for host in them.hosts]
    assert fmean(together) < fmean(alone)


@pytest.mark.parametrize("way", WAYS, ids=ids)
def test_nothing_that_happens_breaks_a_way(way: dict[str, Any]) -> None:
    for seed in range(3):
        Watched("restart", seed, wild=False, config=way).run(1500)
        Watched("restart", seed, wild=True, config=way).run(1500)


def test_compared_only_at_the_end_nobody_is_disturbed_before() -> None:
    them = swarm({"compare": "end"})
    assert them.finish()
    assert not notes(them)["adopted"] + notes(them)["restarted"]
    assert notes(them)["result"] > 0, "the end is a comparison too"


def test_always_compares_sooner_and_lets_who_starts_again_train_first() -> None:
    """The first comparison of `timer` is after nine seconds: 45 steps."""
    began: dict[str, float] = {}
    for compare in ("always", "timer"):
        them = swarm({"compare": compare, "round_steps": 10})
        trained: dict[int, int] = {}

        def look(host: Host, now: float, compare: str = compare, trained: dict[int, int] = trained) -> None:
            for effect in host.effects:
                if isinstance(effect, Fresh):
                    step = host.node.view(0.0).step
                    assert step == 0 or step > trained.get(host.number, -1), "it never trained between starts"
                    trained[host.number] = step
                    began.setdefault(compare, now) if now else None

        them.world.observers.append(look)
        assert them.finish()
    assert began["always"] < began["timer"]


@pytest.mark.parametrize("noise", [0.0, 0.25, 1.0])
def test_a_shrunken_start_lies_between_the_own_point_and_a_random_one(noise: float) -> None:
    them = swarm({"again": "shrunken", "noise": noise})
    seen = 0

    def look(host: Host, _: float) -> None:
        nonlocal seen
        for effect in host.effects:
            if isinstance(effect, Combine) and effect.out == POINT:
                assert [share for share, _ in effect.terms] == [1 - noise, noise]
                seen += 1

    them.world.observers.append(look)
    assert them.finish()
    assert seen == notes(them)["restarted"] > 0


def test_a_perturbed_start_is_measured_weights_with_noise_that_has_no_direction() -> None:
    them = swarm({"again": "perturbed", "noise": 0.2})
    measured: list[str] = []
    seen = 0

    def look(host: Host, _: float) -> None:
        nonlocal seen
        for effect in host.effects:
            if isinstance(effect, Evaluate):
                measured.extend(effect.refs)
            if isinstance(effect, Combine) and effect.out == POINT:
                (one, blob), *drawn = effect.terms
                assert one == 1.0
                assert is_blob(blob)
                assert blob in measured
                assert drawn == [(0.2, POINT), (-0.2, OTHER)]
                seen += 1

    them.world.observers.append(look)
    assert them.finish()
    assert seen > 0
    assert notes(them)["restarted"] == 0, "nobody leaves the best for nowhere"


# -- a population of settings ----------------------------------------------------------------------


def test_a_rate_is_inherited_and_changed_a_little() -> None:
    them = swarm({"explore": 0.0, "lr_spread": 1.0, "compare_s": 4.0})
    bound = 0.999 * math.e  # no rate leaves what the first ones were drawn from
    offered: dict[tuple[str, float], None] = {}
    ratios: list[list[float]] = []

    def look(host: Host, _: float) -> None:
        for entry in host.node.ledger.entries():
            offer = entry.report.message.offer
            if offer is not None:
                offered[offer.blob, offer.lr_scale] = None
        for effect in host.effects:
            if isinstance(effect, Adopt) and effect.tag == "adopt" and (effect.lr_scale or math.e) < bound:
                assert effect.lr_scale is not None
                ratios.append([effect.lr_scale / scale for blob, scale in offered if blob == effect.ref])

    them.world.observers.append(look)
    assert them.finish()
    assert len(ratios) >= 4
    jitters = (0.8, 1.0, 1.25)
    assert all(any(abs(r - j) < 1e-9 for r in possible for j in jitters) for possible in ratios)
    assert not all(1.0 in possible for possible in ratios)


# -- lineage ---------------------------------------------------------------------------------------


def test_descent_is_followed_to_the_starts() -> None:
    taken = (
        Step(1.0, 0, "restarted", 0.5, "fresh"),
        Step(2.0, 1, "adopted", 0.4, parents=(0,)),
        Step(3.0, 0, "restarted", 0.4, "fresh"),
        Step(4.0, 2, "adopted", 0.3, "perturbed", (1,)),
        Step(5.0, 2, "restarted", 0.3, "shrunken"),
        Step(6.0, 3, "result", 0.2, parents=(3, 2)),
        Step(6.0, 2, "result", 0.2, parents=(3,)),
    )
    assert starts_of_results(taken, range(4)) == {
        0: ((0, 3),),
        1: ((0, 2),),
        2: ((3, 1),),
        3: ((3, 1), (0, 2)),
    }
    assert lineage.in_words(taken, 4) == (
        "4 results come from 3 of 6 starts: peer 0's 2nd in 2, peer 3's 1st in 2, peer 0's 3rd in 1"
    )


def test_a_run_tells_who_descends_from_whom() -> None:
    """What is taken over are weights that the parent offered, whom the note names."""
    them = swarm({"explore": 0.3, "compare_s": 6.0}, seed=2)
    offered: dict[tuple[int, str], None] = {}
    taken: list[tuple[int, str]] = []

    def look(host: Host, _: float) -> None:
        report = host.node.ledger.of(host.peer)
        if report is not None and report.report.message.offer is not None:
            offered[host.number, report.report.message.offer.blob] = None
        taken.extend((host.number, e.ref) for e in host.effects if isinstance(e, Adopt) and e.tag == "adopt")

    them.world.observers.append(look)
    assert them.finish()
    steps = lineage.steps(them.hosts)
    adopted = [step for step in steps if step.event == "adopted"]
    assert [step.peer for step in adopted] == [peer for peer, _ in taken]
    assert all((step.parents[0], blob) in offered for step, (_, blob) in zip(adopted, taken, strict=True))
    assert len(adopted) >= 3
    assert all(math.isfinite(step.loss) for step in steps)
