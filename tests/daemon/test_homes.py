"""Two homes that know of each other through a bootstrap only, behind all kinds of routers."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from p2ptrain.control.api import Status
from p2ptrain.daemon.contacts import SAVE_EVERY_S
from p2ptrain.net.members.invite import Invite, decode_invite
from tests.daemon.homes import Daemon
from tests.net.nat_lab import Lab, needs_lab

pytestmark = [pytest.mark.nat, needs_lab, pytest.mark.timeout(300)]

ACCEPTED = ("caught_up", "averaged", "adopted")
"""Notes that weights of somebody else were let in."""


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    async with Lab() as lab:
        yield lab


async def bootstrap_in(lab: Lab, folder: Path) -> tuple[Daemon, str]:
    """Found a swarm where everybody can reach it; return its bootstrap, and an invite."""
    daemon = Daemon(lab.home("bootstrap"), folder)
    await daemon.command("swarm", "create", "--task", "digits", "--name", "homes", "--seed", "1")
    await daemon.start("bootstrap")
    await daemon.until(lambda status: status.node.state == "serving", "it does not serve")
    made = msgspec.json.decode(await daemon.command("invite", "--json"))
    return daemon, str(made["invite"])


def vias(status: Status) -> list[str]:
    return [address for address in status.addresses if address.startswith("via:")]


def is_direct(path: str) -> bool:
    return path.split(" ")[0] in ("direct", "reverse")


def paths(status: Status, peer: str) -> str:
    return next((one.path for one in status.traffic if one.peer == peer), "")


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (("open", "open"), ("direct",)),
        (("port-preserving", "open"), ("direct", "reverse")),
        (("port-preserving", "port-preserving"), ("punched", "relay")),
        (("symmetric", "symmetric"), ("relay",)),
    ],
    ids=lambda value: "-".join(value),
)
async def test_from_an_invite_to_a_contribution(
    kinds: tuple[str, str], expected: tuple[str, ...], lab: Lab, tmp_path: Path
) -> None:
    """How long it takes is printed, and measured in docs/LOG.md; asserted is what happens."""
    bootstrap, invite = await bootstrap_in(lab, tmp_path)
    first, second = (Daemon(lab.home(name, kind), tmp_path) for name, kind in zip("ab", kinds, strict=True))
    await first.command("join", invite, "--yes")
    await first.start("start")
    there = await first.until(
        lambda s: s.node.best_loss is not None and any(p.connected for p in s.node.peers), "it does not train"
    )
    began = time.monotonic()
    await second.start("join", invite, "--yes", "--start")
    taken: list[str] = []

    def contributed(status: Status) -> bool:
        taken[:] = [name for name in ACCEPTED if status.notes.get(name)]
        return bool(taken)

    status = await second.until(contributed, "nothing of the other's weights was let in")
    seconds = time.monotonic() - began
    way = paths(status, there.peer)
    sys.stdout.write(f"\n{' and '.join(kinds)}: {seconds:.1f} s from `join` to `{taken[0]}`, {way}\n")
    assert way.split()[0] in expected
    served = await bootstrap.until(lambda s: len(s.node.peers) == 2, "it knows somebody else")
    assert served.trainer_pid is None
    assert [peer.trains for peer in status.node.peers].count(False) == 1


async def invite_of(daemon: Daemon, *words: str) -> Invite:
    made = msgspec.json.decode(await daemon.command("invite", "--json", *words))
    return decode_invite(made["invite"])


async def test_a_founder_at_home_appoints_a_bootstrap_and_others_come_through_it(
    lab: Lab, tmp_path: Path
) -> None:
    """The router of the founder opens a port; the guest's opens none, and gives each destination another."""
    founder, bootstrap, guest = (
        Daemon(lab.home(name, kind), tmp_path)
        for name, kind in (("founder", "mapper"), ("bootstrap", "open"), ("guest", "symmetric"))
    )
    await founder.command("swarm", "create", "--task", "digits", "--name", "homes", "--seed", "1")
    await founder.start("start")
    outside = founder.home.outside
    await founder.until(lambda s: s.addresses[0].startswith(f"{outside}:"), "its router opens no port")
    await bootstrap.start("bootstrap", (await invite_of(founder, "--role", "issuer")).encode())
    appointed = await bootstrap.until(lambda s: s.swarm.issuer, "the founder does not appoint it")
    await founder.until(lambda s: outside in s.outside, "the bootstrap does not say that it gets through")
    await asyncio.sleep(SAVE_EVERY_S + 1)  # then a command can read where the bootstrap is
    invite = await invite_of(founder)
    assert [door.host for door in invite.doors][:2] == [bootstrap.home.address, outside]
    await founder.stop()
    await guest.start("join", invite.encode(), "--yes", "--start")
    await guest.until(lambda s: paths(s, appointed.peer).startswith("direct"), "it does not join")
    await founder.start("start")
    founded = await founder.until(lambda s: len(s.node.peers) == 2, "it does not know both")
    status = await guest.until(lambda s: is_direct(paths(s, founded.peer)), "the relay is not left again")
    assert any(address.startswith("via:") for address in status.addresses)


async def test_a_relay_may_be_lost(lab: Lab, tmp_path: Path) -> None:
    """Two who cannot be dialled wait at two relays; one of these dies, and the exchange goes on."""
    one, invite = await bootstrap_in(lab, tmp_path)
    other, first, second = (
        Daemon(lab.home(name, kind), tmp_path)
        for name, kind in (("other", "open"), ("a", "symmetric"), ("b", "symmetric"))
    )
    await other.start("bootstrap", (await invite_of(one, "--role", "issuer")).encode())
    served = await other.until(lambda s: s.swarm.issuer, "it is not appointed")
    for daemon in (first, second):
        await daemon.start("join", invite, "--yes", "--start")
    peer = (await second.until(lambda s: len(vias(s)) == 2, "it waits at less than two relays")).peer
    before = await first.until(
        lambda s: len(vias(s)) == 2 and s.notes.get("averaged") and paths(s, peer).startswith("relay"),
        "they do not exchange anything through a relay",
    )
    lost = paths(before, peer).split()[-1]
    await (other if served.peer.startswith(lost) else one).kill()
    averaged = before.notes["averaged"]
    after = await first.until(
        lambda s: s.notes["averaged"] > averaged + 2 and lost not in paths(s, peer), "the exchange ended"
    )
    assert paths(after, peer).startswith("relay through")
