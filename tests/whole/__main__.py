"""Simulates whole daemons: `python -m tests.whole --seeds 60 --peers 16 --minutes 20`."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context

from tests.whole.scenario import Result, command, run

say = partial(print, flush=True)


def main() -> int:
    """Run the seeds, each in its own world, on all cores; say which failed, and how to see it again."""
    parser = argparse.ArgumentParser(prog="python -m tests.whole", description=__doc__)
    parser.add_argument("--seeds", type=int, default=60, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--peers", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=20.0, help="virtual ones, each")
    parser.add_argument("--real", action="store_true", help="TLS and signatures by OpenSSL")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    say(f"seeds {seeds.start} to {seeds.stop - 1}, {asked.peers} peers, {asked.minutes:g} minutes each")
    began = time.monotonic()
    live = partial(run, peers=asked.peers, minutes=asked.minutes, real=asked.real)
    results = []
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(live, seed) for seed in seeds]):
            results.append(done.result())
            _show(results[-1], asked)
    _sum_up(results, time.monotonic() - began, asked.peers * asked.minutes / 60)
    return int(any(result.failures for result in results))


def _show(result: Result, asked: argparse.Namespace) -> None:
    slowest = f"{max(result.healings):.1f} s" if result.healings else "none"
    say(
        f"seed {result.seed}: {result.strategy}, {sum(result.faults.values())} faults, "
        f"{result.messages} messages, "
        f"{len(result.healings)} healings, slowest {slowest}, {result.cpu_s:.1f} CPU s, trace {result.trace}"
    )
    for failure in result.failures:
        say(f"  FAILED: {failure}")
    if result.failures:
        say(f"  again: {command(result.seed, asked.peers, asked.minutes, real=asked.real)}")


def _sum_up(results: list[Result], wall_s: float, hours: float) -> None:
    faults: Counter[str] = Counter()
    for result in results:
        faults.update(result.faults)
    healings = [healing for result in results for healing in result.healings]
    failed = sum(bool(result.failures) for result in results)
    kinds = ", ".join(f"{count} {kind}" for kind, count in faults.most_common())
    say(f"{hours * len(results):.0f} node-hours, {faults.total()} faults ({kinds})")
    say(
        f"{sum(result.messages for result in results)} messages, "
        f"{sum(result.connects for result in results)} connections dialled, "
        f"{sum(result.cpu_s for result in results):.1f} CPU s, {wall_s:.1f} s"
    )
    say(f"{len(healings)} healings, the slowest {max(healings, default=0.0):.1f} s; {failed} seeds failed")


if __name__ == "__main__":
    sys.exit(main())
