"""Every way to a peer is raced with TLS inside: the first that proves to be the peer wins."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable

import aiohttp
import pytest

from p2ptrain.core.types import PeerId
from p2ptrain.net.addresses import Address, AddressBook, parse_address
from p2ptrain.net.reach import connector
from p2ptrain.net.reach.connector import LastPaths, PeerConnector, connect
from p2ptrain.net.reach.dialling import explain, open_session
from p2ptrain.net.trust.certificates import host_name
from p2ptrain.net.ways import NoWayError, Opened, Path, WayError
from tests.net.conftest import LOOPBACK

pytestmark = pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))

RELAY = PeerId(b"r" * 32)


class MadeWay:
    """A way that a test decides on. `tried`: how often."""

    def __init__(self, name: str, open_it: Callable[[], Awaitable[socket.socket]]) -> None:
        self.name = name
        self.tried = 0
        self._open = open_it

    async def open(self, peer: PeerId) -> Opened:
        self.tried += 1
        relay = RELAY if self.name == "relay" else None
        return Opened(await self._open(), Path(self.name, None, relay))


def leads_to(address: str) -> Callable[[], Awaitable[socket.socket]]:
    return lambda: connect(parse_address(address))


def fails(error: OSError) -> Callable[[], Awaitable[socket.socket]]:
    async def fail() -> socket.socket:
        raise error

    return fail


async def never() -> socket.socket:
    await asyncio.sleep(60)
    raise AssertionError


class Dialler:
    """A connector of one node, with what it opened."""

    def __init__(self, node, addresses=(), ways=(), **options) -> None:
        self.book = AddressBook(LOOPBACK)
        self.opened: list[tuple[socket.socket, Path]] = []
        self._connector = PeerConnector(
            self.book,
            node.transport._context,
            ways=ways,
            opened=lambda *one: self.opened.append(one),
            **options,
        )
        self.session = open_session(self._connector)
        self.addresses = addresses

    async def get(self, peer: PeerId) -> str:
        """Ask for what nobody has, and return the path of the connection; raises what aiohttp does."""
        self.book.learn(peer, self.addresses)
        before = len(self.opened)
        async with self.session.get(f"https://{host_name(peer)}/v1/nothing") as answer:
            assert answer.status == 404
        way = next(path.way for one, path in reversed(self.opened) if one.fileno() != -1)
        return way if len(self.opened) > before else f"again {way}"

    async def why(self, peer: PeerId) -> str:
        with pytest.raises((OSError, aiohttp.ClientError)) as error:
            await self.get(peer)
        return explain(error.value)

    def open_now(self) -> int:
        return sum(one.fileno() != -1 for one, _ in self.opened)


@pytest.fixture
async def dialler(swarm):
    made: list[Dialler] = []

    def make(*words, **options) -> Dialler:
        made.append(Dialler(*words, **options))
        return made[-1]

    yield make
    for one in made:
        await one.session.close()
    await asyncio.sleep(0.02)
    assert [one.open_now() for one in made] == [0] * len(made)


class Deaf:
    """Takes connections and says nothing: what a stranger at an advertised address sees."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = 0

    async def __aenter__(self) -> "Deaf":
        self._server = await asyncio.start_server(self._listen, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.sleep(0.02)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(4096):
                self.heard += piece
        self.ended += 1
        writer.transport.abort()


async def test_an_address_that_works_needs_no_other_way(swarm, dialler):
    one, two = await swarm.pair()
    relay = MadeWay("relay", never)
    assert await dialler(one, two.addresses, [relay]).get(two.peer) == "direct"
    assert relay.tried == 0


async def test_a_deaf_address_holds_nothing_up_hears_only_tls_and_is_closed(
    swarm, dialler, until, monkeypatch
):
    monkeypatch.setattr(connector, "STAGGER_S", 0.02)
    one, two = await swarm.pair()
    async with Deaf() as deaf:
        dial = dialler(one, [deaf.address, *two.addresses])
        assert await dial.get(two.peer) == "direct"
        await until(lambda: deaf.ended == 1)
        assert dial.open_now() == 1
        assert deaf.heard[:2] == b"\x16\x03"
        assert b"HTTP" not in deaf.heard


async def test_every_way_is_tried_in_order(swarm, dialler):
    one, two = await swarm.pair()
    broken = WayError("no")
    ways = [
        MadeWay("reverse", fails(broken)),
        MadeWay("punched", fails(broken)),
        MadeWay("relay", leads_to(two.addresses[0])),
    ]
    assert await dialler(one, ["127.0.0.1:1025"], ways).get(two.peer) == "relay"
    assert [way.tried for way in ways] == [1, 1, 1]


async def test_a_way_that_leads_to_somebody_else_does_not_count(swarm, dialler):
    one, two = await swarm.pair()
    third = await swarm.node()
    ways = [MadeWay("reverse", leads_to(third.addresses[0])), MadeWay("relay", leads_to(two.addresses[0]))]
    dial = dialler(one, (), ways)
    assert await dial.get(two.peer) == "relay"
    assert dial.open_now() == 1


async def test_the_last_good_way_is_first(swarm, dialler, monkeypatch):
    one, two = await swarm.pair()
    last = LastPaths()
    punched = MadeWay("punched", leads_to(two.addresses[0]))
    ways = [MadeWay("reverse", fails(WayError("no"))), punched]
    assert await dialler(one, (), ways, last=last).get(two.peer) == "punched"
    monkeypatch.setattr(connector, "STAGGER_S", 9.0)
    again = dialler(one, ["127.0.0.1:1025"], ways, last=last)
    assert await again.get(two.peer) == "punched"
    assert [way.tried for way in ways] == [1, 2]
    assert [path.way for _, path in again.opened] == ["punched"]


async def test_the_last_good_address_is_first(swarm, dialler, monkeypatch):
    one, two = await swarm.pair()
    last = LastPaths()
    async with Deaf() as deaf:
        monkeypatch.setattr(connector, "STAGGER_S", 0.01)
        addresses = [deaf.address, *two.addresses]
        await dialler(one, addresses, last=last).get(two.peer)
        monkeypatch.setattr(connector, "STAGGER_S", 9.0)
        again = dialler(one, addresses, last=last)
        await again.get(two.peer)
        assert [path.address for _, path in again.opened] == [parse_address(two.addresses[0])]


async def test_no_relay_where_none_will_do(swarm, dialler):
    one, two = await swarm.pair()
    relay = MadeWay("relay", leads_to(two.addresses[0]))
    last = LastPaths()
    assert await dialler(one, (), [relay], last=last).get(two.peer) == "relay"
    assert await dialler(one, (), [relay], relayed=False, last=last).why(two.peer) == "no address is known"
    assert relay.tried == 1


async def test_relays_are_left_after_the_request_that_runs(swarm, dialler):
    one, two = await swarm.pair()
    ways = [MadeWay("relay", leads_to(two.addresses[0]))]
    dial = dialler(one, (), ways)
    assert await dial.get(two.peer) == "relay"
    assert await dial.get(two.peer) == "again relay"
    dial._connector.leave_relays(two.peer)
    dial.addresses = two.addresses
    assert await dial.get(two.peer) == "again relay"
    ways.clear()
    assert await dial.get(two.peer) == "direct"


WORDS = [
    ([], [], "no address is known"),
    (["127.0.0.1:1025"], [], "Connection refused"),
    (["127.0.0.1:1025"], [NoWayError("it waits at no relay that is known")], "Connection refused"),
    (["127.0.0.1:1025"], [WayError("its relay does not answer")], "its relay does not answer"),
    ([], [TimeoutError(), NoWayError("nothing")], "no answer"),
    ([], [NoWayError("nothing")], "no address is known"),
    (["127.0.0.1:1025"], [TimeoutError()], "Connection refused"),
    ([], [ssl.SSLError("x"), TimeoutError()], "who answers there does not speak p2ptrain"),
    ([], [ssl.SSLError("x"), WayError("y")], "y"),
]


@pytest.mark.parametrize(("addresses", "errors", "words"), WORDS)
async def test_the_most_telling_failure_is_told(swarm, dialler, addresses, errors, words):
    one, two = await swarm.pair()
    names = ["punched", "relay"]
    ways = [MadeWay(name, fails(error)) for name, error in zip(names, errors, strict=False)]
    assert await dialler(one, addresses, ways).why(two.peer) == words


async def test_somebody_else_at_an_address_tells_more_than_silence(swarm, dialler, monkeypatch):
    monkeypatch.setattr(connector, "CONNECT_S", 0.3)
    one, two = await swarm.pair()
    third = await swarm.node()
    async with Deaf() as deaf:
        dial = dialler(one, [*third.addresses, deaf.address], [MadeWay("relay", never)])
        assert "not the peer that is meant" in await dial.why(two.peer)
        assert await dialler(one, [deaf.address]).why(two.peer) == "no answer"


async def test_who_gives_up_leaves_nothing_open(swarm, dialler, until):
    """At whatever moment: uvloop forgets a handshake that is cancelled before its first step."""
    one, two = await swarm.pair()
    async with Deaf() as deaf:
        dial = dialler(one, [deaf.address], [MadeWay("relay", leads_to(deaf.address))])
        for steps in range(150):
            task = asyncio.create_task(dial.get(two.peer))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert len(dial.opened) > 10
        await until(lambda: dial.open_now() == 0, timeout_s=1)


async def test_five_connections_to_a_peer(swarm, dialler):
    one, two = await swarm.pair()
    way = MadeWay("relay", never)
    dial = dialler(one, (), [way])
    tries = [asyncio.create_task(dial.get(two.peer)) for _ in range(8)]
    await asyncio.sleep(0.05)
    assert way.tried == connector.CONNECTIONS_PER_PEER_MAX
    for task in tries:
        task.cancel()
    await asyncio.wait(tries)


async def test_no_address_that_the_filter_refuses_is_dialled(swarm, dialler):
    """Not even if a book of hints or of contacts names it."""
    one, two = await swarm.pair()
    async with Deaf() as deaf:
        dial = dialler(one)
        dial.book.allow = lambda one: LOOPBACK(one) and str(one) != deaf.address
        dial.book.hint(two.peer, [parse_address(deaf.address)])
        dial.addresses = [deaf.address, "127.0.0.1:80"]
        assert await dial.why(two.peer) == "no address is known"
        assert dial.opened == []


async def test_only_peers_are_reached(swarm, dialler):
    one, _ = await swarm.pair()
    dial = dialler(one)
    for url in ("https://127.0.0.1:5000/", "http://x.peer.invalid/", "https://x.peer.invalid/"):
        with pytest.raises(aiohttp.ClientError):
            await dial.session.get(url)


async def test_last_paths_are_bounded(monkeypatch):
    monkeypatch.setattr(connector.limits, "PEERS_MAX", 3)
    last = LastPaths()
    for number in range(9):
        last.remember(PeerId(bytes([number]) * 32), Path("direct", Address("10.0.0.1", 5000)))
    assert len(last._paths) == 3
