"""This node among the members of its swarm: how it is reached, whom it lets in, whom it knows."""

import asyncio
from functools import partial

from msgspec.structs import replace

from p2ptrain.control.api import Checkup, Done, Requests
from p2ptrain.core.codec import Codec
from p2ptrain.core.envelope import Opener, Verified
from p2ptrain.core.errors import Offence
from p2ptrain.core.messages import Contact, Message
from p2ptrain.core.text import clean
from p2ptrain.core.types import PeerId, short
from p2ptrain.daemon.addresses import is_only_here
from p2ptrain.daemon.config import Network
from p2ptrain.daemon.contacts import ContactBook
from p2ptrain.daemon.doctor.checkup import Surroundings, examine
from p2ptrain.daemon.doctor.verdicts import Signs
from p2ptrain.daemon.doorkeeper import Doorkeeper
from p2ptrain.daemon.driver import Driver
from p2ptrain.daemon.logs import logger
from p2ptrain.daemon.nearby import Nearby
from p2ptrain.daemon.outside import Outside
from p2ptrain.daemon.standing import Standing
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.members.join import Reception
from p2ptrain.net.relay.server import RelayBounds
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.certificates import Membership
from p2ptrain.net.trust.identity import Identity
from p2ptrain.net.trust.verifier import SwarmVerifier


