"""The swarm's state is compared with one neighbour after the other: a question may cost a handshake."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from p2ptrain.core.errors import UnreachableError
from p2ptrain.core.types import PeerId
from p2ptrain.net.members.spreading import COMPARE_EVERY_S, Spreading
from p2ptrain.net.members.state import StateKeeper
from tests.net.virtual import run

ANNA, BERT, CARA = (PeerId(bytes([number]) * 32) for number in (1, 2, 3))


class Line:
    """Neighbours that never answer, and who was asked when."""

    def __init__(self, *connected: PeerId) -> None:
        self.connected = list(connected)
        self.asked: list[tuple[float, PeerId]] = []

    @contextlib.asynccontextmanager
    async def request(self, method: str, peer: PeerId, *_: Any) -> AsyncIterator[Any]:
        self.asked.append((asyncio.get_running_loop().time(), peer))
        raise UnreachableError("nobody answers")
        yield


def spreading(line: Line) -> Spreading:
    made = Spreading(StateKeeper(bytes(32), b"", lambda _: None), lambda *_: None)
    made.line = line  # type: ignore[assignment]
    return made


async def minutes(line: Line, count: int) -> None:
    task = asyncio.create_task(spreading(line).run())
    await asyncio.sleep(count * COMPARE_EVERY_S + 1)
    task.cancel()


def test_one_a_minute_and_each_in_turn() -> None:
    line = Line(ANNA, BERT, CARA)
    run(minutes(line, 6))
    assert [peer for _, peer in line.asked] == [ANNA, BERT, CARA] * 2
    assert [at for at, _ in line.asked] == [COMPARE_EVERY_S * turn for turn in range(1, 7)]


def test_who_is_gone_is_not_asked_and_who_came_is() -> None:
    async def change(line: Line) -> None:
        task = asyncio.create_task(spreading(line).run())
        await asyncio.sleep(COMPARE_EVERY_S + 1)
        line.connected = [CARA]
        await asyncio.sleep(2 * COMPARE_EVERY_S)
        task.cancel()

    line = Line(ANNA, BERT)
    run(change(line))
    assert [peer for _, peer in line.asked] == [ANNA, CARA, CARA]


def test_alone_nobody_is_asked() -> None:
    line = Line()
    run(minutes(line, 2))
    assert line.asked == []
