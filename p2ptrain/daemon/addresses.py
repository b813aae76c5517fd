"""Where others can reach this computer, as far as it can see by itself."""

import ipaddress
import socket

import psutil

from p2ptrain.core import limits
from p2ptrain.net.addresses import Address


def own_addresses(listen: str, port: int) -> tuple[str, ...]:
    """Return addresses to give to others, IPv4 first; this computer's own only if there is no other.

    Args:
        listen: the IP address that is listened on; empty: all.
        port: TCP.
    """
    if listen:
        return (str(Address(listen, port)),)
    found: dict[str, None] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for name, addresses in sorted(psutil.net_if_addrs().items()):
            if not _is_up(name):
                continue
            for address in addresses:
                if address.family == family and _is_usable(address.address):
                    found[address.address] = None
    hosts = list(found)[: limits.ADDRESSES_MAX] or ["127.0.0.1"]
    return tuple(str(Address(host, port)) for host in hosts)


def is_only_here(addresses: tuple[str, ...]) -> bool:
    """Say whether nobody but this computer can use them."""
    return all(address.startswith(("127.", "[::1]")) for address in addresses)


def _is_up(name: str) -> bool:
    status = psutil.net_if_stats().get(name)
    return status is not None and status.isup


def _is_usable(text: str) -> bool:
    ip = ipaddress.ip_address(text.partition("%")[0])
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)
