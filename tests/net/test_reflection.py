"""How others see this node's port, and whether its router is one that cannot be punched."""

import asyncio
import socket

import pytest
from aiohttp import web

from p2ptrain.core.errors import UnreachableError
from p2ptrain.core.types import peer_text
from p2ptrain.net.addresses import Address
from p2ptrain.net.reach import punch, reflection
from p2ptrain.net.reach.ask import ask
from p2ptrain.net.reach.reflection import WHERE_PATH, Reflection, Where

pytestmark = pytest.mark.skipif(not punch.CAN_SHARE, reason="this system has no SO_REUSEPORT")


async def seen_by(swarm, *others, **options):
    """Return what a new node sees of itself in others."""
    node = await swarm.node(**options)
    for other in others:
        node.transport.learn(other.peer, other.addresses)
    node.transport.mirror._peers = lambda: [other.peer for other in others]
    return node, await node.transport.mirror.look()


def symmetric(monkeypatch) -> None:
    """Every connection comes from another port, as behind such a router."""

    def unbound(_: Address, __: Address) -> socket.socket:
        return socket.socket()

    monkeypatch.setattr(reflection, "bound", unbound)


async def test_two_say_the_same(swarm):
    others = [await swarm.node(), await swarm.node()]
    node, seen = await seen_by(swarm, *others)
    assert seen == Reflection(Address("127.0.0.1", node.transport.port), symmetric=False)
    assert await node.transport.mirror.look() == seen


async def test_one_says_something(swarm):
    node, seen = await seen_by(swarm, await swarm.node())
    assert seen == Reflection(Address("127.0.0.1", node.transport.port), symmetric=None)
    assert await node.transport.mirror.observed() == (seen.outer,)


async def test_one_with_two_ports_is_two(swarm):
    other = await swarm.node(second=True)
    node, seen = await seen_by(swarm, other)
    assert seen == Reflection(Address("127.0.0.1", node.transport.port), symmetric=False)


async def test_a_symmetric_router_is_noticed_and_nothing_is_promised(swarm, monkeypatch):
    symmetric(monkeypatch)
    node, seen = await seen_by(swarm, await swarm.node(second=True))
    assert seen.symmetric
    assert await node.transport.mirror.observed() == ()


async def test_nobody_answers(swarm):
    node, seen = await seen_by(swarm)
    assert seen == Reflection(None, None)
    assert await node.transport.mirror.observed() == ()


async def test_one_of_three_is_gone(swarm):
    others = [await swarm.node() for _ in range(3)]
    await others[0].transport.close()
    _, seen = await seen_by(swarm, *others)
    assert seen.symmetric is False


async def test_it_is_remembered_until_the_address_changes(swarm, monkeypatch):
    node, seen = await seen_by(swarm, await swarm.node())
    mirror, looks = node.transport.mirror, []

    async def look() -> Reflection:
        looks.append(1)
        await asyncio.sleep(0)
        return seen

    monkeypatch.setattr(mirror, "look", look)
    await asyncio.gather(*(mirror.observed() for _ in range(5)))
    assert len(looks) == 1
    node.transport.address_changed()
    await mirror.observed()
    assert len(looks) == 2


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xc1", b"x" * 1000, b"\x91\xa0", b"\x91\xa9127.0.0.1", b"\x91\xa2\xff\xff", b"\x92\xa0\x01"],
)
async def test_nonsense_is_no_answer(swarm, monkeypatch, answer):
    async def say(*_: object) -> web.Response:
        return web.Response(body=answer)

    monkeypatch.setattr(reflection.Reflector, "_answer", say)
    _, seen = await seen_by(swarm, await swarm.node())
    assert seen == Reflection(None, None)


async def test_the_question_has_a_bound(swarm, monkeypatch):
    monkeypatch.setattr(reflection, "QUESTIONS_BURST", 2)
    one, two = await swarm.pair()
    one.transport.learn(two.peer, two.addresses)
    statuses = [
        (await ask(one.transport, "GET", two.peer, WHERE_PATH, bytes_max=128)).status for _ in range(3)
    ]
    assert statuses == [200, 200, 429]


async def test_who_comes_through_a_relay_is_not_told_the_address_of_that(swarm, until):
    one, two = await swarm.pair()
    relay = await swarm.node()
    for node in (one, two):
        node.transport.learn(relay.peer, relay.addresses)
        node.transport.client.ways[:] = [way for way in node.transport.client.ways if way.name == "relay"]
    two.transport.rendezvous.candidates = lambda: [relay.peer]
    two.transport.rendezvous.reservations.look()
    await until(lambda: two.transport.rendezvous.reservations.relays)
    one.transport.learn(two.peer, [f"via:{peer_text(relay.peer)}"])
    answer = await ask(one.transport, "GET", two.peer, WHERE_PATH, bytes_max=128)
    assert reflection.msgspec.msgpack.decode(answer.body, type=Where) == Where("")


async def test_a_stranger_is_not_answered(swarm, other_swarm):
    one, two = await swarm.node(), await other_swarm.node()
    two.transport.learn(one.peer, one.addresses)
    with pytest.raises(UnreachableError):
        await ask(two.transport, "GET", one.peer, WHERE_PATH, bytes_max=128)
