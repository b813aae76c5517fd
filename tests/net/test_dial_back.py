"""Dialling back: who asks is tried where it asks from, nobody else is, and only what came in counts."""

import asyncio
import os
import socket
import ssl
from datetime import timedelta

import msgspec
import pytest

from p2ptrain.core.types import PeerId
from p2ptrain.net.addresses import Address
from p2ptrain.net.reach import dial_back as module
from p2ptrain.net.reach.ask import ask
from p2ptrain.net.reach.dial_back import (
    ASKED_MAX,
    DIAL_BACK_PATH,
    QUESTIONS_MAX,
    TRIES_BURST,
    DialBack,
    Outcome,
    Question,
    Seen,
    Told,
    agreed,
    proven,
    reach,
)
from p2ptrain.net.trust.certificates import wall_clock
from p2ptrain.net.ways import Path

PEERS = [PeerId(bytes([number]) * 32) for number in range(4)]
HERE, THERE = Address("198.51.100.1", 5000), Address("203.0.113.9", 5000)
SIXTH = Address("2001:db8::9", 5000)


@pytest.fixture(autouse=True)
def briefly(monkeypatch):
    monkeypatch.setattr(module, "TRY_S", 0.5)


async def asked(node, other, port=None):
    node.transport.learn(other.peer, other.addresses)
    return await node.transport.dial_back.ask(node.transport, other.peer, port or node.transport.port)


async def told(node, other, question: bytes):
    """What a member answers to those bytes."""
    node.transport.learn(other.peer, other.addresses)
    return await ask(node.transport, "POST", other.peer, DIAL_BACK_PATH, data=question, bytes_max=1000)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


# -- what is found out -----------------------------------------------------------------------------


async def test_an_open_port_is_reached_and_proven(swarm):
    one, other = await swarm.pair()
    seen = await asked(one, other)
    assert (seen.outcome, seen.via) == (Outcome.REACHED, "127.0.0.1")
    assert seen.address == Address("127.0.0.1", one.transport.port)
    assert abs(seen.offset_s) < 1


async def test_a_closed_port_is_refused(swarm):
    one, other = await swarm.pair()
    assert (await asked(one, other, free_port())).outcome is Outcome.REFUSED


async def test_a_port_that_swallows_everything_is_silent(swarm):
    one, other = await swarm.pair()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        assert (await asked(one, other, port)).outcome is Outcome.SILENT
        for each in waiting:
            each.close()


