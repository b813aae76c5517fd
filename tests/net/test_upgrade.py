"""A relayed connection gives way to a direct one, unnoticed; frames to known peers dial them."""

import asyncio
import random

import pytest

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, peer_text
from p2ptrain.net.channel import switchboard
from p2ptrain.net.channel.waiting import FRAMES_MAX, PEERS_MAX, REST_S, Waiting
from p2ptrain.net.reach import upgrade
from p2ptrain.net.reach.upgrade import JITTER, UPGRADE_EVERY_S, Upgrades
from tests.net.virtual import run

A, B = (PeerId(bytes([number]) * 32) for number in (1, 2))


async def relayed(swarm, until, **options):
    """Two nodes, connected through a third, the first having dialled."""
    one, two = await swarm.pair(**options)
    relay = await swarm.node()
    for node in (one, two):
        node.transport.learn(relay.peer, relay.addresses)
        node.transport.client.ways[:] = [way for way in node.transport.client.ways if way.name == "relay"]
    two.transport.rendezvous.candidates = lambda: [relay.peer]
    two.transport.rendezvous.reservations.look()
    await until(lambda: two.transport.rendezvous.reservations.relays)
    assert await one.transport.dial(two.peer, [f"via:{peer_text(relay.peer)}"])
    await until(lambda: two.events.ups)
    for node, other in ((one, two), (two, one)):
        assert node.transport.path(other.peer) == f"relay through {peer_text(relay.peer)[:8]}"
    return one, two, relay


def direct(node, other) -> bool:
    return node.transport.path(other.peer).startswith("direct")


@pytest.mark.parametrize("by_caller", [True, False])
async def test_a_direct_connection_takes_the_place_of_a_relayed_one(swarm, until, monkeypatch, by_caller):
    """No frame is lost or doubled, nobody is told that anything ended, and the relay is used no more."""
    monkeypatch.setattr(switchboard, "RETIRED_RELAY_S", 0.2)
    one, two, relay = await relayed(swarm, until)
    first, second = (one, two) if by_caller else (two, one)
    first.transport.learn(second.peer, second.addresses)
    for index in range(100):
        one.transport.send(two.peer, b"%d" % index)
        two.transport.send(one.peer, b"%d" % index)
        if index == 20:
            first.transport.address_changed()
        await asyncio.sleep(0.002)
    await until(lambda: direct(one, two) and direct(two, one))
    await until(lambda: not relay.transport.rendezvous.relay.sessions)
    for node, other in ((one, two), (two, one)):
        await until(lambda node=node: len(node.events.frames) >= 100)
        assert sorted(int(frame) for _, frame in node.events.frames) == list(range(100))
        assert (node.events.ups, node.events.downs) == ([other.peer], [])


async def test_both_find_a_better_way_at_once(swarm, until, monkeypatch):
    monkeypatch.setattr(switchboard, "RETIRED_RELAY_S", 0.1)
    monkeypatch.setattr(switchboard, "RETIRED_S", 0.1)
    one, two, _ = await relayed(swarm, until)
    for first, second in ((one, two), (two, one)):
        first.transport.learn(second.peer, second.addresses)
        first.transport.address_changed()
    await until(lambda: direct(one, two) and direct(two, one))
    await asyncio.sleep(0.3)
    for node, other in ((one, two), (two, one)):
        assert direct(node, other)
        assert (node.events.ups, node.events.downs) == ([other.peer], [])


async def test_a_relayed_connection_stays_where_there_is_nothing_better(swarm, until):
    one, two, relay = await relayed(swarm, until)
    one.transport.learn(two.peer, ["127.0.0.1:1025", f"via:{peer_text(relay.peer)}"])
    one.transport.address_changed()
    await asyncio.sleep(0.2)
    one.transport.send(two.peer, b"still here")
    await until(lambda: two.events.frames)
    assert not direct(one, two)
    assert (one.events.downs, two.events.downs) == ([], [])


async def test_a_peer_that_began_anew_is_told_apart_from_one_that_found_a_better_way(swarm, until):
    one, two, _ = await relayed(swarm, until)
    twin = await swarm.node(one.identity, one.membership)
    assert await twin.dial(two)
    await until(lambda: len(two.events.ups) == 2)
    assert two.events.downs == [(one.peer, "replaced by a newer connection")]


