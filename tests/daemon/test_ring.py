"""The mean of several peers by a ring: the same bits everywhere, the least bytes, and never a hang."""

import asyncio
import math
import os
import time
from pathlib import Path

import numpy as np
import pytest

from p2ptrain.core.effects import Reduce
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.inputs import Reduced, ReduceFailed
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.daemon import reducing, ring, ring_benchmark
from p2ptrain.daemon.ring import Place, RingError, average
from p2ptrain.learn.wire import Export
from tests.net import conftest

swarm = conftest.swarm

SILENCE_S = 0.8
OUT = Slot(Ref("mean"))


class Party:
    """Members of a ring that know each other."""

    def __init__(self, swarm, count: int, numbers: int) -> None:
        self.swarm, self.count, self.size = swarm, count, numbers
        rng = np.random.default_rng(7)
        self.given = [rng.standard_normal(numbers, dtype=np.float32) for _ in range(count)]
        self.weights = [float(1 + at) for at in range(count)]

    async def start(self) -> "Party":
        self.nodes = [await self.swarm.node() for _ in range(self.count)]
        self.group = tuple(node.peer for node in self.nodes)
        for node in self.nodes:
            for other in self.nodes:
                node.transport.learn(other.peer, other.addresses)
        self.name = os.urandom(16).hex()
        return self

    def place(self, who, **changed) -> Place:
        return Place(self.group, who, self.name, SILENCE_S)._replace(**changed)

    async def take_part(self, who, **changed):
        numbers = self.given[who].copy()
        place = self.place(who, **changed)
        try:
            await average(self.nodes[who].transport.flows, place, numbers, self.weights[who])
        except RingError as error:
            return error
        return numbers

    async def all(self, *without):
        ranks = [rank for rank in range(self.count) if rank not in without]
        return await asyncio.gather(*map(self.take_part, ranks))

    @property
    def mean(self):
        exact = sum(
            weight * given.astype(np.float64)
            for weight, given in zip(self.weights, self.given, strict=True)
            if weight
        )
        return exact / sum(self.weights)


@pytest.fixture
def party(swarm):
    async def make(count: int, numbers: int = 300_001) -> Party:
        return await Party(swarm, count, numbers).start()

    return make


@pytest.mark.parametrize("count", [2, 3, 4])
async def test_all_get_the_same_bits_for_the_least_bytes(party, count):
    """B9: 2 (n - 1) / n of the numbers leave each peer, within 2 %."""
    party = await party(count)
    results = await party.all()
    assert all(result.tobytes() == results[0].tobytes() for result in results)
    np.testing.assert_allclose(results[0], party.mean, rtol=0, atol=1e-5)
    least = 2 * (count - 1) / count * party.size * 4
    for node in party.nodes:
        assert node.transport.traffic.total.blobs_up == pytest.approx(least, rel=0.02)
        assert node.transport.traffic.total.blobs_down == pytest.approx(least, rel=0.02)


@pytest.mark.parametrize("numbers", [0, 1, 2, 3, 5])
async def test_fewer_numbers_than_peers_are_averaged_too(party, numbers):
    party = await party(3, numbers)
    results = await party.all()
    assert all(result.tobytes() == results[0].tobytes() for result in results)
    np.testing.assert_allclose(results[0], party.mean, rtol=0, atol=1e-6)


async def test_who_weighs_nothing_gets_the_mean_of_the_others(party):
    party = await party(3, 10)
    party.weights[1] = 0.0
    party.given[1][:] = np.nan
    results = await party.all()
    np.testing.assert_allclose(results[1], party.mean, rtol=0, atol=1e-6)
    assert results[1].tobytes() == results[0].tobytes()


@pytest.mark.parametrize("gone", [0, 2])
async def test_who_never_came_is_named_by_all_after_one_silence(party, gone):
    party = await party(4)
    began = time.monotonic()
    errors = await party.all(gone)
    assert time.monotonic() - began < 2 * SILENCE_S
    assert [error.silent for error in errors] == 3 * [party.group[gone]]


