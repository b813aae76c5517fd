"""A port is kept open as long as the node runs, whatever a made-up router does, in virtual time."""

import asyncio
from collections.abc import Callable

import pytest

from p2ptrain.net.addresses import Address
from p2ptrain.net.router.gateway import Gateway
from p2ptrain.net.router.mapping import Grant, MappingError
from p2ptrain.net.router.portmap import CLOSE_S, PAUSE_S, RENEW_MIN_S, RETRY_S, PortMapper
from tests.net.virtual import run

HOME = Gateway("192.168.1.1", "192.168.1.2")


class Asking:
    """One protocol of a made-up router.

    probes_s, opens_s: how long answers take; None: no answer. failure: said instead of an answer.
    """

    def __init__(
        self, name: str, host: str = "5.5.5.5", *, probes_s: float | None = 0.1, lease_s: int = 7200
    ) -> None:
        self.name, self.host, self.probes_s, self.lease_s = name, host, probes_s, lease_s
        self.opens_s = self.closes_s = 0.1
        self.outside = 0
        self.failure = ""
        self.did: list[tuple[float, str]] = []

    def _do(self, what: str) -> None:
        self.did.append((round(asyncio.get_running_loop().time(), 3), what))
        if self.failure:
            raise MappingError(self.failure)

    async def probe(self) -> None:
        if self.probes_s is None:
            await asyncio.sleep(3)
            raise MappingError("no answer")
        await asyncio.sleep(self.probes_s)
        self._do("probe")

    async def open(self, port: int, wanted: int) -> Grant:
        await asyncio.sleep(self.opens_s)
        self._do(f"open {port} {wanted}")
        return Grant(Address(self.host, self.outside or wanted), self.lease_s)

    async def close(self, port: int, outside: int) -> None:
        await asyncio.sleep(self.closes_s)
        self._do(f"close {port} {outside}")


class Scene:
    """A mapper, what it asks, and when it told of changes."""

    def __init__(self, *asking: Asking, listen: str = "", version: int = 4) -> None:
        self.gateway: Gateway | None = HOME
        self.asking = asking
        self.changes: list[tuple[float, str]] = []
        self.mapper = PortMapper(
            listen,
            b"secret",
            self._changed,
            version=version,
            find=lambda: self.gateway,
            protocols=lambda _: self.asking,
        )

    def _changed(self) -> None:
        now = round(asyncio.get_running_loop().time(), 3)
        self.changes.append((now, str(self.mapper.state.address)))

    def play(self, for_s: float, *events: tuple[float, Callable[[], object]]) -> None:
        """Run for some virtual time; events: (when, what)."""

        async def play() -> None:
            loop = asyncio.get_running_loop()
            self.mapper.start(4001)
            for when, what in events:
                loop.call_at(when, what)
            await asyncio.sleep(for_s - loop.time())
            await self.mapper.close()
            self.ended = loop.time()

        run(play())


def test_the_best_protocol_opens_and_closes_and_the_others_change_nothing():
    asking = Asking("PCP"), Asking("NAT-PMP"), Asking("UPnP")
    scene = Scene(*asking)
    scene.play(100)
    assert scene.changes == [(0.2, "5.5.5.5:4001")]
    assert scene.mapper.state.words == "the router 192.168.1.1 opened 5.5.5.5:4001 for this node (PCP)"
    assert asking[0].did == [(0.1, "probe"), (0.2, "open 4001 4001"), (100.1, "close 4001 4001")]
    assert {what for one in asking[1:] for _, what in one.did} == {"probe"}


