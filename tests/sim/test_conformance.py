"""What every strategy must do. A new file in `strategies/` is tested here at once."""

from collections.abc import Iterator
from statistics import fmean

import pytest

from p2ptrain.core import inputs, limits
from p2ptrain.core.effects import Fetch, Train
from p2ptrain.core.envelope import Verified
from p2ptrain.core.lifecycle import State
from p2ptrain.core.messages import Message
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.scenario import alone_score
from p2ptrain.sim.toy import ToyLearner
from p2ptrain.strategies import load, names
from tests.sim.swarms import STEPS, Breaking, Full, Swarm, scenario

every_strategy = pytest.mark.parametrize("strategy", names())
MESSAGES_PER_S_MAX = 2 * SpreadConfig().rate_max / SpreadConfig().period_s
"""News at the highest rate, a reply to each, and a strategy's own messages within what those leave unused."""

WEATHERS = {
    "calm": Faults(),
    "30 % loss": Faults(loss=0.3, until_s=100),
    "doubled and reordered messages": Faults(duplicate=0.3, reorder=0.5),
    "a partition that heals": Faults(partition=0.5, partition_s=20, until_s=90),
    "30 % churn": Faults(churn=0.3, session_s=20, until_s=120),
    "slow peers": Faults(slow=0.3),
    "slow lines": Faults(upload=300.0, latency_s=0.3),
    "liars": Faults(liars=0.25),
    "clocks that jump": Faults(clock_jumps=0.002, until_s=100),
    "all of it": Faults(
        loss=0.2,
        duplicate=0.1,
        reorder=0.2,
        partition=0.2,
        churn=0.2,
        slow=0.2,
        liars=0.2,
        clock_jumps=0.001,
        until_s=120,
    ),
}


def lonely_loss(strategy: str, seed: int) -> float:
    """What the same peers reach in the same steps with nobody to talk to."""
    described = scenario(strategy, seed=seed)
    return fmean(alone_score(described, host)[0] for host in Swarm(described).hosts)


# -- progress --------------------------------------------------------------------------------------


@every_strategy
def test_together_they_come_further_than_alone(strategy: str) -> None:
    """Equal steps, five seeds, mean over all peers."""
    seeds = range(5)
    together = []
    for seed in seeds:
        swarm = Swarm(scenario(strategy, seed=seed))
        assert swarm.finish(), seed
        together.append(swarm.loss())
    assert fmean(together) < 0.85 * fmean(lonely_loss(strategy, seed) for seed in seeds)


@every_strategy
@pytest.mark.parametrize(
    "weather", [pytest.param(one, marks=pytest.mark.byzantine if "liars" in one else ()) for one in WEATHERS]
)
def test_it_survives(strategy: str, weather: str) -> None:
    """Every living peer ends, with usable weights that are no worse than those that it would have alone."""
    seeds = (1, 2)
    losses = []
    for seed in seeds:
        swarm = Swarm(scenario(strategy, seed=seed, faults=WEATHERS[weather]))
        assert swarm.finish(), seed
        losses += swarm.losses()
    alone = fmean(lonely_loss(strategy, seed) for seed in seeds)
    assert fmean(losses) < alone, losses


@every_strategy
@pytest.mark.parametrize("peers", [1, 2, 3, 5])
def test_few_peers_are_enough(strategy: str, peers: int) -> None:
    swarm = Swarm(scenario(strategy, peers=peers))
    assert swarm.finish()
    assert all(host.learner.ready().step >= STEPS for host in swarm.hosts)


@every_strategy
def test_nobody_takes_more_steps_than_were_agreed(strategy: str) -> None:
    swarm = Swarm(scenario(strategy, faults=WEATHERS["all of it"]))
    most = 0

    def look(host: Host, _: float) -> None:
        nonlocal most
        most = max(most, host.node.view(0.0).step) if not host.lies else most

    swarm.world.observers.append(look)
    assert swarm.finish()
    assert most == STEPS


# -- weights that break ----------------------------------------------------------------------------


@every_strategy
def test_whose_training_diverges_comes_back_and_harms_nobody(strategy: str) -> None:
    blobs: dict[str, tuple[float, ...]] = {}

    def learner(number: int) -> ToyLearner:
        return Breaking(0, number, blobs, breaks_at=120 if number < 2 else 10**9)  # type: ignore[arg-type]

    swarm = Swarm(scenario(strategy), learner)
    assert swarm.finish()
    assert "diverged" in swarm.hosts[0].note_counts
    assert all(loss < 2.0 for loss in swarm.losses()), swarm.losses()


@every_strategy
@pytest.mark.parametrize("room", [0, 1, 5])
def test_a_full_disk_does_not_keep_anyone_from_ending(strategy: str, room: int) -> None:
    blobs: dict[str, tuple[float, ...]] = {}

    def learner(number: int) -> ToyLearner:
        return Full(0, number, blobs, room if number == 0 else 10**9)  # type: ignore[arg-type]

    assert Swarm(scenario(strategy), learner).finish()


