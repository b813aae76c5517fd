"""Averaging in pairs: what is kept, and how near everyone comes. ALGORITHMS 2.6, invariants A1 to A3."""

import math

import pytest

from p2ptrain.core.manifest import Manifest
from p2ptrain.core.mixing import Mixing
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.scenario import Scenario
from p2ptrain.sim.swarm import Swarm
from p2ptrain.sim.toy import Vector
from p2ptrain.strategies.gossip import Phase


def swarm(peers: int, steps: int = 200, exchanges: int = 1, faults: Faults | None = None) -> Swarm:
    config = {"exchange_steps": 25, "exchanges": exchanges}
    manifest = Manifest(name="t", task="toy", strategy="gossip", steps=steps, strategy_config=config)
    weather = faults or Faults(latency_s=0.05)
    return Swarm(Scenario(manifest=manifest, peers=peers, faults=weather, for_s=0.0, step_s=0.1))


@pytest.fixture
def credulous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it does to the loss, weights are let in: here the arithmetic is looked at."""
    monkeypatch.setattr(Mixing, "accepts", lambda self, peer, own, mixed: True)
    monkeypatch.setattr(Mixing, "share", lambda self, distance: 1.0)


def weights(swarm: Swarm) -> list[Vector]:
    return [host.learner._own for host in swarm.hosts]  # type: ignore[attr-defined]


def notes(swarm: Swarm, event: str) -> int:
    return sum(host.note_counts.get(event, 0) for host in swarm.hosts)


@pytest.mark.parametrize("peers", [2, 4, 8, 16])
def test_a_power_of_two_ends_in_one_point(peers: int, credulous: None) -> None:
    them = swarm(peers)
    assert them.finish()
    first = weights(them)[0]
    assert max(math.dist(first, other) for other in weights(them)) < 1e-9


@pytest.mark.parametrize("peers", [3, 5, 11])
def test_any_other_number_ends_close_together(peers: int, credulous: None) -> None:
    alone, together = swarm(peers), swarm(peers)
    alone.world.run(19.0)  # before the end: training draws them apart
    assert together.finish()

    def width(them: Swarm) -> float:
        return max(math.dist(one, other) for one in weights(them) for other in weights(them))

    assert width(together) < 0.1 * width(alone)


def test_averaging_keeps_the_sum(credulous: None) -> None:
    them = swarm(8)
    before: list[Vector] = []

    def sums() -> Vector:
        return tuple(map(math.fsum, zip(*weights(them), strict=True)))

    def look(host: Host, now: float) -> None:
        if now < 19.0:
            return
        doing = {str(h.node.view(now).activity) for h in them.hosts}
        if not before and doing <= {Phase.SETTLE, Phase.CONSENSUS}:
            before.append(sums())

    them.world.observers.append(look)
    assert them.finish()
    assert before, "the end of the training was not seen"
    assert sums() == pytest.approx(before[0], abs=1e-9)


@pytest.mark.parametrize("exchanges", [1, 3])
def test_peers_of_one_speed_do_not_turn_each_other_away(exchanges: int) -> None:
    them = swarm(16, exchanges=exchanges)
    assert them.finish()
    assert notes(them, "averaged") + notes(them, "refused") >= 16 * 7 * exchanges
    assert notes(them, "exchange_failed") <= 0.02 * notes(them, "averaged")


def test_slow_and_lost_peers_do_not_stop_the_others() -> None:
    them = swarm(
        12, faults=Faults(latency_s=0.05, loss=0.3, churn=0.3, session_s=10.0, slow=0.2, until_s=60.0)
    )
    assert them.finish()
    assert notes(them, "averaged") >= 12 * 4


def test_who_comes_late_takes_over_what_is_there() -> None:
    them = swarm(4, steps=400)
    late = them.hosts[0]
    them.world.run(0.01)
    late.crash()
    them.world.after(30.0, late.start)
    assert them.finish()
    assert late.note_counts.get("caught_up") == 1
