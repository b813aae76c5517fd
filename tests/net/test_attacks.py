"""Whoever is not a member reads no byte of any message: one test for each way to try.

`pytest -k case_` runs the 22 cases that were found before the code was written, on asyncio and on uvloop.
"""

import asyncio
import socket
import ssl
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2ptrain.core.errors import RefusedError, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.net.blobs.fetch import fetch
from p2ptrain.net.trust import authority, tls
from p2ptrain.net.trust.authority import Issuer
from p2ptrain.net.trust.certificates import Membership, Role, host_name, wall_clock
from p2ptrain.net.trust.identity import Identity

pytestmark = [pytest.mark.attack, pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))]

MARKER = b"the loss is 0.25, the secret marker"
REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
async def victim(swarm):
    """A node that would send its message to whoever gets through."""
    node = await swarm.node()

    def greet(peer) -> None:
        node.events.ups.append(peer)
        node.transport.send(peer, MARKER)

    node.events.peer_up = greet
    return node


async def read_by(attacks, victim, identity=None, membership=None, context=None) -> bytes:
    context = context or attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, membership)
    return await attacks.knock(victim.transport.port, context, victim.peer)


# -- who is served ---------------------------------------------------------------------------------


async def test_case_01_two_members_know_each_other(swarm, attacks, victim, until):
    """The control: the same attempts with a good certificate do succeed."""
    identity = Identity.create()
    answer = await read_by(attacks, victim, identity, swarm.certify(identity))
    assert b"101 Switching" in answer
    assert MARKER in answer
    assert victim.events.ups == [identity.peer]
    guest = await swarm.node()
    assert await guest.dial(victim)
    await until(lambda: guest.events.frames)
    assert guest.events.frames == [(victim.peer, MARKER)]
    assert victim.events.ups == [identity.peer, guest.peer]


async def test_it_runs_on_the_loop_that_it_names(request):
    loop = type(asyncio.get_running_loop()).__module__
    assert loop.split(".")[0] == request.node.callspec.id


# -- as a client -----------------------------------------------------------------------------------


async def test_case_02_no_certificate(attacks, victim):
    assert await read_by(attacks, victim) == b""
    assert victim.events.ups == []


async def test_case_03_another_swarms_certificate(other_swarm, attacks, victim):
    identity = Identity.create()
    assert await read_by(attacks, victim, identity, other_swarm.certify(identity)) == b""
    assert victim.events.ups == []


async def test_case_04_a_stolen_certificate(swarm, attacks, victim):
    """A certificate is public. TLS does not let anyone use it without its key, nor change the key in it."""
    owner, thief = Identity.create(), Identity.create()
    stolen = swarm.certify(owner)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        attacks.careless(ssl.PROTOCOL_TLS_CLIENT, thief, stolen)
    leaf = stolen.leaf.replace(owner.peer, thief.peer)
    changed = Membership(leaf, stolen.issuer, stolen.root)
    assert await read_by(attacks, victim, thief, changed) == b""
    assert victim.events.ups == []


async def out_of_time(swarm, attacks, victim, days):
    identity = Identity.create()
    wrong = swarm.issuer.certify(identity.peer, Role.MEMBER, 0, wall_clock() + timedelta(days=days))
    assert await read_by(attacks, victim, identity, wrong) == b""
    assert victim.events.ups == []


async def test_case_05_an_expired_certificate(swarm, attacks, victim):
    await out_of_time(swarm, attacks, victim, -40)


async def test_case_06_a_certificate_that_is_not_valid_yet(swarm, attacks, victim):
    await out_of_time(swarm, attacks, victim, 3)


async def test_case_07_a_members_leaf_as_authority(swarm, attacks, victim):
    key = Ed25519PrivateKey.generate()
    member = swarm.certify(Identity(key))
    identity = Identity.create()
    forged = Issuer(key, member.leaf, member.root).certify(identity.peer, Role.MEMBER, 0, wall_clock())
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, forged, member.issuer)
    assert await read_by(attacks, victim, context=context) == b""
    assert victim.events.ups == []


async def test_case_08_an_issuer_that_the_root_appoints_later(swarm, attacks, victim):
    """The control of the two beside it: who was appointed by the root is followed."""
    identity = Identity.create()
    leaf = swarm.root.appoint(wall_clock()).certify(identity.peer, Role.MEMBER, 0, wall_clock())
    assert MARKER in await read_by(attacks, victim, identity, leaf)
    assert victim.events.ups == [identity.peer]


