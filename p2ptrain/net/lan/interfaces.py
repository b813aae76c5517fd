"""Which of this computer's network interfaces lead to other people's computers nearby."""

import ipaddress
import re
import socket

import psutil
from msgspec import Struct

INTERFACES_MAX = 16
"""A PC has two or three; who has more runs virtual ones (guess)."""

_VIRTUAL = re.compile(r"(docker|podman|virbr|lxcbr|lxdbr|cni|vmnet|vboxnet|flannel|veth)|br-[0-9a-f]{12}$")
"""Bridges to containers and virtual machines: every computer has the same addresses there."""

_AWAY = ("loopback", "pointopoint")
"""Flags of what has no neighbours: this computer itself, and VPNs and modems."""


class Interface(Struct, frozen=True, order=True):
    """An interface that is up.

    addresses: its IP addresses without scope, IPv4 first.
    networks: what can be reached there without a router, as `192.168.1.0/24`.
    """

    name: str
    addresses: tuple[str, ...]
    networks: tuple[str, ...]

    def reaches(self, host: str) -> bool:
        """Say whether an IP address is in one of its networks."""
        ip = ipaddress.ip_address(host)
        return any(ip in ipaddress.ip_network(network) for network in self.networks)


def usable_interfaces(only: str = "") -> tuple[Interface, ...]:
    """Return the interfaces on which neighbours may be, by name; at most `INTERFACES_MAX`.

    Args:
        only: an IP address; the interface that has it, with that address alone. Empty: all.
    """
    stats = psutil.net_if_stats()
    found = []
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        status = stats.get(name)
        if status is None or not status.isup or not _has_neighbours(name, status.flags):
            continue
        homes = [_home(one.address, one.netmask) for one in addresses if one.netmask and _is_ip(one.family)]
        good = sorted({home for home in homes if _is_usable(home) and only in ("", str(home.ip))}, key=_order)
        if good:
            hosts = tuple(str(home.ip) for home in good)
            networks = tuple(str(home.network) for home in good)
            found.append(Interface(name, hosts, networks))
    return tuple(found[:INTERFACES_MAX])


def _has_neighbours(name: str, flags: str) -> bool:
    """Go by the name where the system gives no flags, as Windows does not."""
    words = flags.split(",") if flags else ["multicast"]
    return "multicast" in words and not any(flag in words for flag in _AWAY) and not is_virtual(name)


def is_virtual(name: str) -> bool:
    """Say whether an interface leads only to containers and virtual machines of this computer."""
    return _VIRTUAL.match(name) is not None


_Home = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _home(address: str, netmask: str) -> _Home:
    """Join an address and its mask; IPv6 masks are written as addresses."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6 and ":" in netmask:
        prefix = int(ipaddress.IPv6Address(netmask)).bit_count()
        return ipaddress.IPv6Interface((ip, prefix))
    return ipaddress.ip_interface(f"{ip}/{netmask}")


def _is_ip(family: int) -> bool:
    return family in (socket.AF_INET, socket.AF_INET6)


def _is_usable(home: _Home) -> bool:
    ip = home.ip
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)


def _order(home: _Home) -> tuple[int, int]:
    return home.version, int(home.ip)
