"""A peer that may be out of reach waits at two relays, and finds others when one is lost."""

import asyncio
import contextlib
from collections import Counter
from itertools import pairwise
from random import Random
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest

from p2ptrain.core.errors import UnreachableError
from p2ptrain.core.types import PeerId
from p2ptrain.net.relay import server as relay
from p2ptrain.net.relay.calls import CALL_BYTES_MAX, RELAY, RELAY_PATH, Ask, Call, Reply
from p2ptrain.net.relay.reservation import RETRY_MAX_S, Reservations
from tests.net.virtual import run

PEERS = [PeerId(bytes([number]) * 32) for number in range(1, 5)]
A, B, C, D = PEERS


class Lines:
    """Relays. `down`: do not answer; `asked`: when each was dialled; `said`: what came to them."""

    def __init__(self, *down: PeerId) -> None:
        self.down = set(down)
        self.asked: list[tuple[PeerId, float]] = []
        self.said: list[bytes] = []
        self.open: dict[PeerId, asyncio.Queue[aiohttp.WSMessage]] = {}

    @contextlib.asynccontextmanager
    async def websocket(self, peer, path, bytes_max, heartbeat_s=None):
        assert (path, bytes_max) == (RELAY_PATH, CALL_BYTES_MAX)
        self.asked.append((peer, asyncio.get_running_loop().time()))
        await asyncio.sleep(0.1)
        if peer in self.down:
            raise UnreachableError("no answer")
        queue = self.open[peer] = asyncio.Queue()
        try:
            yield SimpleNamespace(receive=queue.get, send_bytes=self._hear)
        finally:
            del self.open[peer]

    async def _hear(self, data: bytes) -> None:
        self.said.append(data)

    def say(self, peer: PeerId, data: bytes) -> None:
        self.open[peer].put_nowait(aiohttp.WSMessage(aiohttp.WSMsgType.BINARY, data, None))

    def end(self, peer: PeerId) -> None:
        self.open[peer].put_nowait(aiohttp.WSMessage(aiohttp.WSMsgType.CLOSED, None, None))


async def agree(relay: PeerId, call: Call) -> Reply:
    return Reply(call.number, agreed=True)


@contextlib.asynccontextmanager
async def waiting(lines, candidates, answer=agree):
    told: list[tuple[PeerId, ...]] = []
    one = Reservations(lines, answer, lambda: candidates, told.append, Random(3))
    running = asyncio.create_task(one.run())
    try:
        yield one, told
    finally:
        running.cancel()
        await one.close()


def test_the_first_two_that_answer_are_kept_and_told():
    async def story():
        lines = Lines(A)
        async with waiting(lines, [A, B, C, D]) as (one, told):
            await asyncio.sleep(1.0)
            assert set(one.relays) == {B, C}
            assert told == [(B,), (B, C)]

    run(story())


def test_a_lost_relay_is_replaced_at_once_and_not_asked_again_soon():
    async def story():
        lines = Lines()
        async with waiting(lines, [A, B, C]) as (one, told):
            await asyncio.sleep(1.0)
            lines.end(A)
            await asyncio.sleep(0.2)
            assert set(one.relays) == {B, C}
            assert told[-2:] == [(B,), (B, C)]
            await asyncio.sleep(60.0)
            assert set(one.relays) == {B, C}

    run(story())


def test_relays_that_are_down_are_asked_ever_less_often():
    async def story():
        lines = Lines(A, B)
        async with waiting(lines, [A, B]):
            await asyncio.sleep(3600.0)
        times = [at for peer, at in lines.asked if peer == A]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert 14 <= len(times) <= 24
        assert min(gaps) > 3.0
        assert max(gaps) <= 1.25 * RETRY_MAX_S + 6.0
        assert max(Counter(peer for peer, _ in lines.asked).values()) == len(times)

    run(story())


def test_who_needs_no_relay_leaves_them():
    async def story():
        lines, candidates = Lines(), [A, B]
        async with waiting(lines, candidates) as (one, told):
            await asyncio.sleep(1.0)
            candidates.clear()
            one.look()
            await asyncio.sleep(0.1)
            assert (one.relays, told[-1], lines.open) == ((), (), {})
            candidates += [C]
            await asyncio.sleep(6.0)
            assert one.relays == (C,)

    run(story())


