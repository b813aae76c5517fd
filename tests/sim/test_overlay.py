"""Ten thousand real nodes with few links each: everybody hears everything, whoever dies or is hostile."""

from collections.abc import Iterator
from statistics import fmean, pstdev

import pytest

from p2ptrain.core import lots
from p2ptrain.core.directory import Introduced
from p2ptrain.core.effects import Effect, Send
from p2ptrain.core.links import DIALLED, IDLE_S, LINKS_MAX, Links
from p2ptrain.core.messages import Link
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.sim.host import Host
from p2ptrain.sim.scenario import without_collecting
from tests.sim.overlay import (
    MENDED_S,
    NOTICED_S,
    SETTLE_S,
    Overlay,
    chance_sd,
    in_degrees,
    links_of,
)


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    with without_collecting():
        yield


@pytest.mark.timeout(900)
def test_ten_thousand_are_all_reached_also_after_thirty_percent_died() -> None:
    """About 60 CPU seconds. Measured: sd 0.43 of chance; 1.0 payloads; 99.96 % of the rest before repair."""
    overlay = Overlay(10_000, seed=1)
    overlay.pass_time(SETTLE_S)
    links = [links_of(host) for host in overlay.hosts]
    assert max(len(each.neighbours) for each in links) <= LINKS_MAX
    assert max(len(each._dialled) for each in links) <= DIALLED
    assert fmean(len(each.neighbours) for each in links) >= 7.0
    assert pstdev(in_degrees(overlay.hosts)) <= 1.1 * chance_sd(10_000)

    rng = overlay.world.rng
    for _ in range(2):  # the first finds the tree
        reached, payloads, _ = overlay.broadcast(rng.choice(overlay.hosts))
        assert reached == 1.0
        assert payloads <= 1.5

    overlay.kill(0.3)
    reached, payloads, _ = overlay.broadcast(rng.choice(overlay.living), NOTICED_S)
    assert reached >= 0.999
    assert payloads <= 1.5
    overlay.pass_time(MENDED_S)
    assert overlay.missed() == 0
    assert overlay.broadcast(rng.choice(overlay.living))[0] == 1.0


@pytest.mark.parametrize("peers", [2, 9, 10, 33, 300])
def test_everybody_is_reached_in_swarms_of_any_size(peers: int) -> None:
    overlay = Overlay(peers, seed=peers)
    overlay.pass_time(SETTLE_S)
    for host in overlay.hosts[:3]:
        assert overlay.broadcast(host)[0] == 1.0, peers


def test_a_small_swarm_is_a_full_mesh_and_a_larger_one_is_not() -> None:
    def links(peers: int) -> list[Links]:
        overlay = Overlay(peers, seed=1)
        overlay.pass_time(IDLE_S + 2 * SETTLE_S)  # connections that are no links end after a while
        return [links_of(host) for host in overlay.hosts]

    assert [len(each.connected) for each in links(9)] == [8] * 9
    larger = links(40)
    assert max(len(each.neighbours) for each in larger) <= LINKS_MAX
    assert fmean(len(each.connected) for each in larger) <= LINKS_MAX + 1


def test_a_newcomer_to_a_large_swarm_gets_links_and_is_known() -> None:
    overlay = Overlay(300, seed=2)
    newcomer = overlay.hosts[7]
    overlay.pass_time(SETTLE_S)
    newcomer.crash()
    overlay.pass_time(SETTLE_S)
    newcomer.start()
    overlay.pass_time(SETTLE_S)
    assert len(links_of(newcomer).neighbours) >= 3
    assert overlay.missed() == 0
    assert fmean(overlay.knows(host, newcomer) for host in overlay.hosts) == 1.0


class Greedy(Links):
    """Asks everybody who would not refuse at once, accepts everybody, and never lets go."""

    __slots__ = ()

    def _choose(self, count: int, now: Seconds) -> list[Introduced]:
        own = self._directory.get(self._me)
        assert own is not None
        return self._usable(lots.nearest(own.contact, self._directory), 1000, now)

    def _answer(self, peer: PeerId, now: Seconds) -> list[Effect]:
        self._accepted[peer] = None
        return [Send(peer, Link(True))]

    def _rotate(self, now: Seconds) -> list[Effect]:
        return []

    @classmethod
    def replace(cls, host: Host) -> None:
        before = links_of(host)
        greedy = cls(host.peer, before._rng, before._conduct, before._directory)
        host.node._membership._links = greedy


def test_hostile_members_that_ask_everybody_get_few_links() -> None:
    """20 % of the members: measured 25 to 29 % of the links; 34 if whoever comes first is served first."""
    overlay = Overlay(300, seed=1)
    overlay.world.run(0.0)
    hostile = overlay.world.rng.sample(overlay.hosts, 60)
    for host in hostile:
        Greedy.replace(host)
    overlay.pass_time(30.0)
    bad = {host.peer for host in hostile}
    honest = [links_of(host).neighbours for host in overlay.hosts if host.peer not in bad]
    share = sum(peer in bad for peers in honest for peer in peers) / sum(map(len, honest))
    assert share <= 0.30
    assert fmean(map(len, honest)) >= 6.5