class SwarmNetwork:
    """The parts that talk to other computers. Built in two steps: `opener` first, `attach` when a driver is.

    Args:
        config: the owner's settings.
        folder: of the swarm.
        identity: this node.
        contact: what it says of itself at the start.
        codec: reads the swarm's messages.

    membership: this node's certificates, as last renewed.
    """

    def __init__(
        self, config: Network, folder: SwarmFolder, identity: Identity, contact: Contact, codec: Codec
    ) -> None:
        self.membership = folder.membership()
        self._config = config
        self._folder = folder
        self._identity = identity
        self._contact = contact
        self._standing = Standing(
            folder,
            identity,
            lambda: self.contacts.certificates(),
            self._renewed,
            self._turn_away,
            lambda *offence: self._driver.offended(*offence),
            self._refuses,
        )
        root = self.membership.root
        verifier = SwarmVerifier(root, self._refuses, distrusted=self._standing.revokes)
        self.opener = Opener(verifier, self.membership.swarm, codec)
        self.contacts = ContactBook(folder, self.opener)
        self._doorkeeper = Doorkeeper(
            identity.peer, folder, lambda: self._standing.admission, self._refuses, self._introductions
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._driver: Driver
        self.transport: Transport
        self._nearby: Nearby

    def attach(self, driver: Driver) -> None:
        """Build the rest around who decides, and give the driver its hands."""
        record, manifest = self._folder.record(), self._folder.manifest()
        admission = self._standing.admission
        signed = record.manifest, record.manifest_signature
        reception = Reception(admission, self._identity.peer, *signed, self._introductions)
        self._driver = driver
        self.transport = Transport(
            self._identity,
            self.membership,
            driver,
            blobs=self._folder.blobs,
            reception=reception,
            routes=[*self._standing.routes(), *self._doorkeeper.routes()],
            refused=self._refuses,
            distrusted=self._standing.revokes,
            allow=partial(is_dialable, loopback=is_only_here(self.addresses)),
            bandwidth=Bandwidth(self._config.upload_mbit, self._config.download_mbit),
            relay=self._relay_bounds(),
        )
        self._outside = Outside(
            self._config, self._identity, self._port, self.transport, self.contacts, self._moved
        )
        self._nearby = Nearby(
            self._config,
            self.membership.swarm,
            self._identity.peer,
            self.transport,
            (manifest.name, manifest.task),
            self._doorkeeper.is_open,
        )
        self._standing.attach(self.transport, reception)
        driver.transport = self.transport
        driver.greet = self._greet
        driver.parted = self._standing.parted

    # -- life --------------------------------------------------------------------------------------

    async def listen(self) -> None:
        """Be reachable.

        Raises:
            P2PTrainError: the address or the port is not to be had.
        """
        second = not self._contact.trains
        await self.transport.start(self._config.listen, self._port, second=second)
        self._nearby.start()

    def known(self) -> tuple[Verified[Message], ...]:
        """Read whom this node knew when it stopped, and how to reach them."""
        contacts = self.contacts.load()
        for contact in contacts:
            if isinstance(contact.message, Contact):
                self.transport.learn(contact.sender, contact.message.addresses)
        return contacts

    def start(self) -> None:
        """Begin to keep contacts and certificates fresh; the node has started already."""
        self._tasks = [asyncio.create_task(self.contacts.run()), asyncio.create_task(self._standing.run())]
        self._outside.start()

    def stop(self) -> None:
        """Begin to leave: take back what was announced nearby, start nothing new."""
        self._nearby.stop()
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """End all connections in order, and keep what was learned."""
        await self._standing.close()
        await asyncio.gather(self._outside.close(), self.transport.close())
        await self._nearby.close()
        self.contacts.save()

    # -- the owner asks ------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node says that it can be reached."""
        return self._contact.addresses

    @property
    def admits(self) -> bool:
        """Whether this node admits members now."""
        return self._standing.admission is not None

    @property
    def lan(self) -> str:
        """How the search on the local network goes, in words."""
        return self._nearby.state

    @property
    def outside(self) -> str:
        """Whether others reach this node, in words."""
        return self._outside.words

    @property
    def router(self) -> str:
        """What the home's router does for it, in words."""
        return self._outside.router

    @property
    def trouble(self) -> str:
        """Why no member talks to this node, in words; empty: it is welcome, as far as is known."""
        return self._standing.trouble

    def reload(self) -> Done:
        """Take what a command wrote into the swarm's folder."""
        return Done(self._standing.reload())

    def requests(self) -> Requests:
        """Show who asks to join."""
        return self._doorkeeper.requests()

    def admit(self, code: str) -> Done:
        """Make a member of whoever shows that code."""
        return self._doorkeeper.admit(code)

    async def checkup(self, signed: int, replaced: int) -> Checkup:
        """Ask members how they see this node; for the arguments see `verdicts.Signs`."""
        members = [peer for peer in self._driver.node.members if peer != self._identity.peer]
        router, lan = self._outside.port_state, self._nearby.finding()
        signs = Signs(signed, self._nearby.twin, replaced)
        return await examine(Surroundings(self.transport, len(members), self._name, router, lan, signs))

    # -- parts ---------------------------------------------------------------------------------------

    @property
    def _port(self) -> int:
        return self._config.port or self._folder.record().port

    def _name(self, peer: PeerId) -> str:
        contact = self.contacts.of(peer)
        return clean(contact.name) if contact and contact.name else short(peer)

    def _relay_bounds(self) -> RelayBounds | None:
        """A bootstrap always relays; others unless their owner says no."""
        config = self._config
        wanted = config.relay or not self._contact.trains
        return RelayBounds(config.relay_mbit, config.relay_gb_a_day) if wanted else None

    def _greet(self, peer: PeerId) -> None:
        self._standing.greet(peer)
        self._outside.greet()

    def _moved(self, addresses: tuple[str, ...]) -> None:
        logger.info("others are told to reach this computer at %s", ", ".join(addresses))
        self._say(replace(self._contact, addresses=addresses))

    def _refuses(self, peer: PeerId) -> bool:
        return self._standing.revokes(peer) or self._driver.refuses(peer)

    def _turn_away(self, peer: PeerId) -> None:
        """Believe what a revoked peer said before no more; its connection is ended already."""
        self.contacts.forget(peer)
        if peer in self._driver.node.members:
            self._driver.offended(peer, Offence.FOREIGN, "the swarm revoked it")

    def _renewed(self, membership: Membership) -> None:
        self.membership = membership
        self._say(replace(self._contact, certificate=membership.chain))

    def _say(self, contact: Contact) -> None:
        """Tell everyone something new of this node."""
        self._contact = contact
        self._driver.introduce(contact)

    def _introductions(self) -> list[bytes]:
        return self.contacts.introductions(self._driver.node.own_contact)
