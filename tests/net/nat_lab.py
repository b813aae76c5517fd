"""A laboratory of home networks: namespaces behind routers of all kinds, on an internet of their own.

`async with Lab() as lab: home = lab.home("a", "symmetric")`. All homes use the same private addresses, as in
the world outside. Labs do not see each other, nor this computer's network; nothing of them is left behind.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pytest

from tests.net.namespaces import PATIENCE_S, Computer, remove_left_behind

KINDS = ("open", "port-preserving", "symmetric", "resets", "mapper")
"""open: no router. port-preserving: keeps the port where it can, drops what comes from outside unasked.
symmetric: a random port for each destination. resets: port-preserving, but answers strangers with RST.
mapper: port-preserving, and opens ports for who asks by one of `PROTOCOLS`."""

PROTOCOLS = ("pcp", "nat-pmp", "upnp")

TOOLS = ("ip", "nft", "miniupnpd")

PREFIX = "p2pt-lab"
_NUMBERS = itertools.count()


def missing() -> str:
    """Say why there can be no lab here; empty: nothing is missing."""
    if sys.platform != "linux":
        return "Linux"
    if os.geteuid() != 0:
        return "root"
    return ", ".join(f"the command `{tool}`" for tool in TOOLS if shutil.which(tool) is None)


needs_lab = pytest.mark.skipif(
    bool(missing()), reason=f"makes homes behind routers of network namespaces: needs {missing()}"
)


class Home(Computer):
    """A computer at home, and its router.

    Attributes:
        kind: one of `KINDS`.
        address: its own IP address; private behind a router.
        address6: its IPv6 address, known to the whole internet; empty: it has none.
        outside: the IP address that others see.
        router: None: there is no router.
    """

    def __init__(self, name: str, kind: str, address: str, outside: str, router: "Router | None") -> None:
        super().__init__(name)
        self.now("sysctl", "-qw", "net.ipv6.conf.all.keep_addr_on_down=1")
        self.kind, self.address, self.outside, self.router = kind, address, outside, router
        self.address6 = ""

    def cut(self) -> None:
        """Pull the cable."""
        self.ip("link set eth0 down")

    def mend(self) -> None:
        """Plug the cable in again."""
        self.ip("link set eth0 up")
        where = self.router or Internet
        self.ip(f"route replace default via {where.GATEWAY}")
        if self.address6:
            self.ip(f"route replace default via {where.GATEWAY6} dev eth0")


class Router(Computer):
    """A home's router: `wan` is outside, `lan` inside."""

    GATEWAY, GATEWAY6 = "192.168.1.1", "fe80::1"

    def __init__(self, name: str, kind: str, protocols: tuple[str, ...]) -> None:
        super().__init__(name)
        self._folder = tempfile.TemporaryDirectory(prefix=PREFIX)
        self.kind, self._protocols = kind, protocols
        self._count, self.prefix6 = 1, ""
        self._mapper: subprocess.Popen[bytes] | None = None

    def work(self) -> None:
        """Begin to route; `wan` is there. What comes from outside by IPv6 unasked is dropped."""
        self.ip(
            "link add lan type bridge",
            f"address add {self.GATEWAY}/24 dev lan",
            f"address add {self.GATEWAY6}/64 dev lan",
            "link set lan up",
        )
        if self.prefix6:
            self.ip(f"address add {self.prefix6}::1/64 dev lan")
        self.forward()
        self.nft(self._rules())
        if self.kind == "mapper":
            self._start_mapper()

    def connect(self, home: Home) -> None:
        """Give a computer its cable and its addresses."""
        self._count += 1
        port, home.address = f"port{self._count}", f"192.168.1.{self._count}"
        self.ip(
            f"link add {port} type veth peer name eth0 netns {home.name}", f"link set {port} up master lan"
        )
        home.ip(f"address add {home.address}/24 dev eth0")
        if self.prefix6:
            home.address6 = f"{self.prefix6}::{self._count}"
            home.ip(f"address add {home.address6}/64 dev eth0")
        home.mend()

    def _rules(self) -> str:
        stranger = "tcp flags syn reject with tcp reset" if self.kind == "resets" else "drop"
        how = "random,fully-random" if self.kind == "symmetric" else ""
        unheard = [f"udp dport 5351 @th,64,8 {version} drop" for version in self._unheard_versions()]
        return f"""
            table inet filter {{
                chain miniupnpd {{ }}
                chain forward {{
                    type filter hook forward priority 0; policy drop;
                    ct state established,related accept
                    iifname "lan" oifname "wan" accept
                    jump miniupnpd
                }}
                chain input {{
                    type filter hook input priority 0; policy accept;
                    {chr(10).join(unheard)}
                    iifname "wan" ct state new {stranger}
                }}
                chain prerouting_miniupnpd {{ }}
                chain postrouting_miniupnpd {{ }}
                chain prerouting {{
                    type nat hook prerouting priority -100;
                    iifname "wan" jump prerouting_miniupnpd
                }}
                chain postrouting {{
                    type nat hook postrouting priority 100;
                    oifname "wan" jump postrouting_miniupnpd
                    oifname "wan" meta nfproto ipv4 masquerade {how}
                }}
            }}"""

    def _unheard_versions(self) -> list[int]:
        """PCP and NAT-PMP share a port and a program; the first byte tells them apart."""
        if self.kind != "mapper":
            return []
        return [version for name, version in (("nat-pmp", 0), ("pcp", 2)) if name not in self._protocols]

    def _start_mapper(self) -> None:
        folder = Path(self._folder.name)
        config, log = folder / "config", folder / "log"
        has_port_5351 = not {"pcp", "nat-pmp"}.isdisjoint(self._protocols)
        config.write_text(
            "ext_ifname=wan\nlistening_ip=lan\nsecure_mode=yes\nsystem_uptime=yes\n"
            "uuid=00000000-0000-0000-0000-000000000001\nmin_lifetime=1\n"
            "upnp_table_name=filter\nupnp_nat_table_name=filter\nupnp_forward_chain=miniupnpd\n"
            "upnp_nat_chain=prerouting_miniupnpd\nupnp_nat_postrouting_chain=postrouting_miniupnpd\n"
            f"ipv6_disable={'no' if self.prefix6 else 'yes'}\n"
            f"enable_natpmp={'yes' if has_port_5351 else 'no'}\n"
            f"enable_upnp={'yes' if 'upnp' in self._protocols else 'no'}\n"
        )
        command = ["miniupnpd", "-d", "-f", str(config), "-P", str(folder / "pid")]
        with log.open("w") as output:
            self._mapper = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command], stdout=output, stderr=output
            )
        waited = time.monotonic() + PATIENCE_S
        wanted = ["PCP" if has_port_5351 else "", "HTTP listening" if "upnp" in self._protocols else ""]
        while not all(word in log.read_text() for word in wanted):
            assert self._mapper.poll() is None, log.read_text()
            assert time.monotonic() < waited, log.read_text()
            time.sleep(0.01)

    def mappings(self) -> str:
        """Show the ports that are open, as nftables rules."""
        return self.now("nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd")

    async def end(self) -> None:
        """End the mapper too."""
        await super().end()
        if self._mapper is not None:
            self._mapper.wait(PATIENCE_S)
        self._folder.cleanup()