async def test_case_09_an_issuer_that_appoints(swarm, attacks, victim):
    key = Ed25519PrivateKey.generate()
    name = authority._name("issuer", key.public_key())
    parent = authority.x509.load_der_x509_certificate(swarm.issuer.certificate).subject
    life = (wall_clock(), wall_clock() + timedelta(days=9))
    below = authority._authority(name, key.public_key(), parent, swarm.issuer._key, life, path_length=0)
    identity = Identity.create()
    leaf = Issuer(key, below, swarm.root.certificate).certify(identity.peer, Role.MEMBER, 0, wall_clock())
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, leaf, swarm.issuer.certificate)
    assert await read_by(attacks, victim, context=context) == b""
    assert victim.events.ups == []


async def test_case_10_tls_1_2(swarm, attacks, victim):
    identity = Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, swarm.certify(identity))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await read_by(attacks, victim, context=context) == b""
    assert victim.events.ups == []


async def test_case_11_a_revoked_client(swarm):
    revoked = set()
    host = await swarm.node(refused=revoked.__contains__)
    guest = await swarm.node()
    revoked.add(guest.peer)
    assert not await guest.dial(host)
    assert (host.events.ups, guest.events.ups) == ([], [])
    assert "turned this computer away" in guest.events.downs[0][1]


async def test_case_12_a_revoked_server(swarm):
    revoked = set()
    host = await swarm.node()
    guest = await swarm.node(refused=revoked.__contains__)
    revoked.add(host.peer)
    assert not await guest.dial(host)
    assert (host.events.ups, guest.events.ups) == ([], [])
    assert "refused here" in guest.events.downs[0][1]


# -- in the middle ---------------------------------------------------------------------------------


def as_server(attacks, identity, membership) -> ssl.SSLContext:
    return attacks.careless(ssl.PROTOCOL_TLS_SERVER, identity, membership)


async def test_case_13_an_outsider_in_the_middle(swarm, other_swarm, attacks, victim):
    target, outsider = await swarm.node(), Identity.create()
    context = as_server(attacks, outsider, other_swarm.certify(outsider))
    async with attacks.Impostor(context) as impostor:
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert impostor.heard == b""
    assert victim.events.ups == []
    assert "not the peer that is meant" in victim.events.downs[0][1]


async def test_case_14_a_member_in_the_middle(swarm, attacks, victim):
    """A good certificate of its own does not make it somebody else."""
    target, member = await swarm.node(), Identity.create()
    context = as_server(attacks, member, swarm.certify(member))
    async with attacks.Impostor(context) as impostor:
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert impostor.heard == b""
    assert victim.events.ups == []


@pytest.fixture
def no_pin(monkeypatch):
    """Leave OpenSSL's own checks, and take ours away."""

    def remove(meant) -> None:
        monkeypatch.setattr(tls, "_proved_peer", lambda _: meant)

    return remove


@pytest.fixture
async def lie(swarm, monkeypatch):
    """Somebody's name over another's key, signed by an issuer."""

    def certify(member: Identity, named: PeerId) -> Membership:
        text, host = authority.peer_text(named), authority.host_name(named)
        with monkeypatch.context() as patch:
            patch.setattr(authority, "peer_text", lambda _: text)
            patch.setattr(authority, "host_name", lambda _: host)
            return swarm.certify(member)

    return certify


async def test_case_15_without_a_pin_a_lying_issuer_gets_everything(swarm, attacks, victim, lie, no_pin):
    """The control of case 17: the pin is needed."""
    target, member = await swarm.node(), Identity.create()
    context = as_server(attacks, member, lie(member, target.peer))
    async with attacks.Impostor(context, REFUSAL) as impostor:
        no_pin(target.peer)
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert b"GET /v1/ws" in impostor.heard


async def test_case_16_the_host_name_alone_stops_a_member(swarm, attacks, victim, no_pin):
    target, member = await swarm.node(), Identity.create()
    context = as_server(attacks, member, swarm.certify(member))
    async with attacks.Impostor(context, REFUSAL) as impostor:
        no_pin(target.peer)
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert impostor.heard == b""
    assert "not the peer that is meant" in victim.events.downs[0][1]


async def test_case_17_a_lying_issuer(swarm, attacks, victim, lie):
    """The chain is right, and the name: the pin is not. In the middle, and as a client."""
    target, member = await swarm.node(), Identity.create()
    context = as_server(attacks, member, lie(member, target.peer))
    async with attacks.Impostor(context, REFUSAL) as impostor:
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert impostor.heard == b""
    assert "names another peer than its key" in victim.events.downs[0][1]
    assert await read_by(attacks, victim, member, lie(member, target.peer)) == b""
    assert victim.events.ups == []


