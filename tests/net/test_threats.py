"""What a member or a stranger could make this node do: one test for each way. See docs/THREATS.md."""

import ast
import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import p2ptrain
from p2ptrain.net.addresses import Address
from p2ptrain.net.channel import link
from p2ptrain.net.transport import NEW_ADDRESSES_BURST, Transport
from p2ptrain.net.trust.certificates import host_name
from p2ptrain.net.trust.identity import Identity
from tests.net.conftest import Recorder

pytestmark = pytest.mark.attack

AMPLIFICATION_MAX = 3.0


class Bystander:
    """A service of this computer that has nothing to do with the swarm."""

    def __init__(self) -> None:
        self.touched: list[object] = []

    async def __aenter__(self) -> "Bystander":
        self._server = await asyncio.start_server(self._serve, ["0.0.0.0", "::"], 0)
        self.ports = sorted({one.getsockname()[1] for one in self._server.sockets})
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.touched.append(writer.get_extra_info("peername"))
        writer.close()


HOSTS = [
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[::1%lo]",
    "localhost",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "169.254.169.254",
    "[fe80::1]",
    "224.0.0.1",
    "255.255.255.255",
    "127.0.0.1.",
    "１２７.０.０.１",
]


async def test_no_advertised_address_leads_to_a_service_of_this_computer(swarm):
    """Dialled, learned, hinted at, in every writing of an address: not one connection is made."""
    identity = Identity.create()
    node = Transport(identity, swarm.certify(identity), Recorder())
    await node.start("127.0.0.1")
    async with Bystander() as bystander:
        addresses = [f"{host}:{port}" for host in HOSTS for port in bystander.ports]
        for address in addresses:
            peer = Identity.create().peer
            assert not await node.dial(peer, [address])
            with contextlib.suppress(Exception):
                async with node.get(peer, "/v1/state"):
                    pass
        assert not await node.dial(Identity.create().peer, addresses)
        assert bystander.touched == []
    await node.close()


async def test_nobody_is_led_through_a_network_one_address_after_the_other(swarm):
    """Forty contacts of eight new addresses each: no more are kept than a computer on the move has."""
    identity, peer = Identity.create(), Identity.create().peer
    node = Transport(identity, swarm.certify(identity), Recorder())
    named: dict[Address, None] = {}
    for number in range(40):
        node.learn(peer, [f"192.168.{number}.{last}:8080" for last in range(1, 9)])
        named.update(dict.fromkeys(node._book.addresses_of(peer)))
    assert len(named) == NEW_ADDRESSES_BURST
    node.learn(peer, [str(next(reversed(named)))] * 8)  # what was named before costs nothing
    node.learn(other := Identity.create().peer, ["192.168.1.1:8080"])
    assert node._book.addresses_of(other) == (Address("192.168.1.1", 8080),)


async def test_little_is_said_before_a_handshake_is_done(swarm, attacks):
    """Per byte that a stranger sends, whatever it sends: TCP keeps it from asking in another's name."""
    victim = await swarm.node()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    name = host_name(victim.peer)
    hello = attacks.careless(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    greeting = outgoing.read()
    for said in (b"", b"\x16", b"P2cn", b"P2cn" + bytes(17), attacks.REQUESTS, bytes(5000), greeting[:-1]):
        heard = await attacks.knock(victim.transport.port, None, victim.peer, said)
        assert len(heard) <= AMPLIFICATION_MAX * len(said)
    heard = await attacks.knock(victim.transport.port, None, victim.peer, greeting)
    assert 0 < len(heard) <= AMPLIFICATION_MAX * len(greeting)


async def test_who_sends_too_much_is_cut_before_it_costs_signatures(swarm, attacks, until):
    """Frames are counted when they come: what is beyond the rate is never looked at."""
    victim, identity = await swarm.node(), Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, swarm.certify(identity))
    flood = attacks.REQUESTS + (b"\x82\x84" + bytes(4) + b"junk") * 20_000
    began = time.monotonic()
    await attacks.knock(victim.transport.port, context, victim.peer, flood)
    await until(lambda: victim.events.offences)
    seconds = time.monotonic() - began
    assert [offence.name for _, offence in victim.events.offences] == ["FLOODING"]
    assert len(victim.events.frames) <= link.FRAMES_BURST + link.FRAMES_PER_S * seconds + 1


@pytest.mark.parametrize(
    "path",
    [
        "/v1/blob/",
        "/v1/blob",
        "/v1/",
        "/",
        "/v1/blob/../identity.pem",
        "/v1/blob/..%2fidentity.pem",
        "/v1/blob/%2e%2e/identity.pem",
        "/v1/blob//etc/passwd",
        "/v1/blob/" + "0" * 64 + ".part",
        "/v1/blob/" + "0" * 63 + "%00",
        "/v1/blob/" + "A" * 64,
        "/v1/blob/" + "0" * 64 + "/../../identity.pem",
    ],
)
async def test_no_path_leads_out_of_the_blobs_nor_lists_them(swarm, attacks, tmp_path, path):
    folder = tmp_path / "blobs"
    folder.mkdir()
    for name in ("../identity.pem", "0" * 64 + ".part", "A" * 64):
        (folder / name).write_bytes(b"the secret")
    victim, identity = await swarm.node(blobs=folder), Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, swarm.certify(identity))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    answer = await attacks.knock(victim.transport.port, context, victim.peer, request)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"secret" not in answer
    assert b"AAAA" not in answer


async def test_garbage_in_a_header_leaves_no_traceback_in_the_log(swarm, attacks, caplog):
    """aiohttp shows an unknown `Expect` in its answer, and fails if that is no text: found by the fuzz."""
    victim, identity = await swarm.node(), Identity.create()
    context = attacks.careless(ssl.PROTOCOL_TLS_CLIENT, identity, swarm.certify(identity))
    request = b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nExpect: \xff\xfe\r\n\r\n"
    answer = await attacks.knock(victim.transport.port, context, victim.peer, request)
    assert answer.startswith((b"HTTP/1.1 417", b"HTTP/1.1 500"))
    assert caplog.records == []


def names_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module.partition(".")[0]
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                yield f"{name}.{attribute}"
            case ast.Call(func=ast.Name(id=name)):
                yield f"{name}()"


CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
CODE |= {
    "torch.load",
    "torch.jit.load",
    "np.load",
    "numpy.load",
    "eval()",
    "exec()",
    "compile()",
    "__import__()",
}


OWN_FILES = {"foreign.py": {"torch.load", "pickle"}, "decoded.py": {"np.load"}}
"""Read files that the owner names, or that were written here, by loaders told to run no code."""


def test_no_bytes_become_code():
    """No module of the program can unpickle or run what it was sent."""
    sources = sorted(Path(p2ptrain.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    for path in sources:
        found = CODE & set(names_in(ast.parse(path.read_text(encoding="utf-8"))))
        assert found == OWN_FILES.get(path.name, set()), path.name


@pytest.mark.parametrize(
    ("file", "loader", "demand"),
    [("foreign.py", "torch.load", "weights_only=True"), ("decoded.py", "np.load", "allow_pickle=False")],
)
def test_the_loaders_of_own_files_run_no_code(file, loader, demand):
    (path,) = Path(p2ptrain.__file__).parent.rglob(file)
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    loads = [ast.unparse(call) for call in calls if ast.unparse(call.func) == loader]
    assert loads
    assert all(demand in load for load in loads)
    assert not [call for call in calls if ast.unparse(call.func).startswith("_pickle.")]
