"""Each kind of home calls each other kind: the expected way is found, a blob arrives, and a relay works too.

All pairs run in one test, some at a time: they share one internet and one relay.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.types import PeerId, peer_text
from p2ptrain.net.addresses import AddressBook
from p2ptrain.net.blobs.fetch import fetch
from p2ptrain.net.reach import connector
from p2ptrain.net.reach.connector import PeerConnector
from p2ptrain.net.reach.dialling import open_session
from p2ptrain.net.router.portmap import PortMapper
from p2ptrain.net.trust.certificates import host_name
from p2ptrain.net.trust.identity import Identity
from tests.net.conftest import Node, Swarm
from tests.net.nat_lab import PROTOCOLS, Home, Lab, needs_lab

pytestmark = [pytest.mark.nat, needs_lab]

PORT = 4001
BLOB = random.Random(5).randbytes(2_500_000)
AT_ONCE = 5
PATIENCE_S = 40.0

STAGGER_S = 1.0
"""A busy computer must not let a worse way win."""

KINDS = ("open", "port-preserving", "symmetric", "resets")


def expected(caller: str, callee: str) -> set[str]:
    """Return the ways that count as right.

    A router that answers with a reset can be punched if its own side is first; of two, no side is.
    """
    if callee in ("open", *PROTOCOLS):
        return {"direct"}
    if caller == "open":
        return {"reverse"}
    if "symmetric" in (caller, callee):
        return {"relay"}
    return {"punched"} if caller == callee == "port-preserving" else {"punched", "relay"}


async def true(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    while not condition():
        await asyncio.sleep(0.02)


class World:
    """The lab, its relay, and what members know from contacts and invites."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.blob = hash_blob(BLOB)
        self.swarm = Swarm()
        self.public = lab.home("relay")
        self.relay = Identity.create()
        self.relay_up = self.over = False

    async def run_relay(self) -> None:
        async with self.member(self.relay, self.public, second=True):
            self.relay_up = True
            await true(lambda: self.over)

    @contextlib.asynccontextmanager
    async def member(self, identity: Identity, home: Home, *, second: bool = False) -> AsyncIterator[Node]:
        node = Node(identity, self.swarm.certify(identity), blobs=self.folder)
        await node.transport.start(port=PORT, second=second)
        try:
            if identity is not self.relay:
                node.transport.learn(self.relay.peer, [f"{self.public.outside}:{PORT}"])
            if home.router is None:
                node.transport.rendezvous.own = lambda: (f"{home.outside}:{PORT}",)
            yield node
        finally:
            await node.transport.close()


class Pair:
    """Two homes, of which the first calls the second."""

    def __init__(self, world: World, caller: str, callee: str) -> None:
        self.name = f"{caller} calls {callee}"
        self.world = world
        self.expected = expected(caller, callee)
        self.identities = Identity.create(), Identity.create()
        name = f"{KINDS.index(caller)}{[*KINDS, *PROTOCOLS].index(callee)}"
        kind, protocols = ("mapper", (callee,)) if callee in PROTOCOLS else (callee, PROTOCOLS)
        self.homes = world.lab.home(f"{name}a", caller), world.lab.home(f"{name}b", kind, protocols)
        self.addresses: list[str] = []
        self.paths = ["", ""]
        self.relayed = ""
        self.over = False

    @property
    def peers(self) -> tuple[PeerId, PeerId]:
        return self.identities[0].peer, self.identities[1].peer

    async def run(self, turn: asyncio.Semaphore) -> str:
        """Return what went wrong; empty: nothing."""
        async with turn:
            caller, callee = self.homes
            try:
                await asyncio.gather(
                    callee.call(self._be_called(), PATIENCE_S), caller.call(self._call(), PATIENCE_S)
                )
            except (AssertionError, OSError, P2PTrainError) as error:  # a time-out is an OSError
                return f"{self.name}: {error!r}, {self.paths}"
        ways = {path.partition(" ")[0] for path in self.paths}
        if len(ways) == 1 and ways <= self.expected and self.relayed.startswith("relay"):
            return ""
        return f"{self.name}: {self.paths}, through a relay: {self.relayed or 'no'}"

    async def _be_called(self) -> None:
        home, relay = self.homes[1], self.world.relay.peer
        async with self.world.member(self.identities[1], home) as node:
            node.transport.rendezvous.candidates = lambda: [relay]
            node.transport.rendezvous.reservations.look()
            await true(lambda: node.transport.rendezvous.reservations.relays)
            addresses = [f"{home.address}:{PORT}", f"via:{peer_text(relay)}"]
            if home.kind == "mapper":
                mapper = PortMapper("", b"secret", lambda: None)
                mapper.start(PORT)
                await true(lambda: mapper.state.address)
                addresses.insert(0, str(mapper.state.address))
            self.addresses = addresses
            await true(lambda: self.peers[0] in node.transport.connected)
            self.paths[1] = node.transport.path(self.peers[0])
            await true(lambda: self.over)
            if home.kind == "mapper":
                await mapper.close()

    async def _call(self) -> None:
        await true(lambda: self.world.relay_up and self.addresses)
        async with self.world.member(self.identities[0], self.homes[0]) as node:
            if self.homes[0].router:
                node.transport.rendezvous.candidates = lambda: [self.world.relay.peer]
            peer = self.peers[1]
            try:
                assert await node.transport.dial(peer, self.addresses), node.events.downs[-1][1]
                self.paths[0] = node.transport.path(peer)
                place = self.world.folder / self.name
                place.mkdir()
                await fetch(node.transport, peer, self.world.blob, len(BLOB), place, 20.0)
                assert (place / self.world.blob).read_bytes() == BLOB
                self.relayed = await self._relay(node, peer)
            finally:
                self.over = True

    async def _relay(self, node: Node, peer: PeerId) -> str:
        """Ask something through the relay, and return by which path."""
        ways = [way for way in node.transport.client.ways if way.name == "relay"]
        paths = []
        dialler = PeerConnector(
            AddressBook(lambda _: False),
            node.transport._context,
            ways=ways,
            opened=lambda _, path: paths.append(str(path)),
        )
        url = f"https://{host_name(peer)}/v1/where"
        async with open_session(dialler) as session, session.get(url) as answer:
            assert answer.status == 200
        return paths[0]


async def test_each_kind_of_home_reaches_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(connector, "STAGGER_S", STAGGER_S)
    (tmp_path / hash_blob(BLOB)).write_bytes(BLOB)
    async with Lab() as lab:
        world = World(lab, tmp_path)
        kinds = [*itertools.product(KINDS, KINDS), *(("port-preserving", one) for one in PROTOCOLS)]
        relay = asyncio.create_task(world.public.call(world.run_relay(), 120.0))
        turn = asyncio.Semaphore(AT_ONCE)
        failures = await asyncio.gather(*(Pair(world, *pair).run(turn) for pair in kinds))
        world.over = True
        await relay
    assert [one for one in failures if one] == []
