"""What a node says of its own addresses stays true, in virtual time, whatever changes around it."""

import asyncio
import socket
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, peer_text
from p2ptrain.daemon.addresses import own_addresses
from p2ptrain.daemon.reachability import ASK_AGAIN_S, DOUBT_S, LOOK_EVERY_S, SETTLE_S, TRUST_S, Reachability
from p2ptrain.net.addresses import Address
from p2ptrain.net.router.portmap import PortState
from tests.net.virtual import run

PORT = 4001
LAN = "192.168.1.2:4001"
PUBLIC = "[2a00:1450::2]:4001"
MAPPED = Address("5.5.5.5", 5001)
RELAYS = tuple(PeerId(bytes([number]) * 32) for number in range(3))
VIA = tuple(f"via:{peer_text(peer)}" for peer in RELAYS)


class Mapper:
    """A router's port, opened when the test says so."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.state = PortState(None, "asked")
        self.did: list[str] = []

    def start(self, port: int) -> None:
        self.did.append(f"start {port}")

    def look_again(self) -> None:
        self.did.append("again")

    async def close(self) -> None:
        self.did.append("close")

    def open(self, address: Address | None) -> None:
        self.state = PortState(address, "opened")
        self.changed()


class Scene:
    """A node, and a world around it that changes.

    own: its addresses. answers: what members say next who are asked to dial; the last one stays.
    """

    def __init__(self, *own: str, answers: tuple[tuple[str, ...] | None, ...] = (None,)) -> None:
        self.own, self.answers = own or (LAN,), list(answers)
        self.told: list[tuple[float, tuple[str, ...]]] = []
        self.asked: list[tuple[float, int]] = []
        self.moves: list[float] = []
        self.patience_s = 0.0
        self.mapper: Mapper
        self.reachability = Reachability(
            lambda: self.own, self._changed, self._prove, moved=self._moved, mappers=[self._build_mapper]
        )

    def _build_mapper(self, changed: Callable[[], None]) -> Mapper:
        self.mapper = Mapper(changed)
        return self.mapper

    def _now(self) -> float:
        return round(asyncio.get_running_loop().time(), 3)

    def _changed(self, addresses: tuple[str, ...]) -> None:
        self.told.append((self._now(), addresses))

    def _moved(self) -> None:
        self.moves.append(self._now())

    async def _prove(self, port: int) -> tuple[str, ...] | None:
        self.asked.append((self._now(), port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(self.patience_s)
        return answer

    def play(self, for_s: float, *events: tuple[float, Callable[[], object]]) -> None:
        async def play() -> None:
            loop = asyncio.get_running_loop()
            self.reachability.start(PORT)
            for when, what in events:
                loop.call_at(when, what)
            await asyncio.sleep(for_s)
            await self.reachability.close()

        run(play())

    def set(self, **values: object) -> Callable[[], object]:
        return lambda: self.__dict__.update(values)


def test_nothing_is_told_as_long_as_nothing_changes():
    scene = Scene(LAN, PUBLIC)
    scene.play(1000)
    assert scene.reachability.addresses == (PUBLIC, LAN)
    assert scene.told == []
    assert scene.moves == []
    assert scene.mapper.did == ["start 4001", "close"]


def test_public_comes_first_then_the_router_then_the_lan_then_relays():
    scene = Scene(LAN, PUBLIC)
    scene.play(
        30, (5, lambda: scene.mapper.open(MAPPED)), (5.5, lambda: scene.reachability.waits_at(RELAYS[:2]))
    )
    assert scene.told == [(5 + SETTLE_S, (PUBLIC, str(MAPPED), LAN, *VIA[:2]))]


def test_what_the_router_takes_back_is_told():
    scene = Scene()
    scene.play(30, (5, lambda: scene.mapper.open(MAPPED)), (15, lambda: scene.mapper.open(None)))
    assert [addresses for _, addresses in scene.told] == [(str(MAPPED), LAN), (LAN,)]


def test_ipv4_and_ipv6_are_opened_side_by_side():
    scene = Scene(LAN, PUBLIC)
    second: list[Mapper] = []

    def build(changed: Callable[[], None]) -> Mapper:
        second.append(Mapper(changed))
        return second[0]

    scene.reachability = Reachability(
        lambda: scene.own, scene._changed, scene._prove, mappers=[scene._build_mapper, build]
    )
    scene.mapper.state = PortState(None, "behind another router")
    assert scene.reachability.router.words == "behind another router"
    scene.play(10, (5, lambda: second[0].open(Address("2a00:1450::2", PORT))))
    assert scene.told == []  # it is the address that the computer has
    assert scene.asked == [(0, PORT), (5 + 2 * SETTLE_S, PORT)]
    assert scene.reachability.router.words == "opened"
    assert second[0].did == ["start 4001", "close"]


def test_however_many_addresses_there_are_each_kind_has_its_place():
    public = [f"[2a00:1450::{number}]:4001" for number in range(1, 8)]
    lan = [f"192.168.{number}.2:4001" for number in range(8)]
    scene = Scene(*lan, *public, answers=(("6.6.6.6:4001", "7.7.7.7:4001"),))
    scene.play(30, (5, lambda: scene.mapper.open(MAPPED)), (5, lambda: scene.reachability.waits_at(RELAYS)))
    expected = (*public[:3], "6.6.6.6:4001", str(MAPPED), lan[0], *VIA[:2])
    assert scene.reachability.addresses == expected
    assert len(expected) == limits.ADDRESSES_MAX
    assert all(len(address) <= limits.ADDRESS_CHARS_MAX for address in expected)


def test_another_network_is_seen_told_and_its_router_asked():
    scene = Scene(answers=(("6.6.6.6:4001",), None))
    moved = "192.168.7.9:4001"
    scene.play(100, (45, scene.set(own=(moved,))))
    assert scene.told == [(SETTLE_S, ("6.6.6.6:4001", LAN)), (2 * LOOK_EVERY_S + SETTLE_S, (moved,))]
    assert scene.moves == [2 * LOOK_EVERY_S + SETTLE_S]
    assert scene.mapper.did == ["start 4001", "again", "close"]


def test_members_are_asked_until_there_are_some_and_then_seldom():
    scene = Scene(answers=(None, None, ("6.6.6.6:4001",)))
    scene.play(TRUST_S + 100)
    assert scene.asked == [
        (0, PORT),
        (ASK_AGAIN_S, PORT),
        (2 * ASK_AGAIN_S, PORT),
        (2 * ASK_AGAIN_S + TRUST_S, PORT),
    ]
    assert scene.reachability.is_reachable
    assert scene.reachability.words == "members reach this node at 6.6.6.6:4001"
    assert [addresses for _, addresses in scene.told] == [("6.6.6.6:4001", LAN)]


def test_members_try_the_port_that_the_router_opened():
    scene = Scene(answers=((), (str(MAPPED),)))
    scene.play(30, (5, lambda: scene.mapper.open(MAPPED)))
    assert scene.asked == [(0, PORT), (5 + 2 * SETTLE_S, MAPPED.port)]
    assert scene.reachability.addresses == (str(MAPPED), LAN)
    assert scene.reachability.is_reachable


def test_one_member_that_does_not_get_through_is_doubted_two_are_believed():
    reached = ("6.6.6.6:4001",)
    scene = Scene(answers=(reached, (), reached, (), ()))
    seen = []
    times = (1, TRUST_S + 5, TRUST_S + DOUBT_S + 5, 2 * TRUST_S + DOUBT_S + 5, 2 * TRUST_S + 2 * DOUBT_S + 5)
    scene.play(3 * TRUST_S, *((when, lambda: seen.append(scene.reachability.is_reachable)) for when in times))
    assert seen == [True, True, True, True, False]
    assert scene.reachability.addresses == (LAN,)
    assert scene.reachability.words == (
        "members do not reach this node over the internet, only where this node dials them"
    )


def test_a_router_whose_port_leads_nowhere_is_asked_again():
    scene = Scene(answers=((),))
    scene.play(30, (5, lambda: scene.mapper.open(MAPPED)))
    assert scene.mapper.did == ["start 4001", "again", "close"]


def test_being_reached_on_the_lan_is_not_being_reached():
    scene = Scene(answers=((LAN,),))
    scene.play(30, (5, lambda: scene.reachability.waits_at(RELAYS[:1])))
    assert not scene.reachability.is_reachable
    assert scene.reachability.words.endswith("only through 1 relay")


def test_an_answer_about_the_network_before_is_worth_nothing():
    scene = Scene(answers=(("6.6.6.6:4001",), None))
    scene.patience_s = 40.0
    scene.play(60, (5, scene.set(own=("192.168.7.9:4001",))))
    assert not scene.reachability.is_reachable


def test_a_doubt_lets_members_try_again_soon():
    scene = Scene(answers=((),))
    scene.play(100, *((50 + i / 1000, scene.reachability.doubt) for i in range(100)))
    assert [when for when, _ in scene.asked] == [0, 50 + SETTLE_S]


def test_what_was_not_asked_is_not_claimed():
    scene = Scene()
    assert "not known yet" in scene.reachability.words
    off = Reachability(lambda: (LAN,), lambda _: None, scene._prove)
    assert "map_port = false" in off.router.words
    assert off.addresses == (LAN,)


def computer(monkeypatch, **interfaces: list[str] | None) -> None:
    """Make up interfaces; None: it is down."""
    addresses = {
        name: [
            SimpleNamespace(family=socket.AF_INET6 if ":" in host else socket.AF_INET, address=host)
            for host in hosts or ["10.9.9.9"]
        ]
        for name, hosts in interfaces.items()
    }
    stats = {name: SimpleNamespace(isup=hosts is not None) for name, hosts in interfaces.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)


def test_own_addresses_leave_out_what_leads_to_nobody(monkeypatch):
    computer(
        monkeypatch,
        lo=["127.0.0.1", "::1"],
        docker0=["172.17.0.1"],
        eth0=["2a00:1450::2", "192.168.1.2", "fe80::1%eth0"],
        wlan0=None,
        tun0=["10.8.0.2"],
        **{"br-0123456789ab": ["172.18.0.1"]},
    )
    expected = ("192.168.1.2:7", "10.8.0.2:7", "[2a00:1450::2]:7")
    assert own_addresses("", 7) == own_addresses("0.0.0.0", 7) == own_addresses("::", 7) == expected
    assert own_addresses("192.168.1.2", 7) == ("192.168.1.2:7",)


@pytest.mark.parametrize(
    ("interfaces", "expected"),
    [
        ({"lo": ["127.0.0.1"], "docker0": ["172.17.0.1"]}, ("172.17.0.1:7",)),
        ({"lo": ["127.0.0.1"], "eth0": None}, ("127.0.0.1:7",)),
        ({}, ("127.0.0.1:7",)),
    ],
)
def test_own_addresses_where_there_is_no_network(monkeypatch, interfaces, expected):
    computer(monkeypatch, **interfaces)
    assert own_addresses("", 7) == expected
