"""Rounds with a coordinator: what they compute, and who is missed. ALGORITHMS 2.5, invariants F2, F4, F5."""

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pytest

from p2ptrain.core.effects import Combine, Send, Train
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.mixing import Mixing
from p2ptrain.sim import toy
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.scenario import Scenario, alone_score
from p2ptrain.sim.swarm import Swarm
from p2ptrain.sim.toy import Vector
from p2ptrain.strategies.federated.rounds import Known, Task

STEPS, STEP_S = 300, 0.1


def swarm(
    peers: int = 6,
    seed: int = 1,
    faults: Faults | None = None,
    steps: int = STEPS,
    introduce: bool = False,
    **config: Any,
) -> Swarm:
    manifest = Manifest(name="t", task="toy", strategy="federated", steps=steps, strategy_config=config)
    weather = faults or Faults(latency_s=0.05)
    return Swarm(
        Scenario(
            manifest=manifest,
            peers=peers,
            faults=weather,
            for_s=0.0,
            step_s=STEP_S,
            seed=seed,
            introduce=introduce,
        )
    )


@pytest.fixture
def credulous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it does to the loss, a way is let in: here the arithmetic is looked at."""
    monkeypatch.setattr(Mixing, "accepts", lambda self, peer, own, mixed: True)


class Heard:
    """What is said and done, from now on.

    ways: added to the mean of a round.
    trained: so often a peer trained in a round.
    known: who told whom of other global weights.
    """

    def __init__(self, them: Swarm) -> None:
        self.tasks: dict[int, Task] = {}
        self.asked: dict[int, dict[bytes, None]] = {}
        self.ways: dict[int, list[str]] = {}
        self.trained: dict[tuple[int, int], int] = {}
        self.known: dict[tuple[bytes, bytes], None] = {}
        them.world.observers.append(self._look)

    def _look(self, host: Host, _: float) -> None:
        for effect in host.effects:
            match effect:
                case Send(to=to, message=Task() as task):
                    self.tasks[task.round] = task
                    if task.asked:
                        self.asked.setdefault(task.round, {})[to] = None
                case Send(to=to, message=Known(blob=str())):
                    self.known[host.peer, to] = None
                case Combine(tag="add", terms=(*_, (_, way))):
                    self.ways.setdefault(max(self.tasks), []).append(way)
                case Train(round=number):
                    self.trained[number, host.number] = self.trained.get((number, host.number), 0) + 1


def blobs(them: Swarm) -> dict[str, Vector]:
    return dict(them.hosts[0].learner._blobs)  # type: ignore[attr-defined]


def holder(them: Swarm) -> Host:
    """Who coordinates now, as all see it."""
    (found,) = {host.node._strategy._lease.holder for host in them.honest}  # type: ignore[union-attr]
    return next(host for host in them.hosts if host.peer == found)


def rounds(them: Swarm) -> list[dict[str, Any]]:
    notes = [(when, note.fields) for host in them.hosts for when, note in host.notes if note.event == "round"]
    return [fields for _, fields in sorted(notes, key=lambda one: one[0])]


def holder_of(them: Swarm) -> Host:
    """Who will coordinate first."""
    trial = swarm(len(them.hosts))
    trial.world.run(1.0)
    return them.hosts[holder(trial).number]


def silence(them: Swarm, hosts: list[Host]) -> None:
    """From now on nothing that these say arrives, and others think that they are there."""
    send = them.world.send

    def send_unless(source: Host, target: Any, frame: Any) -> None:
        if source not in hosts:
            send(source, target, frame)

    them.world.send = send_unless  # type: ignore[method-assign]


def have_taken_all(them: Swarm, hosts: list[Host], until: float) -> bool:
    """Let time pass until these took all their steps; say whether they did."""
    return them.world.run_until(lambda: all(host.node.view(0.0).step == STEPS for host in hosts), until)


def excess(them: Swarm) -> float:
    """How far from the optimum of all: in the basin that all are in, the middle of what each is drawn to."""
    goals = [fmean(ones) for ones in zip(*(host.learner._bias for host in them.hosts), strict=True)]  # type: ignore[attr-defined]
    return fmean(
        (math.remainder(x, toy.WIDTH) - goal) ** 2
        for vector in weights(them)
        for x, goal in zip(vector, goals, strict=True)
    )


def notes(them: Swarm, event: str) -> int:
    return sum(host.note_counts.get(event, 0) for host in them.hosts)


def weights(them: Swarm) -> Iterator[Vector]:
    return (host.learner._own for host in them.honest)  # type: ignore[attr-defined]


# -- what a round computes -------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_global_weights_move_by_the_mean_of_all_ways(credulous: None, beta: float) -> None:
    """F4, and beyond it by a share of the last move: who coordinates next knows both."""
    them = swarm(outer="momentum" if beta else "average", momentum=beta)
    heard = Heard(them)
    assert them.finish()
    known = blobs(them)
    for number in (1, 2, 3):
        base, after = known[heard.tasks[number].blob], known[heard.tasks[number + 1].blob]
        before = known[heard.tasks[number - 1].blob] if number > 1 else base
        ways = [known[way] for way in heard.ways[number]]
        assert len(ways) == len(them.hosts)
        due = [at + fmean(way[i] for way in ways) + beta * (at - before[i]) for i, at in enumerate(base)]
        assert after == pytest.approx(due, abs=1e-12)


def test_all_end_with_the_same_weights_that_are_better_than_alone() -> None:
    them = swarm()
    assert them.finish()
    first, *others = weights(them)
    assert all(other == first for other in others)
    assert them.loss() < 0.9 * fmean(alone_score(them_described(them), host)[0] for host in them.hosts)


def them_described(them: Swarm) -> Scenario:
    return Scenario(manifest=them.hosts[0].setup.manifest, peers=len(them.hosts), seed=1, step_s=STEP_S)


def test_scaffold_corrects_nothing_where_all_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then everybody's way is that of all: it is FedAvg."""
    monkeypatch.setattr(toy, "NOISE", 1e-9)
    results = []
    for algorithm in ("fedavg", "scaffold"):
        them = swarm(4, algorithm=algorithm)
        for host in them.hosts:
            host.learner._bias = host.learner._goal = them.hosts[0].learner._bias  # type: ignore[attr-defined]
        assert them.finish()
        results.append(next(weights(them)))
    assert results[0] == pytest.approx(results[1], abs=1e-6)