async def test_who_dies_in_the_middle_is_named_by_all_at_once(party, monkeypatch):
    party = await party(4, 4_000_000)

    async def die():
        node = party.nodes[1]
        while node.transport.traffic.total.blobs_up < 2_000_000:
            await asyncio.sleep(0.001)
        for listener in node.transport._listeners:
            for connection in list(listener._open):
                connection.close() if connection.fileno() == -1 else connection.shutdown(2)
        await node.transport.client.close()

    began = time.monotonic()
    dying = asyncio.create_task(die())
    errors = await party.all()
    await dying
    assert time.monotonic() - began < 4 * SILENCE_S
    living = [error for rank, error in enumerate(errors) if rank != 1]
    assert all(isinstance(error, RingError) for error in living)
    assert party.group[1] in [error.silent for error in living]


async def test_other_lengths_rings_and_weights_are_refused(party):
    party = await party(3, 1000)
    party.given[1] = party.given[1][:-1]
    errors = await party.all()
    assert any("other numbers" in str(error) for error in errors)
    assert all(isinstance(error, RingError) for error in errors)


@pytest.mark.parametrize("weight", [math.nan, math.inf, -0.5])
async def test_a_weight_that_is_none_is_refused(party, weight):
    party = await party(2, 10)
    party.weights[1] = weight
    errors = await party.all()
    assert isinstance(errors[0], RingError)


async def test_another_group_of_the_same_name_is_another_ring(party):
    party = await party(3, 10)
    swapped = (party.group[0], party.group[2], party.group[1])
    results = await asyncio.gather(
        party.take_part(0), party.take_part(1), party.take_part(2, group=swapped, rank=1)
    )
    assert all(isinstance(result, RingError) for result in results)


async def test_other_ranges_of_the_same_length_are_refused(party):
    party = await party(2, 10)
    errors = await asyncio.gather(party.take_part(0, ranges=((0, 10),)), party.take_part(1))
    assert any("another ring" in str(error) for error in errors)


async def test_who_loses_its_reader_waits_for_the_reason(party):
    """The next one left because somebody else is silent: word of that is on its way."""
    party = await party(4, 1000)
    name = f"ring-{party.name}"
    before = party.nodes[3].transport.flows.offer(name, party.group[0], 5.0)
    after = party.nodes[1].transport.flows.read(party.group[0], name, 5.0)

    async def leave():
        await after.read(1)
        await after.close()
        await asyncio.sleep(0.3)
        before.abort(f"{ring.SILENT}{ring.peer_text(party.group[2])}")

    leaving = asyncio.create_task(leave())
    error = await party.take_part(0, silence_s=5.0)
    await leaving
    assert error.silent == party.group[2]


async def test_who_loses_its_reader_and_hears_nothing_blames_it(party):
    party = await party(4, 1000)
    name = f"ring-{party.name}"
    before = party.nodes[3].transport.flows.offer(name, party.group[0], 5.0)
    async with party.nodes[1].transport.flows.read(party.group[0], name, 5.0) as after:
        taking = asyncio.create_task(party.take_part(0, silence_s=5.0))
        await after.read(1)
    error = await taking
    before.abort("over")
    assert error.silent == party.group[1]


@pytest.mark.attack
async def test_numbers_that_are_not_finite_come_to_nobody(party):
    party = await party(3)
    party.given[2][5] = np.nan
    errors = await party.all()
    assert all(isinstance(error, RingError) for error in errors)
    assert any("not finite" in str(error) for error in errors)


@pytest.mark.attack
async def test_nobody_counts_as_much_as_it_likes(party):
    party = await party(3, 10)
    party.weights = [1.0, 1.0, 1e300]
    results = await party.all()
    party.weights[2] = 4.0
    np.testing.assert_allclose(results[0], party.mean, rtol=0, atol=1e-6)


