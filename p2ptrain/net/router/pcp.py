"""PCP, the Port Control Protocol (RFC 6887): the newest way to ask a router for an open port."""

import hashlib
import ipaddress
import struct

from p2ptrain.net.addresses import Address, plain_host
from p2ptrain.net.router.gateway import Gateway
from p2ptrain.net.router.mapping import LEASE_S, Grant, MappingError, ask

DOMAIN = b"p2ptrain-pcp-v1\0"
PORT = 5351
VERSION = 2
ANSWER = 0x80
ANNOUNCE, MAP = 0, 1
TCP = 6
NONCE_BYTES = 12
NOWHERE = {4: "::ffff:0:0", 6: "::"}
"""Suggests no address (RFC 6887 11.1)."""

ANSWER_BYTES_MAX = 1100
"""RFC 6887 7."""

_QUESTION = struct.Struct("!BBHI16s")
_ANSWER = struct.Struct("!BBBBII12x")
_MAP = struct.Struct("!12sB3xHH16s")

_UNSUPPORTED_VERSION, _UNSUPPORTED_OPCODE = 1, 4
_RESULTS = {
    1: "another version",
    2: "not allowed",
    3: "malformed request",
    4: "it cannot open ports",
    5: "unsupported option",
    6: "malformed option",
    7: "the router has no connection to the internet",
    8: "the router has no room",
    9: "unsupported protocol",
    10: "this computer has too many ports open",
    11: "the port is taken",
    12: "another router is between",
    13: "too many peers",
}


class Pcp:
    """One computer's conversation with its router.

    Args:
        secret: the same after a crash and a restart: only who shows the same nonce again gets its port back
            before the lease ends (RFC 6887 11.3).
    """

    name = "PCP"

    def __init__(self, gateway: Gateway, secret: bytes) -> None:
        self._gateway = gateway
        self._nonce = hashlib.sha256(DOMAIN + secret).digest()[:NONCE_BYTES]

    async def probe(self) -> None:
        """Ask whether it speaks PCP."""
        await ask(self._gateway, PORT, self._head(ANNOUNCE, 0), read_announce)

    async def open(self, port: int, wanted: int) -> Grant:
        """Open or renew."""
        return await self._map(port, wanted, LEASE_S)

    async def close(self, port: int, outside: int) -> None:
        """Close."""
        await self._map(port, 0, 0)

    async def _map(self, port: int, wanted: int, lease_s: int) -> Grant:
        body = _MAP.pack(self._nonce, TCP, port, wanted, _sixteen(NOWHERE[self._gateway.version]))
        question = self._head(MAP, lease_s) + body
        return await ask(self._gateway, PORT, question, lambda data: read_map(data, self._nonce, port))

    def _head(self, opcode: int, lease_s: int) -> bytes:
        return _QUESTION.pack(VERSION, opcode, 0, lease_s, _sixteen(self._gateway.own))


def _sixteen(host: str) -> bytes:
    """Write any IP address in 16 bytes (RFC 6887 5)."""
    return ipaddress.IPv6Address(host if ":" in host else f"::ffff:{host}").packed


def read_announce(data: bytes) -> bool | None:
    """Read the answer to a probe; None: it is none.

    Raises:
        MappingError: the router speaks no PCP, or not to us.
    """
    lease_s = _read_head(data, ANNOUNCE, (0, _UNSUPPORTED_OPCODE))
    return None if lease_s is None else True


def read_map(data: bytes, nonce: bytes, port: int) -> Grant | None:
    """Read the answer to a request for a TCP port; None: it is not the answer to ours.

    Raises:
        MappingError: the router says no.
    """
    if len(data) >= _ANSWER.size + _MAP.size:
        its_nonce, protocol, its_port, outside, host = _MAP.unpack_from(data, _ANSWER.size)
        if (its_nonce, protocol, its_port) != (nonce, TCP, port):
            return None
    elif len(data) >= 4 and data[3] == 0:
        return None  # says yes, and not to what
    lease_s = _read_head(data, MAP, (0,))
    if lease_s is None:
        return None
    return Grant(Address(plain_host(str(ipaddress.IPv6Address(host))), outside), lease_s)


def _read_head(data: bytes, opcode: int, good: tuple[int, ...]) -> int | None:
    """Return the lease; None: this is no answer to that."""
    if len(data) > ANSWER_BYTES_MAX or len(data) < 4 or not data[1] & ANSWER:
        return None
    if data[0] != VERSION:  # NAT-PMP alone answers in its own form (RFC 6887 9)
        raise MappingError(_RESULTS[_UNSUPPORTED_VERSION])
    if len(data) < _ANSWER.size:
        return None
    _, its_opcode, _, result, lease_s, _ = _ANSWER.unpack_from(data)
    if its_opcode != ANSWER | opcode:
        return None
    if result not in good:
        raise MappingError(_RESULTS.get(result, f"error {result}"))
    return int(lease_s)