def test_scaffold_comes_nearer_to_the_optimum_of_all_where_parts_differ() -> None:
    """Half of the clients a round: an average is drawn to who was asked last, a corrected one is not."""
    plain, corrected = (
        fmean(swarm_loss(seed, algorithm=name, participation=0.5) for seed in range(6))
        for name in ("fedavg", "scaffold")
    )
    assert corrected < 0.7 * plain, (corrected, plain)


def swarm_loss(seed: int, **config: Any) -> float:
    them = swarm(8, seed, **config)
    assert them.finish()
    return excess(them)


def test_a_pull_keeps_clients_near() -> None:
    """FedProx: ways are shorter."""
    lengths = []
    for pull in (0.0, 1.0):
        them = swarm(algorithm="fedprox", pull=pull)
        heard = Heard(them)
        them.world.run(12.0)
        lengths.append(fmean(math.hypot(*blobs(them)[way]) for way in heard.ways[1]))
    assert lengths[1] < 0.8 * lengths[0]


def test_words_that_come_late_and_twice_make_nobody_train_a_round_again() -> None:
    them = swarm(8, participation=0.5, faults=Faults(latency_s=0.2, duplicate=0.3, reorder=0.5))
    heard = Heard(them)
    assert them.finish()
    assert all(times == 1 for times in heard.trained.values()), heard.trained


# -- who takes part --------------------------------------------------------------------------------


def test_half_are_asked_and_all_get_their_turn() -> None:
    them = swarm(8, participation=0.5)
    heard = Heard(them)

    def look(host: Host, _: float) -> None:
        steps = [one.learner._step for one in them.hosts]  # type: ignore[attr-defined]
        assert max(steps) - min(steps) <= 2 * 50

    them.world.observers.append(look)
    assert them.finish()
    taking_part: dict[int, int] = {}
    for number, _ in heard.trained:
        taking_part[number] = taking_part.get(number, 0) + 1
    assert taking_part == dict.fromkeys(range(1, 13), 4)
    assert [one["participants"] for one in rounds(them)] == [4] * 12


def test_a_slow_client_hands_in_what_it_has_in_time() -> None:
    them = swarm(6, faults=Faults(latency_s=0.05, slow=0.2), seed=3)
    slow = [host for host in them.hosts if host.step_s > STEP_S]
    assert 0 < len(slow) < 3
    assert them.world.run_until(lambda: len(rounds(them)) >= 4, 100.0)
    assert [one["participants"] for one in rounds(them)[1:4]] == [6] * 3, "late ones are in, with fewer steps"
    assert them.world.now < 5 * 1.6 * 50 * STEP_S + 20.0


