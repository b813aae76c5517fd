"""Calls through a relay: each way to meet, who may ask for what and how often, and what failure says."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import aiohttp
import msgspec
import pytest

from p2ptrain.core.types import peer_text
from p2ptrain.net.addresses import Address, is_dialable, parse_address
from p2ptrain.net.channel import preamble
from p2ptrain.net.channel.preamble import Kind, Preamble
from p2ptrain.net.reach.ask import ask
from p2ptrain.net.relay import called as called_side
from p2ptrain.net.relay import calls, guest, meeting, reservation
from p2ptrain.net.relay import server as relay
from p2ptrain.net.relay.calls import PUNCH, RELAY, RELAY_PATH, REVERSE, Ask, Told
from p2ptrain.net.relay.legs import SESSION_PATH
from p2ptrain.net.ways import NoWayError, WayName
from tests.net.conftest import LOOPBACK

TOKEN = bytes(16)


def via(*relays) -> list[str]:
    return [f"via:{peer_text(one.peer)}" for one in relays]


def way(node, name: WayName):
    return next(one for one in node.transport.rendezvous.ways if one.name == name)


def only(node, *names: WayName) -> None:
    node.transport.client.ways[:] = [way(node, name) for name in names]


@pytest.fixture
async def three(swarm, until):
    """Who calls, a relay, and who waits there."""
    caller, middle, called = await swarm.node(), await swarm.node(), await swarm.node()
    called.transport.learn(middle.peer, middle.addresses)
    called.transport.rendezvous.candidates = lambda: [middle.peer]
    called.transport.rendezvous.reservations.look()
    await until(lambda: called.transport.rendezvous.reservations.relays)
    caller.transport.learn(middle.peer, middle.addresses)
    caller.transport.learn(called.peer, via(middle))
    return caller, middle, called


async def asked(node, middle, peer, wanted: Ask | bytes) -> tuple[int, bytes]:
    data = wanted if isinstance(wanted, bytes) else msgspec.msgpack.encode(wanted)
    path = f"{RELAY_PATH}/{peer_text(peer)}"
    return await ask(node.transport, "POST", middle.peer, path, data=data, bytes_max=1024)


@contextlib.contextmanager
def victim():
    """A service of somebody else: nobody may be sent there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server, f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            server.accept()


# -- ways ------------------------------------------------------------------------------------------


async def test_who_can_be_dialled_asks_to_be(three, until):
    caller, _, called = three
    only(caller, "reverse")
    caller.transport.rendezvous.own = lambda: ["10.255.255.1:9", *caller.addresses]
    assert await caller.transport.dial(called.peer)
    await until(lambda: called.events.ups == [caller.peer])
    assert caller.transport.path(called.peer).startswith("reverse 127.0.0.1 port ")
    assert called.transport.path(caller.peer) == f"reverse 127.0.0.1 port {caller.transport.port}"
    for one, other in ((caller, called), (called, caller)):
        one.transport.send(other.peer, b"hello")
    await until(lambda: caller.events.frames and called.events.frames)


async def test_both_dial_each_other(three, until):
    """Here no router stands between them: what one dials comes to the other's port."""
    caller, _, called = three
    only(caller, "punched")

    async def seen(node):
        return [parse_address(node.addresses[0])]

    way(caller, "punched")._observed = lambda: seen(caller)
    called.transport.rendezvous._called._observed = lambda: seen(called)
    assert await caller.transport.dial(called.peer)
    await until(lambda: called.events.ups == [caller.peer])
    assert caller.transport.path(called.peer) == f"punched 127.0.0.1 port {called.transport.port}"
    assert called.transport.path(caller.peer) == f"punched 127.0.0.1 port {caller.transport.port}"


@pytest.mark.parametrize(
    ("name", "why"), [("reverse", "cannot be dialled either"), ("punched", "is not known, or changes")]
)
async def test_what_cannot_be_tried_is_not(three, name, why):
    caller, middle, called = three
    with pytest.raises(NoWayError, match=why):
        await way(caller, name).open(called.peer)
    assert middle.transport.rendezvous.relay._rates._buckets.keys() == {called.peer}


async def test_who_waits_nowhere_cannot_be_called(three, swarm):
    caller, _, _ = three
    other = await swarm.node()
    caller.transport.rendezvous.own = lambda: caller.addresses
    for name in ("reverse", "relay"):
        with pytest.raises(NoWayError, match="no relay that is known"):
            await way(caller, name).open(other.peer)


async def test_a_relay_is_not_reached_through_another_that_is_reached_through_it(three, swarm):
    caller, middle, called = three
    caller.transport.client._book._known.clear()
    caller.transport.learn(called.peer, via(middle))
    caller.transport.learn(middle.peer, via(called))
    async with asyncio.timeout(3.0):
        assert not await caller.transport.dial(called.peer)


# -- what a member may ask -------------------------------------------------------------------------


