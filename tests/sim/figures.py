"""The figures A1 to A4, B1 and B2 of ALGORITHMS 6: `python -m tests.sim.figures a1 b2 [--seeds 3]`.

Each line says what was measured and what is asked. Seeds count from `--first`. MNIST is found as every task
finds its data (`P2PTRAIN_DATA`).
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

from p2ptrain.core.manifest import Manifest, Settings
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.scenario import (
    Scenario,
    Summary,
    alone_score,
    build,
    let_time_pass,
    run,
    torch_learners,
)
from tests.sim import functions
from tests.sim.spreading import PERIOD_S, PUSH_ONLY, Arrivals, messages_per_period, periods_until_all_know
from tests.sim.test_target import STORM, Race

Line = tuple[str, str, str]
"""What, measured, asked."""

SIZES = (16, 64, 256)
PLAIN = "tests.sim.plain_averaging:Strategy"
MNIST: Settings = {"examples": 8000, "lr_final": 1.0}
"""8,000 digits to train on, as the package `mnist` of ALGORITHMS 4 has, at a rate that stays."""


def several(numbers: Any, places: int = 1) -> str:
    """Write numbers with strokes between them."""
    return " / ".join(f"{number:.{places}f}" for number in numbers)


# -- how news travel -------------------------------------------------------------------------------


def a1(seeds: range) -> Iterator[Line]:
    """Spread without loss."""
    yield (
        "periods until all know the best, N = 16 / 64 / 256",
        several(periods_until_all_know(n, seeds) for n in SIZES),
        "3 / 4.5 / 6",
    )
    few = range(seeds.start, seeds.start + 3)
    spoken = [fmean(messages_per_period(n, seed, 10) for seed in few) for n in SIZES]
    yield "messages a node and period, first ten periods", several(spoken, 2), "1.35"
    yield (
        "push only, at the same turn",
        several(periods_until_all_know(n, seeds, **PUSH_ONLY) for n in SIZES),
        "4.5 / 7 / 9.5",
    )
    asked = {"expo_sync": ".05; 2.5", "uniform": "about .25"}
    for law in ("expo_sync", "expo", "shuffle", "uniform"):
        runs = [[Arrivals.of(n, seed, law) for seed in few] for n in SIZES]
        variation = several((fmean(one.variation() for one in of_size) for of_size in runs), 3)
        silence = max(one.longest_silence() for of_size in runs for one in of_size) / PERIOD_S
        yield (
            f"`{law}`: variation of arrivals; longest silence",
            f"{variation}; {silence:.1f}",
            asked.get(law, ""),
        )


def a2(seeds: range) -> Iterator[Line]:
    """Spread under loss."""
    for loss, asked in ((0.3, "5 / 8"), (0.6, "11 / 16")):
        took = [periods_until_all_know(n, seeds, Faults(loss=loss)) for n in (16, 64)]
        yield f"{loss:.0%} loss: periods, N = 16 / 64", several(took), asked
    for peers, count in ((16, 1500), (64, 60)):
        many, storm = range(seeds.start, seeds.start + count), Faults(loss=0.6)
        rigid = periods_until_all_know(peers, many, storm, adaptive=False)
        gain = 1 - periods_until_all_know(peers, many, storm) / rigid
        yield f"60% loss, N = {peers}: gain of speaking more often when silent", f"{gain:.0%}", "12%"


def a3(seeds: range) -> Iterator[Line]:
    """Target stop."""
    for name, faults, asked in (
        ("30% loss, 30% churn, 3 of 16 liars", STORM, "all; 0; 30; 12"),
        ("calm", Faults(), "all; 0; 5; 12"),
    ):
        races = [Race(seed, faults) for seed in seeds]
        stopped = sum(race.stopped for race in races)
        fooled = sum(not race.holds_target() for race in races)
        periods, downloads = fmean(race.periods() for race in races), max(race.downloads() for race in races)
        yield (
            f"{name}: stopped; on lies; periods; downloads a node",
            f"{stopped} of {len(races)}; {fooled}; {periods:.1f}; {downloads}",
            asked,
        )


def a4(seeds: range) -> Iterator[Line]:
    """Functions with many minima."""
    for function in (functions.RASTRIGIN, functions.ROSENBROCK):
        for name in functions.SETTINGS:
            share, _ = functions.share_found(function, name, seeds)
            asked = f"{function.chains_least}" if name == "polytope" else f"at most {function.restarts_most}"
            yield f"{function.name}-{function.dimensions}D found by `{name}`", f"{share:.2f}", asked


# -- training --------------------------------------------------------------------------------------


def summary(
    task: str, strategy: str, seed: int, settings: Settings, faults: Faults | None = None, **more: Any
) -> Summary:
    """Simulate eight peers, or as many as `peers` says."""
    return run(described(task, strategy, seed, settings, faults, **more))


def described(
    task: str, strategy: str, seed: int, settings: Settings, faults: Faults | None = None, **more: Any
) -> Scenario:
    """Describe a run as `p2ptrain simulate` does."""
    peers, alone = more.pop("peers", 8), more.pop("alone", True)
    manifest = Manifest(
        name="t",
        task=task,
        strategy=strategy,
        strategy_config=settings,
        seed=seed,
        **{"parts": peers} | more,
    )
    return Scenario(
        manifest=manifest,
        peers=peers,
        faults=faults or Faults(latency_s=0.05),
        seed=seed,
        for_s=0.0,
        step_s=0.1,
        alone=alone,
        checks=strategy != PLAIN,
    )


def gathered(runs: list[Summary], name: str) -> float:
    """Return the mean of a figure over runs."""
    return fmean(getattr(one, name) or 0.0 for one in runs)


def b1(seeds: range) -> Iterator[Line]:
    """Restarts on real nets."""
    together = alone = 0
    for seed in seeds:
        scenario = described(
            "tests.sim.parity:task", "restart", seed, {}, parts=1, steps=1500, task_config={"lr": 0.05}
        )
        world = build(scenario, torch_learners(scenario.manifest))
        let_time_pass(world, scenario)
        hosts = list(world.hosts.values())
        together += max(host.learner.score()[1] or 0.0 for host in hosts) == 1.0
        alone += alone_score(scenario, hosts[0])[1] == 1.0
    yield (
        "parity of four bits: solved by swarms, by one peer alone",
        f"{together / len(seeds):.0%}, {alone / len(seeds):.0%}",
        "70%, at most 30%",
    )
    few = range(seeds.start, seeds.start + 3)
    settings: Settings = {"lr_spread": 3.0}
    task = "tests.sim.digits_shuffled:task"
    runs = [summary(task, "restart", seed, settings, parts=1, steps=3000) for seed in few]
    yield (
        "digits, rates x e^U(-3,3): node mean, best; alone",
        f"{several((gathered(runs, 'accuracy'), gathered(runs, 'accuracy_best')), 3)}; "
        f"{gathered(runs, 'alone_accuracy'):.3f}",
        ".95 / .96; at most .85",
    )


def b2(seeds: range) -> Iterator[Line]:
    """Chains on real nets."""
    mnist: dict[str, Any] = {"steps": 1200, "task_config": MNIST}
    often: Settings = {"round_steps": 25}
    even = [summary("mnist", "polytope", seed, often, **mnist) for seed in seeds]
    yield "MNIST-10k, even parts: node mean; alone", _together_and_alone(even), ".92; .88"
    spread: Settings = {**often, "lr_spread": 2.0}
    chains = [summary("mnist", "polytope", seed, spread, **mnist) for seed in seeds]
    plain = [summary("mnist", PLAIN, seed, spread, **mnist) for seed in seeds]
    yield "the same, rates x e^U(-2,2): node mean; alone", _together_and_alone(chains), ""
    mean = gathered(chains, "accuracy")
    gains = (
        mean - gathered(chains, "alone_accuracy"),
        mean - gathered(plain, "alone_accuracy"),
        gathered(chains, "accuracy_best") - gathered(chains, "alone_accuracy_best"),
        mean - gathered(plain, "accuracy"),
    )
    yield (
        "gain of the mean over peers alone, which recover / which do not; of the best; over plain averaging",
        several(gains, 3),
        ".15; .01; .10",
    )
    yield from _spirals(seeds)
    yield from _cheated(seeds, {**mnist, "peers": 10, "alone": False}, often)


def _together_and_alone(runs: list[Summary]) -> str:
    each = several((one.accuracy or 0.0 for one in runs), 3)
    return f"{gathered(runs, 'accuracy'):.3f} ({each}); {gathered(runs, 'alone_accuracy'):.3f}"


def _spirals(seeds: range) -> Iterator[Line]:
    task, more = "tests.sim.spirals:task", {"parts": 1, "steps": 1500}
    simplex: Settings = {"ladder": "simplex", "round_steps": 25}
    chains = [summary(task, "polytope", seed, simplex, **more) for seed in seeds]
    own: Settings = {"start": "own", "round_steps": 25}
    plain = [summary(task, PLAIN, seed, own, **more) for seed in seeds]
    yield "spirals, different starts: node mean; alone", _together_and_alone(chains), ".975"
    yield "the same by plain averaging", f"{gathered(plain, 'accuracy'):.3f}", "at most .75"


def _cheated(seeds: range, mnist: dict[str, Any], often: Settings) -> Iterator[Line]:
    honest = fmean(summary("mnist", "polytope", seed, often, **mnist).accuracy or 0.0 for seed in seeds)
    for attack in ("scale", "flip", "nan", "shift", "claim"):
        liars = Faults(latency_s=0.05, liars=0.2, attack=attack)
        both = [
            fmean(summary("mnist", strategy, seed, often, liars, **mnist).accuracy or 0.0 for seed in seeds)
            for strategy in ("polytope", PLAIN)
        ]
        yield (
            f"2 of 10 cheat, `{attack}`: accuracy that is lost; plain averaging reaches",
            f"{honest - both[0]:+.3f}; {both[1]:.3f}",
            ".01; less than .3",
        )


FIGURES: dict[str, tuple[Callable[[range], Iterator[Line]], int, int]] = {
    "a1": (a1, 0, 20),
    "a2": (a2, 0, 20),
    "a3": (a3, 0, 10),
    "a4": (a4, 100, 20),
    "b1": (b1, 0, 20),
    "b2": (b2, 1, 3),
}
"""By name: what makes them, the first seed, and how many."""


def main() -> None:
    """Print the lines as they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="+", choices=list(FIGURES))
    parser.add_argument("--seeds", type=int, default=0, help="0: as many as the figure asks")
    parser.add_argument("--first", type=int, default=-1)
    asked = parser.parse_args()
    for name in asked.figures:
        make, first, count = FIGURES[name]
        first = asked.first if asked.first >= 0 else first
        began = time.process_time()
        for what, measured, due in make(range(first, first + (asked.seeds or count))):
            sys.stdout.write(f"{name.upper()} | {what} | {measured} | {due}\n")
            sys.stdout.flush()
        sys.stdout.write(f"{name.upper()} took {time.process_time() - began:.0f} CPU s\n")


if __name__ == "__main__":
    main()
