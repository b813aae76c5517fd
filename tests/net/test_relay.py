"""Two peers that cannot dial each other talk through a third, which learns nothing and can change nothing."""

import asyncio
import itertools
import random
import re
import socket

import aiohttp
import pytest

from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.errors import UnreachableError
from p2ptrain.core.types import peer_text, short
from p2ptrain.net.blobs.fetch import fetch
from p2ptrain.net.reach import client
from p2ptrain.net.relay import server as relay
from p2ptrain.net.relay.server import RelayBounds
from p2ptrain.net.ways import WayName

MARKER = b"the loss is 0.25, the secret marker"


def via(*relays) -> list[str]:
    return [f"via:{peer_text(one.peer)}" for one in relays]


def only(node, *names: WayName) -> None:
    """Leave a node these ways only."""
    ways = node.transport.client.ways
    ways[:] = [way for way in ways if way.name in names]


def by_websocket(node) -> None:
    """Let a node know no port where a relay splices."""
    node.transport.rendezvous._legs._addresses = lambda _: []


async def wait_at(node, *relays, until) -> None:
    """Let a node be called at relays, and nowhere else."""
    for one in relays:
        node.transport.learn(one.peer, one.addresses)
    node.transport.rendezvous.candidates = lambda: [one.peer for one in relays]
    node.transport.rendezvous.reservations.look()
    await until(lambda: len(node.transport.rendezvous.reservations.relays) == min(2, len(relays)))


@pytest.fixture
async def three(swarm, until, tmp_path):
    """Who calls, a relay, and who waits there with a folder of blobs."""
    (tmp_path / "theirs").mkdir()
    caller, middle = await swarm.node(), await swarm.node()
    called = await swarm.node(blobs=tmp_path / "theirs")
    await wait_at(called, middle, until=until)
    only(caller, "relay")
    caller.transport.learn(middle.peer, middle.addresses)
    caller.transport.learn(called.peer, via(middle))
    return caller, middle, called


def blob_of(tmp_path, size: int):
    data = random.Random(size).randbytes(size - len(MARKER)) + MARKER
    blob = hash_blob(data)
    (tmp_path / "theirs" / blob).write_bytes(data)
    return blob


class Tap:
    """A relay that looks at what it passes on, and may do worse.

    flip_at: changes one bit of that byte. stop_at: passes nothing on from that byte on, and says nothing.
    """

    def __init__(self, flip_at: int = -1, stop_at: int = -1) -> None:
        self.seen = bytearray()
        self._flip_at, self._stop_at = flip_at, stop_at

    async def splice(self, one, two, pay, idle_s, piece_bytes) -> None:
        async with asyncio.timeout(idle_s), asyncio.TaskGroup() as both:
            both.create_task(self._pour(one, two))
            both.create_task(self._pour(two, one))

    async def _pour(self, source, sink) -> None:
        loop = asyncio.get_running_loop()
        while piece := bytearray(await loop.sock_recv(source, 1 << 16)):
            before = len(self.seen)
            self.seen += piece
            if before <= self._flip_at < len(self.seen):
                piece[self._flip_at - before] ^= 4
            if 0 <= self._stop_at < len(self.seen):
                await asyncio.sleep(3600)
            await loop.sock_sendall(sink, piece)
        sink.shutdown(socket.SHUT_RDWR)


KINDS = list(itertools.product((False, True), repeat=2))


@pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))
@pytest.mark.parametrize("websockets", KINDS, ids=["splices", "caller splices", "called splices", "neither"])
async def test_messages_and_weights_travel_through_a_relay(three, until, tmp_path, websockets):
    caller, middle, called = three
    for node, forced in zip((called, caller), websockets, strict=True):
        if forced:
            by_websocket(node)
    assert await caller.transport.dial(called.peer)
    await until(lambda: called.events.ups == [caller.peer])
    for one, other in ((caller, called), (called, caller)):
        assert one.transport.path(other.peer) == f"relay through {short(middle.peer)}"
        one.transport.send(other.peer, b"hello")
    await until(lambda: caller.events.frames and called.events.frames)
    blob = blob_of(tmp_path, 3_000_000)
    await fetch(caller.transport, called.peer, blob, 3_000_000, tmp_path, 20.0)
    assert MARKER in (tmp_path / blob).read_bytes()
    assert middle.transport.rendezvous.relay.carried_bytes > 3_000_000
    caller.transport.hangup(called.peer, "done")
    await until(lambda: called.events.downs)


