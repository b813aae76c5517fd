"""What `p2ptrain doctor` finds out through other members: by hand, over real sockets, and in whole homes."""

import asyncio
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from p2ptrain.cli.fleet import CONFIG
from p2ptrain.control.api import Finding
from p2ptrain.control.client import Client
from p2ptrain.core.types import PeerId
from p2ptrain.daemon.doctor import verdicts
from p2ptrain.daemon.doctor.checkup import Surroundings, examine
from p2ptrain.daemon.doctor.findings import skipped
from p2ptrain.daemon.doctor.verdicts import REPLACED_OFTEN, Signs, near_by, sort_out
from p2ptrain.net.addresses import Address
from p2ptrain.net.reach.dial_back import Outcome, Seen
from p2ptrain.net.router.portmap import BEHIND_ANOTHER_HINT, PortState
from p2ptrain.net.speed import Speed
from p2ptrain.net.trust.certificates import wall_clock
from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import free_port, until
from tests.daemon.homes import PATIENCE_S, Daemon
from tests.daemon.test_doctor import is_bad, of
from tests.net.conftest import Node, Swarm
from tests.net.nat_lab import Lab, needs_lab

ANNA, BERT = PeerId(bytes(32)), PeerId(bytes([1]) * 32)
OURS, WRONG = Address("5.5.5.9", 4001), Address("6.6.6.6", 4001)
FAR, FARTHER = "7.7.7.7", "8.8.8.8"
HOME = "192.168.1.23"
CLOSED = PortState(None, "the router opens no port", "switch on UPnP")
OPENED = PortState(OURS, "the router opened 5.5.5.9:4001")
BEHIND = PortState(None, "the router opens ports, but has a private address", BEHIND_ANOTHER_HINT)


def tries(*seen: Seen, at: str = FAR) -> verdicts.Tries:
    return sort_out(seen, near_by(["192.168.1.0/24"]), lambda _: at)


def outside(*seen: Seen, at: str = FAR, router: PortState = CLOSED, relays: int = 0) -> Finding:
    return verdicts.outside(tries(*seen, at=at), 4001, HOME, router, relays)


REACHED = Seen(ANNA, Outcome.REACHED, OURS, FAR)
SILENT = Seen(BERT, Outcome.SILENT, OURS)
NEARBY = Seen(ANNA, Outcome.REACHED, Address(HOME, 4001), "192.168.1.7")

# -- what follows from what members say ------------------------------------------------------------


def test_who_is_reached_from_outside_needs_nothing() -> None:
    assert outside(REACHED).seen == "a member outside this network dialled 5.5.5.9:4001 and got through"
    assert outside(REACHED, SILENT).state == "ok"
    assert "port 4001" in outside(REACHED, Seen(BERT, Outcome.SILENT, WRONG)).seen


@pytest.mark.parametrize(
    ("outcome", "seen", "repair"),
    [
        (Outcome.SILENT, "nothing answers", f"forward TCP port 4001 to {HOME}"),
        (Outcome.REFUSED, "refused", f"forward TCP port 4001 to {HOME}"),
        (Outcome.NO_ROUTE, "no way", f"forward TCP port 4001 to {HOME}"),
        (Outcome.STRANGER, "another p2ptrain", "set another `port`"),
        (Outcome.NOT_TLS, "something else", "set another `port`"),
    ],
)
def test_who_is_not_reached_reads_what_to_do_in_the_router(outcome: Outcome, seen: str, repair: str) -> None:
    found = outside(Seen(ANNA, outcome, OURS), relays=2)
    is_bad(found, "warning", seen, repair)
    assert "works through 2 relays, slower" in found.seen


def test_the_repair_fits_to_what_the_router_says() -> None:
    is_bad(outside(SILENT, router=OPENED), "warning", "nothing answers", "something else stands before")
    is_bad(outside(SILENT, router=BEHIND), "warning", "nothing answers", "see router")
    public = verdicts.outside(tries(SILENT), 4001, "5.5.5.9", CLOSED, 0)
    is_bad(public, "warning", "nothing answers", "firewall")


