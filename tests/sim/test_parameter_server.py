"""Workers and servers: what a version is made of, who is too late, and what is left when somebody dies."""

import math
from statistics import fmean

import pytest

from p2ptrain.core.mixing import Mixing
from p2ptrain.core.types import Seconds
from p2ptrain.sim.conformance import LATE_MAX_S, gains, spares_messages
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.swarm import Swarm, Variant, scenario
from p2ptrain.sim.toy import Vector
from p2ptrain.strategies.parameter_server import PHASES, Phase
from p2ptrain.strategies.parameter_server.serving import staleness_rate
from p2ptrain.strategies.parameter_server.worker import Worker

ASYNC = Variant("parameter_server", {"mode": "async"})
SYNC = Variant("parameter_server", {"quorum": 1.0})
MODES = pytest.mark.parametrize("mode", ["sync", "async"])


def worker_of(host: Host) -> Worker | None:
    return getattr(host.node._strategy, "_worker", None)


def phase_of(host: Host) -> Phase | None:
    return getattr(host.node._strategy, "_phase", None)


def weights(host: Host) -> Vector:
    return host.learner._own  # type: ignore[attr-defined, no-any-return]


def servers_of(host: Host) -> tuple[bytes, ...]:
    return host.node._strategy._posts.servers  # type: ignore[union-attr, attr-defined, no-any-return]


def notes(swarm: Swarm, event: str) -> int:
    return sum(host.note_counts.get(event, 0) for host in swarm.hosts)


