"""Two ends, real sockets: frames go both ways, one connection stays, ends are noticed, floods stop."""

import asyncio
import contextlib
import gc
import socket

import pytest

from p2ptrain.core import limits
from p2ptrain.core.errors import LocalProtocolError, Offence, P2PTrainError
from p2ptrain.core.types import PeerId
from p2ptrain.net import transport
from p2ptrain.net.channel import link as links
from p2ptrain.net.channel import listener, switchboard
from p2ptrain.net.trust.certificates import host_name
from p2ptrain.net.trust.identity import Identity


async def connected(swarm, until, **options):
    one, two = await swarm.pair(**options)
    assert await one.dial(two)
    await until(lambda: two.events.ups)
    return one, two


async def test_frames_go_both_ways(swarm, until):
    one, two = await connected(swarm, until)
    one.transport.send(two.peer, b"to two")
    two.transport.send(one.peer, b"to one!")
    await until(lambda: one.events.frames and two.events.frames)
    assert two.events.frames == [(one.peer, b"to two")]
    assert one.events.frames == [(two.peer, b"to one!")]
    assert (one.events.ups, two.events.ups) == ([two.peer], [one.peer])
    counted = one.transport.traffic.of(two.peer)
    assert (counted.messages_up, counted.messages_down) == (6, 7)
    assert one.transport.path(two.peer) == f"direct 127.0.0.1 port {two.transport.port}"


async def test_the_largest_frame(swarm, until):
    one, two = await connected(swarm, until)
    largest = bytes(limits.FRAME_BYTES_MAX)
    one.transport.send(two.peer, largest)
    two.transport.send(one.peer, largest)
    await until(lambda: one.events.frames and two.events.frames)
    with pytest.raises(LocalProtocolError, match="65537 bytes"):
        one.transport.send(two.peer, largest + b"x")


async def test_order_is_kept(swarm, until):
    one, two = await connected(swarm, until)
    for index in range(200):
        one.transport.send(two.peer, index.to_bytes(2))
    await until(lambda: len(two.events.frames) == 200)
    assert [frame for _, frame in two.events.frames] == [index.to_bytes(2) for index in range(200)]


@pytest.mark.parametrize("swapped", [False, True])
async def test_simultaneous_dials_leave_one_connection(swarm, until, monkeypatch, swapped):
    """Nothing is lost, nothing is told twice, and both ends keep the same connection."""
    monkeypatch.setattr(switchboard, "RETIRED_S", 0.05)
    one, two = await swarm.pair()
    if swapped:
        one, two = two, one
    assert await asyncio.gather(one.dial(two), two.dial(one)) == [True, True]
    for index in range(20):
        one.transport.send(two.peer, b"%d" % index)
        two.transport.send(one.peer, b"%d" % index)
        await asyncio.sleep(0.002)
    await until(lambda: len(one.events.frames) >= 20 and len(two.events.frames) >= 20)
    await asyncio.sleep(0.1)
    smaller = min(one.peer, two.peer)
    for node, other in ((one, two), (two, one)):
        assert node.events.ups == [other.peer]
        assert node.events.downs == []
        assert sorted(int(frame) for _, frame in node.events.frames) == list(range(20))
        assert node.transport._switchboard._links[other.peer].dialler == smaller


async def test_everybody_dials_everybody(swarm, until, monkeypatch):
    monkeypatch.setattr(switchboard, "RETIRED_S", 0.05)
    nodes = [await swarm.node() for _ in range(6)]
    pairs = [(one, two) for one in nodes for two in nodes if one is not two]
    assert all(await asyncio.gather(*(one.dial(two) for one, two in pairs)))
    await asyncio.sleep(0.2)
    for node in nodes:
        others = {other.peer for other in nodes if other is not node}
        assert set(node.events.ups) == others
        assert len(node.events.ups) == len(others)
        assert node.events.downs == []
        for other in others:
            assert node.transport._switchboard._links[other].dialler == min(node.peer, other)


async def test_many_dials_at_once_are_one(swarm, until):
    one, two = await swarm.pair()
    assert all(await asyncio.gather(*(one.dial(two) for _ in range(5))))
    assert await one.dial(two)
    await until(lambda: two.events.ups)
    await asyncio.sleep(0.02)
    assert (one.events.ups, two.events.ups) == ([two.peer], [one.peer])


async def test_who_dials_again_replaces(swarm, until):
    """A peer that starts anew is taken at its word: the old connection is no use to it."""
    one, two = await connected(swarm, until)
    twin = await swarm.node(one.identity, one.membership)
    assert await twin.dial(two)
    await until(lambda: len(two.events.ups) == 2)
    assert two.events.downs == [(one.peer, "replaced by a newer connection")]
    two.transport.send(one.peer, b"to the newer")
    await until(lambda: twin.events.frames)
    await until(lambda: one.events.downs)


