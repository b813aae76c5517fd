"""Rounds of layers among peers. ALGORITHMS 2.3: L1, L2, L4, L5; who coordinates; what it brings."""

from collections import defaultdict
from statistics import fmean
from typing import Any

from p2ptrain.core.effects import Adopt, Effect, Evaluate, Publish, Send, Train
from p2ptrain.core.inputs import Layer, TrainerReady
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import OWN, PeerId, Seconds
from p2ptrain.sim.conformance import lonely_loss
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.scenario import Scenario
from p2ptrain.sim.swarm import STEPS, Swarm
from p2ptrain.sim.toy import LAYERS, ToyBlobs, ToyLearner
from p2ptrain.strategies.layerwise.messages import Assign, Result

STEP_S = 0.2
SEEDS = range(1, 4)

Sent = list[tuple[Seconds, Host, PeerId, Any]]


def swarm(
    peers: int = 4, seed: int = 1, faults: Faults | None = None, steps: int = STEPS, **settings: Any
) -> Swarm:
    config = {"group": 1, "turns": 4, **settings}
    manifest = Manifest(name="t", task="toy", strategy="layerwise", steps=steps, strategy_config=config)
    described = Scenario(
        manifest=manifest, peers=peers, faults=faults or Faults(), seed=seed, for_s=0.0, step_s=STEP_S
    )
    return Swarm(described)


def sent(them: Swarm, *kinds: type) -> Sent:
    """Messages of these kinds, as they are sent."""
    found: Sent = []

    def look(host: Host, now: Seconds) -> None:
        found.extend(
            (now, host, effect.to, effect.message)
            for effect in host.effects
            if isinstance(effect, Send) and isinstance(effect.message, kinds)
        )

    them.world.observers.append(look)
    return found


def notes(them: Swarm, event: str) -> list[dict[str, Any]]:
    found = [(at, note.fields) for host in them.hosts for at, note in host.notes if note.event == event]
    return [fields for _, fields in sorted(found, key=lambda one: one[0])]


def vector_of(them: Swarm, blob: Any) -> Any:
    return them.hosts[0].learner._blobs[blob]  # type: ignore[attr-defined]


def coordinator(them: Swarm) -> Host:
    return next(host for host in them.hosts if host.node._strategy._coordinator.is_active)  # type: ignore[union-attr]


def joins(them: Swarm) -> list[int]:
    return [host.note_counts.get("joined", 0) for host in them.hosts]


# -- rounds ----------------------------------------------------------------------------------------


def test_all_begin_a_round_from_the_same_weights_and_share_the_layers() -> None:
    """L1, L2; the coordinator itself trains the block that it gives to nobody else."""
    them = swarm(4, turns=2)
    assigned = sent(them, Assign)
    assert them.finish()
    rounds = defaultdict(list)
    for _, _, _, assign in assigned:
        if assign.steps:
            rounds[assign.round].append(assign)
    assert len(rounds) >= 10
    for told in rounds.values():
        assert len({assign.blob for assign in told}) == 1
        blocks = {(assign.begin, assign.end) for assign in told}
        layers = [layer for begin, end in blocks for layer in range(begin, end)]
        assert len(layers) == len(set(layers)) == 3, "one of four is the coordinator's own"


def test_no_join_makes_weights_much_worse() -> None:
    """L4: within the tolerance."""
    them = swarm(4, faults=Faults(liars=0.25, attack=Poison.FLIP), seed=3)
    assert them.finish()
    joined = [join for join in notes(them, "joined") if join["share"]]
    assert joined
    assert all(join["loss"] <= 1.1 * join["before"] + 1e-2 for join in joined)


def test_a_block_that_does_not_come_keeps_its_numbers() -> None:
    """L5: one of four dies in the middle of a round."""
    them = swarm(4)
    assigned = sent(them, Assign)
    them.world.run(12.0)
    known = len(assigned)
    while len(assigned) < known + 3:
        them.world.run(them.world.now + 0.01)
    _, _, to, last = assigned[-1]
    victim = them.world.hosts[to]
    victim.crash()
    them.world.run(60.0)
    after = next(assign for _, _, _, assign in assigned if assign.round == last.round + 1)
    old, new = vector_of(them, last.blob), vector_of(them, after.blob)
    kept = [at for at in range(len(LAYERS)) if old[2 * at : 2 * at + 2] == new[2 * at : 2 * at + 2]]
    assert kept == list(range(last.begin, last.end))
    assert them.finish()
    assert notes(them, "joined")[-1]["covered"] == 1.0, "its place went to another"


def test_who_is_slow_takes_fewer_steps_and_is_in_time() -> None:
    them = swarm(4, seed=2, faults=Faults(slow=0.3))
    slow = next(host.peer for host in them.hosts if host.step_s > STEP_S)
    assigned, results = sent(them, Assign), sent(them, Result)
    assert them.finish()
    mine = [message.steps for _, _, to, message in assigned if to == slow]
    others = [message.steps for _, _, to, message in assigned if to != slow and message.steps]
    assert min(step for step in mine if step) < 0.2 * max(others)
    rounds = {message.round for _, host, _, message in results if host.peer == slow}
    assert len(rounds) > 10


# -- what it brings --------------------------------------------------------------------------------


