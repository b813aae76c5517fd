"""A small swarm on loopback, with real sockets and real TLS."""

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from p2ptrain.core.errors import Offence
from p2ptrain.core.types import PeerId
from p2ptrain.net.addresses import is_dialable
from p2ptrain.net.members import join
from p2ptrain.net.members.admission import Admission, AdmissionBook
from p2ptrain.net.members.invite import Door, Invite, create_invite
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import Membership, Role, wall_clock
from p2ptrain.net.trust.identity import Identity

LOOPBACK = partial(is_dialable, loopback=True)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is marked `asyncio(loop_factories=("asyncio", "uvloop"))` on both, all else on asyncio."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if any("loop_factories" in mark.kwargs for mark in item.iter_markers("asyncio")):
        with contextlib.suppress(ImportError):  # there is none for Windows
            loops["uvloop"] = importlib.import_module("uvloop").new_event_loop
    return loops


class Recorder:
    """Keeps what a transport tells."""

    def __init__(self) -> None:
        self.ups: list[PeerId] = []
        self.downs: list[tuple[PeerId, str]] = []
        self.frames: list[tuple[PeerId, bytes]] = []
        self.offences: list[tuple[PeerId, Offence]] = []

    def peer_up(self, peer: PeerId) -> None:
        self.ups.append(peer)

    def peer_down(self, peer: PeerId, reason: str) -> None:
        self.downs.append((peer, reason))

    def received(self, peer: PeerId, frame: bytes) -> None:
        self.frames.append((peer, frame))

    def offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        self.offences.append((peer, offence))


class Node:
    """One peer of a test swarm."""

    def __init__(self, identity: Identity, membership: Membership, **options: Any) -> None:
        self.identity = identity
        self.membership = membership
        self.peer = identity.peer
        self.events = Recorder()
        self.transport = Transport(identity, membership, self.events, allow=LOOPBACK, **options)

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{self.transport.port}"]

    async def dial(self, other: "Node") -> bool:
        return await self.transport.dial(other.peer, other.addresses)


class Swarm:
    """A root, an issuer, and the nodes that a test asks for."""

    def __init__(self) -> None:
        self.root = Root.create(wall_clock())
        self.issuer = self.root.appoint(wall_clock())
        self.nodes: list[Node] = []

    def certify(self, identity: Identity, role: Role = Role.MEMBER, slot: int = 0) -> Membership:
        return self.issuer.certify(identity.peer, role, slot, wall_clock())

    async def node(
        self,
        identity: Identity | None = None,
        membership: Membership | None = None,
        host: str = "127.0.0.1",
        second: bool = False,
        **options: Any,
    ) -> Node:
        identity = identity or Identity.create()
        node = Node(identity, membership or self.certify(identity), **options)
        self.nodes.append(node)
        await node.transport.start(host, second=second)
        return node

    async def pair(self, **options: Any) -> tuple[Node, Node]:
        """Two nodes, the first of smaller id, not connected."""
        first, second = sorted((Identity.create(), Identity.create()), key=lambda one: one.peer)
        return await self.node(first, **options), await self.node(second, **options)

    async def close(self) -> None:
        await asyncio.gather(*(node.transport.close() for node in self.nodes))


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    swarm = Swarm()
    yield swarm
    await swarm.close()


@pytest.fixture
async def other_swarm() -> AsyncIterator[Swarm]:
    swarm = Swarm()
    yield swarm
    await swarm.close()


@pytest.fixture
def until() -> Callable[..., Any]:
    async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)

    return until


class Reception:
    """An issuer's node with its admission, started when the test is ready for it."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.identity = Identity.create()
        self.manifest = b"manifest"
        self.contacts: list[bytes] = []
        self.banned: set[PeerId] = set()
        self.saved: list[AdmissionBook] = []
        self.admission = Admission(swarm.issuer, AdmissionBook(), self.saved.append, self.banned.__contains__)

    async def start(self) -> Node:
        membership = self.admission.enroll(self.identity.peer, Role.ISSUER)
        reception = join.Reception(
            self.admission,
            self.identity.peer,
            self.manifest,
            self.swarm.root.sign_manifest(self.manifest),
            lambda: self.contacts,
        )
        return await self.swarm.node(
            self.identity, membership, reception=reception, refused=self.banned.__contains__
        )

    def invite(self, *doors: Door, root: Root | None = None, days: int = 7, uses: int = 1) -> Invite:
        expires = wall_clock() + timedelta(days=days)
        return create_invite(root or self.swarm.root, os.urandom(16), expires, uses, doors=doors)


@pytest.fixture
def reception(swarm: Swarm) -> Reception:
    return Reception(swarm)


@pytest.fixture
def attacks() -> ModuleType:
    """Return `attacks.py`, beside this file."""
    spec = importlib.util.spec_from_file_location("attacks", Path(__file__).with_name("attacks.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