@pytest.mark.parametrize(
    ("pcp", "nat_pmp", "upnp", "opened", "name"),
    [
        (0.4, 0.1, 0.1, 0.5, "PCP"),
        (0.6, 0.4, 0.1, 0.6, "NAT-PMP"),
        (None, None, 0.1, 0.6, "UPnP"),
        (None, 0.9, 0.8, 0.9, "UPnP"),
        (2.0, None, None, 2.1, "PCP"),
    ],
)
def test_a_better_protocol_has_a_head_start_and_no_more(pcp, nat_pmp, upnp, opened, name):
    asking = Asking("PCP", probes_s=pcp), Asking("NAT-PMP", probes_s=nat_pmp), Asking("UPnP", probes_s=upnp)
    scene = Scene(*asking)
    scene.play(10)
    assert scene.changes == [(opened, "5.5.5.5:4001")]
    assert scene.mapper.state.words.endswith(f"({name})")


def test_a_silent_router_costs_three_seconds():
    scene = Scene(*(Asking(name, probes_s=None) for name in ("PCP", "NAT-PMP", "UPnP")))
    scene.play(3.01)
    assert scene.mapper.state.words.endswith("(PCP: no answer; NAT-PMP: no answer; UPnP: no answer)")


def test_a_router_that_opens_nothing_is_named_with_its_reasons_and_the_repair():
    asking = Asking("PCP", probes_s=None), Asking("NAT-PMP"), Asking("UPnP")
    asking[1].failure, asking[2].failure = "not allowed", "error 606"
    scene = Scene(*asking)
    scene.play(10)
    assert scene.changes == []
    state = scene.mapper.state
    assert state.words == (
        "the router 192.168.1.1 opens no port (PCP: no answer; NAT-PMP: not allowed; UPnP: error 606)"
    )
    assert "forward TCP port 4001 to 192.168.1.2;" in state.hint


def test_a_failure_to_open_leads_to_the_next_protocol():
    first, second = Asking("PCP"), Asking("UPnP")
    first.lease_s = 0  # opened nothing
    scene = Scene(first, second)
    scene.play(10)
    assert scene.mapper.state.words.endswith("(UPnP)")


def test_a_lease_is_renewed_at_half_with_the_port_that_was_given():
    one = Asking("PCP")
    one.outside = 5001
    scene = Scene(one)
    scene.play(8000)
    assert one.did[:4] == [
        (0.1, "probe"),
        (0.2, "open 4001 4001"),
        (3600.3, "open 4001 5001"),
        (7200.4, "open 4001 5001"),
    ]
    assert scene.changes == [(0.2, "5.5.5.5:5001")]


@pytest.mark.parametrize(("lease_s", "pause_s"), [(1, RENEW_MIN_S), (300, 150.0), (2**32 - 1, 3600.0)])
def test_odd_leases_neither_flood_the_router_nor_are_believed_for_ever(lease_s, pause_s):
    one = Asking("PCP", lease_s=lease_s)
    Scene(one).play(4000)
    assert one.did[2] == (round(0.3 + pause_s, 3), "open 4001 4001")


def test_an_address_that_changes_is_told():
    one = Asking("PCP")
    scene = Scene(one)
    scene.play(4000, (1000, lambda: setattr(one, "host", "5.5.5.6")))
    assert scene.changes == [(0.2, "5.5.5.5:4001"), (3600.3, "5.5.5.6:4001")]


def test_a_router_that_takes_the_port_back_is_asked_again_in_all_ways():
    first, second = Asking("PCP"), Asking("UPnP")
    scene = Scene(first, second)
    scene.play(4000, (1000, lambda: setattr(first, "failure", "not allowed")))
    assert scene.changes == [(0.2, "5.5.5.5:4001")]
    assert scene.mapper.state.words.endswith("(UPnP)")
    assert second.did[-1][1] == "close 4001 4001"


def test_a_router_that_opens_nothing_is_asked_again_later():
    one = Asking("UPnP")
    one.failure = "error 606"
    scene = Scene(one)
    scene.play(2 * RETRY_S, (RETRY_S / 2, lambda: setattr(one, "failure", "")))
    assert scene.changes == [(RETRY_S + 0.3, "5.5.5.5:4001")]