def test_nobody_waits_for_a_slow_one_where_ways_are_buffered() -> None:
    them = swarm(6, faults=Faults(latency_s=0.05, slow=0.2), seed=3, algorithm="fedbuff")
    them.world.run(0.1)
    fast = [host for host in them.hosts if host.step_s <= STEP_S]
    assert have_taken_all(them, fast, 100.0)
    assert them.world.now < 1.3 * STEPS * STEP_S
    assert them.finish()


def test_mute_clients_are_not_awaited_for_ever() -> None:
    """They seem to be there, and say nothing: two of eight are within the quorum, and four are not."""
    for mute in (2, 4):
        them = swarm(8)
        them.world.run(1.0)
        silent = [host for host in them.hosts if host is not holder(them)][:mute]
        silence(them, silent)
        talking = [host for host in them.hosts if host not in silent]
        assert have_taken_all(them, talking, 400.0), mute
        assert rounds(them)[-1]["participants"] == 8 - mute


# -- who is gone -----------------------------------------------------------------------------------


def test_what_was_handed_in_to_a_dead_coordinator_is_handed_in_again() -> None:
    them = swarm(6)
    heard = Heard(them)
    them.world.run(5.0)
    first = holder(them)
    assert them.world.run_until(lambda: len(heard.ways.get(1, [])) >= 3, 20.0, every=0.01)
    first.crash()
    assert them.world.run_until(lambda: bool(rounds(them)), 60.0)
    assert rounds(them)[0]["round"] == 1
    assert rounds(them)[0]["participants"] == 5
    assert all(times == 1 for (number, _), times in heard.trained.items() if number == 1)
    assert them.finish()
    numbers = [one["round"] for one in rounds(them)]
    assert numbers == sorted(dict.fromkeys(numbers)), "round numbers increase (F5)"


def test_who_comes_back_takes_the_next_task() -> None:
    them = swarm(6)
    them.world.run(5.0)
    one = next(host for host in them.hosts if host is not holder(them))
    one.crash()
    them.world.run(14.0)
    one.start()
    assert them.finish()
    assert one.node.view(0.0).step == STEPS
    assert len(dict.fromkeys(weights(them))) == 1


def test_two_halves_that_were_cut_apart_end_as_one() -> None:
    them = swarm(8, steps=2 * STEPS, introduce=True)
    them.world.run(8.0)
    half = [host for host in them.hosts if host is not holder(them)][:4]
    them.world._cut = {host.peer: None for host in half}
    them.world.run(40.0)
    coordinators = dict.fromkeys(host.node._strategy._lease.holder for host in them.hosts)  # type: ignore[union-attr]
    assert len(coordinators) == 2
    first, second = coordinators
    heard = Heard(them)
    them.world._cut = {}
    assert them.finish()
    assert (first, second) in heard.known or (second, first) in heard.known, "who yields says what it has"
    assert notes(them, "sides") >= 1, "what both reached is compared"
    assert len(dict.fromkeys(weights(them))) == 1


def test_a_coordinator_that_gives_garbage_is_replaced() -> None:
    them = swarm(6)
    liar = holder_of(them)
    liar.lies, liar.learner.poison = True, Poison.SCALE
    assert them.finish()
    assert all(host.node._strategy._lease.term > 0 for host in them.honest)  # type: ignore[union-attr]
    told = [
        note.fields["detail"]
        for host in them.honest
        for _, note in host.notes
        if note.event == "peer_charged"
    ]
    assert any("global weights" in detail for detail in told)
    honest = swarm(6)
    assert honest.finish()
    assert them.world.now < honest.world.now + 10.0, "nobody waits until it is gone by itself"
    assert them.loss() < 1.3 * honest.loss()


def test_it_is_said_for_whom_is_waited() -> None:
    them = swarm(6, faults=Faults(latency_s=0.05, slow=0.2), seed=3)
    them.world.run(7.5)
    doing = {host.number: host.node.view(7.5).activity for host in them.hosts}
    coordinator = holder(them).number
    assert "waiting for" in doing.pop(coordinator)
    assert any("who coordinates" in words for words in doing.values())