@pytest.mark.parametrize("seed", range(3))
def test_it_is_tried_now_and_then_and_when_the_address_changed(seed):
    tried: list[tuple[float, PeerId]] = []

    async def attempt(peer: PeerId) -> None:
        tried.append((asyncio.get_running_loop().time(), peer))

    async def watch() -> None:
        upgrades = Upgrades(lambda: [A, B], attempt, random.Random(seed))
        task = asyncio.create_task(upgrades.run())
        await asyncio.sleep((1 + JITTER) * UPGRADE_EVERY_S + 1)
        assert [peer for _, peer in tried] == [A, B]
        assert abs(tried[0][0] - UPGRADE_EVERY_S) <= JITTER * UPGRADE_EVERY_S
        before = asyncio.get_running_loop().time()
        upgrades.hurry()
        await asyncio.sleep(1)
        assert tried[2:] == [(before, A), (before, B)]
        task.cancel()

    run(watch())


def test_not_all_are_tried_at_once(monkeypatch):
    monkeypatch.setattr(upgrade, "AT_ONCE", 2)
    now, most = 0, 0

    async def attempt(_: PeerId) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1

    async def watch() -> None:
        await Upgrades(
            lambda: [PeerId(bytes([n]) * 32) for n in range(9)], attempt, random.Random(1)
        )._try_all()

    run(watch())
    assert most == 2


# -- frames without a connection -------------------------------------------------------------------


async def test_a_frame_to_a_known_peer_dials_it(swarm, until):
    one, two = await swarm.pair()
    one.transport.learn(two.peer, two.addresses)
    for index in range(3):
        one.transport.send(two.peer, b"%d" % index)
    await until(lambda: len(two.events.frames) == 3)
    assert [frame for _, frame in two.events.frames] == [b"0", b"1", b"2"]
    assert one.events.ups == [two.peer]


async def test_a_frame_waits_for_a_dial_of_the_other_side_too(swarm, until):
    one, two = await swarm.pair()
    one.transport.learn(two.peer, ["127.0.0.1:1025"])
    assert one.transport._waiting.put(two.peer, b"x", 0.0)
    assert await two.dial(one)
    await until(lambda: two.events.frames)


async def test_a_frame_to_nobody_is_lost(swarm):
    one, two = await swarm.pair()
    one.transport.send(two.peer, b"x")
    await asyncio.sleep(0.05)
    assert (one.events.ups, one.events.downs) == ([], [])


async def test_a_peer_that_was_just_dialled_in_vain_is_let_rest(swarm, until):
    one, two = await swarm.pair()
    one.transport.learn(two.peer, ["127.0.0.1:1025"])
    one.transport.send(two.peer, b"x")
    await until(lambda: one.events.downs)
    one.transport.send(two.peer, b"y")
    await asyncio.sleep(0.05)
    assert len(one.events.downs) == 1
    assert one.transport.traffic.of(two.peer).dropped == 2
    assert await one.dial(two)


def test_what_waits_is_bounded():
    frames = Waiting()
    for index in range(2 * FRAMES_MAX):
        assert frames.put(A, b"%d" % index, 0.0)
    assert list(frames.take(A)) == [b"%d" % index for index in range(FRAMES_MAX, 2 * FRAMES_MAX)]
    assert not frames.take(A)
    for number in range(2 * PEERS_MAX):
        assert frames.put(PeerId(number.to_bytes(32)), b"x", 0.0) == (number < PEERS_MAX)


def test_who_was_dialled_in_vain_rests(monkeypatch):
    monkeypatch.setattr(limits, "PEERS_MAX", 5)
    frames = Waiting()
    assert frames.put(A, b"x", 10.0)
    assert frames.give_up(A, 10.0) == 1
    assert not frames.put(A, b"x", 10.0 + REST_S - 1)
    assert frames.put(A, b"x", 10.0 + REST_S)
    frames.give_up(A, 50.0)
    frames.take(A)
    assert frames.put(A, b"x", 50.0)
    for number in range(9):
        frames.give_up(PeerId(number.to_bytes(32)), 60.0)
    assert len(frames._vain) == 5
