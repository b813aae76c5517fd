"""The composition root: builds everything, starts it in order, and ends it in order."""

import asyncio
import contextlib
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial

import msgspec
from filelock import FileLock, Timeout

from p2ptrain import __version__
from p2ptrain.control.api import SCHEMA, Done, PeerTraffic, Requests, Status, SwarmView
from p2ptrain.core import inputs, limits
from p2ptrain.core.codec import Codec
from p2ptrain.core.effects import Note
from p2ptrain.core.envelope import Opener, Sealer, Verified
from p2ptrain.core.errors import ConfigError, Offence, P2PTrainError, RemoteProtocolError
from p2ptrain.core.lifecycle import State
from p2ptrain.core.messages import Contact, Message
from p2ptrain.core.node import Node
from p2ptrain.core.types import BlobId, PeerId, Ref, Seconds, peer_text
from p2ptrain.daemon.addresses import is_only_here, own_addresses
from p2ptrain.daemon.clock import now
from p2ptrain.daemon.config import Config, load_config
from p2ptrain.daemon.control import ControlServer
from p2ptrain.daemon.doorkeeper import Doorkeeper
from p2ptrain.daemon.driver import Driver, describe
from p2ptrain.daemon.home import Home
from p2ptrain.daemon.journal import Header, Journal, setup_of
from p2ptrain.daemon.logs import QUIET, logger
from p2ptrain.daemon.nearby import Nearby
from p2ptrain.daemon.standing import Standing
from p2ptrain.daemon.swarms import SwarmFolder, oldest_first
from p2ptrain.daemon.trainer import Trainer
from p2ptrain.daemon.words import nickname
from p2ptrain.learn import wire
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.bandwidth import Bandwidth
from p2ptrain.net.blob_part import clear_parts
from p2ptrain.net.certificates import Membership, wall_clock
from p2ptrain.net.identity import Identity
from p2ptrain.net.join import Reception
from p2ptrain.net.transport import Transport
from p2ptrain.net.verifier import SwarmVerifier

SAVE_S: Seconds = 10.0
"""So long the last checkpoint may take."""

CONTACTS_EVERY_S: Seconds = 5.0


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


