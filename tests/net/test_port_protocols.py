"""PCP and NAT-PMP, byte by byte, and routers that answer wrongly or not at all."""

import asyncio
import contextlib
import random
import socket

import pytest

from p2ptrain.net.addresses import Address
from p2ptrain.net.router import mapping, nat_pmp, pcp
from p2ptrain.net.router.gateway import Gateway
from p2ptrain.net.router.mapping import Grant, MappingError
from p2ptrain.net.router.nat_pmp import NatPmp
from p2ptrain.net.router.pcp import Pcp

HERE = Gateway("127.0.0.1", "127.0.0.1")
NONCE = bytes(range(12))
FOUR_IN_SIX = bytes(10) + b"\xff\xff"
HOST = FOUR_IN_SIX + bytes((5, 5, 5, 5))


def pcp_answer(
    result: int = 0, *, nonce: bytes = NONCE, port: int = 4001, version: int = 2, opcode: int = 0x81
) -> bytes:
    head = bytes((version, opcode, 0, result)) + (7200).to_bytes(4, "big") + bytes(16)
    return head + nonce + bytes((6, 0, 0, 0)) + port.to_bytes(2, "big") + (5001).to_bytes(2, "big") + HOST


PMP_MAP = (
    bytes((0, 130, 0, 0))
    + bytes(4)
    + (4001).to_bytes(2, "big")
    + (5001).to_bytes(2, "big")
    + bytes((0, 0, 28, 32))
)
PMP_ADDRESS = bytes((0, 128, 0, 0)) + bytes(4) + bytes((5, 5, 5, 5))
WRONG_VERSION = bytes((0, 128, 0, 1)) + bytes(4)
"""What a router answers to PCP that speaks only NAT-PMP."""


