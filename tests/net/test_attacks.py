"""Whoever is not a member reads no byte of any message: one test for each way to try."""

import asyncio
import socket
import ssl
from datetime import timedelta

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2ptrain.core.errors import RefusedError, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.net import authority, tls, transport
from p2ptrain.net.authority import Issuer
from p2ptrain.net.blob_fetch import fetch
from p2ptrain.net.certificates import Membership, Role, host_name, wall_clock
from p2ptrain.net.identity import Identity
from p2ptrain.net.transport import Transport

MARKER = b"the loss is 0.25, the secret marker"


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


async def test_a_member_is_served(swarm, attacks, victim):
    """The control: the same attempts with a good certificate do succeed."""
    identity = Identity.create()
    answer = await read_by(attacks, victim, identity, swarm.certify(identity))
    assert b"101 Switching" in answer
    assert MARKER in answer
    assert victim.events.ups == [identity.peer]


# -- as a client -----------------------------------------------------------------------------------


async def test_no_certificate(attacks, victim):
    assert await read_by(attacks, victim) == b""
    assert victim.events.ups == []


async def test_another_swarms_certificate(other_swarm, attacks, victim):
    identity = Identity.create()
    assert await read_by(attacks, victim, identity, other_swarm.certify(identity)) == b""
    assert victim.events.ups == []


async def test_a_stolen_certificate(swarm, attacks, victim):
    """A certificate is public. TLS does not let anyone use it without its key, nor change the key in it."""
    owner, thief = Identity.create(), Identity.create()
    stolen = swarm.certify(owner)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        attacks.careless(ssl.PROTOCOL_TLS_CLIENT, thief, stolen)
    leaf = stolen.leaf.replace(owner.peer, thief.peer)
    changed = Membership(leaf, stolen.issuer, stolen.root)
    assert await read_by(attacks, victim, thief, changed) == b""
    assert victim.events.ups == []


@pytest.mark.parametrize("days", [-40, 3], ids=["expired", "not yet valid"])
async def test_out_of_time(swarm, attacks, victim, days):
    identity = Identity.create()
    wrong = swarm.issuer.certify(identity.peer, Role.MEMBER, 0, wall_clock() + timedelta(days=days))
    assert await read_by(attacks, victim, identity, wrong) == b""
    assert victim.events.ups == []


async def test_a_members_leaf_as_authority(swarm, attacks, victim):
    key = Ed25519PrivateKey.generate()
    member = swarm.certify(Identity(key))
    identity = Identity.create()
    forged = Issuer(key, member.leaf, member.root).certify(identity.peer, Role.MEMBER, 0, wall_clock())
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, forged, member.issuer)
    assert await read_by(attacks, victim, context=context) == b""
    assert victim.events.ups == []


async def test_an_issuer_that_appoints(swarm, attacks, victim):
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


async def test_an_issuer_that_lies(swarm, attacks, victim, monkeypatch):
    """The name of one member over the key of another: the chain is right, the pin is not."""
    identity, named = Identity.create(), Identity.create().peer
    text, host = authority.peer_text(named), authority.host_name(named)
    monkeypatch.setattr(authority, "peer_text", lambda _: text)
    monkeypatch.setattr(authority, "host_name", lambda _: host)
    lie = swarm.certify(identity)
    assert await read_by(attacks, victim, identity, lie) == b""
    assert victim.events.ups == []


async def test_tls_1_2(swarm, attacks, victim):
    identity = Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, swarm.certify(identity))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await read_by(attacks, victim, context=context) == b""
    assert victim.events.ups == []


async def test_plain_http(attacks, victim):
    answer = await attacks.knock(victim.transport.port, None, victim.peer)
    assert b"HTTP" not in answer
    assert MARKER not in answer
    assert victim.events.ups == []


async def test_a_refused_peer(swarm):
    banned = set()
    host = await swarm.node(refused=banned.__contains__)
    guest = await swarm.node()
    banned.add(guest.peer)
    assert not await guest.dial(host)
    assert not await host.dial(guest)
    assert (host.events.ups, guest.events.ups) == ([], [])
    assert "turned this computer away" in guest.events.downs[0][1]
    assert "refused here" in host.events.downs[0][1]


async def test_recorded_bytes_are_worthless(swarm, attacks, victim, until):
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


# -- in the middle ---------------------------------------------------------------------------------


async def test_an_outsider_in_the_middle(swarm, other_swarm, attacks, victim):
    target, outsider = await swarm.node(), Identity.create()
    certificate = other_swarm.certify(outsider)
    context = attacks.careless(ssl.PROTOCOL_TLS_SERVER, outsider, certificate)
    async with attacks.Impostor(context) as impostor:
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert impostor.heard == b""
    assert victim.events.ups == []
    assert "not the peer that is meant" in victim.events.downs[0][1]


async def test_a_member_in_the_middle(swarm, attacks, victim):
    """A good certificate of its own does not make it somebody else."""
    target, member = await swarm.node(), Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_SERVER, member, swarm.certify(member))
    async with attacks.Impostor(context) as impostor:
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert impostor.heard == b""
    assert victim.events.ups == []


async def test_a_member_with_a_lying_issuer_in_the_middle(swarm, attacks, victim, monkeypatch):
    target, member = await swarm.node(), Identity.create()
    text, host = authority.peer_text(target.peer), authority.host_name(target.peer)
    monkeypatch.setattr(authority, "peer_text", lambda _: text)
    monkeypatch.setattr(authority, "host_name", lambda _: host)
    context = attacks.careless(ssl.PROTOCOL_TLS_SERVER, member, swarm.certify(member))
    async with attacks.Impostor(context) as impostor:
        assert not await victim.transport.dial(target.peer, [impostor.address])
        assert impostor.heard == b""
        assert "names another peer than its key" in victim.events.downs[0][1]
        # The control: without the pin, the same certificate gets everything.
        monkeypatch.setattr(tls, "_proved_peer", lambda _: target.peer)
        monkeypatch.setattr(transport, "DIAL_S", 0.1)
        await victim.transport.dial(target.peer, [impostor.address])
        assert b"GET /v1/ws" in impostor.heard


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


async def test_a_redirect_leads_nowhere(swarm, attacks, monkeypatch):
    """A member that answers with a link to a service on the victim's own computer."""
    touched = []

    async def serve(reader, writer) -> None:
        touched.append(await reader.read(100))
        writer.close()

    local = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = local.sockets[0].getsockname()[1]

    async def redirect(self, request):
        raise web.HTTPFound(f"http://127.0.0.1:{port}/")

    monkeypatch.setattr(Transport, "_accept", redirect)
    one, two = await swarm.pair()
    assert not await one.dial(two)
    assert touched == []
    local.close()
    await local.wait_closed()


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


# -- at an issuer ----------------------------------------------------------------------------------


async def test_a_stranger_may_only_join(reception, attacks):
    host = await reception.start()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT)
    for path in ("/", "/v1/ws", "/v1/blob/" + "0" * 64, "/v1/joined", "//v1/join", "/v1/../v1/blob"):
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        answer = await attacks.knock(host.transport.port, context, host.peer, request)
        assert answer.startswith(b"HTTP/1.1 401")
    assert host.events.ups == []


async def test_a_foreign_certificate_at_an_issuer(reception, other_swarm, attacks):
    host = await reception.start()
    identity = Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, other_swarm.certify(identity))
    assert await attacks.knock(host.transport.port, context, host.peer) == b""