async def test_a_relay_sees_nothing(three, until, tmp_path, monkeypatch):
    caller, _, called = three
    tap = Tap()
    monkeypatch.setattr(relay, "splice", tap.splice)
    assert await caller.transport.dial(called.peer)
    called_first = asyncio.create_task(until(lambda: called.events.frames))
    caller.transport.send(called.peer, MARKER)
    await called_first
    blob = blob_of(tmp_path, 2_000_000)
    await fetch(caller.transport, called.peer, blob, 2_000_000, tmp_path, 20.0)
    assert len(tap.seen) > 2_000_000
    for secret in (MARKER, b"HTTP", b"blob", called.membership.leaf, caller.membership.leaf):
        assert secret not in tap.seen


@pytest.mark.attack
@pytest.mark.parametrize("at", [3, 600, 1_500_000], ids=["greeting", "certificates", "weights"])
async def test_a_changed_bit_ends_the_connection(three, tmp_path, monkeypatch, at):
    caller, _, called = three
    monkeypatch.setattr(relay, "splice", Tap(flip_at=at).splice)
    blob = blob_of(tmp_path, 3_000_000)
    with pytest.raises((aiohttp.ClientError, OSError)):
        async with caller.transport.get(called.peer, f"/v1/blob/{blob}") as answer:
            await answer.read()


@pytest.mark.attack
async def test_a_relay_cannot_pass_the_call_on_to_somebody_else(three, swarm, until):
    """Neither as the peer that is called, nor by serving the call itself."""
    caller, middle, called = three
    other = await swarm.node()
    await wait_at(other, middle, until=until)
    places = middle.transport.rendezvous.relay._guests
    places[called.peer], places[other.peer] = places[other.peer], places[called.peer]
    session = middle.transport.rendezvous.relay._open
    middle.transport.rendezvous.relay._open = lambda one, _, token: session(one, other.peer, token)
    assert not await caller.transport.dial(called.peer)
    assert "not the peer that is meant" in caller.events.downs[0][1]
    assert other.events.ups == []


async def test_when_a_relay_ends_the_transfer_goes_on_through_another(
    swarm, three, until, tmp_path, monkeypatch
):
    caller, first, called = three
    second = await swarm.node()
    caller.transport.learn(second.peer, second.addresses)
    caller.transport.learn(called.peer, via(first, second))
    await wait_at(called, first, second, until=until)
    monkeypatch.setattr(called.transport.bandwidth.up, "bytes_per_s", 10_000_000)
    blob = blob_of(tmp_path, 6_000_000)
    bringing = asyncio.create_task(fetch(caller.transport, called.peer, blob, 6_000_000, tmp_path, 20.0))
    await until(lambda: first.transport.rendezvous.relay.carried_bytes > 1_000_000)
    await first.transport.close()
    async with asyncio.timeout(15.0):
        await bringing
    assert second.transport.rendezvous.relay.carried_bytes > 1_000_000
    assert caller.transport.traffic.total.blobs_down < 1.5 * 6_000_000


@pytest.mark.parametrize("websockets", [False, True], ids=["spliced", "by WebSocket"])
async def test_a_relay_that_falls_silent_hangs_nobody(swarm, three, tmp_path, monkeypatch, websockets):
    """As when its computer loses power: nothing comes any more, not even an end."""
    caller, _, called = three
    if websockets:
        by_websocket(caller)
        by_websocket(called)
    monkeypatch.setattr(relay, "splice", Tap(stop_at=1_000_000).splice)
    monkeypatch.setattr(client, "GET_TIMEOUT", aiohttp.ClientTimeout(total=None, connect=8.0, sock_read=0.3))
    blob = blob_of(tmp_path, 6_000_000)
    with pytest.raises(UnreachableError):
        await fetch(caller.transport, called.peer, blob, 6_000_000, tmp_path, 3.0)
    async with asyncio.timeout(8.0):
        await swarm.close()


async def test_a_relay_gives_no_more_than_its_owner_allows(swarm, until, tmp_path):
    (tmp_path / "theirs").mkdir()
    caller, middle = await swarm.node(), await swarm.node(relay=RelayBounds(gb_a_day=0.001))
    called = await swarm.node(blobs=tmp_path / "theirs")
    await wait_at(called, middle, until=until)
    only(caller, "relay")
    caller.transport.learn(middle.peer, middle.addresses)
    caller.transport.learn(called.peer, via(middle))
    blob = blob_of(tmp_path, 3_000_000)
    with pytest.raises((aiohttp.ClientError, OSError)):
        async with caller.transport.get(called.peer, f"/v1/blob/{blob}") as answer:
            await answer.read()
    assert not await caller.transport.dial(called.peer)
    assert re.search("relay has enough to do", caller.events.downs[-1][1])
    assert 1_000_000 <= middle.transport.rendezvous.relay.carried_bytes < 1_600_000