@pytest.mark.attack
async def test_who_lives_and_gives_nothing_holds_nobody_up_for_ever(party, monkeypatch):
    """Beats keep its flow alive; the ring counts pieces."""
    party = await party(3, 1000)
    flows = party.nodes[1].transport.flows
    writer = flows.offer(f"ring-{party.name}", party.group[2], 60.0)
    began = time.monotonic()
    errors = await party.all(1)
    writer.abort("over")
    assert time.monotonic() - began < (ring.STALLS + 1) * SILENCE_S
    assert all(isinstance(error, RingError) for error in errors)


@pytest.mark.attack
async def test_a_blame_of_strangers_or_of_oneself_is_not_believed(party):
    party = await party(2, 1000)
    for blamed in (party.group[0], os.urandom(32)):
        party.name = os.urandom(16).hex()
        flows = party.nodes[1].transport.flows
        flows.offer(f"ring-{party.name}", party.group[0], SILENCE_S).abort(
            f"{ring.SILENT}{ring.peer_text(blamed)}"
        )
        error = await party.take_part(0)
        assert isinstance(error, RingError)
        assert error.silent is None


# -- the effect ------------------------------------------------------------------------------------


class Weights:
    """A trainer with one vector."""

    def __init__(self, numbers) -> None:
        self.numbers, self.slots = numbers, {}

    async def move(self, command) -> int:
        if isinstance(command, Export):
            if not np.isfinite(self.numbers).all():
                raise P2PTrainError("the weights are not finite")
            self.numbers.tofile(command.path)
        else:
            self.slots[command.out] = np.fromfile(command.path, np.float32)
        return len(self.numbers)


async def reduce(party, folder: Path, rank: int, **changed):
    answers = []
    effect = Reduce("t", OUT, OWN, party.weights[rank], party.group, party.name, SILENCE_S)
    trainer = Weights(party.given[rank])
    home = folder / str(rank)
    home.mkdir(exist_ok=True)
    flows = party.nodes[rank].transport.flows
    await reducing.reduce(effect, flows, trainer, home, answers.append)
    assert list(home.iterdir()) == []
    (answer,) = answers
    return answer, trainer.slots.get(OUT)


async def test_the_effect_puts_the_mean_into_the_slot(party, tmp_path):
    party = await party(2, 1000)
    (first, one), (second, two) = await asyncio.gather(*(reduce(party, tmp_path, rank) for rank in (0, 1)))
    assert isinstance(first, Reduced)
    assert isinstance(second, Reduced)
    assert one.tobytes() == two.tobytes()


@pytest.mark.attack
async def test_who_cannot_give_its_weights_says_so_and_nobody_waits(party, tmp_path):
    party = await party(3, 1000)
    party.given[0][:] = np.inf
    began = time.monotonic()
    answers = await asyncio.gather(*(reduce(party, tmp_path, rank) for rank in range(3)))
    assert time.monotonic() - began < SILENCE_S
    assert [answer for answer, _ in answers][1:] == [
        ReduceFailed("t", answers[1][0].reason, party.group[0]),
        ReduceFailed("t", answers[2][0].reason, party.group[0]),
    ]
    assert all(slot is None for _, slot in answers)


@pytest.mark.attack
@pytest.mark.parametrize("name", ["", "../../x", "g" * 32, "a" * 31, "a" * 33, "A" * 32])
async def test_a_name_that_is_none_touches_no_file(party, tmp_path, name):
    party = await party(2, 4)
    party.name = name
    answer, _ = await reduce(party, tmp_path, 0)
    assert answer == ReduceFailed("t", "that is no name of a ring")


async def test_what_is_left_of_an_earlier_run_is_deleted(tmp_path):
    (tmp_path / "x.ring").touch()
    (tmp_path / "y").touch()
    reducing.forget_rings(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


def test_the_benchmark_compares_equal_work():
    """B9 is timed by `p2ptrain bench ring`; here only that all ways come to their end."""
    figures = ring_benchmark.measure(3, 300_000, 0.0, 1)
    assert figures.identical
    assert figures.bytes_over_least == pytest.approx(1, abs=0.02)
    assert min(figures.ring_s, figures.server_s, figures.streamed_s) > 0
