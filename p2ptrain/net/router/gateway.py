"""The router that leads from this computer to the internet."""

import ipaddress
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

from msgspec import Struct

from p2ptrain.core import limits

ROUTE_BYTES_MAX = 256 * limits.KIB
"""A routing table of a PC has ten lines of 100 bytes; container hosts have hundreds (guess)."""

COMMAND_S = 5.0
"""`route` prints a table; without `-n` it would ask name servers."""

_RTF_GATEWAY = 0x2

_SOMEWHERE = "2001:db8::1"
"""Kept for documentation. Nothing is sent there: the system is asked which of its addresses it would use."""


class Gateway(Struct, frozen=True):
    """The default gateway.

    host: its IP address; with `%interface` where it is link-local.
    own: this computer's address that the gateway, and with IPv6 the internet, sees.
    """

    @property
    def version(self) -> int:
        """4 or 6, of IP."""
        return 6 if ":" in self.host else 4

    host: str
    own: str


def find_gateway(version: int = 4) -> Gateway | None:
    """Look up the gateway for IPv4 or IPv6; None: there is none, or the system does not say. May take 5 s."""
    try:
        host = _ask_system(version)
        return Gateway(host, _own_address(host if version == 4 else _SOMEWHERE)) if host else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _own_address(host: str) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((host, 9))  # sends nothing
        return str(one.getsockname()[0])


def _ask_system(version: int) -> str:
    if sys.platform == "linux":
        # Of the thread: in tests, threads live in networks of their own.
        name = "route" if version == 4 else "ipv6_route"
        with Path(f"/proc/thread-self/net/{name}").open() as table:
            text = table.read(ROUTE_BYTES_MAX)
        return read_linux(text) if version == 4 else read_linux6(text)
    if sys.platform == "darwin":
        return read_macos(
            _print("route", "-n", "get", "-inet" if version == 4 else "-inet6", "default"), version
        )
    if sys.platform == "win32":
        return read_windows(_print("route", "print", f"-{version}"), version)
    return ""


def _print(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, timeout=COMMAND_S, check=False, stdin=subprocess.DEVNULL
    )
    return done.stdout[:ROUTE_BYTES_MAX].decode(errors="replace")


def read_linux(table: str) -> str:
    """Read `/proc/net/route`: the default route of the lowest metric; empty: none.

    Raises:
        ValueError: it is no such table.
    """
    found = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            raise ValueError("not a routing table")
        destination, gateway, flags, metric, mask = words[1], words[2], words[3], words[6], words[7]
        if int(destination, 16) == int(mask, 16) == 0 and int(flags, 16) & _RTF_GATEWAY:
            found.append((int(metric), socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))))
    return min(found, default=(0, ""))[1]


def read_linux6(table: str) -> str:
    """Read `/proc/net/ipv6_route` in the same way.

    Raises:
        ValueError: it is no such table.
    """
    found = []
    for line in table.splitlines():
        words = line.split()
        if len(words) != 10:
            raise ValueError("not a routing table")
        destination, prefix, gateway, metric, flags, interface = (
            *words[:2],
            words[4],
            words[5],
            words[8],
            words[9],
        )
        if int(destination, 16) == int(prefix, 16) == 0 and int(flags, 16) & _RTF_GATEWAY:
            host = ipaddress.IPv6Address(bytes.fromhex(gateway))
            scope = f"%{interface}" if host.is_link_local else ""
            found.append((int(metric, 16), f"{host}{scope}"))
    return min(found, default=(0, ""))[1]


def read_macos(text: str, version: int = 4) -> str:
    """Read what `route -n get default` prints; empty: no gateway, or a tunnel."""
    match = re.search(r"^\s*gateway: (\S+)$", text, re.MULTILINE)
    return match[1] if match and _is_ip(match[1], version) else ""


def read_windows(text: str, version: int = 4) -> str:
    """Read what `route print` prints, in any language; the lowest metric; empty: none.

    Columns: destination, mask, gateway, interface, metric; IPv6: interface, metric, destination, gateway,
    the last one on a line of its own where it is long.
    """
    number = r"([0-9]+)"
    if version == 4:
        line = re.compile(rf"^\s*0\.0\.0\.0\s+0\.0\.0\.0\s+([0-9.]+)\s+[0-9.]+\s+{number}\s*$", re.MULTILINE)
        found = [(int(metric), host) for host, metric in line.findall(text)]
    else:
        line = re.compile(rf"^\s*{number}\s+{number}\s+::/0\s+([0-9a-fA-F:]+)\s*$", re.MULTILINE)
        found = [
            (int(metric), f"{host}%{interface}" if host.lower().startswith("fe80:") else host)
            for interface, metric, host in line.findall(text)
        ]
    return min((one for one in found if _is_ip(one[1], version)), default=(0, ""))[1]


def _is_ip(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version
    except ValueError:
        return False
