"""Real routers (miniupnpd) open a port, and take it back, for each of the three protocols."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest

from p2ptrain.net.addresses import Address
from p2ptrain.net.router.gateway import Gateway, find_gateway
from p2ptrain.net.router.portmap import PortMapper, PortState
from tests.net.nat_lab import PROTOCOLS, Home, Lab, needs_lab

pytestmark = [pytest.mark.nat, needs_lab]

PORT = 4001
NAMES = {"pcp": "PCP", "nat-pmp": "NAT-PMP", "upnp": "UPnP"}


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab


async def keep_open(
    home: Home,
    meanwhile: Callable[[PortState], Coroutine[None, None, None]],
    secret: bytes = b"secret",
    *,
    crash: bool = False,
    version: int = 4,
) -> None:
    """Keep a port open at home while something is done outside, from this loop."""
    here = asyncio.get_running_loop()

    async def inside() -> None:
        told = asyncio.Event()
        mapper = PortMapper("", secret, told.set, version=version)
        mapper.start(PORT)
        await told.wait()
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(meanwhile(mapper.state), here))
        if crash:
            mapper._asked = None
        await mapper.close()

    await home.call(inside())


async def dial(home: Home, address: Address) -> str:
    with home.socket(ipv6=":" in address.host) as one:
        try:
            async with asyncio.timeout(0.5):
                await asyncio.get_running_loop().sock_connect(one, address)
                return (await asyncio.get_running_loop().sock_recv(one, 100)).decode()
        except TimeoutError:
            return "silence"


@contextlib.asynccontextmanager
async def greeting(home: Home, words: str, *, ipv6: bool = False) -> AsyncIterator[None]:
    """Greet everyone who dials the port."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words.encode())
        writer.close()

    listener = home.socket(PORT, ipv6=ipv6)
    listener.listen()
    async with await asyncio.start_server(greet, sock=listener):
        yield


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_port_is_opened_dialled_from_outside_and_closed(lab, protocol):
    home, stranger = lab.home("home", "mapper", (protocol,)), lab.home("stranger", "port-preserving")

    async def meanwhile(state: PortState) -> None:
        assert state.words == f"the router 192.168.1.1 opened {outside} for this node ({NAMES[protocol]})"
        assert state.address == outside
        assert await dial(stranger, outside) == "welcome"

    outside = Address(home.outside, PORT)
    async with greeting(home, "welcome"):
        assert await dial(stranger, outside) == "silence"
        await keep_open(home, meanwhile)
        assert await dial(stranger, outside) == "silence"


async def test_a_firewall_of_ipv6_is_opened_and_closed(lab):
    home, stranger = lab.home("home", "mapper", ("pcp",), ipv6=True), lab.home("stranger", ipv6=True)

    async def meanwhile(state: PortState) -> None:
        assert state.address == outside
        assert await dial(stranger, outside) == "welcome"

    outside = Address(home.address6, PORT)
    async with greeting(home, "welcome", ipv6=True):
        assert await dial(stranger, outside) == "silence"
        await keep_open(home, meanwhile, version=6)
        assert await dial(stranger, outside) == "silence"


async def test_all_three_together_open_one_port(lab):
    home = lab.home("home", "mapper")

    async def meanwhile(state: PortState) -> None:
        assert state.words.endswith("(PCP)")
        assert home.router.mappings().count("dnat") == 1

    await keep_open(home, meanwhile)
    assert home.router.mappings().count("dnat") == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_port_comes_back_after_a_crash(lab, protocol):
    """The router remembers who asked; the same node gets the same port."""
    home = lab.home("home", "mapper", (protocol,))
    seen = []

    async def meanwhile(state: PortState) -> None:
        seen.append(state.address)

    await keep_open(home, meanwhile, crash=True)
    assert home.router.mappings().count("dnat") == 1
    await keep_open(home, meanwhile)
    assert seen == [Address(home.outside, PORT)] * 2
    assert home.router.mappings().count("dnat") == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_two_computers_of_a_home_that_want_the_same_port_get_two(lab, protocol):
    home, stranger = lab.home("home", "mapper", (protocol,)), lab.home("stranger")
    second = lab.housemate(home, "second")

    async def meanwhile(state: PortState) -> None:
        assert state.address == Address(home.outside, PORT)
        await keep_open(second, both)

    async def both(state: PortState) -> None:
        assert state.address != Address(home.outside, PORT)
        assert await dial(stranger, Address(home.outside, PORT)) == "first"
        assert await dial(stranger, state.address) == "second"

    async with greeting(home, "first"), greeting(second, "second"):
        await keep_open(home, meanwhile, b"first")


async def test_the_gateway_is_the_router(lab):
    async def look(version: int) -> Gateway | None:
        return await asyncio.to_thread(find_gateway, version)

    home = lab.home("home", "port-preserving", ipv6=True)
    assert await home.call(look(4)) == Gateway("192.168.1.1", "192.168.1.2")
    assert await home.call(look(6)) == Gateway("fe80::1%eth0", home.address6)
    home.cut()
    assert await home.call(look(4)) is None
    assert await home.call(look(6)) is None
