"""How fast weights travel between processes of this computer, beside a plain TLS 1.3 socket.

All ways use the same certificates and ciphers, and take turns: what else the computer does falls on all.
"""

import asyncio
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.errors import Offence, UnreachableError
from p2ptrain.core.types import BlobId, PeerId, Seconds, peer_text
from p2ptrain.net.addresses import VIA, is_dialable
from p2ptrain.net.blobs.fetch import fetch, forget
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust import tls
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import Membership, Role, host_name, wall_clock
from p2ptrain.net.trust.identity import Identity

HOST = "127.0.0.1"
PIECE_BYTES = 1 << 20
PATIENCE_S: Seconds = 120.0
LOOPBACK = partial(is_dialable, loopback=True)


class Figures(Struct, frozen=True):
    """Medians over rounds. Rates in MB/s.

    get: `GET` between two transports, the bytes thrown away. fetch: the same checked chunk by chunk, on the
    disk and flushed. relay: a `GET` through a relay that splices, in a third process. blocking_tls: a plain
    socket, thrown away. cpu_s_per_gb: of a `GET`, both processes.
    """

    rounds: int
    size_bytes: int
    get_mb_s: float
    fetch_mb_s: float
    blocking_tls_mb_s: float
    get_over_blocking_tls: float
    cpu_s_per_gb: float
    relay_mb_s: float
    relay_splice_over_blocking_tls: float


class Round(Struct, frozen=True):
    """Seconds that one transfer of each way took, and the CPU time of the `GET`."""

    get: Seconds
    cpu: Seconds
    fetch: Seconds
    relay: Seconds
    plain: Seconds


class Party(Struct, frozen=True):
    """What a process needs to be a peer, on disk at `home`."""

    home: Path
    membership: Membership

    def transport(self) -> Transport:
        """Make the transport of this peer; its blobs are in its home."""
        return Transport(self.identity(), self.membership, Silent(), blobs=self.home, allow=LOOPBACK)

    def identity(self) -> Identity:
        """Read the identity."""
        return Identity.load(self.home / "identity.pem")

    @property
    def peer(self) -> PeerId:
        """Whom others see."""
        return self.membership.member.peer


class Silent:
    """Wants to know nothing of a transport."""

    def peer_up(self, peer: PeerId) -> None:
        """Nothing."""

    def peer_down(self, peer: PeerId, reason: str) -> None:
        """Nothing."""

    def received(self, peer: PeerId, frame: bytes) -> None:
        """Nothing."""

    def offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        """Nothing."""


def measure(folder: Path, size_bytes: int, rounds: int) -> Figures:
    """Move random bytes both ways, once for each round after one that is not counted.

    Args:
        folder: an empty one, for both peers' files.
        size_bytes: of the blob.
        rounds: at least one.
    """
    reader, source, relay = _parties(folder)
    blob = _write_blob(source.home, size_bytes)
    with _process(pass_on, relay) as relays, _process(serve, source) as pipe:
        relay_at = f"{HOST}:{relays.recv()}"
        pipe.send((blob, relay.peer, relay_at))
        get_port, plain_port = pipe.recv()
        ways = Ways(reader, source, blob, size_bytes, plain_port)
        done = asyncio.run(_rounds(ways, f"{HOST}:{get_port}", relay.peer, relay_at, pipe, rounds))
    get, fetched, relayed, plain = (
        size_bytes / 1e6 / median(getattr(one, way) for one in done)
        for way in ("get", "fetch", "relay", "plain")
    )
    cpu = median(one.cpu for one in done) / size_bytes * 1e9
    return Figures(rounds, size_bytes, get, fetched, plain, get / plain, cpu, relayed, relayed / plain)


def _parties(folder: Path) -> list[Party]:
    issuer = Root.create(wall_clock()).appoint(wall_clock())
    parties = []
    for slot, name in enumerate(("reader", "source", "relay")):
        identity = Identity.create()
        (folder / name).mkdir(parents=True)
        identity.save(folder / name / "identity.pem")
        parties.append(Party(folder / name, issuer.certify(identity.peer, Role.MEMBER, slot, wall_clock())))
    return parties


def _write_blob(folder: Path, size_bytes: int) -> BlobId:
    data = os.urandom(size_bytes)
    blob = hash_blob(data)
    (folder / blob).write_bytes(data)
    return blob


