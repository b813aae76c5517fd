"""A relay passes on every byte, both ways, and ends both sides when either breaks off or both are silent."""

import asyncio
import contextlib
import random
import socket

import pytest

from p2ptrain.net.relay.splice import splice
from tests.net.virtual import run


async def free(count: int) -> None:
    """Bytes cost nothing."""


def ends() -> tuple[socket.socket, ...]:
    """Two pairs: an outer end, the relay's end of it; the relay's other end, and its outer end."""
    made = (*socket.socketpair(), *socket.socketpair())
    for one in made:
        one.setblocking(False)
    return made


@contextlib.contextmanager
def closing(*sockets: socket.socket):
    try:
        yield
    finally:
        for one in sockets:
            one.close()


async def everything(one: socket.socket) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray()
    while piece := await loop.sock_recv(one, 1 << 16):
        data += piece
    return bytes(data)


async def test_all_bytes_go_both_ways_and_one_side_may_end_first():
    rng = random.Random(7)
    there, back = rng.randbytes(1_000_001), rng.randbytes(700_003)
    left, inner_left, inner_right, right = ends()
    loop = asyncio.get_running_loop()
    with closing(left, inner_left, inner_right, right):
        passing = asyncio.create_task(splice(inner_left, inner_right, free, 5.0, 4096))
        sending = asyncio.create_task(loop.sock_sendall(left, there))
        got = asyncio.create_task(everything(right))
        await sending
        left.shutdown(socket.SHUT_WR)
        assert await got == there
        sending = asyncio.create_task(loop.sock_sendall(right, back))
        sending.add_done_callback(lambda _: right.shutdown(socket.SHUT_WR))
        assert await everything(left) == back
        await passing


def test_silence_ends_it_and_speaking_does_not():
    async def story() -> tuple[float, bytes]:
        left, inner_left, inner_right, right = ends()
        loop = asyncio.get_running_loop()
        with closing(left, inner_left, inner_right, right):
            passing = asyncio.create_task(splice(inner_left, inner_right, free, 60.0))
            for _ in range(4):
                await asyncio.sleep(50.0)
                await loop.sock_sendall(left, b"still here")
            with pytest.raises(TimeoutError):
                await passing
            return loop.time(), await everything(right)

    ended_at, heard = run(story())
    assert ended_at == pytest.approx(260.0)
    assert heard == 4 * b"still here"


async def test_who_must_not_go_on_is_cut_on_both_sides():
    async def dear(count: int) -> None:
        raise ConnectionError("enough for today")

    left, inner_left, inner_right, right = ends()
    with closing(left, inner_left, inner_right, right):
        passing = asyncio.create_task(splice(inner_left, inner_right, dear, 5.0))
        await asyncio.get_running_loop().sock_sendall(left, b"hello")
        with pytest.raises(ConnectionError, match="enough for today"):
            await passing
        assert await everything(left) == await everything(right) == b""


async def test_a_side_that_breaks_off_ends_the_other():
    server = socket.create_server(("127.0.0.1", 0))
    left = socket.create_connection(server.getsockname())
    inner_left, _ = server.accept()
    inner_right, right = socket.socketpair()
    for one in (inner_left, inner_right, right):
        one.setblocking(False)
    with closing(server, inner_left, inner_right, right):
        passing = asyncio.create_task(splice(inner_left, inner_right, free, 5.0))
        await asyncio.sleep(0.01)
        left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # closes with a reset
        left.close()
        with pytest.raises(ConnectionError):
            await passing
        assert await everything(right) == b""