def test_a_new_network_is_asked_at_once_but_no_router_is_flooded():
    one = Asking("PCP")
    scene = Scene(one)
    scene.gateway = None

    def move() -> None:
        scene.gateway = Gateway("192.168.7.1", "192.168.7.2")
        scene.mapper.look_again()

    scene.play(200, (100, move), *((100 + i / 100, scene.mapper.look_again) for i in range(300)))
    assert scene.changes == [(100.2, "5.5.5.5:4001")]
    assert [when for when, what in one.did if what.startswith("open")] == [
        100.2,
        round(100.2 + PAUSE_S + 0.1, 3),
    ]


def test_a_network_that_is_gone_is_told():
    scene = Scene(Asking("PCP"))

    def leave() -> None:
        scene.gateway = None
        scene.mapper.look_again()

    scene.play(100, (50, leave))
    assert scene.changes == [(0.2, "5.5.5.5:4001"), (50, "None")]
    assert "no router for IPv4 was found" in scene.mapper.state.words
    assert scene.ended == 100


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("192.168.0.7", "private address 192.168.0.7: another router is in front (double NAT)"),
        ("100.64.3.4", "carrier NAT"),
        ("127.0.0.1", "double NAT"),
    ],
)
def test_a_router_behind_another_is_said_and_its_port_given_back(host, said):
    first, second = Asking("PCP", host), Asking("UPnP", host)
    scene = Scene(first, second)
    scene.play(10)
    assert scene.changes == []
    assert said in scene.mapper.state.words
    assert "bridge" in scene.mapper.state.hint
    assert first.did[1:] == [(0.2, "open 4001 4001"), (0.3, "close 4001 4001")]
    assert [what for _, what in second.did] in ([], ["probe"])


def test_a_router_that_is_offline_is_no_double_nat():
    scene = Scene(Asking("PCP", "0.0.0.0"))
    scene.play(10)
    assert "no connection to the internet" in scene.mapper.state.words


@pytest.mark.parametrize(
    ("gateway", "listen", "said"),
    [
        (None, "", "no router for IPv4 was found"),
        (Gateway("5.5.5.1", "5.5.5.2"), "", "public address"),
        (HOME, "127.0.0.1", "`listen` is 127.0.0.1"),
    ],
)
def test_where_there_is_nothing_to_ask_nobody_is_asked(gateway, listen, said):
    one = Asking("PCP")
    scene = Scene(one, listen=listen)
    scene.gateway = gateway
    scene.play(10)
    assert said in scene.mapper.state.words
    assert one.did == []


def test_a_node_that_listens_on_the_address_towards_the_router_asks_it():
    scene = Scene(Asking("PCP"), listen=HOME.own)
    scene.play(10)
    assert scene.mapper.state.address == Address("5.5.5.5", 4001)


def test_ipv6_needs_a_public_address_and_a_hole_in_the_firewall():
    one = Asking("PCP", "2a00:1450::2")
    scene = Scene(one, version=6)
    for gateway, said in (
        (None, "no router for IPv6"),
        (Gateway("fe80::1%eth0", "fd00::2"), "no public IPv6 address"),
        (Gateway("fe80::1%eth0", "2a00:1450::2"), "opened [2a00:1450::2]:4001"),
    ):
        scene.gateway = gateway
        scene.play(5)
        assert said in scene.mapper.state.words
    one.failure = "refused"
    scene.play(5)
    assert "let TCP port 4001 to 2a00:1450::2 through" in scene.mapper.state.hint


def test_a_port_that_was_just_asked_for_is_given_back_too():
    one = Asking("PCP")
    one.opens_s = 3.0
    Scene(one).play(1)
    assert one.did == [(0.1, "probe"), (1.1, "close 4001 4001")]


def test_the_end_does_not_wait_for_a_silent_router():
    one = Asking("PCP")
    one.closes_s = 100.0
    scene = Scene(one)
    scene.play(10)
    assert scene.ended == 10 + CLOSE_S
