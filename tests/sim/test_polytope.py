"""Chains of means: what they carry, and what they do to those that they meet. ALGORITHMS 2.2, P1 to P6."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from p2ptrain.core.effects import Effect, Evaluate, Send
from p2ptrain.core.inputs import Evaluated, Input
from p2ptrain.core.ladder import slot_at
from p2ptrain.core.manifest import Manifest
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.scenario import Scenario
from p2ptrain.sim.swarm import Swarm
from p2ptrain.sim.toy import ToyBlobs, ToyLearner
from p2ptrain.strategies.polytope import MET_MAX, Chain

PEERS = 8


def swarm(
    seed: int = 1,
    *,
    liars: float = 0.0,
    loss: float = 0.0,
    learner: Callable[[int], ToyLearner] | None = None,
    **settings: float | str,
) -> Swarm:
    config = {"round_steps": 25, **settings}
    manifest = Manifest(name="t", task="toy", strategy="polytope", steps=400, strategy_config=config)
    faults = Faults(latency_s=0.05, liars=liars, loss=loss, attack=Poison.SCALE)
    described = Scenario(manifest=manifest, peers=PEERS, faults=faults, for_s=0.0, step_s=0.1, seed=seed)
    return Swarm(described, learner)


def chain_of(effect: Effect) -> Chain | None:
    return effect.message if isinstance(effect, Send) and isinstance(effect.message, Chain) else None


def moves(host: Host) -> list[dict[str, float]]:
    return [note.fields for _, note in host.notes if note.event == "moved"]


@pytest.mark.parametrize("ladder", ["line", "simplex"])
def test_a_move_lowers_the_loss(ladder: str) -> None:
    them = swarm(ladder=ladder)
    assert them.finish()
    made = [move for host in them.hosts for move in moves(host)]
    assert len(made) >= PEERS, "chains must reach everybody"
    assert all(move["loss"] < move["before"] for move in made)


def test_the_mean_is_the_exact_mean_of_all_weights_in_it() -> None:
    """Whoever adds weights w as the n-th moves the mean by (w - mean) / n."""
    them = swarm(newest=0.0)
    means: dict[tuple[bytes, int, int], Chain] = {}
    looked_at = 0

    def look(host: Host, _: float) -> None:
        nonlocal looked_at
        for chain in filter(None, map(chain_of, host.effects)):
            means[chain.origin, chain.number, chain.hop] = chain
            before = means.get((chain.origin, chain.number, chain.hop - 1))
            t = moves(host)[-1]["t"] if moves(host) else 0.0
            if before is None or t not in (0.5, 1.5, 2.0):
                continue
            vectors, added = host.learner._blobs, host.learner._slots[slot_at(t)]  # type: ignore[attr-defined]
            old, new = vectors[before.mean], vectors[chain.mean]
            due = [m + (w - m) / chain.count for m, w in zip(old, added, strict=True)]
            looked_at += chain.met[-1].loss == moves(host)[-1]["loss"] and math.dist(due, new) < 1e-9
            assert chain.met[-1].loss != moves(host)[-1]["loss"] or math.dist(due, new) < 1e-9

    them.world.observers.append(look)
    assert them.finish()
    assert looked_at >= 5


def test_a_chain_meets_others_before_it_comes_back() -> None:
    them = swarm()
    hops: dict[tuple[bytes, int], int] = {}
    names: dict[tuple[bytes, int], None] = {}

    def look(host: Host, _: float) -> None:
        for chain in filter(None, map(chain_of, host.effects)):
            name = (chain.origin, chain.number)
            assert chain.hop == 0 or chain.hop == hops[name] + 1
            assert chain.hop > 0 or name not in names, "a name is never used again"
            hops[name], names[name] = chain.hop, None
            lately = [met.peer for met in chain.met[-PEERS // 2 :]]
            assert len(dict.fromkeys(lately)) == len(lately)
            assert len(chain.met) <= MET_MAX

    them.world.observers.append(look)
    assert them.finish()
    assert max(hops.values()) >= PEERS // 2


def test_several_chains_are_on_their_way_at_once_but_not_many() -> None:
    """P4: after the first rounds there is always one, and never more than `held` a peer."""
    them = swarm()
    counts: list[int] = []

    def look(host: Host, now: float) -> None:
        alive: dict[tuple[bytes, int], None] = {}
        for other in them.hosts:
            strategy: Any = other.node._strategy
            waiting = [*strategy._held, *filter(None, [strategy._visit])]
            alive |= {(visit.chain.origin, visit.chain.number): None for visit in waiting}
            assert len(strategy._held) <= 2
        counts.append(len(alive))

    them.world.run(20.0)
    them.world.observers.append(look)
    them.world.run(38.0)
    assert max(counts) <= 2 * PEERS
    assert max(counts) >= 3
    met = sum(host.note_counts["chain_met"] for host in them.hosts)
    assert met > 3 * sum(host.note_counts["chain_begun"] for host in them.hosts) / 2


class Unsure(ToyLearner):
    """A learner whose comparisons are known to be worth nothing, or not known at all."""

    error = math.inf

    def _evaluate(self, effect: Evaluate) -> Input:
        answer = super()._evaluate(effect)
        assert isinstance(answer, Evaluated)
        return replace(answer, differences=(self.error,) * len(answer.losses))


@pytest.mark.parametrize(("error", "moves_least"), [(100.0, 0), (math.nan, PEERS), (math.inf, PEERS)])
def test_a_move_is_more_than_chance(error: float, moves_least: int) -> None:
    """ALGORITHMS 2.2: half a standard error of the difference on the same examples."""
    blobs: ToyBlobs = {}

    def learner(number: int) -> ToyLearner:
        made = Unsure(0, number, blobs)
        made.error = error
        return made

    them = swarm(learner=learner)
    assert them.finish()
    made = [move for host in them.hosts for move in moves(host)]
    assert len(made) >= moves_least
    assert bool(made) == bool(moves_least)


def test_who_hears_of_no_chain_begins_one_again_and_again() -> None:
    them = swarm(loss=1.0)
    began: Counter[int] = Counter()

    def look(host: Host, _: float) -> None:
        began[host.number] += sum(chain.hop == 0 for chain in filter(None, map(chain_of, host.effects)))

    them.world.observers.append(look)
    them.world.run(400 * 0.1)
    assert min(began[host.number] for host in them.hosts) >= 2, began


@pytest.mark.byzantine
def test_a_poisoned_mean_is_recognised_and_its_sender_charged() -> None:
    honest, poisoned = swarm(seed=3), swarm(seed=3, liars=0.25)
    assert honest.finish()
    assert poisoned.finish()
    noted = [host.note_counts for host in poisoned.honest]
    assert sum(counts.get("chain_broken", 0) for counts in noted) > 0
    assert sum(counts.get("peer_charged", 0) for counts in noted) > 0
    assert max(poisoned.losses()) < 1.5 * max(honest.losses())
