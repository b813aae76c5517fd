"""Where peers are: addresses as text, which may be dialled, and the book that dialling looks them up in."""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, peer_from_text

PORT_MIN = 1024
"""Below live mail, web and printers of others: no peer may send us there."""


class Address(NamedTuple):
    """An IP address, normalised, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


VIA = "via:"
"""Before the id of a relay, in the place of an address."""

RELAYS_MAX = 4
"""A peer keeps two; a contact that is just being renewed may name old and new."""

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


class Known(NamedTuple):
    """What one peer says of itself: its addresses, and the relays that pass calls on to it."""

    addresses: tuple[Address, ...] = ()
    relays: tuple[PeerId, ...] = ()


def is_public(host: str) -> bool:
    """Say whether the whole internet knows this IP address; not so for private ones and those of carriers."""
    ip = ipaddress.ip_address(host)
    return ip.is_global and not ip.is_multicast


class AddressBook:
    """Knows where peers are, so that every dialled address passed one filter.

    Args:
        allow: says which addresses may be dialled.
        may_add: says whether a peer may name an address that it did not name before; asked once for each.
    """

    def __init__(self, allow: AddressFilter, may_add: Callable[[PeerId], bool] = lambda _: True) -> None:
        self.allow = allow
        self._may_add = may_add
        self._known: OrderedDict[PeerId, Known] = OrderedDict()
        self._near: OrderedDict[PeerId, tuple[Address, ...]] = OrderedDict()

    def learn(self, peer: PeerId, texts: Iterable[str]) -> tuple[Address, ...]:
        """Replace what is known of a peer by what can be used of this; nothing of it: keep the old.

        Args:
            peer: whom it is about.
            texts: addresses, and relays as `via:<peer id>`.

        Returns:
            The addresses that are known now.
        """
        old = self._known.get(peer, Known()).addresses
        addresses: dict[Address, None] = {}
        relays: dict[PeerId, None] = {}
        for text in texts:
            try:
                if text.startswith(VIA):
                    relays[peer_from_text(text.removeprefix(VIA))] = None
                elif self.allow(address := parse_address(text)) and (address in old or self._may_add(peer)):
                    addresses[address] = None
            except ValueError:
                continue
        relays.pop(peer, None)
        if addresses or relays:
            ordered = sorted(addresses, key=_distance)[: limits.ADDRESSES_MAX]
            self._known[peer] = Known(tuple(ordered), tuple(relays)[:RELAYS_MAX])
        if peer in self._known:
            self._known.move_to_end(peer)
            if len(self._known) > limits.PEERS_MAX:
                self._known.popitem(last=False)
        return self._known.get(peer, Known()).addresses

    def hint(self, peer: PeerId, addresses: Iterable[Address]) -> None:
        """Replace where a peer is said to be nearby, to be tried before what it says itself; none: forget."""
        self._near.pop(peer, None)
        if good := tuple(address for address in addresses if self.allow(address))[: limits.ADDRESSES_MAX]:
            self._near[peer] = good
        if len(self._near) > NEAR_MAX:
            self._near.popitem(last=False)

    def addresses_of(self, peer: PeerId) -> tuple[Address, ...]:
        """Return where to dial a peer: nearby, then public IPv6, public IPv4 and private addresses."""
        known = self._known.get(peer, Known()).addresses
        return tuple(dict.fromkeys((*self._near.get(peer, ()), *known)))

    def relays_of(self, peer: PeerId) -> tuple[PeerId, ...]:
        """Return the relays at which a peer can be called."""
        return self._known.get(peer, Known()).relays

    def knows(self, peer: PeerId) -> bool:
        """Say whether there is any way to try."""
        return peer in self._near or peer in self._known


def _distance(address: Address) -> int:
    """Order addresses: IPv6 has no routers that hide it, and a private address is seldom of this network."""
    ip = ipaddress.ip_address(address.host)
    if not ip.is_global:
        return 2
    return 0 if ip.version == 6 else 1
