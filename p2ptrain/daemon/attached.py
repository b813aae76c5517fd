"""The daemon of a person's own loop, `python -m p2ptrain.daemon.attached`: `p2ptrain.attach` starts it.

That process is this one's trainer: it speaks `learn/greeting.py` and then `learn/wire.py` over our stdin
and stdout. When it is gone, the daemon ends.
"""

import asyncio
import os
import secrets
import sys
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import BinaryIO

import msgspec

from p2ptrain.core.envelope import sender_of
from p2ptrain.core.errors import ConfigError, P2PTrainError
from p2ptrain.core.inputs import Input
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.text import clean
from p2ptrain.daemon.config import Config, load_config
from p2ptrain.daemon.daemon import AlreadyRunningError, Daemon, Work, only_one
from p2ptrain.daemon.home import Home, find_home
from p2ptrain.daemon.journal import setup_of
from p2ptrain.daemon.logs import close_log, open_log
from p2ptrain.daemon.swarms import SwarmFolder, Swarms
from p2ptrain.daemon.trainer import QUIT_S, Trainer
from p2ptrain.learn import wire
from p2ptrain.learn.process.greeting import TASK, Begun, Request, read_request
from p2ptrain.learn.process.pipes import take_pipes
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.members.invite import decode_invite
from p2ptrain.net.members.join import join
from p2ptrain.net.trust.certificates import wall_clock
from p2ptrain.net.trust.identity import Identity

PIECE_BYTES = 65536


class Pipes:
    """The two ends that lead to the loop. Threads read and write: not every system can wait for pipes."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self.reading = reading
        self._writing = writing
        self._frames: SimpleQueue[bytes] = SimpleQueue()
        Thread(target=self._write, daemon=True).start()

    def send(self, value: msgspec.Struct) -> None:
        """Send a frame, later: who is stopped in a debugger reads nothing."""
        self._frames.put(wire.frame(value))

    def send_now(self, value: msgspec.Struct) -> None:
        """Send a frame before this process ends."""
        self._write_one(wire.frame(value))

    def listen(self) -> asyncio.StreamReader:
        """Return what comes from now on."""
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader()
        Thread(target=self._read, args=(loop, stream), daemon=True).start()
        return stream

    def _read(self, loop: asyncio.AbstractEventLoop, stream: asyncio.StreamReader) -> None:
        try:
            while data := os.read(self.reading.fileno(), PIECE_BYTES):
                loop.call_soon_threadsafe(stream.feed_data, data)
            loop.call_soon_threadsafe(stream.feed_eof)
        except RuntimeError:
            return  # the loop has ended

    def _write(self) -> None:
        while True:
            self._write_one(self._frames.get())

    def _write_one(self, frame: bytes) -> None:
        try:
            self._writing.write(frame)
            self._writing.flush()
        except OSError:
            pass  # nobody reads any more: reading will notice


class LoopTrainer(Trainer):
    """The process that started this one, in place of one that this one starts.

    Args:
        setup, feed, say: see `Trainer`.
        pipes: lead to it.
        begun: told to it first, when the daemon listens.
        gone: called when it has ended.
    """

    def __init__(
        self,
        setup: wire.Setup,
        feed: Callable[[Input], None],
        say: Callable[[str], None],
        *,
        pipes: Pipes,
        begun: Callable[[wire.Setup], Begun],
        gone: Callable[[], None],
    ) -> None:
        super().__init__(setup, feed, say)
        self._pipes, self._gone, self._begun = pipes, gone, begun
        self._here = True
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process, as long as it listens."""
        return os.getppid() if self._here else None

    def send(self, command: wire.Command) -> None:
        """Hand a command over."""
        if self._here:
            self._pipes.send(command)

    async def run(self) -> None:
        """Say that all is there, and take what it answers, until it is gone."""
        self._pipes.send(self._begun(self._setup))
        reason = await self._read(self._pipes.listen())
        self._here = False
        self._give_up("the loop ended while it did that")
        self._ended.set()
        self._say(reason or "the loop has ended")
        self._gone()

    async def quit(self) -> None:
        """Let it finish what it writes."""
        self.send(wire.Quit())
        try:
            async with asyncio.timeout(QUIT_S):
                await self._ended.wait()
        except TimeoutError:
            self._say("the loop did not answer in time")

    def kill(self) -> None:
        """It is not ours to end."""


