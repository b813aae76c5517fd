"""Two homes whose routers let nobody in and give every destination another port meet at a public relay."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest

from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.types import peer_text, short
from p2ptrain.net.blobs.fetch import fetch
from p2ptrain.net.trust.identity import Identity
from tests.net.conftest import Node, Swarm
from tests.net.nat_lab import Home, Lab, needs_lab

pytestmark = [pytest.mark.nat, needs_lab]

PORT = 4001
BLOB = random.Random(5).randbytes(3_000_000)


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab


async def true(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    while not condition():
        await asyncio.sleep(0.01)


class Meeting:
    """Three computers, each on a thread of its own; they know of each other what contacts would say."""

    def __init__(self, public: Home, folder) -> None:
        swarm = Swarm()
        self._folder = folder
        self._identities = {name: Identity.create() for name in ("relay", "called", "caller")}
        self._memberships = {name: swarm.certify(one) for name, one in self._identities.items()}
        self._where = [f"{public.outside}:{PORT}"]
        self._steps: set[str] = set()
        self.paths: dict[str, str] = {}

    def peer(self, name: str):
        return self._identities[name].peer

    async def _node(self, name: str, **options) -> Node:
        node = Node(self._identities[name], self._memberships[name], **options)
        await node.transport.start(port=PORT, second=name == "relay")
        if name != "relay":
            node.transport.learn(self.peer("relay"), self._where)
            node.transport.rendezvous.candidates = lambda: [self.peer("relay")]
        return node

    async def relay(self) -> None:
        node = await self._node("relay")
        self._steps.add("relay listens")
        await true(lambda: "done" in self._steps)
        await node.transport.close()

    async def called(self) -> None:
        await true(lambda: "relay listens" in self._steps)
        node = await self._node("called", blobs=self._folder)
        await true(lambda: node.transport.rendezvous.reservations.relays)
        self._steps.add("called waits")
        await true(lambda: self.peer("caller") in node.transport.connected)
        self.paths["called"] = node.transport.path(self.peer("caller"))
        await true(lambda: "done" in self._steps)
        await node.transport.close()

    async def caller(self) -> None:
        await true(lambda: "called waits" in self._steps)
        node = await self._node("caller")
        peer = self.peer("called")
        try:
            assert await node.transport.dial(peer, [f"via:{peer_text(self.peer('relay'))}"]), (
                node.events.downs
            )
            self.paths["caller"] = node.transport.path(peer)
            blob = hash_blob(BLOB)
            await fetch(node.transport, peer, blob, len(BLOB), self._folder / "mine", 20.0)
            await true(lambda: "called" in self.paths)
        finally:
            self._steps.add("done")
            await node.transport.close()


async def test_two_symmetric_homes_meet_at_a_relay(lab, tmp_path):
    public, first, second = lab.home("r"), lab.home("a", "symmetric"), lab.home("b", "symmetric")
    blob = hash_blob(BLOB)
    (tmp_path / blob).write_bytes(BLOB)
    (tmp_path / "mine").mkdir()
    meeting = Meeting(public, tmp_path)
    await asyncio.gather(
        public.call(meeting.relay()), first.call(meeting.called()), second.call(meeting.caller())
    )
    assert (tmp_path / "mine" / blob).read_bytes() == BLOB
    through = f"relay through {short(meeting.peer('relay'))}"
    assert meeting.paths == {"caller": through, "called": through}