async def test_an_address_that_is_wrong(swarm):
    one, two = await swarm.pair()
    third = await swarm.node()
    assert not await one.transport.dial(two.peer, ["127.0.0.1:1025"])
    assert not await one.transport.dial(two.peer, third.addresses)
    assert [reason for _, reason in one.events.downs] == [
        "Connection refused",
        "who answers there is not the peer that is meant"
        f" (Hostname mismatch, certificate is not valid for '{host_name(two.peer)}'.)",
    ]
    assert await one.transport.dial(two.peer, [*third.addresses, "127.0.0.1:1025", *two.addresses])


@pytest.mark.attack
@pytest.mark.parametrize(
    "address", ["127.0.0.1:80", "224.0.0.1:5000", "0.0.0.0:5000", "example.org:5000", "127.0.0.1", ""]
)
async def test_addresses_that_are_never_dialled(swarm, address):
    one, two = await swarm.pair()
    assert not await one.transport.dial(two.peer, [address])
    assert one.events.downs == [(two.peer, "no address is known")]


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_dialler", [True, False])
async def test_hangup_is_told_to_both(swarm, until, by_dialler):
    one, two = await connected(swarm, until)
    if not by_dialler:
        one, two = two, one
    one.transport.send(two.peer, b"last words")
    one.transport.hangup(two.peer, "enough: \x1b[2J é")
    assert one.transport.connected == []
    assert one.events.downs == []
    await until(lambda: one.events.downs and two.events.downs)
    assert two.events.frames == [(one.peer, b"last words")]
    assert one.events.downs == [(two.peer, "enough: \x1b[2J é")]
    assert two.events.downs == [(one.peer, "the peer closed the connection: enough: ·[2J ?")]
    assert await two.dial(one)
    await until(lambda: len(one.events.ups) == 2)


async def test_hangup_does_not_depend_on_the_other_side(swarm, attacks, until, monkeypatch):
    monkeypatch.setattr(links, "CLOSE_S", 0.05)
    one, two = await swarm.pair()
    async with attacks.Wire(two.transport.port) as wire:
        assert await one.transport.dial(two.peer, [wire.address])
        wire.stuck = True
        for _ in range(limits.OUTBOX_FRAMES_MAX):
            one.transport.send(two.peer, bytes(limits.FRAME_BYTES_MAX))
        await asyncio.sleep(0.1)
        one.transport.hangup(two.peer, "enough")
        await until(lambda: one.events.downs, timeout_s=0.5)
    assert one.events.downs == [(two.peer, "enough")]


async def test_close_sends_what_waits(swarm, until):
    one, two = await connected(swarm, until)
    for _ in range(100):
        one.transport.send(two.peer, bytes(1000))
    await one.transport.close("switched off")
    await until(lambda: two.events.downs)
    assert len(two.events.frames) == 100
    assert two.events.downs == [(one.peer, "the peer closed the connection: switched off")]


async def test_a_killed_peer_is_noticed_at_once(swarm, attacks, until):
    one, two = await swarm.pair()
    async with attacks.Wire(two.transport.port) as wire:
        assert await one.transport.dial(two.peer, [wire.address])
        await until(lambda: two.events.ups)
        wire.cut()
        await until(lambda: one.events.downs and two.events.downs, timeout_s=0.5)
    assert one.events.downs == [(two.peer, "the connection was lost")]


async def test_a_silent_peer_is_noticed(swarm, attacks, until):
    """No end comes through, as when a cable is pulled: only the heartbeat can tell."""
    one, two = await swarm.pair(heartbeat_s=0.1)
    async with attacks.Wire(two.transport.port) as wire:
        assert await one.transport.dial(two.peer, [wire.address])
        await until(lambda: two.events.ups)
        wire.silent = True
        await until(lambda: one.events.downs and two.events.downs, timeout_s=2)
    assert one.events.downs == [(two.peer, "the peer stopped answering")]
    assert two.events.downs == [(one.peer, "the peer stopped answering")]


async def test_a_quiet_peer_is_kept(swarm, until):
    one, two = await connected(swarm, until, heartbeat_s=0.2)
    await asyncio.sleep(0.3)
    assert (one.events.downs, two.events.downs) == ([], [])


async def test_a_refused_peer_is_cut_off_from_blobs_too(swarm, tmp_path, until):
    banned: set[PeerId] = set()
    one = await swarm.node(blobs=tmp_path, refused=banned.__contains__)
    two = await swarm.node()
    two.transport.learn(one.peer, one.addresses)
    async with two.transport.get(one.peer, "/v1/blob/" + "0" * 64) as answer:
        assert answer.status == 404
    banned.add(two.peer)
    async with two.transport.get(one.peer, "/v1/blob/" + "0" * 64) as answer:
        assert answer.status == 403


async def test_a_renewed_membership_is_shown(swarm, until):
    one, two = await swarm.pair()
    renewed = swarm.certify(one.identity, slot=9)
    one.transport.renew(renewed)
    assert await two.dial(one)
    shown = two.transport._switchboard._links[one.peer]._socket.get_extra_info("ssl_object").getpeercert(True)
    assert shown == renewed.leaf


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.attack
async def test_an_oversized_frame_is_charged(swarm, until):
    one, two = await connected(swarm, until)
    one.transport._switchboard._links[two.peer].send(bytes(limits.FRAME_BYTES_MAX + 1))
    await until(lambda: two.events.downs and one.events.downs)
    assert two.events.offences == [(one.peer, Offence.OVERSIZED)]
    assert two.events.frames == []