@pytest.mark.attack
@pytest.mark.parametrize("wanted", [REVERSE, PUNCH])
async def test_nobody_is_sent_where_no_peer_can_be(three, wanted):
    caller, middle, called = three
    called.transport.rendezvous._called._allow = is_dialable
    with victim() as (_, address):
        status, _ = await asked(caller, middle, called.peer, Ask(wanted, TOKEN, (address, "224.0.0.1:5000")))
        await asyncio.sleep(0.05)
    assert status == 403


@pytest.mark.attack
@pytest.mark.parametrize(
    "text",
    [
        "192.168.1.7:9100",
        "10.0.0.1:8080",
        "172.17.0.1:2375",
        "100.64.3.2:4001",
        "[fd00::1]:4001",
        "169.254.1.1:8080",
        "5.5.5.5:80",
        "router.home:8080",
        "via:x",
    ],
)
def test_a_call_leads_to_no_private_network(text):
    assert calls.usable([text, "5.5.5.5:4001"], LOOPBACK) == [Address("5.5.5.5", 4001)]
    assert calls.usable(["127.0.0.1:4001"], is_dialable) == []


@pytest.mark.attack
async def test_who_calls_too_often_is_heard_no_more(three, monkeypatch):
    monkeypatch.setattr(called_side, "DIAL_S", 0.05)
    caller, middle, called = three
    wanted = Ask(REVERSE, TOKEN, ("127.0.0.1:1024",))
    statuses = [(await asked(caller, middle, called.peer, wanted))[0] for _ in range(relay.CALLS_BURST + 3)]
    assert statuses == [200] * relay.CALLS_BURST + [429] * 3


@pytest.mark.attack
async def test_who_is_called_has_its_own_bounds(three, monkeypatch):
    """A relay may let everything through."""
    caller, middle, called = three
    monkeypatch.setattr(middle.transport.rendezvous.relay, "_count", lambda _: None)
    wanted = Ask(REVERSE, TOKEN, ("127.0.0.1:1024",))
    statuses = [(await asked(caller, middle, called.peer, wanted))[0] for _ in range(20)]
    assert statuses == [200] * called_side.CALLS_BURST + [403] * (20 - called_side.CALLS_BURST)


@pytest.mark.attack
async def test_who_is_called_by_many_at_once_goes_to_some(three, monkeypatch):
    monkeypatch.setattr(called_side, "MEETINGS_MAX", 3)
    caller, middle, called = three
    monkeypatch.setattr(called.transport.rendezvous._legs, "open", sit)
    wanted = [Ask(RELAY, os.urandom(16)) for _ in range(4)]
    assert [(await asked(caller, middle, called.peer, one))[0] for one in wanted] == [200] * 3 + [403]


@pytest.mark.attack
async def test_who_is_turned_away_calls_nobody_and_is_not_called(three):
    """Each side knows for itself whom it turned away."""
    caller, middle, called = three
    called.transport.rendezvous._called._refused = {caller.peer}.__contains__
    assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 403
    middle.transport.rendezvous.relay._refused = {called.peer}.__contains__
    assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 404


@pytest.mark.attack
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xc1", 400),
        (msgspec.msgpack.encode(["relay", bytes(15)]), 400),
        (msgspec.msgpack.encode(["relay", bytes(16), ["x" * 65]]), 400),
        (msgspec.msgpack.encode(["relay", bytes(16), [""] * 9]), 400),
        (msgspec.msgpack.encode(["relay", bytes(16), ["\ud800".encode("utf-8", "surrogatepass")]]), 400),
        (bytes(calls.CALL_BYTES_MAX + 1), 400),
        (msgspec.msgpack.encode(["a way of the future", bytes(16), [], "more"]), 403),
    ],
)
async def test_what_is_no_call_is_refused(three, body, status):
    caller, middle, called = three
    assert (await asked(caller, middle, called.peer, body))[0] == status


async def test_who_does_not_wait_there_is_not_found(three, swarm):
    caller, middle, _ = three
    assert (await asked(caller, middle, caller.peer, Ask(RELAY, TOKEN)))[0] == 404