def main() -> int:
    """Work for the loop at the other end of stdin and stdout; return the exit code."""
    pipes = Pipes(*take_pipes())
    request = read_request(pipes.reading)
    if request is None:
        return 0
    try:
        home = find_home(request.home or None)
        home.prepare()
        with only_one(home):
            config = load_config(home.config)
            folder = _choose(home, request)
            open_log(home.log, console=False)
            try:
                asyncio.run(_run(home, folder, config, pipes))
            finally:
                close_log()
    except AlreadyRunningError as error:
        hint = f"`p2ptrain stop --home {home.path}` ends it, or give another `home` to attach"
        pipes.send_now(wire.Crashed(error.message, hint))
        return 1
    except P2PTrainError as error:
        pipes.send_now(wire.Crashed(error.message, error.hint))
        return 1
    return 0


async def _run(home: Home, folder: SwarmFolder, config: Config, pipes: Pipes) -> None:
    def begun(setup: wire.Setup) -> Begun:
        where = {"control": str(home.control), "home": str(home.path)}
        return Begun(setup=setup, swarm=folder.swarm.hex(), **where)

    def gone() -> None:
        daemon.stop(now=True)

    trainer = partial(LoopTrainer, pipes=pipes, begun=begun, gone=gone)
    daemon = Daemon(home, folder, config, Work.TRAIN, "own loop", trainer)
    await daemon.run()


def _choose(home: Home, request: Request) -> SwarmFolder:
    """Return the swarm that is meant: known here already, joined, or made now.

    Raises:
        P2PTrainError: it cannot be joined or made.
    """
    if not home.identity.exists():
        Identity.create().save(home.identity)
    identity, swarms = Identity.load(home.identity), Swarms(home.swarms)
    if request.invite:
        return _agreeing(_join(swarms, identity, request.invite), request)
    if any(folder.is_called(request.swarm) for folder in swarms.all()):
        return _agreeing(swarms.find(request.swarm), request)
    named = {"name": clean(request.swarm), "task": TASK + clean(request.swarm)}
    fields = {**named, "seed": secrets.randbits(32), **request.founding, "task_config": request.task_config}
    try:
        manifest = msgspec.convert(fields, Manifest)
    except msgspec.ValidationError as error:
        raise ConfigError(f"there can be no such swarm: {error}") from None
    manifest.check()
    setup_of(manifest, identity.peer, 0, None)
    return swarms.create(manifest, identity, secrets.randbits(48))


def _agreeing(folder: SwarmFolder, request: Request) -> SwarmFolder:
    """Demand that a swarm is as its member would make it: `steps` that mean nothing would never be over."""
    agreed = msgspec.structs.asdict(folder.manifest())
    for name, value in request.founding.items():
        if name not in agreed:
            raise ConfigError(
                f"swarms have no `{name}`", "`p2ptrain swarm create --help` says what they have"
            )
        if agreed[name] != value:
            raise ConfigError(
                f"the swarm {folder.title} was made with {name} {agreed[name]}, not {value}",
                "leave that out, or give another `swarm` to make a new one",
            )
    return folder


def _join(swarms: Swarms, identity: Identity, text: str) -> SwarmFolder:
    invite = decode_invite(text)
    for folder in swarms.all():
        if folder.path.name == invite.swarm.hex()[:16]:
            return folder
    invite.check_expiry(wall_clock())
    welcome = asyncio.run(join(invite, identity, partial(is_dialable, loopback=True)))
    folder = swarms.add(welcome, secrets.randbits(48))
    folder.save_contacts({sender_of(raw): raw for raw in welcome.contacts})
    setup_of(folder.manifest(), identity.peer, 0, None)
    return folder


if __name__ == "__main__":
    sys.exit(main())