class Internet(Computer):
    """What lies between the homes: one Ethernet with public addresses."""

    GATEWAY, GATEWAY6 = "5.5.5.1", "2a00:5::1"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ip(
            "link add br0 type bridge",
            f"address add {self.GATEWAY}/24 dev br0",
            f"address add {self.GATEWAY6}/64 dev br0",
            "link set br0 up",
        )
        self.forward()
        self._count = 1

    def connect(self, other: Computer, interface: str, *, ipv6: bool) -> tuple[str, str]:
        """Give a computer an interface here, and return its public addresses, the second of IPv6 or empty."""
        self._count += 1
        port, address, address6 = f"port{self._count}", f"5.5.5.{self._count}", ""
        self.ip(
            f"link add {port} type veth peer name {interface} netns {other.name}",
            f"link set {port} up master br0",
        )
        other.ip(
            f"address add {address}/24 dev {interface}",
            f"link set {interface} up",
            f"route add default via {self.GATEWAY}",
        )
        if ipv6:
            address6 = f"2a00:5::{self._count}"
            other.ip(
                f"address add {address6}/64 dev {interface}",
                f"route add default via {self.GATEWAY6} dev {interface}",
            )
        return address, address6

    def give_network6(self, router: Router, address6: str) -> None:
        """Give a router a public network of IPv6 for its home."""
        router.prefix6 = f"2a00:5:{address6.rpartition(':')[2]}"
        self.ip(f"route add {router.prefix6}::/64 via {address6}")


class Lab:
    """An internet and its homes, for as long as it is open."""

    def __init__(self) -> None:
        self._prefix = f"{PREFIX}-{os.getpid()}-{next(_NUMBERS)}"
        self._ends = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        remove_left_behind(PREFIX)
        self.internet = self._keep(Internet(f"{self._prefix}-net"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._ends.aclose()

    def home(
        self, name: str, kind: str = "open", protocols: tuple[str, ...] = PROTOCOLS, *, ipv6: bool = False
    ) -> Home:
        """Build a home.

        Args:
            name: unique in this lab.
            kind: one of `KINDS`.
            protocols: those of `PROTOCOLS` that a `mapper` speaks.
            ipv6: give it a public IPv6 address too; a router lets nothing in there that was not asked for.
        """
        assert kind in KINDS, kind
        assert set(protocols) <= set(PROTOCOLS), protocols
        if kind == "open":
            home = self._keep(Home(f"{self._prefix}-{name}", kind, "", "", None))
            home.address, home.address6 = self.internet.connect(home, "eth0", ipv6=ipv6)
            home.outside = home.address
            return home
        router = self._keep(Router(f"{self._prefix}-{name}-router", kind, protocols))
        outside, address6 = self.internet.connect(router, "wan", ipv6=ipv6)
        if address6:
            self.internet.give_network6(router, address6)
        router.work()
        return self._move_in(name, router, outside)

    def housemate(self, home: Home, name: str) -> Home:
        """Build one more computer behind a home's router."""
        assert home.router is not None
        return self._move_in(name, home.router, home.outside)

    def _move_in(self, name: str, router: Router, outside: str) -> Home:
        home = self._keep(Home(f"{self._prefix}-{name}", router.kind, "", outside, router))
        router.connect(home)
        return home

    C = TypeVar("C", bound=Computer)

    def _keep(self, computer: C) -> C:
        self._ends.push_async_callback(computer.end)
        return computer