async def test_who_does_not_answer_a_call_is_given_up(three, monkeypatch, until):
    monkeypatch.setattr(guest, "CALL_S", 0.1)
    caller, middle, called = three

    async def sleep(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(called.transport.rendezvous.reservations, "_answer", sleep)
    assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 504
    await until(lambda: middle.transport.rendezvous.relay.sessions == 0)


async def test_who_leaves_while_it_is_called_is_given_up_at_once(three, monkeypatch):
    caller, middle, called = three

    async def leave(*_: object) -> None:
        called.transport.rendezvous.candidates = tuple
        called.transport.rendezvous.reservations.look()
        await asyncio.sleep(60)

    monkeypatch.setattr(called.transport.rendezvous.reservations, "_answer", leave)
    async with asyncio.timeout(1.0):
        assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 504


# -- sessions --------------------------------------------------------------------------------------


async def sit(*_: object) -> socket.socket:
    """Instead of an end of a session: nothing."""
    await asyncio.sleep(60)
    raise AssertionError


@pytest.mark.attack
async def test_sessions_are_bounded_and_end_when_nobody_comes(three, monkeypatch, until):
    monkeypatch.setattr(relay, "TOKEN_S", 0.5)
    monkeypatch.setattr(relay, "SESSIONS_PER_PEER_MAX", 4)
    caller, middle, called = three
    monkeypatch.setattr(called.transport.rendezvous._legs, "open", sit)
    wanted = [Ask(RELAY, os.urandom(16)) for _ in range(6)]
    statuses = [(await asked(caller, middle, called.peer, one))[0] for one in wanted]
    assert statuses == [200] * 4 + [503] * 2
    await until(lambda: middle.transport.rendezvous.relay.sessions == 0)
    assert middle.transport.rendezvous.arrivals._awaited == {}


@pytest.mark.attack
async def test_all_sessions_together_are_bounded(three, monkeypatch):
    monkeypatch.setattr(relay, "SESSIONS_MAX", 2)
    caller, middle, called = three
    monkeypatch.setattr(called.transport.rendezvous._legs, "open", sit)
    wanted = [Ask(RELAY, os.urandom(16)) for _ in range(3)]
    assert [(await asked(caller, middle, called.peer, one))[0] for one in wanted] == [200, 200, 503]


@pytest.mark.attack
async def test_a_token_that_is_used_already_is_refused(three, monkeypatch):
    caller, middle, called = three
    monkeypatch.setattr(called.transport.rendezvous._legs, "open", sit)
    assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 200
    assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 503
    assert middle.transport.rendezvous.relay.sessions == 1


async def websocket_status(node, middle, token: bytes) -> int:
    try:
        async with node.transport.client.websocket(middle.peer, SESSION_PATH + token.hex(), 65536):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


@pytest.mark.attack
async def test_a_websocket_to_a_session_is_for_its_peers_only(three, swarm, monkeypatch):
    caller, middle, called = three
    thief = await swarm.node()
    thief.transport.learn(middle.peer, middle.addresses)
    monkeypatch.setattr(called.transport.rendezvous._legs, "open", sit)
    assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 200
    assert await websocket_status(thief, middle, TOKEN) == 404
    assert await websocket_status(caller, middle, os.urandom(16)) == 404
    assert await websocket_status(caller, middle, TOKEN) == 101
    assert await websocket_status(caller, middle, TOKEN) == 404


@pytest.mark.attack
async def test_who_is_turned_away_is_cut_off_from_its_session(swarm, three, until):
    caller, middle, called = three
    only(caller, "relay")
    banned = set()
    serving = middle.transport.rendezvous.relay
    serving._refused = banned.__contains__
    assert await caller.transport.dial(called.peer)
    await until(lambda: called.events.ups)
    banned.add(caller.peer)
    caller.transport.send(called.peer, b"hello")
    await until(lambda: called.events.downs)
    assert called.events.frames == []
    assert serving.sessions == 0


@pytest.mark.attack
async def test_a_spliced_end_from_anywhere_else_is_no_more_than_a_cut_line(three, until):
    """Who learned a token takes somebody's place at the relay, and fails at the inner TLS."""
    caller, middle, called = three
    assert (await asked(caller, middle, called.peer, Ask(RELAY, TOKEN)))[0] == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", middle.transport.port)
    said = bytes(Preamble(Kind.SPLICE, TOKEN))
    writer.write(said)
    assert await reader.readexactly(len(said)) == said
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(3.0):
        assert b"HTTP" not in await reader.read()
    writer.transport.abort()
    assert called.events.ups == []


async def test_the_answer_to_a_caller_names_what_was_said():
    told = calls.decode(msgspec.msgpack.encode([["1.2.3.4:5678"], "of a newer version"]), Told)
    assert told.addresses == ("1.2.3.4:5678",)


def test_the_page_names_the_bounds():
    page = (Path(__file__).parents[2] / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
    for figure in (
        f"A relay carries {relay.SESSIONS_MAX} sessions, {relay.SESSIONS_PER_PEER_MAX} of one peer, "
        f"and holds {relay.RESERVATIONS_MAX} places.",
        f"after {relay.IDLE_S:.0f} s of silence",
        f"waits at up to {reservation.RELAYS_MAX} relays",
        f"at most {calls.CALL_BYTES_MAX:,} bytes",
        f"within {calls.CALL_S:.0f} s",
        f"for {meeting.MEET_S:.0f} s",
        f"for {preamble.TOKEN_S:.0f} s",
        f"`{preamble.MAGIC.decode()}`",
        *(f"| {kind.value} {kind.name.lower()} |" for kind in Kind),
        *(f"| `{way}` |" for way in (REVERSE, PUNCH, RELAY)),
    ):
        assert figure in page, figure