def test_blocks_with_a_loss_of_their_own_are_faster_than_the_whole() -> None:
    """Four layers of equal cost: the dearest takes half of a whole step; what comes in between is added."""
    them = swarm(4, round_steps=32)
    assert them.finish()
    trained = max(at for host in them.hosts for at, note in host.notes if note.event == "joined")
    assert trained < 0.8 * STEPS * STEP_S


def test_moving_on_to_other_layers_brings_all_data_to_all_layers() -> None:
    """One peer a layer, each with its own bias: without turns no layer hears of the others'."""

    def loss(turns: int) -> float:
        swarms = [swarm(4, seed, turns=turns, replicas=1) for seed in SEEDS]
        assert all(them.finish() for them in swarms)
        return fmean(them.loss() for them in swarms)

    alone = fmean(lonely_loss("layerwise", seed) for seed in SEEDS)
    assert loss(turns=1) < 0.9 * loss(turns=10**6)
    assert loss(turns=4) < 0.9 * alone


def test_the_global_loss_works_too() -> None:
    them = swarm(4, mode="global", turns=1)
    trains: list[Train] = []

    def look(host: Host, _: Seconds) -> None:
        trains.extend(effect for effect in host.effects if isinstance(effect, Train))

    them.world.observers.append(look)
    assert them.finish()
    assert all(train.guide and not train.guide.local for train in trains)
    assert them.loss() < lonely_loss("layerwise", 1)


class Uncut(ToyLearner):
    """A net that cannot be cut."""

    def ready(self) -> TrainerReady:
        ready = super().ready()
        return TrainerReady(ready.step, ready.samples, 8, 64, ready.memory, 8, (Layer(((0, 8),), 1.0),))


def test_a_net_of_one_layer_is_trained_whole_and_averaged() -> None:
    blobs: ToyBlobs = {}
    described = Scenario(
        manifest=Manifest(name="t", task="toy", strategy="layerwise", steps=STEPS),
        peers=4,
        seed=1,
        for_s=0.0,
        step_s=STEP_S,
    )
    them = Swarm(described, lambda number: Uncut(0, number, blobs))
    guides: list[Any] = []

    def look(host: Host, _: Seconds) -> None:
        guides.extend(effect.guide for effect in host.effects if isinstance(effect, Train))

    them.world.observers.append(look)
    assert them.finish()
    assert guides == [None] * len(guides)
    assert min(host.node.view(0.0).step for host in them.hosts) == STEPS
    assert notes(them, "joined")[-1]["parts"] == 4


# -- who coordinates -------------------------------------------------------------------------------


def test_a_new_coordinator_goes_on_with_what_is_trained_already() -> None:
    """It dies after all have told it their results: only its own are lost."""
    them = swarm(4)
    results = sent(them, Result)
    them.world.run(12.0)
    first = coordinator(them)
    number = results[-1][3].round
    while sum(result.round == number + 1 for _, _, _, result in results) < 3:
        them.world.run(them.world.now + 0.01)
    first.crash()
    assert them.finish()
    joined = [join for join in notes(them, "joined") if join["round"] == number + 1]
    assert [join["parts"] for join in joined] == [3]
    assert joined[0]["covered"] == 0.75
    trained = [result for _, host, _, result in results if result.round == number + 1]
    assert len({result.blob for result in trained}) == 3, "nobody trained it once more"


def test_a_coordinator_whose_weights_are_worse_than_it_says_is_replaced() -> None:
    them = swarm(4)
    them.world.run(12.0)
    liar = coordinator(them)
    liar.lies, liar.learner.poison = True, Poison.FLIP
    assert them.finish()
    charged = [note for host in them.honest for _, note in host.notes if note.event == "peer_charged"]
    assert len(charged) >= 3
    assert sum(count > 0 for count in joins(them)) >= 2
    assert max(them.losses()) < lonely_loss("layerwise", 1)


def test_two_who_both_coordinate_after_a_cut_become_one() -> None:
    them = swarm(6, group=2, steps=700)
    world = them.world
    world.run(8.0)
    world._cut = {host.peer: None for host in them.hosts[:3]}
    world.run(25.0)
    assert sum(host.node._strategy._coordinator.is_active for host in them.hosts) == 2  # type: ignore[union-attr]
    world._cut = {}
    world.run(80.0)
    assert sum(host.node._strategy._coordinator.is_active for host in them.hosts) == 1  # type: ignore[union-attr]
    assert them.finish()


def test_common_weights_are_measured_before_they_are_taken() -> None:
    them = swarm(4)
    measured: dict[tuple[int, Any], None] = {}
    taken = 0

    def look(host: Host, _: Seconds) -> None:
        nonlocal taken
        for effect in host.effects:
            measured.update({(host.number, ref): None for ref in refs(effect)})
            if isinstance(effect, Adopt):
                taken += 1
                assert (host.number, effect.ref) in measured

    def refs(effect: Effect) -> tuple[Any, ...]:
        return effect.refs if isinstance(effect, Evaluate) else ()

    them.world.observers.append(look)
    assert them.finish()
    assert taken > 4 * 10


def test_only_the_own_layers_are_offered() -> None:
    them = swarm(4)
    offered: list[Publish] = []

    def look(host: Host, _: Seconds) -> None:
        published = [one for one in host.effects if isinstance(one, Publish)]
        offered.extend(one for one in published if one.ref == OWN and one.tag.startswith("show"))

    them.world.observers.append(look)
    assert them.finish()
    assert {one.ranges for one in offered} == {layer.ranges for layer in LAYERS}