@pytest.mark.attack
@pytest.mark.parametrize(
    "said",
    [[b"\xc1"], [b""], [msgspec.msgpack.encode(Call(1, A, Ask(RELAY, bytes(16))))] * 100],
    ids=["nonsense", "nothing", "a flood"],
)
def test_a_relay_that_breaks_rules_is_left(said):
    async def story():
        lines = Lines()
        async with waiting(lines, [A]) as (one, _):
            await asyncio.sleep(1.0)
            for data in said:
                lines.say(A, data)
            await asyncio.sleep(0.5)
            assert one.relays == ()
            assert len(lines.said) <= 72

    run(story())


def test_a_slow_answer_holds_up_no_other():
    async def answer(relay: PeerId, call: Call) -> Reply:
        await asyncio.sleep(100.0 if call.number == 1 else 0.1)
        return Reply(call.number, agreed=False)

    async def story():
        lines = Lines()
        async with waiting(lines, [A], answer):
            await asyncio.sleep(1.0)
            for number in (1, 2):
                data = msgspec.msgpack.encode(Call(number, B, Ask(RELAY, bytes(16))))
                lines.say(A, data)
            await asyncio.sleep(1.0)
            assert [msgspec.msgpack.decode(one, type=Reply).number for one in lines.said] == [2]

    run(story())


# -- with real relays --------------------------------------------------------------------------------


async def test_members_that_are_no_relays_are_passed_over(swarm, until):
    one, none, good = await swarm.node(), await swarm.node(relay=None), await swarm.node()
    for other in (none, good):
        one.transport.learn(other.peer, other.addresses)
    one.transport.rendezvous.candidates = lambda: [none.peer, good.peer]
    one.transport.rendezvous.reservations.look()
    await until(lambda: one.transport.rendezvous.reservations.relays == (good.peer,))


async def test_places_are_bounded_and_a_new_connection_takes_the_old_ones_place(swarm, until, monkeypatch):
    monkeypatch.setattr(relay, "RESERVATIONS_MAX", 1)
    middle, first, second = [await swarm.node() for _ in range(3)]
    serving = middle.transport.rendezvous.relay
    for one in (first, second):
        one.transport.learn(middle.peer, middle.addresses)

    async def place(one, lasts_s: float):
        async with one.transport.client.websocket(middle.peer, RELAY_PATH, CALL_BYTES_MAX) as websocket:
            with contextlib.suppress(TimeoutError):
                return (await websocket.receive(timeout=lasts_s)).type
        return None

    old = asyncio.create_task(place(first, 5.0))
    await until(lambda: serving.guests == [first.peer])
    new = asyncio.create_task(place(first, 0.3))
    assert await old == aiohttp.WSMsgType.CLOSE
    assert serving.guests == [first.peer]
    with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
        await place(second, 0.1)
    assert await new is None
    await until(lambda: serving.guests == [])


@pytest.mark.attack
@pytest.mark.parametrize(
    "said",
    [
        bytes(range(64)),
        bytes(CALL_BYTES_MAX + 1),
        "text",
        [msgspec.msgpack.encode(Reply(7, agreed=True))] * 100,
    ],
    ids=["noise", "too long", "text", "a flood"],
)
async def test_a_guest_that_breaks_rules_is_shown_out(swarm, until, said):
    middle, guest = await swarm.node(), await swarm.node()
    guest.transport.learn(middle.peer, middle.addresses)
    async with guest.transport.client.websocket(middle.peer, RELAY_PATH, CALL_BYTES_MAX) as websocket:
        await until(lambda: middle.transport.rendezvous.relay.guests == [guest.peer])
        with contextlib.suppress(ConnectionError):
            for data in said if isinstance(said, list) else [said]:
                await (websocket.send_str(data) if isinstance(data, str) else websocket.send_bytes(data))
        await until(lambda: middle.transport.rendezvous.relay.guests == [])