async def test_something_else_at_the_port_is_told_apart(swarm):
    one, other = await swarm.pair()

    async def shop(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(shop, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await asked(one, other, port)).outcome is Outcome.NOT_TLS


async def test_a_port_that_accepts_and_says_nothing_ends_in_time(swarm):
    one, other = await swarm.pair()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert (await asked(one, other, mute.getsockname()[1])).outcome is Outcome.NOT_TLS


async def test_another_member_at_the_port_is_a_stranger(swarm, other_swarm):
    one, other = await swarm.pair()
    third, foreigner = await swarm.node(), await other_swarm.node()
    assert (await asked(one, other, third.transport.port)).outcome is Outcome.STRANGER
    assert (await asked(one, other, foreigner.transport.port)).outcome is Outcome.STRANGER
    assert (await asked(one, other, other.transport.port)).outcome is Outcome.STRANGER


async def test_who_hangs_up_after_the_handshake_turned_it_away(swarm, attacks):
    one, other = await swarm.pair()
    context = attacks.careless(ssl.PROTOCOL_TLS_SERVER, one.identity, one.membership)
    async with attacks.Impostor(context, b"HTTP/1.1 404 Not Found\r\n\r\n") as impostor:
        port = int(impostor.address.rpartition(":")[2])
        assert (await asked(one, other, port)).outcome is Outcome.TURNED_AWAY
        assert b"PUT /v1/dial-back" in impostor.heard


async def test_a_member_that_cannot_be_asked_gives_no_answer(swarm):
    one, other = await swarm.pair()
    addresses = other.addresses
    await other.transport.close()
    one.transport.learn(other.peer, addresses)
    seen = await one.transport.dial_back.ask(one.transport, other.peer, one.transport.port)
    assert seen == Seen(other.peer, Outcome.NO_ANSWER)


async def test_clocks_are_compared(swarm):
    one, other = await swarm.pair()
    other.transport.dial_back._clock = lambda: wall_clock() + timedelta(hours=1)
    assert abs((await asked(one, other)).offset_s - 3600) < 1


async def test_two_are_asked_and_no_more(swarm):
    one = await swarm.node()
    others = [await swarm.node() for _ in range(3)]
    for other in others:
        one.transport.learn(other.peer, other.addresses)
    peers = [other.peer for other in others]
    seen = await one.transport.dial_back.ask_some(one.transport, peers, one.transport.port)
    assert [(each.peer, each.outcome) for each in seen] == [
        (peer, Outcome.REACHED) for peer in peers[:ASKED_MAX]
    ]


# -- liars and attackers ---------------------------------------------------------------------------


class Liar:
    """A member's answer, whatever it is."""

    def __init__(self, *told: object) -> None:
        self.told = told

    async def answer(self, request):
        await request.read()
        return module.web.Response(body=msgspec.msgpack.encode(self.told))


async def lied_to(swarm, *said):
    one = await swarm.node()
    routes = [module.web.post(DIAL_BACK_PATH, Liar(*said).answer)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DialBack, "routes", lambda _: routes)
        liar = await swarm.node()
    return await asked(one, liar)


@pytest.mark.attack
async def test_reached_is_not_believed_without_proof(swarm):
    assert (await lied_to(swarm, "reached", "203.0.113.9:5000", 0)).outcome is Outcome.NO_ANSWER


@pytest.mark.attack
@pytest.mark.parametrize(
    "said",
    [
        (),
        ("a word of a later version",),
        ("silent", "not an address"),
        ("silent", "x" * 1000),
        ("silent", "", -1),
        ("silent", "", 1 << 60),
        (7,),
        ("y" * 300,),
    ],
)
async def test_any_answer_is_survived(swarm, said):
    seen = await lied_to(swarm, *said)
    assert seen.outcome in (Outcome.NO_ANSWER, Outcome.SILENT)
    assert seen.address is None


def test_an_address_is_for_others_when_two_named_it_or_nobody_else_was_asked():
    def named(*addresses):
        return agreed(Seen(peer, Outcome.SILENT, one) for peer, one in zip(PEERS, addresses, strict=False))

    assert named(HERE) == named(HERE, None) == named(HERE, HERE) == (HERE,)
    assert named(HERE, THERE) == named() == named(None) == ()
    assert named(HERE, SIXTH) == (HERE, SIXTH)


def test_an_address_is_proven_where_a_member_got_through():
    reached, silent = Seen(PEERS[0], Outcome.REACHED, HERE, HERE.host), Seen(PEERS[1], Outcome.SILENT, HERE)
    liar = Seen(PEERS[1], Outcome.SILENT, THERE)
    assert proven([reached]) == proven([reached, silent]) == (HERE,)
    assert proven([silent]) == proven([reached, liar]) == proven([]) == ()


@pytest.mark.attack
async def test_a_token_counts_only_from_whom_it_was_given_to(swarm):
    one, other = await swarm.pair()
    third = await swarm.node()
    token = os.urandom(module.TOKEN_BYTES)
    one.transport.dial_back._awaited[token] = awaited = module._Awaited(other.peer)
    home = Address("127.0.0.1", one.transport.port)
    assert await reach(one.peer, home, token, third.transport._context) is Outcome.TURNED_AWAY
    assert await reach(one.peer, home, bytes(16), other.transport._context) is Outcome.TURNED_AWAY
    assert not awaited.via
    assert await reach(one.peer, home, token, other.transport._context) is Outcome.REACHED
    assert awaited.via


@pytest.mark.attack
async def test_a_relay_is_never_dialled_back_and_only_what_came_in_at_the_port_proves_it(swarm, monkeypatch):
    monkeypatch.setattr(module, "TRIES_BURST", 100)
    one, other = await swarm.pair()
    relayed = Path("relay", HERE, PEERS[0])
    other.transport.dial_back._path = lambda _: relayed
    seen = await asked(one, other)
    assert (seen.outcome, seen.address) == (Outcome.UNSEEN, None)
    other.transport.dial_back._path = lambda _: None
    assert (await asked(one, other)).outcome is Outcome.UNSEEN
    other.transport.dial_back._path = other.transport._sockets.path
    for path in (relayed, Path("punched", HERE), Path("reverse", HERE), None):
        one.transport.dial_back._path = lambda _, path=path: path
        assert (await asked(one, other)).outcome is Outcome.TURNED_AWAY


@pytest.mark.attack
@pytest.mark.parametrize("port", [0, 22, 1023, 65536, -1])
async def test_system_ports_are_never_dialled(swarm, port):
    one, other = await swarm.pair()
    question = msgspec.msgpack.encode((port, bytes(16)))
    assert (await told(one, other, question)).status == 400


@pytest.mark.attack
@pytest.mark.parametrize(
    "question",
    [b"", b"\xc1", bytes(1000), msgspec.msgpack.encode((5000, b"short")), msgspec.msgpack.encode({"a": 1})],
)
async def test_rubbish_is_refused(swarm, question):
    one, other = await swarm.pair()
    assert (await told(one, other, question)).status == 400


@pytest.mark.attack
async def test_what_may_not_be_dialled_is_not_dialled_back(swarm):
    one, other = await swarm.pair()
    other.transport.dial_back._allow = lambda _: False
    assert (await asked(one, other)).outcome is Outcome.FORBIDDEN


@pytest.mark.attack
async def test_who_asks_too_often_causes_no_more_connections(swarm):
    one, other = await swarm.pair()
    port = free_port()
    seen = [await asked(one, other, port) for _ in range(TRIES_BURST + 2)]
    assert [each.outcome for each in seen] == [Outcome.REFUSED] * TRIES_BURST + [Outcome.BUSY] * 2


@pytest.mark.attack
async def test_many_who_ask_at_once_share_few_sockets(swarm, monkeypatch):
    monkeypatch.setattr(module, "TRIES_AT_ONCE", 2)
    other = await swarm.node()
    askers = [await swarm.node() for _ in range(4)]
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        seen = await asyncio.gather(*(asked(one, other, port) for one in askers))
    outcomes = sorted(each.outcome for each in seen)
    assert outcomes == [Outcome.BUSY] * 2 + [Outcome.NOT_TLS] * 2


@pytest.mark.attack
async def test_a_stranger_is_not_answered(swarm, reception, attacks):
    issuer = await reception.start()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT)
    body = msgspec.msgpack.encode(Question(5000, bytes(16)))
    head = f"POST {DIAL_BACK_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await attacks.knock(issuer.transport.port, context, issuer.peer, head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 401")


