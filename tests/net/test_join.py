"""A stranger with an invite becomes a member, and nobody else does."""

import asyncio
import socket
import ssl
from datetime import timedelta

import msgspec
import pytest
from aiohttp import web

from p2ptrain.core.errors import RefusedError, UnreachableError
from p2ptrain.net.members import join as joining
from p2ptrain.net.members.admission import JoinRefusedError, Refusal
from p2ptrain.net.members.invite import Door
from p2ptrain.net.members.join import join
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import check_member, wall_clock
from p2ptrain.net.trust.identity import Identity


def door(host, port: int | None = None) -> Door:
    return Door("127.0.0.1", port or host.transport.port, host.peer)


async def ask(invite, identity=None, allow=None, clock=wall_clock):
    return await join(invite, identity or Identity.create(), allow or (lambda _: True), clock)


async def test_join_and_talk(reception, swarm, until):
    host = await reception.start()
    reception.contacts = [b"contact one", b"contact two"]
    identity = Identity.create()
    welcome = await ask(reception.invite(door(host)), identity)
    member = check_member(swarm.root.certificate, welcome.membership.chain, wall_clock())
    assert (member.peer, member.slot) == (identity.peer, 1)
    assert (welcome.manifest, welcome.contacts) == (b"manifest", (b"contact one", b"contact two"))
    guest = await swarm.node(identity, welcome.membership)
    assert await guest.dial(host)
    await until(lambda: host.events.ups == [identity.peer])
    host.transport.send(guest.peer, b"hello")
    await until(lambda: guest.events.frames)


async def test_joining_again_renews(reception):
    host = await reception.start()
    identity, once = Identity.create(), reception.invite(door(host))
    first, second = await ask(once, identity), await ask(once, identity)
    assert first.membership.leaf != second.membership.leaf
    assert first.membership.member.slot == second.membership.member.slot == 1
    assert len(reception.saved) == 2


async def test_refusals_come_as_words(reception):
    host = await reception.start()
    once = reception.invite(door(host))
    await ask(once)
    with pytest.raises(JoinRefusedError, match="as often as it may be") as error:
        await ask(once)
    assert error.value.refusal is Refusal.USED_UP
    with pytest.raises(JoinRefusedError, match="has expired"):
        await ask(reception.invite(door(host), days=-1))
    with pytest.raises(JoinRefusedError, match="does not recognise"):
        await ask(reception.invite(door(host), root=Root.create(wall_clock())))
    revoked = reception.invite(door(host))
    reception.admission.revoke_invite(revoked.key)
    with pytest.raises(JoinRefusedError, match="turned away"):
        await ask(revoked)


def answers(monkeypatch, response: web.Response) -> None:
    """Let every issuer of this test say the same."""

    async def answer(*_) -> web.Response:
        return response

    monkeypatch.setattr(joining.Reception, "answer", answer)


async def test_an_unknown_refusal_is_not_shown(reception, monkeypatch):
    answers(monkeypatch, web.Response(status=403, text="because \x1b[2J"))
    host = await reception.start()
    with pytest.raises(RefusedError, match="does not know") as error:
        await ask(reception.invite(door(host)))
    assert "\x1b" not in str(error.value)


@pytest.fixture
def no_names(monkeypatch):
    """Let no test ask a name server."""
    look_up = socket.getaddrinfo

    def numeric_only(host, *rest, **options):
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", numeric_only)


@pytest.mark.usefixtures("no_names")
async def test_every_address_is_tried(reception, swarm):
    """A member that admits nobody, a name that nobody has, a dead port, another peer's, and the issuer's."""
    host, member = await reception.start(), await swarm.node()
    doors = (
        door(member),
        Door("nowhere.invalid", 5000, host.peer),
        Door("127.0.0.1", 1025, host.peer),
        Door("127.0.0.1", member.transport.port, host.peer),
        door(host),
    )
    welcome = await ask(reception.invite(*doors))
    assert welcome.membership.member.slot == 1


async def test_who_is_silent_is_asked_last(reception, monkeypatch):
    """Asking it takes 10 s."""
    host = await reception.start()
    there, question, asked = joining.connect, joining._ask, []

    async def connect(address):
        if address.host == "192.0.2.1":
            await asyncio.Event().wait()
        return await there(address)

    async def ask_one(issuer, *rest):
        asked.append(issuer)
        return await question(issuer, *rest)

    monkeypatch.setattr(joining, "connect", connect)
    monkeypatch.setattr(joining, "_ask", ask_one)
    monkeypatch.setattr(joining, "KNOCK_S", 0.5)
    silent = Door("192.0.2.1", 5000, Identity.create().peer)
    welcome = await ask(reception.invite(silent, door(host)))
    assert welcome.membership.member.slot == 1
    assert asked == [host.peer]