def test_neighbours_say_something_of_the_firewall_and_nothing_of_the_outside() -> None:
    assert "only members on this network" in outside(NEARBY, at="192.168.1.7").seen
    behind_a_wall = Seen(ANNA, Outcome.SILENT, Address(HOME, 4001))
    is_bad(outside(behind_a_wall, at="192.168.1.7"), "warning", "a member on this network", "firewall")
    assert outside(NEARBY, SILENT, at=FARTHER).state == "warning"


@pytest.mark.parametrize("outcome", [Outcome.UNSEEN, Outcome.BUSY, Outcome.FORBIDDEN, Outcome.NO_ANSWER])
def test_who_could_not_try_says_nothing(outcome: Outcome) -> None:
    assert outside(Seen(ANNA, outcome)).state == "skipped"
    assert outside().state == "skipped"


def test_clocks_are_compared_and_one_liar_raises_no_alarm() -> None:
    def clock(*offsets: float | None) -> Finding:
        return verdicts.clock([Seen(ANNA, Outcome.SILENT, offset_s=offset) for offset in offsets])

    assert clock().state == clock(None).state == "skipped"
    assert clock(1.9).state == clock(-1.9).state == clock(3600.0, 0.1).state == "ok"
    is_bad(clock(3.0), "warning", "3 s behind a member's", "NTP")
    is_bad(clock(-400.0, -401.0), "failure", "400 s before 2 members'", "NTP")


def test_the_router_is_judged_by_what_it_does_and_by_whether_it_must() -> None:
    assert verdicts.mapping(OPENED, tries(SILENT)).state == "ok"
    is_bad(verdicts.mapping(CLOSED, tries(SILENT)), "warning", "opens no port", "UPnP")
    assert verdicts.mapping(CLOSED, tries(REACHED)).state == "ok"
    assert verdicts.mapping(PortState(None, "was not asked"), tries()).state == "skipped"


def test_shared_addresses_of_providers_are_recognised_in_three_ways() -> None:
    is_bad(
        verdicts.provider(CLOSED, "100.64.7.7", tries()), "warning", "100.64.7.7 (CGNAT)", "ask the provider"
    )
    is_bad(verdicts.provider(BEHIND, "", tries()), "warning", "second router", "ask the provider")
    seen = Seen(ANNA, Outcome.SILENT, WRONG)
    is_bad(verdicts.provider(OPENED, "", tries(seen)), "warning", "members see 6.6.6.6", "ask the provider")
    assert verdicts.provider(OPENED, "", tries(SILENT)).state == "ok"
    assert verdicts.provider(OPENED, "100.64.7.7", tries(REACHED)).state == "ok"
    assert verdicts.provider(CLOSED, "", tries(SILENT)).state == "skipped"


def test_relays_are_needed_where_nobody_gets_through() -> None:
    assert verdicts.relay(["anna"], tries(SILENT)).seen == "others can call this node at anna"
    assert verdicts.relay([], tries(REACHED)).seen == "none is needed"
    assert verdicts.relay([], tries()).state == "skipped"
    is_bad(verdicts.relay([], tries(SILENT)), "warning", "cannot reach this node", "bootstrap")


def test_peers_that_are_missing_or_silent_are_told() -> None:
    assert verdicts.peers([], 0, 0).state == "skipped"
    is_bad(verdicts.peers([], 0, 3), "warning", "none of 3", "p2ptrain peers")
    rows = [("anna", "direct 7.7.7.7 port 1", 0.0123), ("bert", "relay through x", None)]
    is_bad(verdicts.peers(rows, 2, 2), "warning", "bert relay through x, no answer", "overloaded")
    assert "anna direct 7.7.7.7 port 1, 12 ms" in verdicts.peers(rows[:1], 1, 2).seen


