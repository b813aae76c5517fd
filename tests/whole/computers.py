"""Home computers with the daemon on them: started, killed, switched off, stopped in order.

All code of the daemon runs unchanged, from `Daemon.run` down. Files are real, in one folder a computer.
What the system gives is replaced while a world stands: sockets, randomness, the time of day, child processes.
"""

import asyncio
import gc
import hashlib
import logging
import os
import secrets
import socket
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2ptrain.core.effects import Effect, Note, Send
from p2ptrain.core.inputs import Input, Signed
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.messages import Report
from p2ptrain.core.node import Node
from p2ptrain.core.types import PeerId, Seconds, short
from p2ptrain.daemon.config import Config, Network, Training
from p2ptrain.daemon.daemon import Daemon, Work
from p2ptrain.daemon.home import Home
from p2ptrain.daemon.swarms import SwarmFolder, Swarms
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.blobs import part as blob_part
from p2ptrain.net.members.invite import Door, create_invite
from p2ptrain.net.members.join import join
from p2ptrain.net.trust import certificates
from p2ptrain.net.trust.identity import Identity
from tests.whole import network, seal
from tests.whole.loop import HERE, Process, VirtualLoop
from tests.whole.worker import Worker

START_DATE = datetime(2026, 1, 1, tzinfo=UTC)
ORDERLY_S = 20.0
"""A daemon that was asked to stop is gone by then: a checkpoint, its trainer, its connections."""

PID_FIRST = 1 << 30
"""No process of the real computer has such a number."""


class Computer(network.Host):
    """One member of the swarm.

    node: of the daemon that runs, or ran last.
    signed: for each report of the running daemon, by (boot, sequence), when it was signed.
    """

    def __init__(self, world: "World", number: int) -> None:
        rng = Random(f"{world.seed} computer {number}")
        upload = 10 ** rng.uniform(5.3, 7.0)  # 1.6 to 80 Mbit/s
        super().__init__(world.network, f"pc{number}", f"{20 + number}.0.0.2", upload)
        self.world = world
        self.rng = rng
        self.home = Home(world.folder / self.name)
        self.home.prepare()
        self.identity = Identity(_key(rng))
        self.identity.save(self.home.identity)
        self.step_s: Seconds = rng.uniform(0.04, 0.07)
        self.process: Process | None = None
        self.daemon: Daemon | None = None
        self.node: Node | None = None
        self.signed: dict[tuple[int, int], Seconds] = {}
        self.starts = 0
        self._config = Config(
            name=self.name, network=Network(listen=self.ip, lan=False), training=Training(device="cpu")
        )

    @property
    def peer(self) -> PeerId:
        """Who it is."""
        return self.identity.peer

    @property
    def up(self) -> bool:
        """Say whether its daemon runs."""
        return self.process is not None and self.process.alive

    @property
    def folder(self) -> SwarmFolder:
        """The files of the swarm."""
        return Swarms(self.home.swarms).find(None)

    # -- life --------------------------------------------------------------------------------------

    def do(self, work: Any) -> "asyncio.Task[Any]":
        """Run a command on it, as its owner does."""
        return Process(self, self.rng).run(work)

    def start(self) -> None:
        """Switch it on if it is off, and start the daemon."""
        assert not self.up
        if not self.on:
            self.on = True
            self.world.network.path_changed()
        self.starts += 1
        self._date_files()
        self.process = Process(self, Random(f"{self.world.seed} {self.name} start {self.starts}"))
        self.process.run(self._live(self.process))

    async def _live(self, process: Process) -> None:
        self.daemon = Daemon(self.home, self.folder, self._config, Work.TRAIN)
        try:
            await self.daemon.run()
        finally:
            self.world.loop.call_soon(self._ended, process, sys.exc_info()[1], context=self.world.weather)

    def _ended(self, process: Process, error: BaseException | None) -> None:
        """Look at what an orderly end left behind."""
        if error is not None:
            words = "".join(traceback.format_exception(error))
            self.world.loop.failures.append(f"{self.name} failed: {words}")
        left = [f"{len(process.sockets)} sockets"] if process.sockets else []
        left += [f"the task {task!r}" for task in process.tasks]
        if left and process.alive:
            self.world.loop.failures.append(f"{self.name} stopped and left {', '.join(left)}")
        network.kill(process, power=False)

    def crash(self, *, power: bool) -> None:
        """End it in the middle of whatever it does; `power`: the whole computer is gone."""
        assert self.process is not None
        network.kill(self.process, power=power)
        self.world.dead.append(self.process)
        self.on = not power
        for path in [path for path in blob_part._in_use if path.is_relative_to(self.home.path)]:
            blob_part._in_use.discard(path)  # of a process that is gone

    async def stop(self) -> None:
        """Stop the daemon as its owner does, and wait for its end."""
        assert self.daemon is not None
        assert self.process is not None
        process = self.process
        self.daemon.stop(now=False)
        began = self.world.loop.time()
        while process.alive:
            if self.world.loop.time() - began > ORDERLY_S:
                self.world.loop.failures.append(f"{self.name} does not stop: {_left(process)}")
                network.kill(process, power=False)
            await asyncio.sleep(0.1)

    def kill_trainer(self) -> None:
        """End the trainer process, as a system short of memory does."""
        for child in self.process.children if self.process else ():
            child.kill()

    def _date_files(self) -> None:
        """Give weights the dates at which the trainer saw them: the real clock hardly moves."""
        now = self.world.loop.time()
        for path in sorted(self.folder.blobs.iterdir()):
            if path.stat().st_mtime > now:
                os.utime(path, (now, now))

    # -- what is seen ------------------------------------------------------------------------------

    def saw(self, node: Node, now: Seconds, event: Input, effects: list[Effect]) -> None:
        """Follow what its node does."""
        self.node = node
        world = self.world
        world.inputs += 1
        kinds = " ".join([type(effect).__name__ for effect in effects])
        world.trace.update(f"{self.name} {now:.9f} {type(event).__name__} {kinds}".encode())
        if isinstance(event, Signed) and isinstance(event.message.message, Report):
            self.signed[event.message.boot, event.message.sequence] = now
        for effect in effects:
            if isinstance(effect, Send):
                world.messages += 1
            elif isinstance(effect, Note):
                world.notes[effect.event] += 1
                if effect.event == "peer_charged":
                    world.loop.failures.append(
                        f"{now:.3f} s: {self.name} charged an honest peer: {effect.fields}"
                    )


