"""What every strategy must do. A new file in `strategies/` is tested here at once."""

from collections.abc import Iterator

import pytest

from p2ptrain.core import inputs
from p2ptrain.core.envelope import Verified
from p2ptrain.core.messages import Message
from p2ptrain.sim.conformance import REQUIREMENTS, Requirement
from p2ptrain.sim.scenario import alone_score
from p2ptrain.sim.swarm import Swarm, scenario
from p2ptrain.strategies import load, names

every_strategy = pytest.mark.parametrize("strategy", names())


@every_strategy
@pytest.mark.parametrize(
    "requirement",
    [
        pytest.param(one, marks=pytest.mark.byzantine if "liars" in one.name else (), id=one.name)
        for one in REQUIREMENTS
    ],
)
def test_it(strategy: str, requirement: Requirement) -> None:
    requirement.try_(strategy)


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


# -- strangers -------------------------------------------------------------------------------------


FIELDS = {
    "number": 1,
    "blob": "0" * 64,
    "size_bytes": 64,
    "turn": 0,
    "origin": bytes(32),
    "hop": 0,
    "count": 1,
    "mean": "0" * 64,
    "met": (),
    "shard": 0,
    "shards": (0,),
    "servers": (bytes(32),),
    "version": 0,
    "known": None,
    "change": None,
    "numbers": None,
    "begin": 0,
    "end": 1,
    "left": 50,
    "seconds": 1.0,
    "newest": None,
    "term": 0,
    "round": 1,
    "base": "0" * 64,
    "lines": (),
    "step": 0,
    "base_bytes": 64,
    "taken": 0,
    "pace": 0.0,
    "piece": "0" * 64,
    "piece_bytes": 64,
    "loss": 0.0,
    "holder": bytes(32),
    "mass": 0.5,
    "age": 0,
    "final": False,
    "asked": True,
    "last": False,
    "got": 0,
    "deadline_s": 0.0,
    "control": None,
    "control_bytes": 64,
    "steps": 50,
    "samples": 1600,
    "train_loss": 0.0,
    "outcome": 0,
    "silent": None,
    "shown": None,
    "avoids": (),
    "name": "0" * 32,
    "members": (),
}


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
            message = kind(**{name: FIELDS[name] for name in kind.__struct_fields__})
            event = inputs.Received(other, Verified(other, 9, 10**6, message, b""))
            assert host.node.handle(swarm.world.now, event) == []
