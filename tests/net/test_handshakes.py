"""Connections that have proved nothing give way to those that come; members are not disturbed."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from p2ptrain.net.channel import handshakes, listener

pytestmark = [pytest.mark.attack, pytest.mark.asyncio(loop_factories=("asyncio", "uvloop"))]

HELLO = b"\x16\x03\x01\x01\xfc\x01\x00\x01\xf8\x03\x03"
"""The beginning of a handshake."""


@pytest.fixture
def idle() -> Iterator[list[socket.socket]]:
    lines: list[socket.socket] = []
    yield lines
    for line in lines:
        line.close()


def connect(lines: list[socket.socket], port: int, count: int, said: bytes = b"") -> None:
    for number in range(count):
        line = socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.0.{2 + number % 8}", 0))
        line.sendall(said)
        lines.append(line)


async def test_when_all_places_are_taken_the_idle_give_way(swarm, until, idle, monkeypatch):
    monkeypatch.setattr(listener, "CONNECTIONS_MAX", 8)
    host, member = await swarm.node(), await swarm.node()
    connect(idle, host.transport.port, 16)
    await asyncio.sleep(0.1)
    async with asyncio.timeout(3):
        assert await member.dial(host)
    connect(idle, host.transport.port, 16)
    await asyncio.sleep(0.1)
    host.transport.send(member.peer, b"still here")
    await until(lambda: member.events.frames)
    assert member.events.downs == []


async def test_who_has_proved_itself_does_not_give_way(swarm, until, idle, monkeypatch):
    monkeypatch.setattr(listener, "CONNECTIONS_MAX", 2)
    host, *members = [await swarm.node() for _ in range(4)]
    outcomes = [await member.dial(host) for member in members]
    assert outcomes == [True, True, False]
    assert host.events.downs == []


async def test_slow_handshakes_give_way(swarm, idle, monkeypatch):
    monkeypatch.setattr(handshakes, "HANDSHAKES_MAX", 2)
    monkeypatch.setattr(handshakes, "SLOW_S", 0.1)
    host, member = await swarm.node(), await swarm.node()
    connect(idle, host.transport.port, 6, HELLO)
    await asyncio.sleep(0.1)
    async with asyncio.timeout(3):
        assert await member.dial(host)


async def test_many_that_come_at_once_wait_for_their_turn(swarm, monkeypatch):
    most = 0
    place = handshakes.Handshakes.place

    async def watched(self, connection):
        nonlocal most
        await place(self, connection)
        most = max(most, len(self._shaking))

    monkeypatch.setattr(handshakes, "HANDSHAKES_MAX", 3)
    monkeypatch.setattr(handshakes.Handshakes, "place", watched)
    host, *members = [await swarm.node() for _ in range(13)]
    assert all(await asyncio.gather(*(member.dial(host) for member in members)))
    assert most == 3


async def test_nothing_is_left_of_those_that_went(swarm, until, idle, monkeypatch):
    made = []
    create = handshakes.Handshakes.__init__

    def watched(self) -> None:
        create(self)
        made.append(self)

    monkeypatch.setattr(handshakes.Handshakes, "__init__", watched)
    host = await swarm.node()
    connect(idle, host.transport.port, 4)
    connect(idle, host.transport.port, 4, HELLO)
    await until(lambda: len(made[0]._shaking) == 4)
    for line in idle:
        with contextlib.suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
    await until(lambda: not made[0]._shaking and not made[0]._unproved)
