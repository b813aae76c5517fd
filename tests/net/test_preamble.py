"""The one port: TLS, or a connection that was arranged; everything else ends without a word."""

import asyncio
import contextlib
import os
import socket

import pytest

from p2ptrain.net.channel import listener, preamble
from p2ptrain.net.channel.preamble import MAGIC, TOKEN_BYTES, Arrivals, Kind, Preamble, read_preamble

TOKEN = bytes(range(TOKEN_BYTES))


@contextlib.asynccontextmanager
async def dialled(port: int, *pieces: bytes):
    """A connection that says something, bit by bit."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
        yield reader, writer
    finally:
        writer.transport.abort()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Everything until the end, which must come soon."""
    async with asyncio.timeout(2.0):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "pieces",
    [
        [bytes(Preamble(Kind.REVERSE, TOKEN))],
        [bytes([one]) for one in bytes(Preamble(Kind.REVERSE, TOKEN))],
        [bytes(Preamble(Kind.REVERSE, TOKEN))[:7], bytes(Preamble(Kind.REVERSE, TOKEN))[7:] + b"more"],
    ],
    ids=["whole", "byte by byte", "with what follows"],
)
async def test_who_is_awaited_is_handed_over_with_all_that_follows(swarm, pieces):
    node = await swarm.node()
    arrival = node.transport.rendezvous.arrivals.expect(Kind.REVERSE, TOKEN)
    async with dialled(node.transport.port, *pieces) as (_, writer):
        connection = await arrival.wait()
        writer.write(b"end")
        loop, heard = asyncio.get_running_loop(), b""
        while not heard.endswith(b"end"):
            heard += await loop.sock_recv(connection, 100)
        assert heard in (b"end", b"moreend")
        connection.close()
    arrival.close()


@pytest.mark.attack
@pytest.mark.parametrize(
    "said",
    [
        bytes(Preamble(Kind.REVERSE, os.urandom(TOKEN_BYTES))),
        bytes(Preamble(Kind.SPLICE, TOKEN)),
        MAGIC + b"\x09" + TOKEN,
        MAGIC[:2] + b"xx\x01" + TOKEN,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00",
    ],
    ids=["another token", "another kind", "unknown kind", "almost", "HTTP", "anything"],
)
async def test_who_is_not_awaited_hears_nothing(swarm, said):
    node = await swarm.node()
    arrival = node.transport.rendezvous.arrivals.expect(Kind.REVERSE, TOKEN)
    async with dialled(node.transport.port, said) as (reader, _):
        assert await ended(reader) == b""
    arrival.close()


@pytest.mark.attack
async def test_a_token_counts_once(swarm):
    node = await swarm.node()
    arrival = node.transport.rendezvous.arrivals.expect(Kind.REVERSE, TOKEN)
    said = bytes(Preamble(Kind.REVERSE, TOKEN))
    async with dialled(node.transport.port, said), dialled(node.transport.port, said) as (reader, _):
        assert await ended(reader) == b""
        (await arrival.wait()).close()
    arrival.close()


@pytest.mark.attack
@pytest.mark.parametrize("said", [b"", MAGIC, bytes(Preamble(Kind.SPLICE, TOKEN))[:-1], b"\x16\x03"])
async def test_who_stops_in_the_middle_is_given_up(swarm, monkeypatch, said):
    monkeypatch.setattr(listener, "HANDSHAKE_S", 0.2)
    node = await swarm.node()
    async with dialled(node.transport.port, said) as (reader, _):
        await ended(reader)


@pytest.mark.attack
async def test_preambles_count_like_all_connections(swarm, monkeypatch, until):
    monkeypatch.setattr(listener, "CONNECTIONS_PER_ADDRESS_MAX", 3)
    node = await swarm.node()
    arrival = node.transport.rendezvous.arrivals.expect(Kind.REVERSE, TOKEN)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(dialled(node.transport.port, MAGIC))
        said = bytes(Preamble(Kind.REVERSE, TOKEN))
        await stack.enter_async_context(dialled(node.transport.port, said))
        connection = await arrival.wait()
        reader, _ = await stack.enter_async_context(dialled(node.transport.port, MAGIC))
        assert await ended(reader) == b""
        connection.close()
        reader, _ = await stack.enter_async_context(dialled(node.transport.port, MAGIC))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
    arrival.close()


async def test_what_came_and_was_not_taken_is_closed():
    arrivals = Arrivals()
    arrival = arrivals.expect(Kind.SPLICE, peer=b"somebody")
    ours, theirs = socket.socketpair()
    assert not arrivals.bring(Preamble(Kind.SPLICE, arrival.token), ours, b"somebody else")
    assert arrivals.bring(Preamble(Kind.SPLICE, arrival.token), ours, b"somebody")
    assert not arrivals.bring(Preamble(Kind.SPLICE, arrival.token), theirs)
    arrival.close()
    assert ours.fileno() == -1
    theirs.close()


async def test_what_is_awaited_is_bounded(monkeypatch):
    monkeypatch.setattr(preamble, "AWAITED_MAX", 2)
    arrivals = Arrivals()
    first, _ = arrivals.expect(Kind.SPLICE, TOKEN), arrivals.expect(Kind.PUNCH, TOKEN)
    with pytest.raises(OSError, match="too many"):
        arrivals.expect(Kind.REVERSE)
    first.close()
    arrivals.expect(Kind.REVERSE, TOKEN)
    with pytest.raises(OSError, match="too many"):
        arrivals.expect(Kind.REVERSE, TOKEN)


async def test_where_the_loop_cannot_tell_that_bytes_came_they_are_looked_for(monkeypatch):
    def add_reader(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_reader)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        reading = asyncio.create_task(read_preamble(ours))
        await asyncio.sleep(0.03)
        theirs.send(b"\x16")
        assert await reading is None
        assert ours.recv(9) == b"\x16"
