"""Nobody can exhaust a node: each attack is bounded, others are answered meanwhile, and nothing stays.

The victim is a process of its own with short time-outs (`hardened.py`), the same one for all attacks: each
may take 16 MB of its memory, all together twice that. `pytest -k resource_` runs the 12 cases that were found
before the code was written, on asyncio and on uvloop, and some more.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from p2ptrain.core import limits
from p2ptrain.net.trust.certificates import host_name
from p2ptrain.net.trust.identity import Identity
from tests.net.conftest import Node, Swarm

pytestmark = [
    pytest.mark.attack,
    pytest.mark.asyncio(loop_factories=("asyncio", "uvloop")),
    pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc"),
]

RISE_MAX = 16 * 10**6
ANSWER_S = 3.0
"""For an honest member, on a computer that is busy with tests."""

DRIP_S = 0.2

GONE_S = 8.0
"""Eight times the victim's patience."""

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ROOT = Path(__file__).parents[2]
UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Victim:
    """The process, and attackers' ways to it."""

    def __init__(self, loop: str, folder: Path) -> None:
        self.swarm = Swarm()
        self.identity = Identity.create()
        self.identity.save(folder / "identity.pem")
        (folder / "issuer").write_bytes(self.swarm.issuer.encode())
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.net.hardened", loop, str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        told = self._answer()
        self.port: int = told["port"]
        self.blob: str = told["blob"]
        self.address = f"127.0.0.1:{self.port}"

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the victim is dead"
        return dict(json.loads(line))

    async def ask(self, do: str, **question: object) -> dict[str, Any]:
        def talk() -> dict[str, Any]:
            assert self._process.stdin
            self._process.stdin.write(json.dumps({"do": do, **question}) + "\n")
            self._process.stdin.flush()
            return self._answer()

        return await asyncio.to_thread(talk)

    def end(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Victim]]:
    made: dict[str, Victim] = {}
    yield made
    for victim in made.values():
        victim.end()


class Attack:
    """Who attacks, and a member that expects to be answered all the time."""

    def __init__(self, victim: Victim, careless: Any) -> None:
        self.victim = victim
        self.careless = careless
        self._nodes: list[Node] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._sockets: list[socket.socket] = []

    # -- the honest --------------------------------------------------------------------------------

    async def somebody_comes(self) -> None:
        """An honest member connects."""
        identity = Identity.create()
        node = Node(identity, self.victim.swarm.certify(identity))
        await node.transport.start("127.0.0.1")
        self._nodes.append(node)
        async with asyncio.timeout(ANSWER_S):
            assert await node.transport.dial(self.victim.identity.peer, [self.victim.address])

    async def all_are_answered(self) -> None:
        """Every honest member gets a frame back."""
        frame = os.urandom(8)
        for node in self._nodes:
            node.transport.send(self.victim.identity.peer, frame)
        async with asyncio.timeout(ANSWER_S):
            while not all(frame in dict(map(reversed, node.events.frames)) for node in self._nodes):
                assert not any(node.events.downs for node in self._nodes)
                await asyncio.sleep(0.005)

    @property
    def honest(self) -> int:
        return len(self._nodes)

    # -- attackers ---------------------------------------------------------------------------------

    def tcp(self, host: str) -> socket.socket:
        """Only TCP, from an address of this computer."""
        line = socket.create_connection(("127.0.0.1", self.victim.port), source_address=(host, 0))
        self._sockets.append(line)
        return line

    async def stream(self, host: str) -> Line:
        """Only TCP, to be read and written."""
        line = await asyncio.open_connection(sock=self.tcp(host))
        self._sockets.pop()
        self._writers.append(line[1])
        return line

    async def tls(self, identity: Identity | None = None, *, member: bool = True) -> Line:
        """As a member, a new one unless it is said which, or as a stranger."""
        identity = identity or Identity.create()
        shown = (identity, self.victim.swarm.certify(identity)) if member else ()
        context = self.careless(ssl.PROTOCOL_TLS_CLIENT, *shown)
        name = host_name(self.victim.identity.peer)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.victim.port, ssl=context, server_hostname=name
        )
        self._writers.append(writer)
        return reader, writer

    async def neighbour(self) -> Line:
        """As a member with a connection for messages."""
        reader, writer = await self.tls()
        writer.write(UPGRADE)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        assert b"deflate" not in head
        return reader, writer

    async def end(self) -> None:
        for line in self._sockets:
            line.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(node.transport.close() for node in self._nodes))


async def push(line: Line, pieces: Iterable[bytes]) -> None:
    """Send until somebody has had enough, and wait for the end of the connection."""
    reader, writer = line
    with contextlib.suppress(OSError):
        async with asyncio.timeout(GONE_S):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            while await reader.read(2**16):
                pass