def _left(process: Process) -> str:
    return "; ".join(f"{task.get_coro()}" for task in list(process.tasks)[:8])


class World:
    """Everything of one run.

    Args:
        seed: of all that happens.
        peers: how many computers.
        folder: for their files.
        real: leave TLS and signatures to OpenSSL.

    trace: of every input of every node and what followed. notes: what the nodes noted, by kind.
    """

    def __init__(self, seed: int, peers: int, folder: Path, *, real: bool = False) -> None:
        self.seed = seed
        self.folder = folder
        self.real = real
        self.loop = VirtualLoop()
        self.network = network.Network(self.loop, Random(f"{seed} network"), (0.004, 0.12))
        self.trace = hashlib.blake2b(digest_size=8)
        self.notes: Counter[str] = Counter()
        self.inputs = self.messages = 0
        self.dead: list[Process] = []
        self.computers: list[Computer] = []
        self.weather: Any = None
        self._peers = peers
        self._pid = PID_FIRST

    @property
    def up(self) -> list[Computer]:
        """The computers whose daemon runs."""
        return [one for one in self.computers if one.up]

    async def found(self, manifest: Manifest) -> None:
        """Found a swarm on the first computer; the others join it by invite, over the network."""
        for number in range(self._peers):
            computer = Computer(self, number)
            self.computers.append(computer)
            self.network.hosts[computer.ip] = computer
        first = self.computers[0]

        async def create() -> None:
            Swarms(first.home.swarms).create(manifest, first.identity, self._peer_seed(0))

        await first.do(create())
        first.start()
        await asyncio.sleep(1)
        for number, computer in enumerate(self.computers[1:], start=1):
            await computer.do(self._join(computer, number))
            computer.start()

    async def _join(self, computer: Computer, number: int) -> None:
        first = self.computers[0]
        folder = first.folder
        root = folder.root()
        assert root is not None
        door = Door(first.ip, folder.record().port, first.peer)
        expires = certificates.wall_clock() + timedelta(days=1)
        invite = create_invite(root, computer.rng.randbytes(16), expires, 1, doors=(door,))
        welcome = await join(invite, computer.identity, partial(is_dialable, loopback=False))
        joined = Swarms(computer.home.swarms).add(welcome, self._peer_seed(number))
        joined.save_contacts({PeerId(raw): raw for raw in welcome.contacts})

    def _peer_seed(self, number: int) -> int:
        return Random(f"{self.seed} peer {number}").getrandbits(48)

    # -- health ------------------------------------------------------------------------------------

    def stale(self, since: Seconds) -> list[str]:
        """Return who does not know a report of whom that was signed since then."""
        missing = []
        for reader in self.up:
            if reader.node is None:
                return [f"{reader.name} has not begun"]
            for author in self.up:
                entry = reader.node.ledger.of(author.peer)
                report = entry.report if entry else None
                signed = author.signed.get((report.boot, report.sequence), -1.0) if report else -1.0
                if signed < since:
                    missing.append(f"{reader.name} of {author.name} ({short(author.peer)})")
        return missing

    def _spawn(self, protocol: Any, _: Any) -> Worker:
        process = HERE.get()
        assert process is not None
        self._pid += 1
        return Worker(protocol, process.host.step_s, self._pid)


