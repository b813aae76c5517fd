"""Lines of peers that share a net: the steps of one peer, whoever dies, and everyone's data in turn."""

from collections import Counter
from itertools import pairwise

import pytest
import torch

from p2ptrain.core.effects import Stage, Train
from p2ptrain.core.manifest import Manifest
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.scenario import Scenario
from p2ptrain.sim.swarm import Swarm
from p2ptrain.sim.torch_learner import TorchLearner
from p2ptrain.sim.toy import toy_loss
from p2ptrain.strategies.pipeline.foreman import Round
from tests.helpers import peer

STEPS = 100


def swarm(peers: int, *, steps: int = STEPS, faults: Faults | None = None, **config: object) -> Swarm:
    manifest = Manifest(name="t", task="toy", strategy="pipeline", steps=steps, strategy_config=config)
    return Swarm(Scenario(manifest=manifest, peers=peers, faults=faults or Faults(), for_s=0.0, step_s=0.1))


def plans(them: Swarm) -> list[Round]:
    """Return the rounds as they are made from now on."""
    made: list[Round] = []

    def look(host: Host, _: float) -> None:
        foreman = host.node._strategy._post.foreman if host.node._strategy else None
        if foreman is not None and foreman.plan is not None and foreman.plan not in made:
            made.append(foreman.plan)

    them.world.observers.append(look)
    return made


# -- real nets -------------------------------------------------------------------------------------


def learner(number: int, **config: object) -> TorchLearner:
    settings = {"dropout": 0.0, "model": "cnn3", "width": 4, **config}
    return TorchLearner(Manifest(name="t", task="digits", steps=STEPS, task_config=settings), number)


def weights(learner: TorchLearner) -> torch.Tensor:
    return learner._engine._trainer.vector.flat


def line_of(cuts: list[int], codec: str) -> list[tuple[TorchLearner, Stage]]:
    last = len(cuts) - 2
    line = []
    for at, layers in enumerate(pairwise(cuts)):
        before, after = peer(at - 1) if at else None, peer(at + 1) if at < last else None
        stage = Stage("s", "0" * 32, layers, before, after, STEPS, 4, codec, 5.0, 5.0)
        line.append((learner(at), stage))
    return line


def joined(line: list[tuple[TorchLearner, Stage]]) -> torch.Tensor:
    joint = torch.full_like(weights(line[0][0]), torch.nan)
    for one, stage in line:
        for begin, end in one._engine._trainer.chain.ranges(*stage.layers):
            joint[begin:end] = weights(one)[begin:end]
    return joint


@pytest.mark.parametrize("cuts", [[0, 4], [0, 2, 4], [0, 1, 2, 4], [0, 1, 2, 3, 4]])
def test_a_line_takes_the_steps_of_one_peer_with_all_layers(cuts: list[int]) -> None:
    plain, line = learner(0), line_of(cuts, "f32")
    plain.perform(Train(5))
    for _ in range(5):
        taken = line[0][0].step_in_line(line)
    assert {one.step for one in taken} == {5}
    assert torch.allclose(joined(line), weights(plain), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("codec", "most", "share"), [("bf16", 0.01, 0.6), ("int8", 0.02, 0.35)])
def test_fewer_bytes_change_little(codec: str, most: float, share: float) -> None:
    exact, line = line_of([0, 2, 4], "f32"), line_of([0, 2, 4], codec)
    for _ in range(5):
        exact[0][0].step_in_line(exact)
        line[0][0].step_in_line(line)
    away = (joined(line) - joined(exact)).norm() / joined(exact).norm()
    assert 0 < away < most
    assert line[0][0].line_bytes < share * exact[0][0].line_bytes


def test_layers_of_others_stay_as_they_were() -> None:
    line = line_of([0, 2, 4], "f32")
    start = weights(line[0][0]).clone()
    line[0][0].step_in_line(line)
    for one, stage in line:
        own = one._engine._trainer.chain.ranges(*stage.layers)
        changed = (weights(one) != start).nonzero().flatten().tolist()
        assert changed
        assert all(any(begin <= at < end for begin, end in own) for at in changed)


# -- lines side by side ----------------------------------------------------------------------------


def test_everybody_gives_the_examples_as_often_as_any_other() -> None:
    them = swarm(6, steps=300, round_steps=25)
    made = plans(them)
    assert them.finish()
    firsts = Counter(line.places[0].peer for plan in made for line in plan.lines)
    assert len(firsts) == 6
    assert max(firsts.values()) - min(firsts.values()) <= 2
    assert all(len(plan.lines) == 3 for plan in made if plan.lines)


@pytest.mark.parametrize("stages", [1, 3, 4])
def test_a_line_has_as_many_peers_as_the_settings_say(stages: int) -> None:
    them = swarm(6, stages=stages)
    made = plans(them)
    assert them.finish()
    assert {len(line.places) for plan in made for line in plan.lines} == {-(-6 // -(-6 // stages))}
    for line in made[0].lines:
        assert [place.first for place in line.places[1:]] == [place.last for place in line.places[:-1]]


def test_slow_peers_are_in_one_line_and_take_fewer_steps() -> None:
    them = swarm(8, steps=300, faults=Faults(slow=0.3))
    slow = {host.peer for host in them.hosts if host.step_s > 0.5}
    assert slow
    made = plans(them)
    assert them.finish()
    of_slow = [line for line in made[1].lines if any(place.peer in slow for place in line.places)]
    assert len(of_slow) == -(-len(slow) // 2)
    assert {line.steps for line in of_slow} == {10}
    assert {line.steps for line in made[1].lines if line not in of_slow} == {50}


# -- deaths ----------------------------------------------------------------------------------------


def test_when_a_peer_dies_the_others_of_its_line_keep_their_steps() -> None:
    them = swarm(4, steps=300, stages=4)
    them.world.run(12.0)
    victim = next(host for host in them.hosts if host.node._strategy._post.foreman is None)
    before = {host.number: host.learner.perform(Train(0)).step for host in them.hosts}  # type: ignore[union-attr]
    victim.crash()
    them.world.run(13.0 + 5.0)
    others = [host for host in them.hosts if host is not victim]
    assert all(host.note_counts.get("line_ended") == 1 for host in others)
    for host in others:
        assert host.node.view(0.0).step >= before[host.number]
    assert them.finish()
    assert all(host.node.view(0.0).step == 300 for host in others)


def test_a_coordinator_that_dies_costs_no_finished_part() -> None:
    """The next one takes the round up: what was handed in to the dead one is handed in again."""
    them = swarm(6, steps=300)
    made = plans(them)
    them.world.run(20.0)
    head = next(host for host in them.hosts if host.node._strategy._post.foreman is not None)
    number = made[-1].round
    head.crash()
    assert them.finish()
    again = [plan for plan in made if plan.round == number]
    assert [plan.term for plan in again] == [0, 1]
    assert again[0].lines == again[1].lines


@pytest.mark.parametrize("number", range(3))
def test_who_comes_when_all_others_are_done_begins_with_their_result(number: int) -> None:
    """Also where the law makes it the coordinator, and nobody has told it anything."""
    them = swarm(3)
    late = them.hosts[number]
    them.world.run(0.0)
    start = late.learner.score()[0]
    late.crash()
    them.world.after(60.0, late.start)
    them.world.run(59.0)
    assert sum(host.node.state == "finished" for host in them.hosts if host is not late) == 2
    made = plans(them)
    them.world.run(61.0)
    assert them.finish()
    blobs = late.learner._blobs  # type: ignore[attr-defined]
    assert made
    assert max(toy_loss(blobs[plan.base]) for plan in made) < 0.7 * start
