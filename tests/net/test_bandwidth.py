"""The owner's bounds on bytes hold, however many transfers share them; without them nobody waits."""

import asyncio
import random

import pytest

from p2ptrain.core import limits
from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.types import PeerId
from p2ptrain.net.blobs.fetch import SOURCES_AT_ONCE, STREAM_BYTES_PER_S, fetch, fetch_from_any
from p2ptrain.net.blobs.server import WRITE_BYTES
from p2ptrain.net.channel.bandwidth import BURST_S, Bandwidth, Cap
from tests.net.virtual import Source, Transport, run

MIB = limits.MIB
A, B, C = (PeerId(bytes([number]) * 32) for number in range(1, 4))


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def read(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


# -- the bucket ------------------------------------------------------------------------------------


def test_the_rate_holds_in_the_long_run():
    cap, now, moved, dice = Cap(1e6), 0.0, 0, random.Random(4)
    for _ in range(1000):
        count = dice.randrange(1, 300_000)
        moved += count
        now += cap.owe(count, now) + dice.choice([0.0, 0.01])
    assert moved / now == pytest.approx(1e6, rel=0.01)


def test_a_pause_is_made_up_for_only_a_little():
    cap = Cap(1e6)
    cap.owe(1, 0.0)
    assert cap.owe(int(1e6 * BURST_S), 1000.0) == 0.0
    assert cap.owe(50_000, 1000.0) == pytest.approx(0.05)


def test_those_who_wait_are_served_in_order():
    cap = Cap(1000.0)
    assert [cap.owe(500, 0.0) for _ in range(4)] == pytest.approx([0.4, 0.9, 1.4, 1.9])


def test_without_a_bound_nobody_waits():
    async def never(_: float) -> None:
        pytest.fail("it waited")

    cap = Cap(0.0, lambda: pytest.fail("it looked at the clock"), never)
    asyncio.run(cap.pay(1 << 40))
    assert cap.owe(1 << 40, 0.0) == 0.0
    assert cap.piece_bytes(WRITE_BYTES) == WRITE_BYTES
    assert cap.streams(4, 1.0) == 4


@pytest.mark.parametrize(("mbit", "piece_kib"), [(1, 16), (10, 61), (100, 256)])
def test_a_slow_line_is_given_small_pieces(mbit, piece_kib):
    assert Bandwidth(mbit).up.piece_bytes(WRITE_BYTES) // limits.KIB == piece_kib


@pytest.mark.parametrize(("mbit", "streams"), [(1, 1), (4, 1), (5, 2), (100, 4)])
def test_a_slow_line_is_not_split_too_often(mbit, streams):
    assert Bandwidth(0, mbit).down.streams(SOURCES_AT_ONCE, STREAM_BYTES_PER_S) == streams


# -- transfers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("down_mbit", [2.0, 40.0])
def test_two_fetches_share_the_bound_on_what_comes_in(tmp_path, down_mbit):
    """From fast sources, at once: within a tenth of the bound, and nobody is taken for silent."""
    blobs = [random.Random(seed).randbytes(9 * MIB) for seed in (1, 2)]

    async def both() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        first, second = (
            Transport(*(Source(peer, data, rate=1e9) for peer in (A, B, C)), down_mbit=down_mbit)
            for data in blobs
        )
        second.bandwidth = first.bandwidth
        work = [
            fetch_from_any(
                one, [A, B, C], hash_blob(data), len(data), tmp_path, 900.0, lambda *_: pytest.fail("lied")
            )
            for one, data in zip((first, second), blobs, strict=True)
        ]
        await asyncio.gather(*work)
        return loop.time(), first.moved + second.moved

    took_s, moved = run(both())
    assert moved == pytest.approx(18 * MIB, rel=0.01)
    assert moved / took_s == pytest.approx(down_mbit * 125_000, rel=0.1)


async def test_all_readers_share_the_bound_on_what_goes_out(swarm, tmp_path):
    """Over real connections, with time that passes when somebody waits."""
    data = random.Random(3).randbytes(12 * MIB)
    blob = hash_blob(data)
    (tmp_path / blob).write_bytes(data)
    clock, bandwidth = Clock(), Bandwidth()
    bandwidth.up = Cap(10e6, clock.read, clock.sleep)
    source = await swarm.node(blobs=tmp_path, bandwidth=bandwidth)
    work = []
    for name in ("first", "second"):
        reader = await swarm.node()
        reader.transport.learn(source.peer, source.addresses)
        (tmp_path / name).mkdir()
        work.append(fetch(reader.transport, source.peer, blob, len(data), tmp_path / name, 20.0))
    await asyncio.gather(*work)
    assert source.transport.traffic.total.blobs_up / clock.now == pytest.approx(10e6, rel=0.1)
