"""Thousands of nodes in one process: what a node does must not grow with the number of others."""

import gc
import time
from collections.abc import Iterator

import pytest

from p2ptrain.core.manifest import Manifest
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.scenario import Scenario, run
from p2ptrain.sim.world import World
from tests.sim.spreading import Knowledge, swarm

LOSS = Faults(loss=0.2)
RATE_MAX_PER_S = SpreadConfig().rate_max / SpreadConfig().period_s


@pytest.fixture(autouse=True)
def without_collecting() -> Iterator[None]:
    """Collecting garbage means walking over millions of objects that all live on."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def messages_per_s(world: World, until: float) -> float:
    """Let time pass; return the mean over peers."""
    began, sent = world.now, sum(host.messages_sent for host in world.hosts.values())
    world.run(until)
    more = sum(host.messages_sent for host in world.hosts.values()) - sent
    return more / len(world.hosts) / (until - began)


def test_five_thousand_peers_know_the_best_within_fifteen_seconds() -> None:
    knowledge = Knowledge(world := swarm(5_000, 1, LOSS))
    world.run(15.0)
    assert knowledge.share() >= 0.999


def test_messages_per_peer_do_not_grow_with_the_swarm() -> None:
    """At the start, when all is news, with the logarithm at most; later not at all."""
    stormy, quiet = [], []
    for peers in (100, 1_000, 5_000):
        world = swarm(peers, 2, LOSS)
        stormy.append(messages_per_s(world, until=15.0))
        quiet.append(messages_per_s(world, until=25.0))
        assert max(host.messages_sent for host in world.hosts.values()) / 25.0 <= 2 * RATE_MAX_PER_S
    assert max(stormy) <= 1.5 * min(stormy)
    assert max(stormy) <= RATE_MAX_PER_S
    assert max(quiet) <= 1.05 * min(quiet)


def test_a_thousand_peers_run_faster_than_in_reality() -> None:
    began = time.process_time()
    manifest = Manifest(name="t", task="toy", strategy="restart")
    summary = run(
        Scenario(manifest=manifest, peers=1_000, faults=LOSS, for_s=20.0, alone=False, checks=False)
    )
    assert summary.virtual_s >= 5 * (time.process_time() - began)
    assert summary.informed_share == 1.0