@contextmanager
def _process(work: Callable[[Connection, str, bytes], None], party: Party) -> Iterator[Connection]:
    """Let a party work in a process of its own, at the other end of a pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (theirs, os.fspath(party.home), msgspec.msgpack.encode(party.membership))
    process = context.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def _party(home: str, membership: bytes) -> Party:
    return Party(Path(home), msgspec.msgpack.decode(membership, type=Membership))


def pass_on(pipe: Connection, home: str, membership: bytes) -> None:
    """Be the relay: tell the port."""
    asyncio.run(_pass_on(pipe, _party(home, membership)))


async def _pass_on(pipe: Connection, relay: Party) -> None:
    transport = relay.transport()
    await transport.start(HOST)
    pipe.send(transport.port)
    await asyncio.Event().wait()


def serve(pipe: Connection, home: str, membership: bytes) -> None:
    """Be the source: hear of the blob and the relay, tell both ports, then the CPU time whenever asked."""
    asyncio.run(_serve(pipe, _party(home, membership)))


async def _serve(pipe: Connection, source: Party) -> None:
    blob, relay, relay_at = await asyncio.to_thread(pipe.recv)
    transport, waits = source.transport(), asyncio.Event()
    transport.learn(relay, [relay_at])
    transport.rendezvous.candidates = lambda: [relay]
    transport.rendezvous.changed = lambda _: waits.set()
    await transport.start(HOST)
    await asyncio.wait_for(waits.wait(), PATIENCE_S)
    listening = socket.create_server((HOST, 0))
    data = (source.home / blob).read_bytes()
    threading.Thread(target=_serve_plainly, args=(listening, source, data), daemon=True).start()
    pipe.send((transport.port, listening.getsockname()[1]))
    while True:
        await asyncio.to_thread(pipe.recv)
        pipe.send(time.process_time())


def _serve_plainly(listening: socket.socket, source: Party, data: bytes) -> None:
    context = tls.server_context(source.identity(), source.membership, lambda _: False, admits=False)
    view = memoryview(data)
    while True:
        raw, _ = listening.accept()
        with context.wrap_socket(raw, server_side=True) as connection:
            for at in range(0, len(view), PIECE_BYTES):
                connection.sendall(view[at : at + PIECE_BYTES])


class Ways(Struct, frozen=True):
    """How the reader may bring the blob here."""

    reader: Party
    source: Party
    blob: BlobId
    size_bytes: int
    plain_port: int

    async def get(self, transport: Transport) -> Seconds:
        """Ask for it and throw it away."""
        began, left = time.perf_counter(), self.size_bytes
        async with transport.get(self.source.peer, f"/v1/blob/{self.blob}") as answer:
            while piece := await answer.content.readany():
                left -= len(piece)
        return _done(began, left)

    async def fetch(self, transport: Transport) -> Seconds:
        """Bring it as a daemon does."""
        peer, home = self.source.peer, self.reader.home
        began = time.perf_counter()
        await fetch(transport, peer, self.blob, self.size_bytes, home, PATIENCE_S)
        took = time.perf_counter() - began
        forget(home, self.blob)
        return took

    def plain(self) -> Seconds:
        """Read it from a blocking socket and throw it away."""
        context = tls.client_context(self.reader.identity(), self.reader.membership, lambda _: False)
        name = host_name(self.source.peer)
        buffer, left = bytearray(PIECE_BYTES), self.size_bytes
        began = time.perf_counter()
        with (
            socket.create_connection((HOST, self.plain_port)) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection,
        ):
            while count := connection.recv_into(buffer):
                left -= count
        return _done(began, left)


def _done(began: Seconds, left: int) -> Seconds:
    if left:
        raise UnreachableError("the transfer ended early")
    return time.perf_counter() - began


async def _rounds(
    ways: Ways, source_at: str, relay: PeerId, relay_at: str, pipe: Connection, rounds: int
) -> list[Round]:
    straight, around = ways.reader.transport(), ways.reader.transport()
    for transport in (straight, around):
        await transport.start(HOST)
    straight.learn(ways.source.peer, [source_at])
    around.learn(relay, [relay_at])
    around.learn(ways.source.peer, [f"{VIA}{peer_text(relay)}"])
    done = []
    for _ in range(rounds + 1):
        before = _cpu(pipe)
        got = await ways.get(straight)
        used = _cpu(pipe) - before
        done.append(Round(got, used, await ways.fetch(straight), await ways.get(around), ways.plain()))
    for transport in (straight, around):
        await transport.close()
    return done[1:]  # the first one opens connections and fills caches


def _cpu(pipe: Connection) -> Seconds:
    """CPU time of both processes."""
    pipe.send("cpu")
    theirs: Seconds = pipe.recv()
    return theirs + time.process_time()
