"""Weights on disk after a crash.

A node that crashed left up to thirteen blobs behind. The new boot knew nothing of them, kept thirteen of
its own, and after the next crash thirteen more: the disk filled up. Now the first input says what lies
there, and the oldest go as new ones come.
"""

from p2ptrain.core import limits
from p2ptrain.core.effects import Drop
from p2ptrain.core.inputs import Published, Started
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.swarm import Swarm, scenario
from tests.helpers import READY, Scripted, Table, blob, only

LEFT = tuple(blob(number) for number in range(limits.HELD_BLOBS_MAX + 1))


def test_what_an_earlier_boot_left_is_dropped_as_new_weights_come() -> None:
    table = Table(Scripted())
    table.feed(Started(held=LEFT), READY)
    dropped = [only(Drop, table.feed(Published("x", blob(100 + n), 64))) for n in range(3)]
    assert dropped == [[Drop(LEFT[0]), Drop(LEFT[1])], [Drop(LEFT[2])], [Drop(LEFT[3])]]


def test_crashing_again_and_again_does_not_fill_the_disk() -> None:
    swarm = Swarm(scenario("gossip", faults=Faults(churn=0.3, session_s=5, until_s=150)))
    most = 0
    for second in range(0, 150, 5):
        swarm.world.run(float(second))
        most = max(most, *[len(host.blobs) for host in swarm.hosts])
    assert max(host.boot for host in swarm.hosts) > 10
    assert most <= limits.HELD_BLOBS_MAX + 1 + limits.FETCHES_MAX
