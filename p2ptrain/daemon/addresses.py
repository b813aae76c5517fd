"""Where others can reach this computer, as far as it can see by itself."""

import ipaddress
import socket

import psutil

from p2ptrain.core import limits
from p2ptrain.daemon.config import Network, named_address
from p2ptrain.net.addresses import Address
from p2ptrain.net.lan.interfaces import is_virtual


def own_addresses(listen: str, port: int) -> tuple[str, ...]:
    """Return addresses to give to others, IPv4 first; this computer's own only if there is no other.

    Bridges to containers count only if there is nothing else: every computer has the same addresses there.

    Args:
        listen: the IP address that is listened on; empty, `0.0.0.0` or `::`: all.
        port: TCP.
    """
    if listen and not ipaddress.ip_address(listen).is_unspecified:
        return (str(Address(listen, port)),)
    names = [name for name, status in sorted(psutil.net_if_stats().items()) if status.isup]
    real = _hosts([name for name in names if not is_virtual(name)])
    hosts = real or _hosts(names) or ["127.0.0.1"]
    return tuple(str(Address(host, port)) for host in hosts[: limits.ADDRESSES_MAX])


def given_addresses(config: Network, port: int) -> tuple[str, ...]:
    """Return what to give to others: the address that the owner names, and those of this computer."""
    named = named_address(config.address, port) if config.address else None
    own = own_addresses(config.listen, port)
    return tuple(dict.fromkeys([*([str(named)] if named else []), *own]))[: limits.ADDRESSES_MAX]


def _hosts(names: list[str]) -> list[str]:
    """Return the usable addresses of some interfaces, IPv4 first."""
    known = psutil.net_if_addrs()
    found = [
        address.address
        for family in (socket.AF_INET, socket.AF_INET6)
        for name in names
        for address in known.get(name, ())
        if address.family == family and _is_usable(address.address)
    ]
    return list(dict.fromkeys(found))


def is_only_here(addresses: tuple[str, ...]) -> bool:
    """Say whether nobody but this computer can use them."""
    return all(address.startswith(("127.", "[::1]")) for address in addresses)


def _is_usable(text: str) -> bool:
    ip = ipaddress.ip_address(text.partition("%")[0])
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)