async def test_own_questions_are_bounded_and_forgotten(swarm):
    one, other = await swarm.pair()
    await asked(one, other)
    assert not one.transport.dial_back._awaited
    for number in range(QUESTIONS_MAX):
        one.transport.dial_back._awaited[bytes([number])] = module._Awaited(other.peer)
    assert (await asked(one, other)).outcome is Outcome.BUSY


async def test_no_socket_is_left(swarm):
    one, other = await swarm.pair()
    made = []
    other.transport.dial_back._opened = made.append
    with socket.create_server(("127.0.0.1", 0)) as mute:
        await asked(one, other, mute.getsockname()[1])
    await asked(one, other, free_port())
    await asked(one, other)
    await asyncio.sleep(0.05)
    assert [each.fileno() for each in made] == [-1, -1, -1]


# -- the bytes -------------------------------------------------------------------------------------


def test_the_bytes_are_as_documented_and_later_fields_are_skipped():
    assert msgspec.msgpack.encode(Question(5000, bytes(16))) == bytes.fromhex("92cd1388c410") + bytes(16)
    later = msgspec.msgpack.encode(["silent", "198.51.100.1:5000", 1000, "a later field"])
    assert msgspec.msgpack.decode(later, type=Told) == Told("silent", str(HERE), 1000)
    assert len(max(Outcome, key=len)) < 40