def test_a_copy_of_the_key_is_told_by_each_of_its_signs() -> None:
    assert verdicts.copies(Signs(replaced=REPLACED_OFTEN - 1)).state == "ok"
    is_bad(verdicts.copies(Signs(replaced=REPLACED_OFTEN)), "warning", "5 times", "identity.pem")
    is_bad(verdicts.copies(Signs(signed=1)), "failure", "signs with a copy", "two identities")
    is_bad(verdicts.copies(Signs(twin=OURS)), "failure", "5.5.5.9:4001", "two identities")


def test_the_local_network_and_the_speed() -> None:
    is_bad(verdicts.lan("UDP port 5353 is taken", False, 0), "warning", "5353", "invite")
    assert "guest network" in verdicts.lan("announced on eth0", True, 0).seen
    assert verdicts.lan("announced on eth0", True, 2).seen == "announced on eth0"
    assert verdicts.speed(None, "", "nobody").state == "skipped"
    words = verdicts.speed(Speed(125_000, 12_500_000, 2_000_000), "anna", "").seen
    assert words == "↑ 1.0 Mbit/s  ↓ 100 Mbit/s with anna, beside other traffic; 2.0 MB moved"


# -- over real sockets -----------------------------------------------------------------------------


@pytest.fixture
async def swarm() -> AsyncIterator[Swarm]:
    swarm = Swarm()
    yield swarm
    await swarm.close()


async def checkup(node: Node, router: PortState = CLOSED) -> tuple[Finding, ...]:
    lan = skipped("lan", "not searched")
    found = await examine(Surroundings(node.transport, 2, lambda _: "anna", router, lan, Signs()))
    return found.findings


async def test_alone_nothing_is_claimed(swarm: Swarm) -> None:
    found = await checkup(await swarm.node())
    assert {one.name for one in found if one.state == "ok"} == {"copies"}
    assert of(found, "outside").state == of(found, "clock").state == "skipped"


async def test_members_are_asked_and_measured(swarm: Swarm) -> None:
    one, other = await swarm.pair()
    assert await one.dial(other)
    found = await checkup(one)
    assert of(found, "clock").seen == "within 2 s of a member's"
    assert "anna direct 127.0.0.1" in of(found, "peers").seen
    assert "Mbit/s with anna" in of(found, "speed").seen
    assert "they got through" in of(found, "outside").seen


async def test_a_clock_that_is_wrong_is_seen_by_members(swarm: Swarm) -> None:
    one, other = await swarm.pair()
    assert await one.dial(other)
    one.transport.dial_back._clock = lambda: wall_clock() - timedelta(minutes=10)
    is_bad(of(await checkup(one), "clock"), "failure", "600 s behind", "NTP")


async def test_a_port_that_leads_elsewhere_is_seen(swarm: Swarm) -> None:
    """As where the router forwards the port to another computer, or a firewall closes it."""
    one, other = await swarm.pair()
    assert await one.dial(other)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    elsewhere = await checkup(one, PortState(Address("127.0.0.1", port), "the router opened it"))
    seen = f"a member on this network cannot dial 127.0.0.1:{port}: the connection is refused"
    is_bad(of(elsewhere, "outside"), "warning", seen, "firewall")
    third = await swarm.node()
    elsewhere = await checkup(one, PortState(Address("127.0.0.1", third.transport.port), "opened"))
    is_bad(of(elsewhere, "outside"), "warning", "another p2ptrain answers", "firewall")


