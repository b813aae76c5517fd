"""Mutated requests, frames, names and chunks against a live member: nothing may come out but refusals.

`python -m tests.fuzz --live 200000 --seed 1` takes minutes; a sample runs with the tests.
"""

import asyncio
import contextlib
import logging
import ssl
import struct
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from p2ptrain.core import limits
from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.errors import Offence, P2PTrainError
from p2ptrain.core.types import PeerId
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.blobs.fetch import fetch
from p2ptrain.net.members.spreading import Spreading
from p2ptrain.net.members.state import StateKeeper
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import Role, host_name, wall_clock
from p2ptrain.net.trust.identity import Identity
from tests.net import virtual
from tests.net.attacks import REQUESTS, careless

SECRET = b"what lies beside the blobs"
LANES = 16
ATTACKERS = 64
ANSWER_S = 0.05
NAMES_A_LINE = 50

HEADERS = (
    b"Content-Length: 5",
    b"Content-Length: 5, 6",
    b"Content-Length: -1",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Range: bytes=0-0",
    b"Range: bytes=-99999999999999999999999",
    b"Range: bytes=5-2,7-9",
    b"If-None-Match: \xff\x00",
    b"Expect: 100-continue",
    b"Sec-WebSocket-Key: AAAA",
    b"Sec-WebSocket-Version: 99",
    b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99",
    b"Cookie: " + b"a=b; " * 500,
    b"X: " + b"y" * 9000,
)
PLACES = ("ws", "state", "join", "renew", "where", "relay", "dial-back", f"blob/{'0' * 64}")
PATHS = (*(f"/v1/{place}" for place in PLACES), "*", "/")
VERSIONS = ("1.1", "1.0", "2.0", "9")
METHODS = ("GET", "PUT", "POST", "HEAD", "OPTIONS", "CONNECT", "TRACE", "G\0T", "")
STEPS = (
    "..",
    "%2e%2e",
    ".",
    "",
    "//",
    "%2f",
    "\\",
    "secret",
    "%00",
    "~",
    "%c0%ae",
    "0" * 64,
    "a" * 300,
    "ü",
    "%",
)


