"""Ring all-reduce: the same bits for all, no hang whoever dies where, liars found."""

from collections import Counter
from statistics import fmean

import pytest

from p2ptrain.core.effects import Adopt, Reduce
from p2ptrain.core.inputs import ReduceFailed
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import PeerId, Seconds, short
from p2ptrain.sim.conformance import lonely_loss
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.scenario import Scenario
from p2ptrain.sim.swarm import STEPS, Swarm, scenario
from p2ptrain.sim.toy import ToyLearner, Vector
from p2ptrain.strategies.allreduce import MEAN, SILENCE_LEAST_S, Config, Phase, Strategy

ROUNDS = -(-STEPS // Config().round_steps)


class Watched:
    """A swarm, with all means that were taken over, and all rings, by time."""

    def __init__(self, described: Scenario) -> None:
        self.swarm = Swarm(described)
        self.hosts = self.swarm.hosts
        self.means: dict[int, list[tuple[Seconds, Vector]]] = {host.number: [] for host in self.hosts}
        self.rings: list[tuple[Seconds, Host, Reduce]] = []
        self.swarm.world.observers.append(self._look)

    def _look(self, host: Host, now: Seconds) -> None:
        for effect in host.effects:
            if isinstance(effect, Adopt) and effect.ref == MEAN:
                learner = host.learner
                assert isinstance(learner, ToyLearner)
                self.means[host.number].append((now, learner._slots[MEAN]))
            elif isinstance(effect, Reduce):
                self.rings.append((now, host, effect))

    def groups(self, since: Seconds = 0.0) -> list[tuple[PeerId, ...]]:
        return [ring.group for ring in {r.name: r for at, _, r in self.rings if at > since}.values()]

    def notes(self, event: str) -> int:
        return sum(host.note_counts.get(event, 0) for host in self.swarm.honest)


def described(peers: int = 4, faults: Faults | None = None, seed: int = 1, **settings: object) -> Scenario:
    manifest = Manifest(name="t", task="toy", strategy="allreduce", steps=STEPS, strategy_config=settings)
    return Scenario(
        manifest=manifest, peers=peers, faults=faults or Faults(), seed=seed, for_s=0, alone=False
    )


def strategy(host: Host) -> Strategy:
    found = host.node._strategy
    assert isinstance(found, Strategy)
    return found


@pytest.mark.parametrize("peers", [2, 3, 7])
def test_all_go_on_from_the_same_bits(peers: int) -> None:
    watched = Watched(described(peers))
    assert watched.swarm.finish()
    assert [len(means) for means in watched.means.values()] == peers * [ROUNDS]
    for together in zip(*watched.means.values(), strict=True):
        assert len({vector for _, vector in together}) == 1
    assert all(len(group) == peers for group in watched.groups())


def test_alone_it_just_trains() -> None:
    watched = Watched(described(1))
    assert watched.swarm.finish()
    assert watched.rings == []
    assert watched.swarm.world.now < 1.1 * STEPS * described().step_s


def test_one_step_a_round_is_synchronous_training() -> None:
    watched = Watched(described(3, round_steps=1))
    watched.swarm.world.run(30.0)
    counts = [len(means) for means in watched.means.values()]
    steps = [host.learner._step for host in watched.hosts]
    assert min(counts) > 20
    assert max(steps) - min(counts) <= 1


def test_large_groups_form_several_rings_other_ones_each_round() -> None:
    watched = Watched(described(9, ring_max=4))
    watched.swarm.world.run(30.0)
    groups = watched.groups()
    assert {len(group) for group in groups} == {3}
    together = Counter(frozenset(group) for group in groups)
    assert len(together) > len(groups) // 2


def test_who_is_late_weighs_less_and_does_not_hold_the_others_up() -> None:
    calm = Watched(described(4))
    assert calm.swarm.finish()
    watched = Watched(described(4))
    slow = watched.hosts[0]
    slow.step_s *= 10
    watched.swarm.world.run(1.3 * calm.swarm.world.now)
    done = [len(watched.means[host.number]) for host in watched.hosts if host is not slow]
    assert min(done) >= ROUNDS - 1
    weights = [ring.weight for _, host, ring in watched.rings if host is slow]
    others = fmean(ring.weight for _, host, ring in watched.rings if host is not slow)
    assert weights
    assert min(weights) < 0.5 * others


# -- death -----------------------------------------------------------------------------------------


def test_a_ring_without_who_died_is_formed_within_two_deadlines() -> None:
    """B9, for a death at any moment of a ring, of the coordinator and of another."""
    for number in range(4):
        for ring in (0, 5):
            watched = Watched(described(4))
            world, victim = watched.swarm.world, watched.hosts[number]
            while len(watched.groups()) <= ring:
                world.run(world.now + 0.05)
            last = watched.rings[-1][2]
            victim.crash()
            died = world.now
            living = [host for host in watched.hosts if host is not victim]
            world.run(died + 2 * last.silence_s)
            means = [[at for at, _ in watched.means[host.number] if at > died] for host in living]
            what = f"peer {number} in ring {ring}: {means}, silence {last.silence_s}"
            assert all(means), what
            assert all(victim.peer not in group for group in watched.groups(died + last.silence_s)), what
            assert watched.swarm.finish(), what
            averaged = [len(watched.means[host.number]) for host in living]
            assert min(averaged) >= ROUNDS - 1, what


def test_the_share_of_who_died_is_all_that_is_lost() -> None:
    """The others' contributions to the broken ring are those of the next."""
    watched = Watched(described(4))
    world = watched.swarm.world
    while len(watched.rings) < 4:
        world.run(world.now + 0.05)
    watched.hosts[2].crash()
    steps = [host.learner._step for host in watched.hosts]
    owns = [host.learner._own for host in watched.hosts if host.alive]
    while not all(watched.means[host.number] for host in watched.hosts if host.alive):
        world.run(world.now + 0.05)
        assert world.now < 60.0
    mean = watched.means[0][0][1]
    assert mean == pytest.approx([fmean(column) for column in zip(*owns, strict=True)])
    assert steps == [Config().round_steps] * 4


@pytest.mark.parametrize("of_coordinator", [True, False])
def test_nobody_hangs_wherever_a_peer_dies(of_coordinator: bool) -> None:
    """After each of its messages of the first rounds; conformance tries all of all peers."""
    usual = Swarm(described(4))
    assert usual.finish()
    for messages in range(1, 40, 3):
        watched = Watched(described(4))
        swarm = watched.swarm
        swarm.world.run(5.0)
        coordinator = strategy(swarm.hosts[0])._lease.holder
        victim = next(host for host in swarm.hosts if (host.peer == coordinator) is of_coordinator)
        swarm.die(victim, victim.messages_sent + messages)
        what = f"{short(victim.peer)} after {messages} more messages"
        assert swarm.finish(), what
        assert swarm.world.now < usual.world.now + 60.0, what
        assert min(len(watched.means[host.number]) for host in swarm.honest) >= ROUNDS - 2, what


def test_a_coordinator_that_says_nothing_is_replaced() -> None:
    watched = Watched(described(4))
    world = watched.swarm.world
    world.run(5.0)
    coordinator = strategy(watched.hosts[0])._lease.holder
    mute = next(host for host in watched.hosts if host.peer == coordinator)
    send = world.send
    world.send = lambda source, *rest: None if source is mute else send(source, *rest)  # type: ignore[method-assign]
    before = len(watched.means[(mute.number + 1) % 4])
    world.run(5.0 + 2 * Config().patience_s + 2 * SILENCE_LEAST_S + Config().wait_s)
    holders = {strategy(host)._lease.holder for host in watched.hosts if host is not mute}
    assert holders.isdisjoint({mute.peer})
    assert len(watched.means[(mute.number + 1) % 4]) > before


# -- liars -----------------------------------------------------------------------------------------


def poisoned(attack: str, seed: int) -> Watched:
    watched = Watched(described(8, Faults(liars=0.25, attack=attack), seed))
    assert watched.swarm.finish()
    return watched


@pytest.mark.byzantine
@pytest.mark.parametrize("attack", ["flip", "scale", "shift", "nan"])
def test_poison_in_a_ring_is_refused_and_costs_little(attack: str) -> None:
    losses = [poisoned(attack, seed).swarm.loss() for seed in (1, 2)]
    assert fmean(losses) < fmean(lonely_loss("allreduce", seed) for seed in (1, 2))


@pytest.mark.byzantine
@pytest.mark.parametrize("attack", ["scale", "nan"])
def test_liars_are_found_out_and_left_out(attack: str) -> None:
    watched = poisoned(attack, 1)
    liars = [host.peer for host in watched.hosts if host.lies]
    honest = [ring for _, host, ring in watched.rings if not host.lies]
    with_liars = sum(any(liar in ring.group for liar in liars) for ring in honest)
    assert with_liars < 0.25 * len(honest)
    means = fmean(len(watched.means[host.number]) for host in watched.swarm.honest)
    assert means >= 0.6 * ROUNDS


@pytest.mark.byzantine
def test_who_breaks_every_ring_is_alone_before_long() -> None:
    """It says that it is ready, and gives nothing: rings fail, and nobody knows because of whom."""
    watched = Watched(described(6))
    world, breaker = watched.swarm.world, watched.hosts[3]
    asked = world.rings.ask

    def ask(host: Host, effect: Reduce) -> None:
        if host is not breaker and breaker.peer in effect.group:
            world.after(1.0, host.feed, failed(effect))
        elif host is not breaker:
            asked(host, effect)

    world.rings.ask = ask  # type: ignore[method-assign]
    world.run(80.0)
    honest = [host for host in watched.hosts if host is not breaker]
    assert fmean(len(watched.means[host.number]) for host in honest) > 8
    groups = watched.groups(20.0)
    assert sum(breaker.peer in group for group in groups) < 0.5 * len(groups)


def failed(effect: Reduce) -> ReduceFailed:
    return ReduceFailed(effect.tag, "somebody holds the ring up")


# -- coming late -----------------------------------------------------------------------------------


def test_who_comes_late_takes_the_common_weights_over() -> None:
    watched = Watched(scenario("allreduce", peers=4))
    swarm, late = watched.swarm, watched.hosts[-1]
    swarm.world.run(0.0)
    late.crash()
    swarm.world.after(40.0, late.start)
    swarm.world.run(60.0)
    assert late.note_counts.get("caught_up", 0) + late.note_counts.get("averaged", 0) > 0
    assert any(late.peer in group for group in watched.groups(40.0))
    assert swarm.finish()


def test_diverged_weights_are_not_given_and_come_back() -> None:
    watched = Watched(described(4))
    world, host = watched.swarm.world, watched.hosts[1]
    world.run(20.0)
    while strategy(host)._phase is not Phase.TRAIN:
        world.run(world.now + 0.05)
    learner = host.learner
    assert isinstance(learner, ToyLearner)
    learner._own = (float("nan"),) * len(learner._own)
    assert watched.swarm.finish()
    assert "diverged" in host.note_counts
    assert all(loss < 2.0 for loss in watched.swarm.losses())