async def drip(line: Line, data: bytes) -> None:
    """Send one byte after the other, each before patience ends, until the other side ends it."""
    reader, writer = line
    with contextlib.suppress(OSError, RuntimeError):  # uvloop's word for a connection that is gone
        async with asyncio.timeout(GONE_S):
            end = asyncio.create_task(reader.read())
            for at in itertools.count():
                if (await asyncio.wait([end], timeout=DRIP_S))[0]:
                    end.result()
                    return
                writer.write(data[at : at + 1] or b"x")


def frame(length: int, opcode: int = 2, first: int = 0x80) -> bytes:
    """Begin a WebSocket frame under a mask of zeros."""
    size = struct.pack(">BQ", 0xFF, length) if length > 125 else bytes([0x80 | length])
    return bytes([first | opcode]) + size + bytes(4)


@pytest.fixture
async def victim(
    request: pytest.FixtureRequest, victims: dict[str, Victim], tmp_path_factory: pytest.TempPathFactory
) -> Victim:
    loop = type(asyncio.get_running_loop()).__module__.split(".")[0]
    if loop not in victims:
        victims[loop] = await asyncio.to_thread(Victim, loop, tmp_path_factory.mktemp(loop))
    return victims[loop]


@pytest.fixture
async def attack(victim: Victim, attacks: Any) -> AsyncIterator[Attack]:
    """Look before and after: others are answered, memory is bounded, nothing stays."""
    attack = Attack(victim, attacks.careless)
    await attack.somebody_comes()
    await attack.all_are_answered()
    await victim.ask("count_from_here")
    yield attack
    await attack.somebody_comes()
    await attack.all_are_answered()
    async with asyncio.timeout(GONE_S):
        while (costs := await victim.ask("costs"))["connections"] > attack.honest:
            await asyncio.sleep(0.05)
    await attack.end()
    assert costs["rise"] <= RISE_MAX
    assert costs["rise_of_all"] <= 2 * RISE_MAX
    async with asyncio.timeout(GONE_S):
        while (await victim.ask("costs"))["connections"]:
            await asyncio.sleep(0.05)


async def charged(victim: Victim) -> list[str]:
    """Return the first offences that are noticed."""
    async with asyncio.timeout(ANSWER_S):
        while not (offences := (await victim.ask("costs"))["offences"]):
            await asyncio.sleep(0.02)
    return list(offences)


# -- frames ----------------------------------------------------------------------------------------


async def test_resource_01_a_frame_that_claims_2_to_the_62(victim, attack):
    await push(await attack.neighbour(), chain([frame(2**62)], repeat(bytes(2**16), 80)))
    assert await charged(victim) == ["OVERSIZED"]


async def test_resource_02_a_frame_of_5_mib(victim, attack):
    await push(await attack.neighbour(), chain([frame(5 * limits.MIB)], repeat(bytes(2**16), 80)))
    assert await charged(victim) == ["OVERSIZED"]


async def test_resource_03_endless_fragments(victim, attack):
    piece = bytes(2**15)
    fragments = repeat(frame(len(piece), opcode=0, first=0) + piece, 160)
    await push(await attack.neighbour(), chain([frame(len(piece), first=0) + piece], fragments))
    assert await charged(victim) == ["OVERSIZED"]


async def test_resource_04_a_bomb_in_a_frame(victim, attack):
    """60 kB of deflate are 60 MB; nobody negotiated it."""
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(60 * 10**6)) + packer.flush(zlib.Z_SYNC_FLUSH)
    await push(await attack.neighbour(), [frame(len(bomb), first=0xC0) + bomb])
    assert await charged(victim) == ["MALFORMED"]


# -- answers ---------------------------------------------------------------------------------------


@pytest.fixture
async def answer(victim, attacks):
    """Have the victim ask a member that gives every request the same answer."""

    @contextlib.asynccontextmanager
    async def listen(said: bytes, *, lingers: bool = False) -> AsyncIterator[dict[str, str]]:
        member = Identity.create()
        context = attacks.careless(ssl.PROTOCOL_TLS_SERVER, member, victim.swarm.certify(member))
        async with attacks.Impostor(context, said, lingers=lingers) as impostor:
            yield {"peer": member.peer.hex(), "address": impostor.address}

    return listen


async def test_resource_05_a_bomb_in_an_answer(victim, attack, answer):
    """300 kB of gzip are 300 MB."""
    bomb = gzip.compress(bytes(300 * 10**6))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    async with answer(head + bomb, lingers=True) as where:
        said = (await victim.ask("fetch", **where))["said"]
    assert [one.partition(": ")[0] for one in said] == ["RemoteProtocolError"] * 2, said