@pytest.mark.attack
async def test_text_is_charged(swarm, until):
    one, two = await connected(swarm, until)
    await one.transport._switchboard._links[two.peer]._socket.send_str("hello")
    await until(lambda: two.events.downs)
    assert two.events.offences == [(one.peer, Offence.MALFORMED)]


@pytest.mark.attack
async def test_garbage_is_charged(swarm, until):
    one, two = await connected(swarm, until)
    one.transport._switchboard._links[two.peer]._socket._writer.transport.write(b"\xff" * 50)
    await until(lambda: two.events.downs)
    assert two.events.offences == [(one.peer, Offence.MALFORMED)]


@pytest.mark.attack
@pytest.mark.parametrize("what", ["frames", "pings"])
async def test_a_flood_is_charged(swarm, until, monkeypatch, what):
    monkeypatch.setattr(links, "FRAMES_BURST", 100)
    one, two = await connected(swarm, until)
    link = one.transport._switchboard._links[two.peer]
    for _ in range(110):
        await (link._socket.ping() if what == "pings" else link._socket.send_bytes(b"x"))
    await until(lambda: two.events.downs)
    assert two.events.offences == [(one.peer, Offence.FLOODING)]
    assert len(two.events.frames) <= 100


async def test_the_outbox_is_bounded(swarm, until):
    one, two = await connected(swarm, until)
    for index in range(1000):
        one.transport.send(two.peer, index.to_bytes(2))
    dropped = 1000 - limits.OUTBOX_FRAMES_MAX
    assert one.transport.traffic.of(two.peer).dropped == dropped
    await until(lambda: len(two.events.frames) == limits.OUTBOX_FRAMES_MAX)
    assert two.events.frames[0][1] == dropped.to_bytes(2)


async def test_connecting_again_and_again_is_limited(swarm, until, monkeypatch):
    monkeypatch.setattr(transport, "GREETINGS_BURST", 3)
    one, two = await swarm.pair()
    outcomes = []
    for _ in range(4):
        outcomes.append(await one.dial(two))
        one.transport.hangup(two.peer, "again")
        await until(lambda: not one.transport._switchboard._links)
    assert outcomes == [True, True, True, False]


@pytest.mark.attack
async def test_connections_of_one_address_are_limited(swarm, monkeypatch):
    monkeypatch.setattr(listener, "CONNECTIONS_PER_ADDRESS_MAX", 3)
    node = await swarm.node()
    writers = [(await asyncio.open_connection("127.0.0.1", node.transport.port))[1] for _ in range(6)]
    await asyncio.sleep(0.05)
    open_now = [one for one in node.transport._sockets._sockets if one.fileno() != -1]
    assert len(open_now) == 3
    for writer in writers:
        writer.transport.abort()


@pytest.mark.attack
async def test_silent_connections_are_dropped(swarm, monkeypatch, until):
    monkeypatch.setattr(listener, "HANDSHAKE_S", 0.1)
    node = await swarm.node()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.transport.port)
    async with asyncio.timeout(1):
        assert await reader.read() == b""
    writer.transport.abort()


@pytest.mark.attack
async def test_strangers_do_not_stay(reception, attacks, monkeypatch):
    monkeypatch.setattr(listener, "STRANGER_S", 0.1)
    host = await reception.start()
    context = attacks.careless(attacks.ssl.PROTOCOL_TLS_CLIENT)
    reader, writer = await asyncio.open_connection("127.0.0.1", host.transport.port, ssl=context)
    writer.write(b"POST /v1/join HTTP/1.1\r\n")
    async with asyncio.timeout(1):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.transport.abort()


async def test_a_port_in_use(swarm):
    one, two = await swarm.pair()
    three = swarm.certify(identity := Identity.create())
    node = transport.Transport(identity, three, two.events)
    with pytest.raises(P2PTrainError, match="is in use by another program"):
        await node.start("127.0.0.1", one.transport.port)
    await node.close()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize(("host", "address"), [("::1", "[::1]"), ("", "[::1]"), ("", "127.0.0.1")])
async def test_ipv6(swarm, host, address):
    one = await swarm.node()
    two = await swarm.node(host=host)
    assert await one.transport.dial(two.peer, [f"{address}:{two.transport.port}"])
    two.transport.path(one.peer)


async def test_close_at_once_after_start(swarm):
    node = await swarm.node()
    await node.transport.close()
    await node.transport.close()


async def test_who_comes_while_it_closes_is_not_forgotten(swarm, until):
    """A socket that was just accepted is closed like any other, not found by the garbage collector."""
    for steps in range(12):
        node = await swarm.node()
        came = socket.create_connection(("127.0.0.1", node.transport.port))
        for _ in range(steps):
            await asyncio.sleep(0)
        with came:
            await node.transport._listeners[0].close()
            await until(lambda node=node: not node.transport._sockets._open(), timeout_s=0.5)
    gc.collect()
