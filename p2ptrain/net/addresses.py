"""Where peers are: addresses as text, which may be dialled, and the book that dialling looks them up in."""

import ipaddress
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from aiohttp.abc import AbstractResolver, ResolveResult

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId
from p2ptrain.net.certificates import host_name

PORT_MIN = 1024
"""Below live mail, web and printers of others: no peer may send us there."""


class Address(NamedTuple):
    """An IP address, normalised, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


NEAR_MAX = 64
"""Members on the same local network that are remembered: two class rooms (guess)."""

AddressFilter = Callable[[Address], bool]
"""Says whether an address may be dialled."""


def parse_address(text: str) -> Address:
    """Read `1.2.3.4:5678` or `[2001:db8::1]:5678`; names are not addresses.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("not an address with a port")
    if host.startswith("[") and host.endswith("]"):
        return Address(plain_host(str(ipaddress.IPv6Address(host[1:-1]))), int(port))
    return Address(str(ipaddress.IPv4Address(host)), int(port))


def plain_host(host: str) -> str:
    """Write an IP address in one way: without scope, and IPv4 also where a socket says `::ffff:1.2.3.4`."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def is_dialable(address: Address, *, loopback: bool = False) -> bool:
    """Say whether an address can be a peer's: no group, no system port, and this computer only if allowed.

    Addresses of private networks are: homes are full of them.
    """
    ip = ipaddress.ip_address(address.host)
    if address.port < PORT_MIN or ip.is_multicast or ip.is_unspecified or ip.is_link_local:
        return False
    return loopback if ip.is_loopback else not ip.is_reserved


class AddressBook(AbstractResolver):
    """Knows peers' addresses by their TLS host names, so that every dialled address passed one filter."""

    def __init__(self, allow: AddressFilter) -> None:
        self._allow = allow
        self._known: OrderedDict[str, tuple[Address, ...]] = OrderedDict()
        self._near: OrderedDict[str, tuple[Address, ...]] = OrderedDict()

    def learn(self, peer: PeerId, addresses: Iterable[str]) -> tuple[Address, ...]:
        """Replace a peer's addresses by those given that may be dialled; none of those: keep the old."""
        good: dict[Address, None] = {}
        for text in addresses:
            try:
                address = parse_address(text)
            except ValueError:
                continue
            if self._allow(address):
                good[address] = None
        host = host_name(peer)
        known = tuple(good)[: limits.ADDRESSES_MAX] or self._known.get(host, ())
        self._known[host] = known
        self._known.move_to_end(host)
        if len(self._known) > limits.PEERS_MAX:
            self._known.popitem(last=False)
        return known

    def hint(self, peer: PeerId, addresses: Iterable[Address]) -> None:
        """Replace where a peer is said to be nearby, to be tried before what it says itself; none: forget."""
        host = host_name(peer)
        self._near.pop(host, None)
        if good := tuple(address for address in addresses if self._allow(address))[: limits.ADDRESSES_MAX]:
            self._near[host] = good
        if len(self._near) > NEAR_MAX:
            self._near.popitem(last=False)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Answer aiohttp, each address with a port of its own; no name server is asked."""
        known = dict.fromkeys((*self._near.get(host, ()), *self._known.get(host, ())))
        if not known:
            raise OSError("no address is known")
        return [
            ResolveResult(
                hostname=host,
                host=address.host,
                port=address.port,
                family=socket.AF_INET6 if ":" in address.host else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in known
        ]

    async def close(self) -> None:
        """Nothing is open."""