async def test_resource_11_a_redirect_to_a_local_service(victim, attack, answer):
    touched = []

    async def serve(reader, writer) -> None:
        touched.append(reader)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as local:
        there = f"127.0.0.1:{local.sockets[0].getsockname()[1]}"
        for url in (f"http://{there}/", f"https://{there}/", f"//{there}/", f"ws://{there}/"):
            said = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nContent-Length: 0\r\n\r\n".encode()
            async with answer(said) as where:
                assert await victim.ask("dial", **where) == {"up": False}
                assert (await victim.ask("fetch", **where))["said"][0].startswith("RefusedError")
    assert touched == []


# -- requests --------------------------------------------------------------------------------------


async def test_resource_06_a_body_without_end(victim, attack):
    body = b"%x\r\n%s\r\n" % (2**16, bytes(2**16))
    chunks = f"GET /v1/blob/{victim.blob}/chunks"
    for line in ("PUT /v1/state", "POST /v1/join", chunks, "POST /v1/nothing"):
        for length in ("Transfer-Encoding: chunked", "Content-Length: 99999999999"):
            head = f"{line} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode()
            for member in (True, False):
                await push(await attack.tls(member=member), chain([head], repeat(body, 500)))


async def test_resource_07_five_hundred_idle_connections(attack):
    """Of one address: those beyond its share are refused, the others dropped."""
    for _ in range(500):
        attack.tcp("127.0.0.2")
    await attack.somebody_comes()
    await attack.all_are_answered()


async def test_idle_connections_of_many_addresses(attack):
    """All places are taken: who proves nothing gives way."""
    for number in range(512):
        attack.tcp(f"127.0.0.{2 + number % 8}")
    await attack.somebody_comes()
    await attack.all_are_answered()


async def test_resource_08_half_a_header(attack):
    for member in (True, False):
        for half in (b"G", b"GET /v1/state HTTP/1.1\r\nHost:", b"GET /v1/state HTTP/1.1\r\nHost: x\r\n"):
            _, writer = await attack.tls(member=member)
            writer.write(half)
        await drip(await attack.tls(member=member), b"GET /v1/state HTTP/1.1\r\nX: ")


async def test_resource_09_a_body_that_stalls(attack):
    slow = []
    for line in ("PUT /v1/state", "POST /v1/join", "GET /v1/nothing", "GET /v1/ws"):
        head = f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: 232\r\n\r\n".encode()
        for _ in range(4):
            _, writer = await attack.tls()
            writer.write(head + b"ten bytes.")
        slow.append(drip(await attack.tls(), head))
    await asyncio.gather(*slow)


async def test_resource_10_a_slow_handshake(attack):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = attack.careless(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    said = outgoing.read()
    for _ in range(30):
        attack.tcp("127.0.0.2").send(said[:-1])
    lines = [await attack.stream("127.0.0.2") for _ in range(30)]
    async with asyncio.timeout(GONE_S):
        await asyncio.gather(*(drip(line, said) for line in lines), attack.somebody_comes())


# -- floods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [2, 9, 10], ids=["messages", "pings", "pongs"])
async def test_resource_12_a_flood(victim, attack, opcode):
    await push(await attack.neighbour(), repeat(frame(0, opcode) * 100, 100))
    assert await charged(victim) == ["FLOODING"]


async def test_a_flood_of_joins(attack):
    head = b"POST /v1/join HTTP/1.1\r\nHost: x\r\nContent-Length: 232\r\n\r\n"
    await push(await attack.tls(member=False), repeat(head + bytes(232), 300))


async def test_requests_without_waiting_for_answers(attack):
    request = b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    _, writer = await attack.tls()
    writer.transport.pause_reading()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            while True:
                writer.write(request * 1000)
                await writer.drain()
    writer.transport.abort()  # what it did not get back was kept for it, up to here


async def test_who_takes_no_answer(victim, attack):
    """Small ones and weights; a member gets no more than four transfers at once."""
    member = Identity.create()
    for path, times in (("/v1/nothing", 2000), *[(f"/v1/blob/{victim.blob}", 1)] * 8):
        _, writer = await attack.tls(member)
        writer.transport.pause_reading()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * times)


async def test_ids_that_nobody_has(victim, attack):
    """What is remembered of each is bounded."""
    reader, writer = await attack.tls()
    for number in range(500):
        writer.write(b"GET /v1/blob/%064x/chunks HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        await reader.readuntil(b"\r\n\r\n404: Not Found")
