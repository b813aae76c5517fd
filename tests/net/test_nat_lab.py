"""The laboratory's routers do what real ones do, shown with plain sockets."""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator

import pytest

from tests.net.nat_lab import Home, Lab, needs_lab

pytestmark = [pytest.mark.nat, needs_lab]

PORT = 4001
SOON_S = 0.5
"""Longer than any answer takes here, shorter than TCP's second try."""


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab


async def dial(home: Home, address: str, port: int, own_port: int = 0) -> str:
    """Say what became of a dial."""
    with home.socket(own_port, ipv6=":" in address) as one:
        try:
            async with asyncio.timeout(SOON_S):
                await asyncio.get_running_loop().sock_connect(one, (address, port))
        except TimeoutError:
            return "silence"
        except ConnectionRefusedError:
            return "refused"
        return "connected"


@contextlib.contextmanager
def listening(home: Home, port: int = PORT, *, ipv6: bool = False):
    with home.socket(port, ipv6=ipv6) as one:
        one.listen()
        yield one


async def seen_from(home: Home, *others: Home) -> list[tuple[str, int]]:
    """Dial from one port to all, and return the addresses that they see."""
    loop, seen = asyncio.get_running_loop(), []
    with contextlib.ExitStack() as stack:
        for other in others:
            listener = stack.enter_context(listening(other, PORT + 1))
            one = stack.enter_context(home.socket(PORT))
            await loop.sock_connect(one, (other.outside, PORT + 1))
            accepted, address = await loop.sock_accept(listener)
            stack.enter_context(accepted)
            seen.append(address)
    return seen


async def open_together(first: Home, second: Home, *, ipv6: bool = False) -> str:
    """Let two homes dial each other from the ports that they dial to, and talk."""
    loop = asyncio.get_running_loop()

    async def one_side(home: Home, other: Home) -> str:
        for _ in range(3):
            with home.socket(PORT, ipv6=ipv6) as one:
                try:
                    async with asyncio.timeout(SOON_S):
                        await loop.sock_connect(one, (other.address6 if ipv6 else other.outside, PORT))
                        await loop.sock_sendall(one, b"hello")
                        return (await loop.sock_recv(one, 5)).decode()
                except OSError:
                    continue
        return "failed"

    return " ".join(await asyncio.gather(one_side(first, second), one_side(second, first)))


async def test_an_open_home_is_reached_and_one_behind_a_router_is_not(lab):
    homes = {kind: lab.home(kind[0], kind) for kind in ("open", "port-preserving", "symmetric", "resets")}
    stranger = lab.home("stranger")
    seen = {}
    for kind, home in homes.items():
        with listening(home):
            seen[kind] = await dial(stranger, home.outside, PORT), await dial(home, stranger.outside, PORT)
    assert seen == {
        "open": ("connected", "refused"),
        "port-preserving": ("silence", "refused"),
        "symmetric": ("silence", "refused"),
        "resets": ("refused", "refused"),
    }


async def test_what_a_home_said_first_does_not_open_its_port_to_others(lab):
    home, friend, stranger = lab.home("home", "port-preserving"), lab.home("friend"), lab.home("stranger")
    with listening(home):
        [(address, port)] = await seen_from(home, friend)
        assert (address, port) == (home.outside, PORT)
        assert await dial(stranger, address, port) == "silence"


@pytest.mark.parametrize("kind", ["port-preserving", "resets", "mapper"])
async def test_a_port_is_kept_for_all_destinations(lab, kind):
    home = lab.home("home", kind)
    seen = await seen_from(home, lab.home("x"), lab.home("y"))
    assert seen == [(home.outside, PORT)] * 2


async def test_a_symmetric_router_gives_another_port_for_each_destination(lab):
    home = lab.home("home", "symmetric")
    (one, port), (other, other_port) = await seen_from(home, lab.home("x"), lab.home("y"))
    assert one == other == home.outside
    assert len({PORT, port, other_port}) == 3


@pytest.mark.parametrize(
    ("kind", "other", "expected"),
    [
        ("port-preserving", "port-preserving", "hello hello"),
        ("port-preserving", "symmetric", "failed failed"),
        ("symmetric", "symmetric", "failed failed"),
        ("resets", "resets", "failed failed"),
    ],
)
async def test_two_homes_dial_each_other_at_once(lab, kind, other, expected):
    assert await open_together(lab.home("a", kind), lab.home("b", other)) == expected


@pytest.mark.parametrize("kind", ["port-preserving", "symmetric"])
async def test_ipv6_has_no_translation_but_routers_let_nobody_in(lab, kind):
    home, friend = lab.home("home", kind, ipv6=True), lab.home("friend", "resets", ipv6=True)
    stranger = lab.home("stranger", ipv6=True)
    with listening(home, ipv6=True), listening(stranger, ipv6=True):
        assert await dial(stranger, home.address6, PORT) == "silence"
        assert await dial(home, stranger.address6, PORT) == "connected"
    assert await open_together(home, friend, ipv6=True) == "hello hello"


async def test_homes_have_the_same_private_addresses_and_do_not_see_each_others(lab):
    first, second = lab.home("a", "port-preserving"), lab.home("b", "port-preserving")
    assert first.address == second.address
    with listening(second):
        assert await dial(first, second.address, PORT) == "refused"  # by itself


async def test_a_coroutine_runs_in_a_home_and_ends_with_its_caller(lab):
    home, friend = lab.home("a"), lab.home("b")
    ended = []

    async def serve():
        try:
            async with await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", PORT):
                await asyncio.sleep(60)
        finally:
            ended.append(socket.if_nameindex())

    async def knock():
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                reader, writer = await asyncio.open_connection(home.outside, PORT)
                writer.close()
                return await reader.read()

    serving = asyncio.create_task(home.call(serve()))
    assert await friend.call(knock()) == b""
    serving.cancel()
    await asyncio.wait([serving])
    assert [name for _, name in ended[0]] == ["lo", "eth0"]
    assert await home.run("cat", given="hello") == "hello"


async def test_a_cable_is_pulled_and_plugged_in_again(lab):
    home, friend = lab.home("a", "port-preserving", ipv6=True), lab.home("b", ipv6=True)
    with listening(friend), listening(friend, ipv6=True):
        for address in (friend.outside, friend.address6):
            assert await dial(home, address, PORT) == "connected"
            home.cut()
            with pytest.raises(OSError, match="unreachable"):
                await dial(home, address, PORT)
            home.mend()
            assert await dial(home, address, PORT) == "connected"


async def test_nothing_is_left_behind_whatever_happened():
    def left() -> list[str]:
        names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        return [name for name in names.splitlines() if f"-{os.getpid()}-" in name]

    async def fail_in_the_lab() -> None:
        async with Lab() as lab:
            process = await lab.home("a", "mapper").start("sleep", "1000")
            running.append(process)
            assert len(left()) == 3
            raise ZeroDivisionError

    running: list[asyncio.subprocess.Process] = []
    with pytest.raises(ZeroDivisionError):
        await fail_in_the_lab()
    assert left() == []
    assert running[0].returncode == -9