class Daemon:
    """One node of one swarm, at work.

    Args:
        paused: begin without training.
        started_by: who started it, for `status`.
    """

    def __init__(
        self, home: Home, folder: SwarmFolder, *, paused: bool = False, started_by: str = "terminal"
    ) -> None:
        self._home = home
        self._folder = folder
        self._paused = paused
        self._config: Config = load_config(home.config)
        self._identity = Identity.load(home.identity)
        self._membership: Membership = folder.membership()
        self._record = folder.count_boot()
        self._manifest = folder.manifest()
        self._contacts: dict[PeerId, bytes] = {}
        self._contacts_changed = False
        self._notes: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._at_once = False
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
            self._nearby.start()
            logger.info("started as %s in the swarm %s", self.name, self._manifest.name)
            self._driver.feed(inputs.Started(self._known_contacts(), self._held_blobs()))
            if self._paused:
                self._driver.feed(inputs.Paused("started paused"))
            trainer_task = asyncio.create_task(self._trainer.run())
            contacts_task = asyncio.create_task(self._keep_contacts())
            standing_task = asyncio.create_task(self._standing.run())
            await self._stopping.wait()
            standing_task.cancel()
            contacts_task.cancel()
        finally:
            await self._end(trainer_task)

    def _build(self) -> None:
        membership = self._membership
        addresses = own_addresses(self._config.network.listen, self._port())
        contact = Contact(membership.chain, addresses, self.name[: limits.NAME_CHARS_MAX], __version__)
        seed = secrets.randbits(62)
        setup = setup_of(self._manifest, self._identity.peer, seed, contact)
        swarm = membership.swarm
        codec = Codec(setup.rules.messages)
        self._standing = Standing(
            self._folder,
            self._identity,
            self._certificates,
            self._renewed,
            self._turn_away,
            self._offended,
            self._refuses,
        )
        header = Header(swarm, self._identity.peer, self._record.manifest, seed, contact)
        self._journal = Journal(self._folder.journal, header)
        verifier = SwarmVerifier(membership.root, self._refuses, distrusted=self._standing.revokes)
        self._opener = Opener(verifier, swarm, codec)
        self._driver = Driver(
            Node(setup),
            Sealer(self._identity, swarm, codec, self._record.boots),
            self._opener,
            self._journal,
            self._folder.blobs,
            self._remember,
            self._note,
        )
        self._trainer = Trainer(self._trainer_setup(), self._driver.feed, logger.info)
        self._doorkeeper = Doorkeeper(
            self._identity.peer,
            self._folder,
            lambda: self._standing.admission,
            self._refuses,
            self._introductions,
        )
        loopback = is_only_here(addresses)
        signed = self._record.manifest, self._record.manifest_signature
        admission = self._standing.admission
        reception = Reception(admission, self._identity.peer, *signed, self._introductions)
        self._transport = Transport(
            self._identity,
            membership,
            self._driver,
            blobs=self._folder.blobs,
            reception=reception,
            routes=[*self._standing.routes(), *self._doorkeeper.routes()],
            refused=self._refuses,
            distrusted=self._standing.revokes,
            allow=partial(is_dialable, loopback=loopback),
            bandwidth=Bandwidth(self._config.network.upload_mbit, self._config.network.download_mbit),
        )
        self._nearby = Nearby(
            self._config.network,
            swarm,
            self._identity.peer,
            self._transport,
            (self._manifest.name, self._manifest.task),
            self._doorkeeper.is_open,
        )
        self._driver.transport = self._transport
        self._driver.trainer = self._trainer
        self._driver.greet = self._standing.greet
        self._standing.attach(self._transport, reception)
        self._addresses = addresses
        self._own_contact = contact
        clear_parts(self._folder.blobs)

    async def _open(self) -> None:
        try:
            await self._transport.start(self._config.network.listen, self._port())
        except P2PTrainError as error:
            raise ConfigError(
                error.message, f"set `listen` or `port` under [network] in {self._home.config}"
            ) from None

    async def _end(self, trainer_task: asyncio.Task[None] | None) -> None:
        """Stop training, save, say goodbye: in this order, and whatever of it fails."""
        self._nearby.stop()
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
        await self._standing.close()
        await self._driver.close()
        await self._transport.close()
        await self._nearby.close()
        self._save_contacts()
        self._journal.close()
        await self._control.close()
        logger.info("stopped")

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
        return Done(self._standing.reload())

    def requests(self) -> Requests:
        """Show who asks to join."""
        return self._doorkeeper.requests()

    def admit(self, code: str) -> Done:
        """Make a member of whoever shows that code."""
        return self._doorkeeper.admit(code)

    def status(self) -> Status:
        """Show everything."""
        manifest, member, total = self._manifest, self._membership.member, self._transport.traffic.total
        node = self._driver.node.view(now())
        traffic = self._transport.traffic
        peers = [peer for peer in self._driver.node.members if peer != self._identity.peer]
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
            addresses=self._addresses,
            swarm=SwarmView(
                id=self._membership.swarm.hex(),
                name=manifest.name,
                task=manifest.task,
                strategy=manifest.strategy,
                slot=member.slot,
                parts=manifest.parts,
                codec=manifest.codec,
                issuer=self._standing.admission is not None,
                certificate_expires=member.expires.isoformat(),
            ),
            node=node,
            bytes_sent=total.messages_up + total.blobs_up,
            bytes_received=total.messages_down + total.blobs_down,
            traffic=tuple(
                PeerTraffic(
                    peer_text(peer),
                    self._transport.path(peer),
                    traffic.of(peer).messages_up + traffic.of(peer).blobs_up,
                    traffic.of(peer).messages_down + traffic.of(peer).blobs_down,
                )
                for peer in peers
            ),
            notes=dict(self._notes),
            log=str(self._home.log),
            lan=self._nearby.state,
        )

    # -- parts -------------------------------------------------------------------------------------

    def _port(self) -> int:
        return self._config.network.port or self._record.port

    def _refuses(self, peer: PeerId) -> bool:
        return self._standing.revokes(peer) or self._driver.refuses(peer)

    def _offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        self._driver.offended(peer, offence, detail)

    def _turn_away(self, peer: PeerId) -> None:
        """Believe what a revoked peer said before no more; its connection is ended already."""
        if self._contacts.pop(peer, None):
            self._contacts_changed = True
        if peer in self._driver.node.members:
            self._driver.offended(peer, Offence.FOREIGN, "the swarm revoked it")

    def _trainer_setup(self) -> wire.Setup:
        manifest, training = self._manifest, self._config.training
        return wire.Setup(
            task=manifest.task,
            task_config=manifest.task_config,
            seed=manifest.seed,
            peer_seed=self._record.seed,
            slot=self._membership.member.slot,
            parts=manifest.parts,
            pool=manifest.pool,
            skew=manifest.skew,
            steps=manifest.steps,
            codec=manifest.codec,
            device=training.device,
            threads=training.threads,
            blob_folder=str(self._folder.blobs),
            checkpoint_folder=str(self._folder.checkpoint),
        )

    def _known_contacts(self) -> tuple[Verified[Message], ...]:
        contacts = []
        for raw in self._folder.contacts():
            try:
                contacts.append(self._opener.open_statement(raw))
            except RemoteProtocolError as error:
                logger.info("a remembered contact is no longer good: %s", error.detail)
        self._contacts = {contact.sender: contact.raw for contact in contacts}
        for contact in contacts:
            if isinstance(contact.message, Contact):
                self._transport.learn(contact.sender, contact.message.addresses)
        return tuple(contacts)

    def _certificates(self) -> Iterator[tuple[PeerId, bytes]]:
        for peer, raw in self._contacts.items():
            with contextlib.suppress(RemoteProtocolError):
                contact = self._opener.open_statement(raw).message
                if isinstance(contact, Contact):
                    yield peer, contact.certificate

    def _renewed(self, membership: Membership) -> None:
        self._membership = membership
        self._own_contact = msgspec.structs.replace(self._own_contact, certificate=membership.chain)
        self._driver.introduce(self._own_contact)

    def _held_blobs(self) -> tuple[BlobId, ...]:
        return tuple(BlobId(Ref(path.name)) for path in oldest_first(self._folder.blobs))

    def _introductions(self) -> list[bytes]:
        """What a new member is told of others: this node first."""
        own = self._driver.node.own_contact
        return [*([own] if own else []), *self._contacts.values()][: limits.CONTACTS_PER_MESSAGE_MAX]

    def _remember(self, peer: PeerId, raw: bytes) -> None:
        self._contacts[peer] = raw
        self._contacts_changed = True

    async def _keep_contacts(self) -> None:
        while True:
            await asyncio.sleep(CONTACTS_EVERY_S)
            self._save_contacts()

    def _save_contacts(self) -> None:
        if self._contacts_changed:
            self._contacts_changed = False
            self._folder.save_contacts(self._contacts)

    def _note(self, note: Note) -> None:
        self._notes[note.event] += 1
        level = logger.debug if note.event in QUIET else logger.info
        level("%s", describe(note))
