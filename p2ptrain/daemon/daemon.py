"""The composition root: builds everything, starts it in order, and ends it in order."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum, auto

from filelock import FileLock, Timeout
from msgspec.structs import replace

from p2ptrain import __version__
from p2ptrain.control.api import SCHEMA, Checkup, Done, PeerTraffic, Requests, Status, SwarmView
from p2ptrain.core import inputs, limits
from p2ptrain.core.codec import Codec
from p2ptrain.core.effects import Note
from p2ptrain.core.envelope import Sealer
from p2ptrain.core.errors import ConfigError, P2PTrainError
from p2ptrain.core.inputs import Input
from p2ptrain.core.lifecycle import State
from p2ptrain.core.messages import Contact
from p2ptrain.core.node import Node
from p2ptrain.core.types import BlobId, Ref, Seconds, peer_text
from p2ptrain.daemon.addresses import given_addresses
from p2ptrain.daemon.clock import now
from p2ptrain.daemon.config import Config
from p2ptrain.daemon.control import ControlServer
from p2ptrain.daemon.driver import Driver, describe
from p2ptrain.daemon.history import History, Watch
from p2ptrain.daemon.home import Home
from p2ptrain.daemon.journal import Header, Journal, setup_of
from p2ptrain.daemon.logs import QUIET, logger
from p2ptrain.daemon.network import SwarmNetwork
from p2ptrain.daemon.swarms import SwarmFolder, oldest_first
from p2ptrain.daemon.trainer import NoTrainer, Trainer, trainer_setup
from p2ptrain.daemon.words import nickname
from p2ptrain.learn.wire import Setup
from p2ptrain.net.blobs.part import clear_parts
from p2ptrain.net.channel.link import REPLACED
from p2ptrain.net.trust.certificates import wall_clock
from p2ptrain.net.trust.identity import Identity

SAVE_S: Seconds = 10.0
"""So long the last checkpoint may take."""

CONTACTS_EVERY_S: Seconds = 5.0

HISTORY_EVERY_S: Seconds = 1.0


class AlreadyRunningError(ConfigError):
    """Another daemon works in this home."""


@contextlib.contextmanager
def only_one(home: Home) -> Iterator[None]:
    """Hold the home against a second daemon.

    Raises:
        AlreadyRunningError: there is one.
    """
    lock = FileLock(home.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise AlreadyRunningError(
            "p2ptrain is already running in this home", "`p2ptrain stop` ends it"
        ) from None
    try:
        yield
    finally:
        lock.release()


class Work(Enum):
    """What a daemon is there for."""

    TRAIN = auto()
    PAUSED = auto()
    SERVE = auto()
    """Introduce and relay, without a trainer."""


class Daemon:
    """One node of one swarm, at work.

    Args:
        config: the owner's settings.
        work: what it is there for.
        started_by: who started it, for `status`.
        trainer: who holds torch; by default a process that it starts.
    """

    def __init__(
        self,
        home: Home,
        folder: SwarmFolder,
        config: Config,
        work: Work,
        started_by: str = "terminal",
        trainer: Callable[[Setup, Callable[[Input], None], Callable[[str], None]], Trainer] = Trainer,
    ) -> None:
        self._home = home
        self._folder = folder
        self._config = config
        self._work = work
        self._make_trainer = trainer
        self._identity = Identity.load(home.identity)
        self._manifest = folder.manifest()
        self._notes: Counter[str] = Counter()
        self._replaced = 0
        self._stopping = asyncio.Event()
        self._at_once = False
        self._remembering: asyncio.TimerHandle | None = None
        self._started = 0.0
        self._started_at = wall_clock().isoformat(timespec="seconds")
        self._control = ControlServer(self, home.control, self._started_at, started_by)
        self.name = self._config.name or nickname(self._identity.peer)

    # -- life --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until stopped."""
        self._started = now()
        self._listen_to_signals()
        self._build()
        trainer_task = None
        try:
            await self._open()
            await self._control.start()
            logger.info("started as %s in the swarm %s", self.name, self._manifest.name)
            self._driver.feed(inputs.Started(self._network.known(), self._held_blobs()))
            if self._work is Work.PAUSED:
                self._driver.feed(inputs.Paused("started paused"))
            trainer_task = asyncio.create_task(self._trainer.run())
            self._network.start()
            self._remember()
            await self._stopping.wait()
        finally:
            await self._end(trainer_task)

    def _build(self) -> None:
        folder, network, peer = self._folder, self._config.network, self._identity.peer
        membership, record = folder.membership(), folder.count_boot()
        addresses = given_addresses(network, network.port or record.port)
        trains = self._work is not Work.SERVE
        name = self.name[: limits.NAME_CHARS_MAX]
        contact = Contact(membership.chain, addresses, name, __version__, trains)
        seed = secrets.randbits(62)
        setup = setup_of(self._manifest, peer, seed, contact)
        codec = Codec(setup.rules.messages)
        header = Header(membership.swarm, peer, record.manifest, seed, contact)
        self._network = SwarmNetwork(network, folder, self._identity, contact, codec)
        self._journal = Journal(folder.journal, header)
        self._watch = Watch(record.boots, self._journal)
        self._history = History(folder.path, logger.warning) if trains else None
        self._driver = Driver(
            Node(setup),
            Sealer(self._identity, membership.swarm, codec, record.boots),
            self._network.opener,
            self._watch,
            folder.blobs,
            self._network.contacts.remember,
            self._note,
        )
        told = trainer_setup(self._manifest, self._config.training, folder)
        self._trainer = self._make_trainer(told, self._driver.feed, logger.info) if trains else NoTrainer()
        self._driver.trainer = self._trainer
        self._network.attach(self._driver)
        clear_parts(folder.blobs)

    async def _open(self) -> None:
        try:
            await self._network.listen()
        except P2PTrainError as error:
            raise ConfigError(
                error.message, f"set `listen` or `port` under [network] in {self._home.config}"
            ) from None

    async def _end(self, trainer_task: asyncio.Task[None] | None) -> None:
        """Stop training, save, say goodbye: in this order, and whatever of it fails."""
        self._network.stop()
        if trainer_task is not None and not self._at_once:
            saved = asyncio.create_task(self._driver.wait_for(inputs.Saved, SAVE_S))
            await asyncio.sleep(0)
            self._driver.feed(inputs.Leaving())
            if self._trainer.pid is not None and self._driver.saving and not await saved:
                logger.warning("the last checkpoint could not be saved in time; the one before is kept")
            saved.cancel()
            await self._trainer.quit()
        self._trainer.kill()
        if trainer_task is not None:
            trainer_task.cancel()
            await asyncio.gather(trainer_task, return_exceptions=True)
        self._close_history()
        await self._driver.close()
        await self._network.close()
        self._journal.close()
        await self._control.close()
        logger.info("stopped")

    def _remember(self) -> None:
        """Keep what is measured now, and again in a second."""
        total = self._network.transport.traffic.total
        sent, received = total.messages_up + total.blobs_up, total.messages_down + total.blobs_down
        view = self._driver.node.view(now())
        time = wall_clock().timestamp()
        point, turns = self._watch.point(view, sent, received, time), self._watch.turns(time)
        if self._history is not None:
            for turn in turns:
                self._history.add(turn)
            if point is not None:
                self._history.add(point)
        self._remembering = asyncio.get_running_loop().call_later(HISTORY_EVERY_S, self._remember)

    def _close_history(self) -> None:
        if self._remembering is not None:
            self._remember()
            self._remembering.cancel()
        if self._history is not None:
            self._history.close()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # Windows: `p2ptrain stop`
                loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._trainer.kill()
            os._exit(130)
        self._stopping.set()

    # -- commands ----------------------------------------------------------------------------------

    def stop(self, *, now: bool) -> Done:
        """Begin to end."""
        self._at_once = now
        self._stopping.set()
        return Done("stopping")

    def pause(self, reason: str) -> Done:
        """Stop the work until `resume`."""
        self._driver.feed(inputs.Paused(reason))
        state = self._driver.node.state
        if state is not State.PAUSED:
            return Done(f"there is nothing to pause: {state}")
        return Done("paused; `p2ptrain resume` goes on")

    def resume(self) -> Done:
        """Go on."""
        state = self._driver.node.state
        if state is not State.PAUSED:
            return Done(f"it was not paused: {state}")
        self._driver.feed(inputs.Resumed())
        return Done("going on")

    def reload(self) -> Done:
        """Take what a command wrote into the swarm's folder."""
        return self._network.reload()

    def requests(self) -> Requests:
        """Show who asks to join."""
        return self._network.requests()

    def admit(self, code: str) -> Done:
        """Make a member of whoever shows that code."""
        return self._network.admit(code)

    async def checkup(self) -> Checkup:
        """Ask members how they see this node."""
        return await self._network.checkup(self._notes["identity_used_elsewhere"], self._replaced)

    def status(self) -> Status:
        """Show everything."""
        manifest, transport, membership = self._manifest, self._network.transport, self._network.membership
        node, traffic, member = self._driver.node.view(now()), transport.traffic, membership.member
        peers = [peer for peer in self._driver.node.members if peer != self._identity.peer]
        if self._network.trouble and node.state in (State.STARTING, State.TRAINING, State.SERVING):
            node = replace(node, reason=self._network.trouble)
        return Status(
            schema=SCHEMA,
            version=__version__,
            pid=os.getpid(),
            trainer_pid=self._trainer.pid,
            home=str(self._home.path),
            peer=peer_text(self._identity.peer),
            name=self.name,
            started_at=self._started_at,
            uptime_s=now() - self._started,
            addresses=self._network.addresses,
            swarm=SwarmView(
                id=membership.swarm.hex(),
                name=manifest.name,
                task=manifest.task,
                strategy=manifest.strategy,
                slot=member.slot,
                parts=manifest.parts,
                codec=manifest.codec,
                issuer=self._network.admits,
                certificate_expires=member.expires.isoformat(),
            ),
            node=node,
            bytes_sent=traffic.total.messages_up + traffic.total.blobs_up,
            bytes_received=traffic.total.messages_down + traffic.total.blobs_down,
            traffic=tuple(
                PeerTraffic(
                    peer_text(peer),
                    transport.path(peer),
                    traffic.of(peer).messages_up + traffic.of(peer).blobs_up,
                    traffic.of(peer).messages_down + traffic.of(peer).blobs_down,
                )
                for peer in peers
            ),
            notes=dict(self._notes),
            log=str(self._home.log),
            lan=self._network.lan,
            outside=self._network.outside,
            router=self._network.router,
        )

    # -- parts -------------------------------------------------------------------------------------

    def _held_blobs(self) -> tuple[BlobId, ...]:
        return tuple(BlobId(Ref(path.name)) for path in oldest_first(self._folder.blobs))

    def _note(self, note: Note) -> None:
        self._notes[note.event] += 1
        reason = str(note.fields.get("reason"))
        self._replaced += reason.endswith(REPLACED) and reason != REPLACED  # the other side says it
        level = logger.debug if note.event in QUIET else logger.info
        level("%s", describe(note))