@pytest.mark.usefixtures("no_names")
async def test_nobody_answers(reception, swarm):
    member = await swarm.node()
    one, two = Identity.create().peer, Identity.create().peer
    doors = (
        Door("127.0.0.1", 1025, one),
        Door("127.0.0.1", 1026, one),
        Door("127.0.0.1", 80, two),
        Door("nowhere.invalid", 5000, member.peer),
    )
    with pytest.raises(UnreachableError) as error:
        await ask(reception.invite(*doors), allow=lambda address: address.port >= 1024)
    assert error.value.message.endswith(
        "127.0.0.1 port 1025, 127.0.0.1 port 1026: Connection refused; "
        "127.0.0.1 port 80: no address that can be dialled; "
        "nowhere.invalid port 5000: no address that can be dialled"
    )
    with pytest.raises(UnreachableError, match="no address is known"):
        await ask(reception.invite())


@pytest.mark.attack
async def test_an_impostor_hears_nothing(reception, attacks):
    """Somebody with another key listens at the issuer's address."""
    impostor = Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_SERVER, impostor, reception.swarm.certify(impostor))
    async with attacks.Impostor(context) as server:
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(UnreachableError, match="another peer answers"):
            await ask(reception.invite(Door("127.0.0.1", port, reception.identity.peer)))
        assert server.heard == b""


@pytest.mark.attack
@pytest.mark.parametrize(
    "lie", ["another root", "unsigned manifest", "somebody else's", "expired", "garbage", "endless"]
)
async def test_a_lying_issuer(reception, other_swarm, monkeypatch, lie):
    """The right peer answers, but what it gives does not lead to the invite's root."""
    identity = Identity.create()
    swarm = reception.swarm
    now = wall_clock()
    given = {
        "another root": (other_swarm.certify(identity), other_swarm.root.sign_manifest(b"manifest")),
        "unsigned manifest": (swarm.certify(identity), other_swarm.root.sign_manifest(b"manifest")),
        "somebody else's": (swarm.certify(Identity.create()), swarm.root.sign_manifest(b"manifest")),
        "expired": (
            swarm.issuer.certify(identity.peer, "member", 0, now - timedelta(days=50)),
            swarm.root.sign_manifest(b"manifest"),
        ),
    }
    if lie in given:
        body = msgspec.msgpack.encode(joining.Welcome(given[lie][0], b"manifest", given[lie][1]))
    else:
        body = b"\xc1" if lie == "garbage" else bytes(joining.WELCOME_BYTES_MAX + 1)
    answers(monkeypatch, web.Response(body=body))
    host = await reception.start()
    with pytest.raises(UnreachableError, match=r"its answer|its certificate|certificate expired|more than"):
        await ask(reception.invite(door(host)), identity)


async def test_requests_are_bounded(reception, attacks, monkeypatch):
    """Too short, too long, too slow: a word of refusal, and the book stays empty."""
    monkeypatch.setattr(joining, "REQUEST_S", 0.1)
    host = await reception.start()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT)
    head = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    for length, body in ((3, b"abc"), (233, bytes(233)), (10**9, bytes(300)), (232, bytes(100))):
        answer = await attacks.knock(host.transport.port, context, host.peer, head % length + body)
        assert answer.startswith(b"HTTP/1.1 403")
        assert answer.endswith(b"malformed")
    assert len(reception.admission.book.members) == 1


@pytest.mark.attack
async def test_joins_are_rate_limited(reception, monkeypatch):
    monkeypatch.setattr(joining, "JOINS_BURST", 2)
    host = await reception.start()
    invite = reception.invite(door(host), uses=9)
    await ask(invite)
    await ask(invite)
    with pytest.raises(JoinRefusedError, match="busy"):
        await ask(invite)


async def test_a_class_room_joins_at_once(reception):
    host = await reception.start()
    invite = reception.invite(door(host), uses=12)
    welcomes = await asyncio.gather(*(ask(invite) for _ in range(12)))
    assert sorted(welcome.membership.member.slot for welcome in welcomes) == list(range(1, 13))
