"""Rings in virtual time: one mean for all, at one moment, or nothing and who is at fault."""

import math
from collections.abc import Iterator

import pytest

from p2ptrain.core.effects import Reduce
from p2ptrain.core.inputs import Input, Reduced, ReduceFailed
from p2ptrain.core.types import OWN, Ranges, Ref, Slot
from p2ptrain.sim.faults import Faults
from p2ptrain.sim.host import Host
from p2ptrain.sim.poison import Poison
from p2ptrain.sim.swarm import Swarm, scenario
from p2ptrain.sim.toy import SIZE, ToyLearner

OUT = Slot(Ref("mean"))
NAME = "a" * 32
SILENCE_S = 5.0


class Few:
    """Peers that do nothing but what a test says."""

    def __init__(self, patch: pytest.MonkeyPatch, count: int, faults: Faults | None = None) -> None:
        self.swarm = Swarm(scenario("restart", peers=count, faults=faults))
        self.hosts = self.swarm.hosts
        self.world = self.swarm.world
        self.world.run(0.5)
        self.group = tuple(host.peer for host in self.hosts)
        self.answers: dict[int, list[tuple[float, Input]]] = {host.number: [] for host in self.hosts}
        for number, host in enumerate(self.hosts):
            learner = host.learner
            assert isinstance(learner, ToyLearner)
            learner._own = tuple(float(number + at) for at in range(SIZE))
        feed = Host._later

        def listen(host: Host, boot: int, event: Input) -> None:
            if isinstance(event, Reduced | ReduceFailed):
                self.answers[host.number].append((self.world.now, event))
            feed(host, boot, event)

        patch.setattr(Host, "_later", listen)

    def ask(self, number: int, weight: float = 1.0, ranges: Ranges = (), name: str = NAME) -> None:
        effect = Reduce("t", OUT, OWN, weight, self.group, name, SILENCE_S, ranges)
        self.world.rings.ask(self.hosts[number], effect)

    def run(self, until: float) -> None:
        self.world.run(until)

    def slots(self) -> Iterator[tuple[float, ...] | None]:
        for host in self.hosts:
            learner = host.learner
            assert isinstance(learner, ToyLearner)
            yield learner._slots.get(OUT)

    def kinds(self) -> list[list[type[Input]]]:
        return [[type(answer) for _, answer in answers] for answers in self.answers.values()]


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else happens to these peers' weights."""
    monkeypatch.setattr(ToyLearner, "_moved", lambda self, steps, goal: self._own)


def test_all_get_the_weighted_mean_at_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Few(monkeypatch, 3)
    sent = [host.bytes_sent for host in few.hosts]
    for number, weight in enumerate((1.0, 2.0, 1.0)):
        few.ask(number, weight)
    few.run(3.0)
    assert few.kinds() == 3 * [[Reduced]]
    assert len({at for answers in few.answers.values() for at, _ in answers}) == 1
    slots = list(few.slots())
    assert slots == 3 * [slots[0]]
    assert slots[0] == pytest.approx([1.0 + at for at in range(SIZE)])
    moved = 2 * 2 / 3 * SIZE * 4
    assert all(host.bytes_sent - before >= int(moved) for host, before in zip(few.hosts, sent, strict=True))


def test_only_the_ranges_change(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Few(monkeypatch, 2)
    for number in (0, 1):
        few.ask(number, ranges=((1, 3), (7, 8)))
    few.run(3.0)
    assert list(few.slots()) == 2 * [(0.0, 1.5, 2.5, 0.0, 0.0, 0.0, 0.0, 7.5)]


def test_it_takes_as_long_as_the_line_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Few(monkeypatch, 4, Faults(upload=48.0, latency_s=0.25))
    began = few.world.now
    for number in range(4):
        few.ask(number)
    few.run(10.0)
    took = [at - began for answers in few.answers.values() for at, _ in answers]
    assert took == pytest.approx(4 * [2 * 3 / 4 * SIZE * 4 / 48.0 + 2 * 3 * 0.25])


def test_who_does_not_ask_is_named_after_one_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Few(monkeypatch, 4)
    began = few.world.now
    for number in (0, 1, 3):
        few.ask(number)
    few.run(20.0)
    failed = [answer for number in (0, 1, 3) for _, answer in few.answers[number]]
    assert all(isinstance(answer, ReduceFailed) and answer.silent == few.group[2] for answer in failed)
    assert {at for answers in few.answers.values() for at, _ in answers} == {began + SILENCE_S}
    assert list(few.slots()) == 4 * [None]


@pytest.mark.parametrize("comes_back", [False, True])
def test_who_dies_in_the_middle_is_named_to_the_others(
    monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    few = Few(monkeypatch, 3)
    for number in range(3):
        few.ask(number)
    few.hosts[1].crash()
    if comes_back:
        few.hosts[1].start()
    few.run(20.0)
    assert few.kinds() == [[ReduceFailed], [], [ReduceFailed]]
    assert all(
        isinstance(answer, ReduceFailed) and answer.silent == few.group[1]
        for number in (0, 2)
        for _, answer in few.answers[number]
    )


def test_another_ring_of_the_same_name_is_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Few(monkeypatch, 2)
    few.ask(0)
    few.ask(1, ranges=((0, 4),))
    few.run(20.0)
    assert few.kinds() == [[ReduceFailed], [ReduceFailed]]


@pytest.mark.byzantine
def test_a_liar_gives_poison_and_nan_comes_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Few(monkeypatch, 2)
    few.hosts[1].learner.poison = Poison.FLIP
    for number in (0, 1):
        few.ask(number)
    few.run(3.0)
    assert next(few.slots()) == pytest.approx([(at - 4 * (1 + at)) / 2 for at in range(SIZE)])
    few.hosts[1].learner.poison = Poison.NAN
    for number in (0, 1):
        few.ask(number, name="b" * 32)
    few.run(6.0)
    assert few.kinds() == 2 * [[Reduced, ReduceFailed]]


def test_who_has_nothing_finite_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Few(monkeypatch, 2)
    learner = few.hosts[1].learner
    assert isinstance(learner, ToyLearner)
    learner._own = (math.nan,) * SIZE
    began = few.world.now
    for number in (0, 1):
        few.ask(number)
    few.run(3.0)
    answers = [few.answers[0][0], few.answers[1][0]]
    assert [at for at, _ in answers] == [began, began]
    assert [answer.silent for _, answer in answers if isinstance(answer, ReduceFailed)] == [
        few.group[1],
        None,
    ]