# -- standing up -----------------------------------------------------------------------------------


@contextmanager
def standing(world: World) -> Iterator[World]:
    """Replace what the system gives, for as long as the world stands."""
    with ExitStack() as stack:
        stack.callback(_dispose, world)
        loop = world.loop
        loop.spawn = world._spawn
        base = datetime.now(UTC) if world.real else START_DATE
        for module, name, value in (
            (socket, "socket", network.MemorySocket),
            (socket, "socketpair", network.socketpair),
            (os, "urandom", lambda size: _rng(world).randbytes(size)),
            (secrets, "token_bytes", lambda size=32: _rng(world).randbytes(size)),
            (secrets, "token_hex", lambda size=32: _rng(world).randbytes(size).hex()),
            (secrets, "token_urlsafe", lambda size=32: _rng(world).randbytes(size).hex()),
            (secrets, "randbits", lambda bits: _rng(world).getrandbits(bits)),
            (x509, "random_serial_number", lambda: _rng(world).getrandbits(150) | 1 << 150),
            (Ed25519PrivateKey, "generate", lambda: _key(_rng(world))),
            (certificates, "datetime", _clock(world, base)),
            (Node, "handle", _observed(Node.handle)),
        ):
            stack.enter_context(patch.object(module, name, value))
        if not world.real:
            stack.enter_context(seal.cheap(loop))
        stack.enter_context(_listening(world))
        yield world


def _rng(world: World) -> Random:
    process = HERE.get()
    return process.rng if process is not None else world.computers[0].rng


def _key(rng: Random) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))


def _clock(world: World, base: datetime) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return base + timedelta(seconds=world.loop.time())

    return Clock


def _observed(handle: Any) -> Any:
    def observed(node: Node, now: Seconds, event: Input) -> list[Effect]:
        effects: list[Effect] = handle(node, now, event)
        process = HERE.get()
        assert process is not None
        process.host.saw(node, now, event, effects)
        return effects

    return observed


class _Errors(logging.Handler):
    """What the daemons and their libraries call an error is one here."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        process = HERE.get()
        who = process.host.name if process is not None else "?"
        self._world.loop.failures.append(
            f"{self._world.loop.time():.3f} s, {who} logged: {record.getMessage()}"
        )


@contextmanager
def _listening(world: World) -> Iterator[None]:
    handler = _Errors(world)
    loggers = [logging.getLogger(name) for name in ("p2ptrain", "asyncio", "aiohttp")]
    for one in loggers:
        one.addHandler(handler)
    try:
        yield
    finally:
        for one in loggers:
            one.removeHandler(handler)


def _dispose(world: World) -> None:
    """Forget a world: what is deleted half-way through its work has nothing to say any more."""
    loop = world.loop
    for computer in world.up:
        assert computer.process is not None
        network.kill(computer.process, power=True)
    loop.set_exception_handler(lambda *_: None)
    failures, loop.failures = loop.failures, []
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            world.dead.clear()
            world.computers.clear()
            world.network.open.clear()
            loop._timers.clear()
            loop._ready.clear()  # type: ignore[attr-defined]
            loop.close()
            gc.collect()
    finally:
        sys.unraisablehook = hook
        loop.failures = failures