class Router:
    """Answers each datagram with what it was told to."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.heard = list(answers), []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        self.heard.append(data)
        for answer in self.answers:
            self.transport.sendto(answer, addr)

    def error_received(self, exc) -> None: ...

    def connection_lost(self, exc) -> None: ...


@contextlib.asynccontextmanager
async def router(monkeypatch, *answers: bytes):
    loop = asyncio.get_running_loop()
    transport, one = await loop.create_datagram_endpoint(
        lambda: Router(*answers), local_addr=("127.0.0.1", 0)
    )
    for module in (pcp, nat_pmp):
        monkeypatch.setattr(module, "PORT", transport.get_extra_info("sockname")[1])
    try:
        yield one
    finally:
        transport.close()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(mapping, "PATIENCE_S", 0.2)
    monkeypatch.setattr(mapping, "SECOND_TRY_S", 0.04)


async def test_the_bytes_that_pcp_sends(monkeypatch):
    async with router(monkeypatch) as one:
        asking = Pcp(HERE, b"secret")
        nonce = asking._nonce
        one.answers = [bytes((2, 0x80, 0, 0)) + bytes(20)]
        await asking.probe()
        one.answers = [pcp_answer(nonce=nonce)]
        assert await asking.open(4001, 5001) == Grant(Address("5.5.5.5", 5001), 7200)
        await asking.close(4001, 5001)
    own = FOUR_IN_SIX + bytes((127, 0, 0, 1))
    inside = nonce + bytes((6, 0, 0, 0)) + (4001).to_bytes(2, "big")
    assert one.heard == [
        bytes((2, 0, 0, 0)) + bytes(4) + own,
        bytes((2, 1, 0, 0))
        + (7200).to_bytes(4, "big")
        + own
        + inside
        + (5001).to_bytes(2, "big")
        + FOUR_IN_SIX
        + bytes(4),
        bytes((2, 1, 0, 0)) + bytes(4) + own + inside + bytes(2) + FOUR_IN_SIX + bytes(4),
    ]


async def test_with_ipv6_pcp_asks_for_a_hole_for_the_own_address(monkeypatch):
    heard = []

    async def ask(gateway: Gateway, port: int, question: bytes, read) -> Grant:
        heard.append(question)
        return read(pcp_answer(nonce=question[24:36])[:44] + own)

    monkeypatch.setattr(pcp, "ask", ask)
    own = bytes.fromhex("2a001450") + bytes(11) + b"\x02"
    asking = Pcp(Gateway("fe80::1%eth0", "2a00:1450::2"), b"secret")
    assert await asking.open(4001, 5001) == Grant(Address("2a00:1450::2", 5001), 7200)
    assert (heard[0][8:24], heard[0][44:]) == (own, bytes(16))


def test_the_nonce_is_the_same_after_a_restart_and_another_for_others():
    assert Pcp(HERE, b"one")._nonce == Pcp(HERE, b"one")._nonce != Pcp(HERE, b"two")._nonce


async def test_the_bytes_that_nat_pmp_sends(monkeypatch):
    async with router(monkeypatch, PMP_ADDRESS, PMP_MAP) as one:
        asking = NatPmp(HERE)
        await asking.probe()
        assert await asking.open(4001, 5001) == Grant(Address("5.5.5.5", 5001), 7200)
        await asking.close(4001, 5001)
    inside = bytes((0, 2, 0, 0)) + (4001).to_bytes(2, "big")
    assert one.heard == [
        bytes(2),
        bytes(2),
        inside + (5001).to_bytes(2, "big") + (7200).to_bytes(4, "big"),
        inside + bytes(6),
    ]


@pytest.mark.parametrize(
    ("asking", "answer", "said"),
    [
        (Pcp(HERE, b""), WRONG_VERSION, "another version"),
        (Pcp(HERE, b""), bytes((2, 0x80, 0, 2)) + bytes(20), "not allowed"),
        (Pcp(HERE, b""), bytes((2, 0x80, 0, 77)) + bytes(20), "error 77"),
        (NatPmp(HERE), bytes((2, 0x80, 0, 1)) + bytes(20), "another version"),
        (NatPmp(HERE), bytes((0, 128, 0, 3)) + bytes(4), "no connection to the internet"),
        (NatPmp(HERE), bytes((0, 128, 1, 0)), "error 256"),
    ],
)
async def test_a_no_is_said_in_words_at_once(monkeypatch, asking, answer, said):
    async with router(monkeypatch, answer) as one:
        with pytest.raises(MappingError, match=said):
            await asking.probe()
    assert len(one.heard) == 1


@pytest.mark.attack
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        pcp_answer()[:-1],
        pcp_answer()[:24],
        pcp_answer(nonce=bytes(12)),
        pcp_answer(2, nonce=bytes(12)),
        pcp_answer(port=4002),
        pcp_answer(opcode=0x82),
        pcp_answer(opcode=0x01),
        pcp_answer() + bytes(1100),
    ],
    ids=lambda data: f"{len(data)}-{data[:4].hex()}",
)
def test_what_does_not_answer_our_pcp_question_is_not_heard(data):
    assert pcp.read_map(data, NONCE, 4001) is None


@pytest.mark.attack
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        PMP_MAP[:-1],
        PMP_MAP + b"\x00",
        PMP_MAP[:8] + bytes(8),
        PMP_ADDRESS,
        bytes((0, 2)) + PMP_MAP[2:],
    ],
    ids=lambda data: f"{len(data)}-{data[:4].hex()}",
)
def test_what_does_not_answer_our_nat_pmp_question_is_not_heard(data):
    assert nat_pmp.read_map(data, 4001) is None


@pytest.mark.attack
def test_random_bytes_are_an_answer_or_a_no_or_nothing():
    rng = random.Random(7)
    for _ in range(20_000):
        base = rng.choice((pcp_answer(), PMP_MAP, PMP_ADDRESS, WRONG_VERSION))
        data = bytearray(base[: rng.randrange(len(base) + 1)] + rng.randbytes(rng.choice((0, 0, 3, 1200))))
        for _ in range(rng.randrange(3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        for read in (
            lambda data: pcp.read_map(data, NONCE, 4001),
            pcp.read_announce,
            nat_pmp.read_address,
            lambda data: nat_pmp.read_map(data, 4001),
        ):
            with contextlib.suppress(MappingError):
                read(bytes(data))


async def test_a_lost_question_is_asked_again(monkeypatch, impatient):
    async with router(monkeypatch) as one:
        asked = asyncio.create_task(NatPmp(HERE).probe())
        while len(one.heard) < 2:
            await asyncio.sleep(0)
        one.answers = [b"noise", PMP_ADDRESS]
        await asked
    assert len(one.heard) == 3


async def test_a_silent_router_costs_the_patience_and_no_more(monkeypatch, impatient):
    async with router(monkeypatch) as one:
        with pytest.raises(MappingError, match="no answer"):
            await NatPmp(HERE).probe()
    assert 1 <= len(one.heard) <= 4  # each pause is twice the one before


async def test_a_router_without_the_protocol_says_so_at_once(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setattr(nat_pmp, "PORT", closed.getsockname()[1])
    with pytest.raises(MappingError, match="refused"):
        await NatPmp(HERE).probe()


async def test_an_address_that_is_not_ours_to_send_from_is_said(monkeypatch):
    with pytest.raises(MappingError, match="not sent"):
        await NatPmp(Gateway("127.0.0.1", "192.0.2.200")).probe()


@pytest.mark.attack
async def test_only_the_gateway_may_answer(monkeypatch, impatient):
    """Another computer answers sooner; the system drops it."""
    async with router(monkeypatch) as one:
        loop = asyncio.get_running_loop()
        liar, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.2", 0))

        def answer(data: bytes, addr) -> None:
            liar.sendto(PMP_ADDRESS.replace(bytes((5, 5, 5, 5)), bytes((6, 6, 6, 6))), addr)
            loop.call_later(0.02, one.transport.sendto, PMP_ADDRESS, addr)

        one.datagram_received = answer
        assert await NatPmp(HERE)._outside() == "5.5.5.5"
        one.datagram_received = lambda data, addr: liar.sendto(PMP_ADDRESS, addr)
        with pytest.raises(MappingError, match="no answer"):
            await NatPmp(HERE).probe()
        liar.close()