class Live:
    """A member that is attacked, and what went wrong in it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._seed = seed
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self._issuer = Root.create(wall_clock()).appoint(wall_clock())
        self._me = Identity.create()
        self._blobs = folder / "blobs"
        self._blobs.mkdir()
        (folder / "secret").write_bytes(SECRET)
        (self._blobs / "secret").write_bytes(SECRET)
        (self._blobs / f"{'0' * 64}.part").write_bytes(SECRET)
        keeper = StateKeeper(self._issuer.root_key, b"", lambda _: None)
        spreading = Spreading(keeper, self.offended)
        self.node = spreading.line = Transport(
            self._me,
            self._issuer.certify(self._me.peer, Role.MEMBER, 0, wall_clock()),
            self,
            blobs=self._blobs,
            routes=spreading.routes(),
            allow=partial(is_dialable, loopback=True),
        )
        self._attackers = [self._attacker() for _ in range(ATTACKERS)]

    def _attacker(self) -> ssl.SSLContext:
        identity = Identity.create()
        membership = self._issuer.certify(identity.peer, Role.MEMBER, 0, wall_clock())
        return careless(ssl.PROTOCOL_TLS_CLIENT, identity, membership)

    # -- events of the node ------------------------------------------------------------------------

    def peer_up(self, peer: PeerId) -> None: ...

    def peer_down(self, peer: PeerId, reason: str) -> None: ...

    def received(self, peer: PeerId, frame: bytes) -> None:
        self.done["frames that came through"] += 1

    def offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        self.done[f"offence {offence.name}"] += 1

    # -- attacks -----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def line(self, rng: Random) -> Any:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.node.port,
            ssl=rng.choice(self._attackers),
            server_hostname=host_name(self._me.peer),
        )
        try:
            yield reader, writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def names(self, rng: Random) -> None:
        """Names of blobs that are none, as many as one connection takes."""
        async with self.line(rng) as (reader, writer):
            for _ in range(NAMES_A_LINE):
                self.done["names"] += 1
                path = "/".join(rng.choices(STEPS, k=rng.randint(1, 6)))
                writer.write(f"GET /v1/blob/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                if head[9:12] not in (b"404", b"400", b"405", b"416"):
                    self.wrong.append(f"{path!r} got {head[:40]!r}")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                if SECRET in await reader.readexactly(length):
                    self.wrong.append(f"{path!r} got the secret")
                if b"close" in head:
                    return

    async def request(self, rng: Random) -> None:
        """A request that is broken in some way."""
        self.done["requests"] += 1
        line = f"{rng.choice(METHODS)} {rng.choice(PATHS)} HTTP/{rng.choice(VERSIONS)}"
        lines = [line.encode(), b"Host: x", *rng.sample(HEADERS, rng.randrange(4))]
        raw = bytearray(b"\r\n".join(lines) + b"\r\n\r\n" + rng.randbytes(rng.randrange(40)))
        damage(rng, raw)
        async with self.line(rng) as (reader, writer):
            writer.write(bytes(raw))
            await self._listen(reader)

    async def frames(self, rng: Random) -> None:
        """Some WebSocket frames, good and broken ones."""
        async with self.line(rng) as (reader, writer):
            writer.write(REQUESTS)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 101 " not in head:
                self.done["greetings refused"] += 1
                return
            for _ in range(rng.randint(1, 30)):
                self.done["frames"] += 1
                raw = bytearray(frame(rng))
                if rng.random() < 0.5:
                    damage(rng, raw)
                writer.write(bytes(raw))
                await writer.drain()
            await self._listen(reader)

    async def chunks(self, rng: Random) -> None:
        """A source with something wrong in its hashes or chunks: the file is right or is not there."""
        self.done["chunks"] += 1
        await asyncio.to_thread(lie_about_chunks, rng.getrandbits(32), self._blobs.parent, self.wrong)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                if SECRET in await reader.read():
                    self.wrong.append("an answer had the secret in it")

    # -- all together ------------------------------------------------------------------------------

    @property
    def cases(self) -> int:
        return sum(self.done[kind] for kind in ("names", "requests", "frames", "chunks"))

    async def _attack(self, count: int, rng: Random) -> None:
        kinds = (self.names, self.request, self.frames, self.chunks)
        while self.cases < count and not self.wrong:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await rng.choices(kinds, (1, 12, 2, 6))[0](rng)

    async def run(self, count: int) -> None:
        """Attack so often, and then see that an honest member is served."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.wrong.append(str(context)))
        listening = Listening(self.wrong)
        logging.getLogger("p2ptrain").addHandler(listening)
        try:
            await self.node.start("127.0.0.1")
            await asyncio.gather(
                *(self._attack(count, Random(f"{self._seed} {lane}")) for lane in range(LANES))
            )
            await self._serves(Random(self._seed))
        finally:
            await self.node.close()
            logging.getLogger("p2ptrain").removeHandler(listening)

    async def _serves(self, rng: Random) -> None:
        data = rng.randbytes(limits.MIB + 3)
        (self._blobs / hash_blob(data)).write_bytes(data)
        async with self.line(rng) as (reader, writer):
            writer.write(f"GET /v1/blob/{hash_blob(data)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            if await reader.readexactly(len(data)) != data:
                self.wrong.append("it serves no more")


class Listening(logging.Handler):
    """Whatever the node reports as an error was not foreseen."""

    def __init__(self, wrong: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._wrong = wrong

    def emit(self, record: logging.LogRecord) -> None:
        self._wrong.append(logging.Formatter().format(record))


def frame(rng: Random) -> bytes:
    """A WebSocket frame of a client, good as far as it goes."""
    body = rng.randbytes(rng.choice((0, 1, 125, 126, 1000, 70_000)))
    size, first = len(body), rng.choice((0x80, 0, 0xC0, 0xF0)) | rng.choice((0, 1, 2, 2, 2, 8, 9, 10, 3, 15))
    if rng.random() < 0.1:
        return bytes([first, 0xFF]) + struct.pack(">Q", rng.getrandbits(64)) + bytes(4) + body
    if size < 126:
        return bytes([first, 0x80 | size]) + bytes(4) + body
    if size < 65_536:
        return bytes([first, 0xFE]) + struct.pack(">H", size) + bytes(4) + body
    return bytes([first, 0xFF]) + struct.pack(">Q", size) + bytes(4) + body


def damage(rng: Random, raw: bytearray) -> None:
    """Change some bytes, take some out, put some in."""
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(raw) + 1)
        raw[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))


def lie_about_chunks(seed: int, folder: Path, wrong: list[str]) -> None:
    """Fetch from a source that lies somewhere, in virtual time."""
    rng = Random(seed)
    data = rng.randbytes(rng.choice((1, 1000, limits.BLOB_CHUNK_BYTES, limits.BLOB_CHUNK_BYTES + 1)))
    said = bytearray(data)
    damage(rng, said)
    blob, peer = hash_blob(data), PeerId(bytes(32))
    source = virtual.Source(
        peer, bytes(said) or b"x", wrong=frozenset(rng.sample(range(3), rng.randrange(3)))
    )
    into = folder / f"into-{seed}"
    into.mkdir(exist_ok=True)

    async def bring() -> None:
        with contextlib.suppress(P2PTrainError):
            await fetch(virtual.Transport(source), peer, blob, len(data), into, 60.0)  # type: ignore[arg-type]

    virtual.run(bring())
    if (into / blob).exists() and (into / blob).read_bytes() != data:
        wrong.append(f"seed {seed}: other bytes than the name says")
    for path in into.iterdir():
        path.unlink()
    into.rmdir()


def attack_live(folder: Path, seed: int, count: int) -> Live:
    """Attack a live member so often; what it should not have done is in `wrong`."""
    live = Live(folder, seed)
    asyncio.run(live.run(count))
    return live
