"""Dialling from the port that is listened on. What routers do to it: `test_nat_matrix.py`."""

import asyncio
import socket

import pytest

from p2ptrain.net.addresses import Address
from p2ptrain.net.channel import listener
from p2ptrain.net.channel.sockets import share
from p2ptrain.net.reach import punch as punching
from p2ptrain.net.reach.punch import bound, punch
from p2ptrain.net.ways import NoWayError, WayError
from tests.net.conftest import LOOPBACK

pytestmark = [
    pytest.mark.asyncio(loop_factories=("asyncio", "uvloop")),
    pytest.mark.skipif(not punching.CAN_SHARE, reason="this system has no SO_REUSEPORT"),
]

HOST = "127.0.0.1"


def listen(port: int = 0) -> socket.socket:
    made = socket.create_server((HOST, port))
    share(made)
    made.setblocking(False)
    return made


@pytest.fixture
def here():
    with listen() as made:
        yield Address(HOST, made.getsockname()[1])


@pytest.fixture
def there():
    with listen() as made:
        yield made


def where(one: socket.socket) -> Address:
    return Address(*one.getsockname())


@pytest.mark.parametrize("host", [HOST, "", "::", "0.0.0.0"])
async def test_it_comes_from_the_port_that_is_listened_on(there, host):
    with listener._listen(host, 0) as made:
        share(made)
        port = made.getsockname()[1]
        opened, path = await punch(Address(host, port), [where(there)], LOOPBACK)
    with opened:
        accepted, source = await asyncio.get_running_loop().sock_accept(there)
        with accepted:
            assert source == (HOST, port)
            assert str(path) == f"punched {HOST} port {where(there).port}"


async def test_it_goes_on_until_somebody_is_there(here):
    free = socket.create_server((HOST, 0))
    target = where(free)
    free.close()
    task = asyncio.create_task(punch(here, [target], LOOPBACK))
    await asyncio.sleep(0.1)
    with listen(target.port):
        opened, _ = await task
        opened.close()


async def test_the_target_that_answers_is_taken(here, there):
    opened, path = await punch(here, [Address(HOST, 1025), where(there)], LOOPBACK)
    opened.close()
    assert path.address == where(there)


async def test_it_gives_up_and_leaves_nothing_open(here, monkeypatch):
    made = []

    def watched(*words: Address) -> socket.socket:
        made.append(bound(*words))
        return made[-1]

    monkeypatch.setattr(punching, "bound", watched)
    with pytest.raises(WayError, match="let neither in"):
        await punch(here, [Address(HOST, 1025), Address(HOST, 1026)], LOOPBACK, 0.2)
    assert len(made) > 2
    assert {one.fileno() for one in made} == {-1}


async def test_what_may_not_be_dialled_is_not(here, there):
    targets = [Address(HOST, 80), Address("224.0.0.1", 5000), where(there)]
    with pytest.raises(NoWayError):
        await punch(here, targets, lambda one: LOOPBACK(one) and one != where(there))


async def test_a_system_that_cannot(here, there, monkeypatch):
    monkeypatch.setattr(punching, "CAN_SHARE", False)
    with pytest.raises(NoWayError, match="cannot dial from the port"):
        await punch(here, [where(there)], LOOPBACK)


async def test_a_shared_port_is_still_taken(here):
    """Only connections share it: a second program that wants to listen is refused."""
    with pytest.raises(OSError, match="in use"):
        socket.create_server((HOST, here.port))
