"""How this computer is connected, as far as it can see by itself: port, internet, local networks, VPN."""

import errno
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable

import psutil
from msgspec import Struct

from p2ptrain.control.api import Finding
from p2ptrain.core.types import Seconds
from p2ptrain.daemon.config import Network
from p2ptrain.daemon.doctor.findings import failure, ok, warning
from p2ptrain.net.addresses import Address
from p2ptrain.net.lan.interfaces import Interface, usable_interfaces

SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses that nobody has (RFC 5737, RFC 3849): only the way there is asked for, nothing is sent."""

CONNECT_S: Seconds = 1.0

_LOCAL_V6 = ipaddress.ip_network("fc00::/7")
_CARRIER = ipaddress.ip_network("100.64.0.0/10")
"""Of local networks (RFC 4193), and of providers that share addresses (RFC 6598)."""

_TUNNEL = re.compile(r"(tun|tap|utun|wg|ppp|ipsec|tailscale|zt|nordlynx|proton|mullvad|wireguard|vpn)", re.I)
"""How VPN programs call their interfaces."""

_CONTAINERS = re.compile(r"(docker|podman|virbr|lxcbr|lxdbr|cni|vmnet|vboxnet|br-[0-9a-f]{12}$)")


class Line(Struct, frozen=True):
    """An interface that is up, with its addresses."""

    name: str
    addresses: tuple[str, ...]


def all_lines() -> tuple[Line, ...]:
    """Return the interfaces that are up and have an IP address."""
    stats = psutil.net_if_stats()
    found = []
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        hosts = tuple(one.address.partition("%")[0] for one in addresses if one.family in SOMEWHERE)
        if name in stats and stats[name].isup and hosts:
            found.append(Line(name, hosts))
    return tuple(found)


def own_host(family: socket.AddressFamily) -> str:
    """Return the address that this computer uses towards the internet; empty: there is no way there."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((SOMEWHERE[family], 9))
            return str(asking.getsockname()[0])
    except OSError:
        return ""


def is_tunnel(name: str) -> bool:
    """Say whether that is the name of a VPN's interface."""
    return bool(_TUNNEL.match(name))


def port(network: Network, kept: int, listening: int | None) -> Finding:
    """Say whether the port is this node's.

    Args:
        network: the settings.
        kept: the port of the swarm, where the settings name none; 0: none was chosen yet.
        listening: the port that the running daemon says it listens on; None: no daemon runs.
    """
    host, number = network.listen, network.port or kept
    if listening is not None:
        return _answers(host, listening)
    try:
        _bind(host, number)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            repair = "end that program, or set another `port` under [network]"
            return failure("port", f"TCP port {number} is in use by another program", repair)
        seen = f"nothing can listen on {host or 'any address'} port {number}: {error.strerror}"
        return failure("port", seen, "correct `listen` and `port` under [network]")
    return ok("port", f"TCP port {number} is free" if number else "any free one, chosen when a swarm is made")


def internet(find: Callable[[socket.AddressFamily], str] = own_host) -> Finding:
    """Say how this computer gets out, by IPv4 and by IPv6."""
    v4, v6 = find(socket.AF_INET), find(socket.AF_INET6)
    if not v4 and not v6:
        return warning(
            "internet", "no way out of this computer", "connect it; on a local network alone, ignore this"
        )
    local = bool(v6) and ipaddress.ip_address(v6) in _LOCAL_V6
    kinds = [f"IPv4 as {v4}" if v4 else "no IPv4"]
    kinds += [f"IPv6 {'only in this network, ' if local else ''}as {v6}" if v6 else "no IPv6"]
    return ok("internet", ", ".join(kinds))


def networks(
    config: Network,
    usable: Iterable[Interface] | None = None,
    lines: Iterable[Line] | None = None,
    out: str | None = None,
) -> Finding:
    """Say on which interfaces others can be near, and what stands beside or before them."""
    here = usable_interfaces(config.listen) if usable is None else tuple(usable)
    lines = all_lines() if lines is None else tuple(lines)
    out = own_host(socket.AF_INET) if out is None else out
    tunnels = [one for one in lines if is_tunnel(one.name)]
    through = next((one.name for one in tunnels if out and out in one.addresses), "")
    containers = [one.name for one in lines if _CONTAINERS.match(one.name)]
    parts = [f"{one.name} {one.addresses[0]}" for one in here] or ["no local network"]
    if containers:
        parts.append(f"not searched, for containers: {', '.join(containers)}")
    if tunnels and not through:
        parts.append(f"VPN beside it: {', '.join(one.name for one in tunnels)}")
    seen = "; ".join(parts)
    if through:
        repair = "take p2ptrain out of the VPN (split tunnel), or accept that others reach it through members"
        return warning("networks", f"{seen}; everything leaves through the VPN {through}", repair)
    return ok("networks", seen)


def carrier(lines: Iterable[Line]) -> str:
    """Return the address that says that the provider shares one among customers; empty: none does."""
    for one in lines:
        for host in one.addresses:
            ip = ipaddress.ip_address(host)
            if ip.version == 4 and ip in _CARRIER and not is_tunnel(one.name):
                return host
    return ""


def _answers(host: str, number: int) -> Finding:
    """Connect to the own daemon as others do."""
    place = Address(host or "127.0.0.1", number)
    try:
        socket.create_connection(place, CONNECT_S).close()
    except OSError as error:
        seen = (
            f"the daemon listens on TCP port {number}, but does not answer there: {error.strerror or error}"
        )
        return failure(
            "port",
            seen,
            "let the firewall leave this computer's own connections alone; then restart p2ptrain",
        )
    return ok("port", f"TCP port {number}, the daemon answers")


def _bind(host: str, number: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, number), family=family).close()