async def test_members_that_hang_cost_seconds_and_no_more(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await swarm.pair()
    assert await one.dial(other)
    for name in ("TRIP_S", "ASKING_S", "SPEED_S"):
        monkeypatch.setattr(f"p2ptrain.daemon.doctor.checkup.{name}", 0.0)
    found = await checkup(one)
    is_bad(of(found, "peers"), "warning", "no answer", "overloaded")
    assert of(found, "speed").state == of(found, "outside").state == "skipped"


# -- whole daemons ---------------------------------------------------------------------------------


def test_two_computers_with_one_identity_find_out(homes: MakeHome) -> None:
    first, second, copy = homes("first"), homes("second"), homes("copy")
    first.found()
    first.trains()
    assert second.join(first.invite()).code == 0
    shutil.copytree(second.home, copy.home, dirs_exist_ok=True)
    (copy.home / "config.toml").write_text(CONFIG.replace("lan =", f"port = {free_port()}\nlan ="))
    second.trains()
    copy.trains()

    def told() -> bool:
        return any(
            of(Client(home.control).checkup().findings, "copies").state != "ok" for home in (second, copy)
        )

    until(told, "neither of the two noticed")
    assert of(Client(first.control).checkup().findings, "copies").state == "ok"


# -- homes behind routers --------------------------------------------------------------------------


WALL = """
table inet wall {
    chain input {
        type filter hook input priority 0;
        iifname "eth0" tcp flags & (syn | ack) == syn drop
    }
}"""


LOOK = """
import msgspec
from p2ptrain.daemon.config import Network
from p2ptrain.daemon.doctor.lines import internet, networks
print(msgspec.json.encode([internet(), networks(Network())]).decode())
"""


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab


async def doctor(daemon: Daemon, wanted: dict[str, str]) -> tuple[Finding, ...]:
    """Look until the findings of some names are in the states that are wanted: computers here are busy."""
    ends = time.monotonic() + PATIENCE_S
    while True:
        answer = msgspec.json.decode(await daemon.command("doctor", "--json"))
        found = tuple(msgspec.convert(one, Finding) for one in answer["findings"])
        states = {name: of(found, name).state for name in wanted}
        if states == wanted or time.monotonic() > ends:
            assert states == wanted, found
            return found
        await asyncio.sleep(1.0)


@pytest.mark.nat
@needs_lab
@pytest.mark.timeout(300)
async def test_the_doctor_at_home(lab: Lab, tmp_path: Path) -> None:
    """Behind a closed router, behind one that opens ports, and without any but with a firewall."""
    server = Daemon(lab.home("server"), tmp_path)
    await server.command("swarm", "create", "--task", "digits", "--name", "homes")
    await server.start("bootstrap")
    await server.until(lambda status: status.node.state == "serving", "it does not serve")
    invite = str(msgspec.json.decode(await server.command("invite", "--json"))["invite"])
    good = dict.fromkeys(("clock", "peers", "speed", "port"), "ok")
    found = []
    for name, kind, wanted in (
        ("a", "port-preserving", {"outside": "warning", "router": "warning", "relay": "ok"}),
        ("b", "mapper", {"outside": "ok", "router": "ok", "provider": "ok", "relay": "ok"}),
        ("c", "open", {"outside": "warning"}),
    ):
        daemon = Daemon(lab.home(name, kind), tmp_path)
        await daemon.command("join", invite, "--yes")
        if kind == "open":
            daemon.home.nft(WALL)
        await daemon.start("bootstrap")
        await daemon.until(lambda s: any(one.connected for one in s.node.peers), "it stays alone")
        found.append(await doctor(daemon, {**good, **wanted}))
        await daemon.stop()
    closed, mapper, walled = found
    is_bad(of(closed, "outside"), "warning", "nothing answers there", "to 192.168.1.")
    is_bad(of(closed, "router"), "warning", "opens no port", "UPnP")
    assert "got through" in of(mapper, "outside").seen
    is_bad(of(walled, "outside"), "warning", "nothing answers there", "firewall")


@pytest.mark.nat
@needs_lab
async def test_a_cut_cable_and_a_vpn_are_seen(lab: Lab) -> None:
    home = lab.home("a", "open")

    async def look() -> list[Finding]:
        return msgspec.json.decode(await home.run(sys.executable, "-c", LOOK), type=list[Finding])

    assert [one.state for one in await look()] == ["ok", "ok"]
    home.ip(
        "link add wg0 type veth peer name other",
        "link set other up",
        "address add 10.8.0.2/24 dev wg0",
        "link set wg0 up",
        "route replace default dev wg0",
    )
    is_bad((await look())[1], "warning", "everything leaves through the VPN wg0")
    home.ip("link del wg0")
    home.cut()
    internet, networks = await look()
    is_bad(internet, "warning", "no way out")
    assert networks.seen == "no local network"