async def test_case_18_recorded_bytes_are_worthless(swarm, attacks, victim, until):
    guest = await swarm.node()
    async with attacks.Wire(victim.transport.port) as wire:
        assert await guest.transport.dial(victim.peer, [wire.address])
        await until(lambda: guest.events.frames)
        recorded = wire.upstream
        assert MARKER not in wire.upstream + wire.downstream
    victim.events.ups.clear()
    answer = await attacks.knock(victim.transport.port, None, victim.peer, recorded)
    assert victim.events.ups == []
    assert MARKER not in answer


# -- at an issuer ----------------------------------------------------------------------------------


async def ask_as_a_stranger(attacks, host, method, path) -> bytes:
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT)
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return await attacks.knock(host.transport.port, context, host.peer, request.encode())


async def test_case_19_a_stranger_may_join(reception, attacks):
    host = await reception.start()
    answer = await ask_as_a_stranger(attacks, host, "POST", "/v1/join")
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"malformed" in answer  # it was read, and refused by the one who admits
    assert host.events.ups == []


async def test_case_20_a_stranger_may_do_nothing_else(reception, attacks):
    host = await reception.start()
    blob = "/v1/blob/" + "0" * 64
    others = ("/", "/v1/ws", blob, blob + "/chunks", "/v1/renew", "/v1/state", "/v1/joined", "//v1/join")
    for path in (*others, "/v1/../v1/blob", "/v1/join/../ws", "*", "http://127.0.0.1/v1/ws"):
        for method in ("GET", "POST"):
            answer = await ask_as_a_stranger(attacks, host, method, path)
            assert answer.split()[1] in (b"401", b"400"), (method, path)
    assert host.events.ups == []


async def test_case_21_a_foreign_certificate_at_an_issuer(reception, other_swarm, attacks):
    host = await reception.start()
    identity = Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, other_swarm.certify(identity))
    assert await attacks.knock(host.transport.port, context, host.peer) == b""


async def test_case_22_plain_http(attacks, victim):
    answer = await attacks.knock(victim.transport.port, None, victim.peer)
    assert b"HTTP" not in answer
    assert MARKER not in answer
    assert victim.events.ups == []


# -- more ------------------------------------------------------------------------------------------


async def test_the_pin_holds_for_blocking_sockets_too(victim):
    def greet(peer: PeerId) -> PeerId | None:
        plain = socket.create_connection(("127.0.0.1", victim.transport.port))
        with tls.joining_context().wrap_socket(plain, server_hostname=host_name(peer)) as proved:
            return proved.peer

    assert await asyncio.to_thread(greet, victim.peer) == victim.peer
    with pytest.raises(ssl.SSLCertVerificationError, match="another peer answers there"):
        await asyncio.to_thread(greet, Identity.create().peer)


async def test_a_relay_that_flips_a_bit(swarm, attacks, victim, until):
    guest = await swarm.node()
    async with attacks.Wire(victim.transport.port) as wire:
        assert await guest.transport.dial(victim.peer, [wire.address])
        await until(lambda: guest.events.frames)
        wire.flip_after = len(wire.downstream)
        victim.transport.send(guest.peer, MARKER)
        await until(lambda: guest.events.downs)
    assert len(guest.events.frames) == 1


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff" * 1000,
        HEAD + b"X: " + b"y" * 1_000_000,
        HEAD + b"X: y\r\n" * 100_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"ffffff\r\n" + bytes(1_000_000),
        HEAD + b"Content-Length: 99999999999\r\n\r\n" + bytes(1_000_000),
        HEAD + b"Content-Length: 64\r\nContent-Encoding: gzip\r\n\r\n" + bytes(64),
        HEAD + b"Content-Length: 64\r\n\r\n" + bytes(5),
        HEAD + b"Content-Length: -1\r\nSet-Cookie: \xff=\xff\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 999999999999999999999999 \r\n\r\n",
    ],
    ids=range(11),
)
async def test_a_member_that_answers_nonsense(swarm, attacks, tmp_path, answer):
    """A bad answer is the peer's failure, in words, and never an exception of another kind."""
    node, member = await swarm.node(), Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_SERVER, member, swarm.certify(member))
    async with attacks.Impostor(context, answer) as impostor:
        assert not await node.transport.dial(member.peer, [impostor.address])
        with pytest.raises((UnreachableError, RefusedError, RemoteProtocolError)):
            await fetch(node.transport, member.peer, BlobId(Ref("0" * 64)), 2**21, tmp_path, 5.0)
    assert node.events.downs
    assert list(tmp_path.iterdir()) == []
    assert node.transport.traffic.total.blobs_down <= 64