@every_strategy
def test_nothing_is_fetched_from_who_is_not_believed(strategy: str) -> None:
    """Or a peer with broken weights could fill everyone's line with them."""
    swarm = Swarm(scenario(strategy, peers=12))
    for host in swarm.hosts[2::3]:
        host.lies, host.learner.poison = True, Poison.NAN

    def look(host: Host, now: float) -> None:
        for effect in host.effects:
            if isinstance(effect, Fetch) and not host.lies:
                assert host.node._context.trusts(effect.sources[0]), f"peer {host.number} at {now:.1f} s"

    swarm.world.observers.append(look)
    assert swarm.finish()
    assert sum(host.note_counts.get("peer_charged", 0) for host in swarm.honest) > 0


# -- coming and going ------------------------------------------------------------------------------


@every_strategy
def test_who_comes_late_through_one_introducer_is_one_of_them(strategy: str) -> None:
    described = scenario(strategy, introduce=True)
    swarm = Swarm(described)
    late = swarm.hosts[-1]
    swarm.world.run(0.0)
    late.crash()
    swarm.world.after(40.0, late.start)
    swarm.world.run(35.0)
    assert all(len(host.node.members) >= described.peers - 1 for host in swarm.hosts[:-1])
    swarm.world.run(45.0)
    assert all(len(host.node.members) == described.peers for host in swarm.hosts)
    assert swarm.finish()
    assert late.learner.score()[0] < alone_score(described, late)[0]


@every_strategy
def test_who_comes_while_the_introducer_is_away_asks_again(strategy: str) -> None:
    swarm = Swarm(scenario(strategy, introduce=True))
    introducer, late = swarm.hosts[0], swarm.hosts[-1]
    swarm.world.run(0.0)
    late.crash()
    swarm.world.run(20.0)
    introducer.crash()
    late.start()
    swarm.world.run(40.0)
    introducer.start()
    swarm.world.run(60.0)
    assert len(late.node.members) == len(swarm.hosts)


@every_strategy
def test_an_owner_may_pause_and_resume(strategy: str) -> None:
    swarm = Swarm(scenario(strategy))
    world, host = swarm.world, swarm.hosts[0]
    world.run(10.0)
    host.feed(inputs.Paused("a game runs"))
    world.run(10.1)
    paused_at = host.node.view(0.0).step
    world.run(100.0)
    assert (host.node.view(0.0).step, host.node.state) == (paused_at, State.PAUSED)
    assert all(other.node.state is State.FINISHED for other in swarm.hosts[1:])
    host.feed(inputs.Resumed())
    assert swarm.finish()
    assert host.node.view(0.0).step == STEPS


@every_strategy
def test_a_trainer_that_dies_takes_up_where_it_was(strategy: str) -> None:
    swarm = Swarm(scenario(strategy))
    world, host = swarm.world, swarm.hosts[0]
    world.run(20.0)
    host.feed(inputs.TrainerLost("out of memory", 3.0))
    assert host.node.state is State.RECOVERING
    world.run(23.0)
    ready = host.learner.ready()
    assert 0 < ready.step < STEPS
    host.feed(ready)
    assert swarm.finish()
    assert host.node.view(0.0).step == STEPS


# -- bounds ----------------------------------------------------------------------------------------


@every_strategy
def test_few_messages_are_enough(strategy: str) -> None:
    swarm = Swarm(scenario(strategy, peers=16))
    assert swarm.finish()
    rates = [host.messages_sent / swarm.world.now for host in swarm.hosts]
    assert max(rates) <= MESSAGES_PER_S_MAX


@every_strategy
def test_what_is_kept_across_a_restart_is_bounded(strategy: str) -> None:
    swarm = Swarm(scenario(strategy, peers=64))
    world = swarm.world
    for second in range(0, 60, 10):
        world.run(float(second))
        for host in swarm.hosts:
            assert len(host.learner.ready().memory) <= limits.MEMORY_BYTES_MAX // 4


# -- strangers -------------------------------------------------------------------------------------


class Foreign(Message, frozen=True):
    """A message of another strategy."""

    number: int = 0


def foreign_messages() -> Iterator[type[Message]]:
    yield Foreign
    for name in names():
        yield from load(name).messages


@every_strategy
def test_messages_of_other_strategies_mean_nothing(strategy: str) -> None:
    """They do not even get here: the codec of a swarm knows its own only. If one did, it would be ignored."""
    swarm = Swarm(scenario(strategy, peers=3))
    swarm.world.run(10.0)
    host, other = swarm.hosts[0], swarm.hosts[1].peer
    for kind in foreign_messages():
        if kind not in load(strategy).messages:
            fields = {"number": 1, "blob": "0" * 64, "size_bytes": 64, "turn": 0}
            message = kind(**{name: fields[name] for name in kind.__struct_fields__})
            event = inputs.Received(other, Verified(other, 9, 10**6, message, b""))
            assert host.node.handle(swarm.world.now, event) == []


# -- the end ---------------------------------------------------------------------------------------


@every_strategy
def test_after_the_end_nothing_changes_whatever_still_happens(strategy: str) -> None:
    """G9: the watch of every swarm in this file looks at each effect; here some time passes too."""
    swarm = Swarm(scenario(strategy, faults=WEATHERS["30 % loss"]))
    assert swarm.finish()
    results = swarm.losses()
    swarm.hosts[0].feed(inputs.TrainerLost("killed", 1.0))
    swarm.hosts[0].feed(swarm.hosts[0].learner.ready())
    swarm.world.run(swarm.world.now + 120.0)
    assert swarm.losses() == results
    assert all(not isinstance(effect, Train) for host in swarm.hosts for effect in host.effects)
