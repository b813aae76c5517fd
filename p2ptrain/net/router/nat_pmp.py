"""NAT-PMP, the NAT Port Mapping Protocol (RFC 6886): PCP's forerunner, of Apple's and many other routers."""

import ipaddress
import struct

from p2ptrain.net.addresses import Address
from p2ptrain.net.router.gateway import Gateway
from p2ptrain.net.router.mapping import LEASE_S, Grant, MappingError, ask

PORT = 5351
VERSION = 0
ANSWER = 0x80
ADDRESS, MAP_TCP = 0, 2

_QUESTION = struct.Struct("!BBHHHI")
_ADDRESS_ANSWER = struct.Struct("!BBHI4s")
_MAP_ANSWER = struct.Struct("!BBHIHHI")

_RESULTS = {
    1: "another version",
    2: "not allowed",
    3: "the router has no connection to the internet",
    4: "the router has no room",
    5: "it cannot open ports",
}


class NatPmp:
    """One computer's conversation with its router."""

    name = "NAT-PMP"

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def probe(self) -> None:
        """Ask for the router's own address."""
        await self._outside()

    async def open(self, port: int, wanted: int) -> Grant:
        """Open or renew."""
        host = await self._outside()
        outside, lease_s = await self._map(port, wanted, LEASE_S)
        return Grant(Address(host, outside), lease_s)

    async def close(self, port: int, outside: int) -> None:
        """Close."""
        await self._map(port, 0, 0)

    async def _outside(self) -> str:
        return await ask(self._gateway, PORT, bytes((VERSION, ADDRESS)), read_address)

    async def _map(self, port: int, wanted: int, lease_s: int) -> tuple[int, int]:
        question = _QUESTION.pack(VERSION, MAP_TCP, 0, port, wanted, lease_s)
        return await ask(self._gateway, PORT, question, lambda data: read_map(data, port))


def read_address(data: bytes) -> str | None:
    """Read the router's own IP address; None: it is no answer to that.

    Raises:
        MappingError: it has none, or speaks no NAT-PMP.
    """
    if not _is_answer(data, ADDRESS, _ADDRESS_ANSWER.size):
        return None
    return str(ipaddress.IPv4Address(_ADDRESS_ANSWER.unpack(data)[4]))


def read_map(data: bytes, port: int) -> tuple[int, int] | None:
    """Read the port outside and the lease in seconds; None: it is not the answer to ours.

    Raises:
        MappingError: the router says no.
    """
    if not _is_answer(data, MAP_TCP, _MAP_ANSWER.size):
        return None
    *_, its_port, outside, lease_s = _MAP_ANSWER.unpack(data)
    return (outside, lease_s) if its_port == port else None


def _is_answer(data: bytes, opcode: int, size: int) -> bool:
    """Tell the answer from noise; an error may be shorter than a good answer."""
    if len(data) < 4 or not data[1] & ANSWER:
        return False
    if data[0] != VERSION:  # PCP alone answers in its own form (RFC 6887 9)
        raise MappingError(_RESULTS[1])
    if data[1] != ANSWER | opcode:
        return False
    result = int.from_bytes(data[2:4], "big")
    if result:
        raise MappingError(_RESULTS.get(result, f"error {result}"))
    return len(data) == size
