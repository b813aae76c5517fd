"""A ring beside a parameter server, on lines of a given speed (ALGORITHMS B9). All peers are in this process.

What leaves and enters each peer is bounded: that is its line. The ways take turns. The server is one of the
peers: it reads from all others and then gives them the mean, as where weights travel as blobs; or it streams:
it gives each piece of the mean as soon as it has that piece of all, which is the best that a server can do.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median

import numpy as np
from msgspec import Struct

from p2ptrain.core.types import Seconds
from p2ptrain.daemon.ring import Numbers, Place, average
from p2ptrain.net.benchmark import HOST, LOOPBACK, Silent
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.flows.frames import PIECE_BYTES
from p2ptrain.net.flows.writer import Writer
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import Role, wall_clock
from p2ptrain.net.trust.identity import Identity

SILENCE_S: Seconds = 30.0
PIECE_NUMBERS = PIECE_BYTES // 4


class Figures(Struct, frozen=True):
    """Medians over rounds.

    mbit: of each line, in each direction.
    ring_s, server_s, streamed_s: one mean, by a ring, by a server, by a server that streams.
    ring_over_server, ring_over_streamed: how many times faster the ring is.
    bytes_over_least: what left a peer in a ring, over 2 (n - 1) / n of the weights.
    identical: whether all peers of all rings had the same bits.
    """

    peers: int
    size_bytes: int
    mbit: float
    rounds: int
    ring_s: Seconds
    server_s: Seconds
    streamed_s: Seconds
    ring_over_server: float
    ring_over_streamed: float
    bytes_over_least: float
    identical: bool


def measure(peers: int, size_bytes: int, mbit: float, rounds: int) -> Figures:
    """Average random weights in each way, once for each round.

    Args:
        peers: at least 2.
        size_bytes: of the weights, f32.
        mbit: 10^6 bit/s of each peer's line, in each direction; 0: as fast as this computer is.
        rounds: at least one.
    """
    return asyncio.run(_measure(peers, size_bytes // 4, mbit, rounds))


async def _measure(peers: int, count: int, mbit: float, rounds: int) -> Figures:
    table = await _Table.open(peers, count, mbit)
    try:
        await table.warm_up()
        done = [
            (await table.ring(), await table.server(False), await table.server(True)) for _ in range(rounds)
        ]
    finally:
        await asyncio.gather(*(one.close() for one in table.transports))
    ring_s, server_s, streamed_s = (median(times) for times in zip(*done, strict=True))
    ratios = server_s / ring_s, streamed_s / ring_s
    moved = median(table.moved) / (2 * (peers - 1) / peers * 4 * count)
    times = ring_s, server_s, streamed_s
    return Figures(peers, 4 * count, mbit, rounds, *times, *ratios, moved, table.identical)


class _Table:
    """Peers that know each other, with weights."""

    def __init__(self, transports: list[Transport], count: int) -> None:
        self.transports = transports
        self.group = tuple(one.flows.me for one in transports)
        self.moved: list[int] = []
        self.identical = True
        rng = np.random.default_rng(0)
        self._given = [rng.standard_normal(count, dtype=np.float32) for _ in transports]
        self._name = 0

    @classmethod
    async def open(cls, peers: int, count: int, mbit: float) -> "_Table":
        issuer = Root.create(wall_clock()).appoint(wall_clock())
        transports = []
        for slot in range(peers):
            identity = Identity.create()
            membership = issuer.certify(identity.peer, Role.MEMBER, slot, wall_clock())
            line = Bandwidth(mbit, mbit)
            transports.append(Transport(identity, membership, Silent(), allow=LOOPBACK, bandwidth=line))
            await transports[-1].start(HOST)
        for one in transports:
            for other in transports:
                one.learn(other.flows.me, [f"{HOST}:{other.port}"])
        return cls(transports, count)

    async def warm_up(self) -> None:
        """Open the connections."""
        given, self._given = self._given, [numbers[:4] for numbers in self._given]
        for act in (self.ring, lambda: self.server(False)):
            await act()
        self._given, self.moved = given, []

    async def ring(self) -> Seconds:
        """Average by a ring; note what moved."""
        before = [one.traffic.total.blobs_up for one in self.transports]
        name, mine = self._next_name(), [numbers.copy() for numbers in self._given]

        async def take_part(rank: int) -> None:
            place = Place(self.group, rank, name, SILENCE_S)
            await average(self.transports[rank].flows, place, mine[rank], 1.0)

        took = await _timed(take_part, len(self.group))
        self.moved += [
            one.traffic.total.blobs_up - old for one, old in zip(self.transports, before, strict=True)
        ]
        self.identical &= all(numbers.tobytes() == mine[0].tobytes() for numbers in mine)
        return took

    async def server(self, streams: bool) -> Seconds:
        """Average by the first peer."""
        name = self._next_name()

        async def take_part(rank: int) -> None:
            await (self._serve(name, streams) if rank == 0 else self._work(rank, name))

        return await _timed(take_part, len(self.group))

    async def _serve(self, name: str, streams: bool) -> None:
        flows, workers = self.transports[0].flows, self.group[1:]
        total = self._given[0].copy()
        writers = [flows.offer(f"{name}-mean", worker, SILENCE_S) for worker in workers]
        readers = [flows.read(worker, f"{name}-own", SILENCE_S) for worker in workers]
        step = PIECE_NUMBERS if streams else len(total)
        for at in range(0, len(total), step):
            pieces = [np.empty(min(step, len(total) - at), np.float32) for _ in readers]
            await asyncio.gather(
                *(
                    reader.read_into(piece.data.cast("B"))
                    for reader, piece in zip(readers, pieces, strict=True)
                )
            )
            part = total[at : at + step]
            for piece in pieces:
                part += piece
            part /= len(self.group)
            await asyncio.gather(*(writer.write(part.data) for writer in writers))
        await asyncio.gather(*(writer.end() for writer in writers))
        await asyncio.gather(*(reader.close() for reader in readers))

    async def _work(self, rank: int, name: str) -> None:
        flows, server, mine = self.transports[rank].flows, self.group[0], self._given[rank].copy()
        giving = asyncio.create_task(_give(flows.offer(f"{name}-own", server, SILENCE_S), mine))
        mean = np.empty_like(mine)
        async with flows.read(server, f"{name}-mean", SILENCE_S) as reader:
            await reader.read_into(mean.data.cast("B"))
            await reader.expect_end()
        await giving

    def _next_name(self) -> str:
        self._name += 1
        return f"{self._name:032x}"


async def _give(writer: Writer, numbers: Numbers) -> None:
    await writer.write(numbers.data)
    await writer.end()


async def _timed(take_part: Callable[[int], Awaitable[None]], count: int) -> Seconds:
    began = time.perf_counter()
    await asyncio.gather(*map(take_part, range(count)))
    return time.perf_counter() - began