@pytest.fixture
def credulous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it does to the loss, changes are let in: here the arithmetic is looked at."""
    monkeypatch.setattr(Mixing, "accepts", lambda self, peer, own, mixed: True)
    monkeypatch.setattr(Mixing, "share", lambda self, distance: 1.0)


# -- what a version is made of ---------------------------------------------------------------------


@pytest.mark.parametrize("peers", [2, 4, 7])
def test_a_version_is_the_mean_of_the_workers(peers: int, credulous: None) -> None:
    """DP-SYNC-PS of ALGORITHMS 2.4: all begin alike, so the mean of the changes is that of the weights."""
    swarm = Swarm(scenario(SYNC, peers=peers))
    brought: dict[int, Vector] = {}
    taken: dict[int, Vector] = {}

    def look(host: Host, _: Seconds) -> None:
        worker = worker_of(host)
        if worker is None or len(taken) == peers:
            return
        if phase_of(host) is Phase.WAIT and worker.asked is not None and worker.asked.turn == 1:
            brought[host.number] = weights(host)
        if phase_of(host) is Phase.TRAIN and worker.versions == [1, 1, 1, 1]:
            taken.setdefault(host.number, weights(host))

    swarm.world.observers.append(look)
    assert swarm.finish()
    mean = [fmean(numbers) for numbers in zip(*brought.values(), strict=True)]
    assert len(brought) == len(taken) == peers
    assert all(found == pytest.approx(mean, abs=1e-12) for found in taken.values())


def test_who_is_alone_keeps_what_it_learned() -> None:
    """A mean of one: after each turn the own weights are what they were before."""
    swarm = Swarm(scenario("parameter_server", peers=1))
    before: list[Vector] = []

    def look(host: Host, _: Seconds) -> None:
        if phase_of(host) is Phase.WAIT:
            before.append(weights(host))
        elif before and phase_of(host) is Phase.TRAIN:
            assert weights(host) == pytest.approx(before.pop(), abs=1e-12)
            before.clear()

    swarm.world.observers.append(look)
    assert swarm.finish()
    assert notes(swarm, "applied") == 4 * 300 / 50


def test_in_async_too_it_comes_further_together_than_alone() -> None:
    gains(ASYNC)


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_a_change_counts_as_in_a_mean_if_all_push_in_turn(workers: int) -> None:
    assert staleness_rate(workers, workers - 1) == pytest.approx(1 / workers)
    rates = [staleness_rate(workers, late) for late in range(2 * workers)]
    assert rates == sorted(rates, reverse=True)
    assert max(rates) <= 1


def test_of_sixteen_that_push_at_once_each_counts_for_little_enough() -> None:
    """With the bare (1 + staleness)^-0.5 they overshoot: loss 0.43 instead of 0.29 (measured, LOG.md)."""
    swarm = Swarm(scenario(ASYNC, peers=16))
    assert swarm.finish()
    assert swarm.loss() < 0.33


def test_momentum_goes_on_in_the_direction_of_the_last_versions() -> None:
    plain, heavy = (Swarm(scenario(Variant("parameter_server", {"momentum": m}))) for m in (0.0, 0.3))
    for swarm in (plain, heavy):
        swarm.world.run(34.0)
    assert heavy.loss() < plain.loss()


# -- who is late -----------------------------------------------------------------------------------


def test_nobody_waits_for_slow_peers_for_long() -> None:
    """In `sync` their changes are in vain as long as there are faster ones; they end all the same."""
    described = scenario("parameter_server", seed=2, faults=Faults(slow=0.3))
    swarm = Swarm(described)
    swarm.world.run(0.0)
    fast = [host for host in swarm.hosts if host.step_s == described.step_s]
    assert 4 <= len(fast) < len(swarm.hosts)
    assert swarm.world.run_until(lambda: all(host.node.view(0).step == 300 for host in fast), 200.0)
    assert swarm.finish()


def test_in_async_peers_of_any_speed_go_on() -> None:
    swarm = Swarm(scenario(ASYNC, seed=2, faults=Faults(slow=0.3)))
    waited: list[Seconds] = []

    def look(host: Host, now: Seconds) -> None:
        if phase_of(host) is Phase.WAIT and host.node.view(now).step < 300:
            waited.append(now)

    swarm.world.observers.append(look)
    assert swarm.finish()
    assert waited == []


def test_async_keeps_to_the_budget_of_messages() -> None:
    spares_messages(ASYNC)


# -- who dies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_anybody_may_die_at_any_message_in_async(number: int) -> None:
    """As conformance demands of the default mode; there after each message, here after every sixth."""
    described = scenario(ASYNC, peers=4)
    usual = Swarm(described)
    assert usual.finish()
    for messages in range(1 + number, usual.hosts[number].messages_sent, 6):
        swarm = Swarm(described)
        swarm.die(swarm.hosts[number], messages)
        assert swarm.finish(), f"not all ended: peer {number} was gone after {messages} messages"
        assert swarm.world.now < usual.world.now + LATE_MAX_S, f"peer {number} after {messages} messages"


@MODES
def test_what_a_server_had_applied_is_not_lost_with_it(mode: str) -> None:
    """Whoever serves next goes on from the newest version that anybody living has."""
    described = scenario(Variant("parameter_server", {"mode": mode}), peers=5)
    usual = Swarm(described)
    assert usual.finish()
    deaths = 0
    for messages in range(12, 60, 6):
        swarm = Swarm(described)
        dying = swarm.hosts[1]
        swarm.die(dying, messages)
        newest: dict[tuple[int, int], int] = {}

        def look(host: Host, now: Seconds, newest: dict[tuple[int, int], int] = newest) -> None:
            worker = worker_of(host)
            for shard, version in enumerate(worker.versions if worker else ()):
                assert version >= newest.get((host.number, shard), 0), (
                    f"peer {host.number} went back at {now}"
                )
                newest[host.number, shard] = version

        swarm.world.observers.append(look)
        assert swarm.finish(), f"not all ended after the death at message {messages}"
        deaths += not dying.alive
        assert all(dying.peer not in servers_of(host) for host in swarm.honest if not dying.alive)
    assert deaths >= 4


def test_a_swarm_that_lost_its_first_servers_serves_on() -> None:
    swarm = Swarm(scenario("parameter_server"))
    swarm.world.run(15.0)
    first = dict.fromkeys(servers_of(swarm.hosts[0]))
    assert len(first) == 4
    for peer in first:
        swarm.world.hosts[peer].crash()
    assert swarm.finish()
    assert not any(peer in first for host in swarm.honest for peer in servers_of(host))
    assert fmean(host.learner.score()[0] for host in swarm.honest) < 0.36


# -- who lies --------------------------------------------------------------------------------------


def with_a_lying_server(mode: str, poison: Poison) -> tuple[Swarm, Host]:
    swarm = Swarm(scenario(Variant("parameter_server", {"mode": mode})))
    swarm.world.run(5.0)
    liar = swarm.world.hosts[servers_of(swarm.hosts[0])[2]]  # type: ignore[index]
    liar.lies, liar.learner.poison = True, poison
    return swarm, liar


@pytest.mark.byzantine
@MODES
def test_a_server_that_gives_wrong_numbers_is_found_and_replaced(mode: str) -> None:
    swarm, liar = with_a_lying_server(mode, Poison.SCALE)
    swarm.world.run(30.0)
    assert not any(liar.peer in servers_of(host) for host in swarm.honest)
    assert swarm.finish()
    assert swarm.loss() < 0.36


@pytest.mark.byzantine
@MODES
def test_a_server_that_is_a_little_wrong_is_not_followed(mode: str) -> None:
    """Here its lie raises the loss by a seventh: that alone is no proof, but nobody takes it over."""
    swarm, _ = with_a_lying_server(mode, Poison.FLIP)
    assert swarm.finish()
    assert swarm.loss() < 0.36


@pytest.mark.byzantine
@pytest.mark.parametrize("poison", [Poison.FLIP, Poison.NAN, Poison.SCALE])
def test_changes_that_make_it_worse_are_not_taken_in(poison: Poison) -> None:
    swarm, calm = Swarm(scenario("parameter_server")), Swarm(scenario("parameter_server"))
    swarm.world.run(5.0)
    served = servers_of(swarm.hosts[0])
    liars = [host for host in swarm.hosts if host.peer not in served][:2]
    for host in liars:
        host.lies, host.learner.poison = True, poison
    assert swarm.finish()
    assert calm.finish()
    assert notes(swarm, "peer_charged") > 0
    honest = fmean(host.learner.score()[0] for host in swarm.honest)
    assert honest < 1.1 * calm.loss()


def test_an_honest_swarm_accuses_nobody() -> None:
    for mode in ("sync", "async"):
        for seed in range(3):
            swarm = Swarm(scenario(Variant("parameter_server", {"mode": mode}), peers=6, seed=seed))
            assert swarm.finish()
            assert notes(swarm, "peer_charged") == 0, f"{mode}, seed {seed}"


# -- the end ---------------------------------------------------------------------------------------


@MODES
def test_all_end_with_the_same_weights(mode: str) -> None:
    swarm = Swarm(scenario(Variant("parameter_server", {"mode": mode})))
    at_last: dict[int, Vector] = {}

    def look(host: Host, _: Seconds) -> None:
        if phase_of(host) is Phase.SETTLE:
            at_last.setdefault(host.number, weights(host))

    swarm.world.observers.append(look)
    assert swarm.finish()
    assert len(at_last) == len(swarm.hosts)
    first, *others = at_last.values()
    assert max(math.dist(first, other) for other in others) < 1e-9


def test_every_phase_but_the_last_is_left() -> None:
    assert {Phase.TRAIN, *PHASES.values()} == set(Phase)
    assert {before for before, _ in PHASES} == set(Phase) - {Phase.DONE}
