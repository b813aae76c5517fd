"""`bootstrap`: a node that admits, introduces and relays, and never trains."""

import sys
from pathlib import Path

import psutil
import pytest

from p2ptrain.core.codec import Codec
from p2ptrain.core.envelope import Sealer
from p2ptrain.core.messages import Contact
from p2ptrain.core.types import PeerId, peer_from_text
from p2ptrain.daemon.invites import doors
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.net.members.invite import Door, decode_invite
from p2ptrain.net.trust.certificates import Role, wall_clock
from p2ptrain.net.trust.identity import Identity
from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import Home, free_port, until

MEMORY_BYTES_MAX = 100e6
"""59 MB were measured (2026-11-20); torch alone takes more than 200."""


def peer_of(home: Home) -> PeerId:
    return Identity.load(home.home / "identity.pem").peer


def asked_first(invite: str) -> list[PeerId]:
    """Whom the holder of an invite asks, in that order."""
    return list(dict.fromkeys(door.peer for door in decode_invite(invite).doors))


def serve(founder: Home, bootstrap: Home, *words: str, role: str = "issuer") -> None:
    """Let it join and serve, until the founder knows where it is."""
    bootstrap.start("bootstrap", founder.invite("--role", role), *words)
    bootstrap.until(lambda status: status.swarm.issuer or role == "member", "it may not admit")
    peer = bootstrap.now().peer
    founder.until(lambda s: any(p.peer == peer and p.connected for p in s.node.peers), "not connected")
    until(lambda: any(peer_of(bootstrap) in raw for raw in founder.folder.contacts()), "not noted")


def meets(home: Home, other: Home) -> None:
    """Wait until it is connected with another."""
    peer = peer_from_text(other.now().peer)
    home.until(
        lambda status: any(peer_from_text(p.peer) == peer and p.connected for p in status.node.peers),
        f"it does not meet {other.name}",
    )


@pytest.fixture
def founder(homes: MakeHome) -> Home:
    home = homes("founder")
    home.found()
    home.start()
    return home


def test_it_admits_and_introduces_while_the_founder_is_off(founder: Home, homes: MakeHome) -> None:
    bootstrap, first, second = homes("bootstrap"), homes("first"), homes("second")
    serve(founder, bootstrap)
    invite = founder.invite()
    assert asked_first(invite) == [peer_of(bootstrap), peer_of(founder)]
    founder.kill()
    for guest in (first, second):
        assert guest.join(invite).code == 0
    first.trains()
    second.trains()
    meets(first, second)
    first.until(lambda s: s.node.reason == "with 1 other peer", "it does not tell a bootstrap from a peer")
    shown = bootstrap.call("status").out
    assert "serving" in shown
    assert "admits, introduces and relays for 2 peers" in shown
    assert bootstrap.terminate() == 0
    replayed = bootstrap.call("replay", bootstrap.folder.journal)
    assert "every effect the same" in replayed.out + replayed.err


def test_it_needs_no_task_and_little_memory(founder: Home, homes: MakeHome, tmp_path: Path) -> None:
    """The founder's task is a file of the tests: a bootstrap must not look for it."""
    bootstrap = homes("bootstrap")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONPATH")
        serve(founder, bootstrap)
    status = bootstrap.now()
    assert (status.node.state, status.trainer_pid) == ("serving", None)
    daemon = psutil.Process(status.pid)
    assert daemon.children() == []
    assert daemon.memory_info().rss < MEMORY_BYTES_MAX
    if sys.platform == "linux":
        assert not any("torch" in mapped.path for mapped in daemon.memory_maps())


def test_a_members_invite_makes_one_that_admits_nobody_and_says_so(founder: Home, homes: MakeHome) -> None:
    bootstrap = homes("bootstrap")
    serve(founder, bootstrap, role="member")
    assert not bootstrap.now().swarm.issuer
    assert "it admits nobody: `p2ptrain swarm delegate" in (bootstrap.home / "start.log").read_text()
    assert asked_first(founder.invite()) == [peer_of(founder)]
    shown = founder.call("peers").out
    assert "bootstrap" in shown.splitlines()[1]
    founder.until(lambda status: status.node.reason.startswith("alone: nobody else trains"), "a partner")


def test_of_several_each_may_be_lost(founder: Home, homes: MakeHome) -> None:
    one, other, guest = homes("one"), homes("other"), homes("guest")
    serve(founder, one)
    serve(founder, other)
    invite = founder.invite()
    first, second, last = asked_first(invite)
    assert {first, second} == {peer_of(one), peer_of(other)}
    assert last == peer_of(founder)
    founder.kill()
    (one if peer_of(one) == first else other).kill()
    said = guest.join(invite)
    assert said.code == 0, said.err


def test_whom_another_bootstrap_admitted_is_appointed_when_the_founder_is_back(
    founder: Home, homes: MakeHome
) -> None:
    one, other = homes("one"), homes("other")
    serve(founder, one)
    invite = founder.invite("--role", "issuer")
    founder.kill()
    other.start("bootstrap", invite)
    slot = other.now().swarm.slot
    assert not other.now().swarm.issuer
    assert (other.folder.path / "claim").exists()
    founder.start()
    other.until(lambda status: status.swarm.issuer, "the founder does not appoint it")
    until(lambda: not (other.folder.path / "claim").exists(), "a secret is kept for nothing")
    admission = founder.folder.admission()
    assert admission is not None
    assert admission.book.members[other.now().peer].slot == slot == 2


def test_who_comes_back_finds_those_it_knew_without_any_bootstrap(founder: Home, homes: MakeHome) -> None:
    bootstrap, guest = homes("bootstrap"), homes("guest")
    serve(founder, bootstrap)
    assert guest.join(founder.invite()).code == 0
    guest.start()
    meets(guest, founder)
    until(lambda: any(peer_of(founder) in raw for raw in guest.folder.contacts()), "it is not noted")
    assert guest.terminate() == 0
    bootstrap.kill()
    guest.start()
    meets(guest, founder)
    assert not any(p.connected and not p.trains for p in guest.now().node.peers)


def test_a_service_started_again_needs_nobody_and_keeps_its_port(founder: Home, homes: MakeHome) -> None:
    bootstrap = homes("bootstrap")
    invite = founder.invite("--role", "issuer")
    bootstrap.start("bootstrap", invite)
    addresses = bootstrap.now().addresses
    assert bootstrap.terminate() == 0
    founder.kill()
    bootstrap.start("bootstrap", invite)
    assert bootstrap.now().addresses == addresses
    again = bootstrap.call("bootstrap", invite)
    assert (again.code, "already running" in again.err) == (0, True)
    assert bootstrap.call("pause").err.strip() == "there is nothing to pause: serving"


def test_address_and_port_are_told_to_the_others(home: Home) -> None:
    home.found(task="digits")
    home.start("bootstrap", "--listen", "127.0.0.2")
    port = home.folder.record().port
    assert home.now().addresses == (f"127.0.0.2:{port}",)
    assert [door.host for door in decode_invite(home.invite()).doors] == ["127.0.0.2"]
    assert home.terminate() == 0
    other = free_port()
    home.start("bootstrap", "--port", str(other))
    assert home.now().addresses == (f"127.0.0.1:{other}",)


def test_an_address_that_the_computer_does_not_know_is_named_first(home: Home) -> None:
    home.found(task="digits")
    home.start("bootstrap", "--address", "203.0.114.7:7070")
    port = home.folder.record().port
    assert home.now().addresses == ("203.0.114.7:7070", f"127.0.0.1:{port}")
    assert decode_invite(home.invite()).doors[0].host == "203.0.114.7"


def test_it_goes_on_in_the_background(home: Home) -> None:
    home.found(task="digits")
    home.command("bootstrap", "-d")
    home.until(lambda status: status.node.state == "serving", "it does not serve")
    assert home.call("stop").code == 0


@pytest.mark.parametrize(
    ("words", "problem", "fix"),
    [
        ([], "this computer is in no swarm", "join by invite"),
        (["nonsense"], "this is not a p2ptrain invite", "an invite is a long word"),
        (["nonsense", "--swarm", "test"], "INVITE says which swarm", ""),
    ],
)
def test_what_does_not_work_is_explained(words: list[str], problem: str, fix: str, home: Home) -> None:
    said = home.call("bootstrap", *words)
    assert said.code in (2, 4)
    assert problem in said.err
    assert fix in said.err


@pytest.mark.parametrize("option", ["--listen", "--address"])
def test_a_wrong_address_is_explained(option: str, home: Home) -> None:
    home.found(task="digits")
    said = home.call("bootstrap", option, "example.org")
    assert (said.code, "`example.org` is no IP address" in said.err) == (2, True)


# -- the doors of an invite ------------------------------------------------------------------------


def deputy(folder: SwarmFolder, *addresses: str, trains: bool = False) -> PeerId:
    """A member that may admit others, as the founder's folder knows it."""
    root, admission = folder.root(), folder.admission()
    assert root is not None
    assert admission is not None
    identity = Identity.create()
    certificate = root.delegate(identity.peer, wall_clock())
    folder.decide(lambda state: state.delegate(certificate))
    chain = admission.enroll(identity.peer, Role.ISSUER).chain
    contact = Sealer(identity, folder.swarm, Codec(), 1).seal(Contact(chain, addresses, trains=trains))
    folder.save_contacts({PeerId(raw[:32]): raw for raw in folder.contacts()} | {identity.peer: contact.raw})
    return identity.peer


def test_every_issuer_has_a_door_before_any_has_two(home: Home) -> None:
    home.found(task="digits")
    folder, here = home.folder, PeerId(bytes(32))
    many = [f"192.168.1.{n}:7070" for n in range(1, 6)]
    one = deputy(folder, *many, "203.0.114.1:7070")
    other = deputy(folder, *many, trains=True)
    found = doors(folder, here, [*many, "203.0.114.2:7070"])
    assert len(found) == 8
    assert list(dict.fromkeys(door.peer for door in found)) == [one, here, other]
    assert found[0] == Door("203.0.114.1", 7070, one), "the whole internet can use it"
    assert [sum(door.peer == peer for door in found) for peer in (one, here, other)] == [3, 3, 2]


def test_nine_bootstraps_do_not_fit_and_eight_do(home: Home) -> None:
    home.found(task="digits")
    for number in range(1, 10):
        deputy(home.folder, f"203.0.114.{number}:7070")
    found = doors(home.folder, PeerId(bytes(32)), ["192.168.1.1:7070"])
    assert len({door.peer for door in found}) == len(found) == 8


def test_who_is_away_or_behind_a_relay_comes_last(home: Home) -> None:
    home.found(task="digits")
    folder, here = home.folder, PeerId(bytes(32))
    away = deputy(folder, "203.0.114.1:7070")
    called = deputy(folder, "192.168.1.1:7070", "via:" + "a" * 52)
    there = deputy(folder, "203.0.114.2:7070")
    found = doors(folder, here, ["192.168.1.1:7070"], absent=[away])
    assert [door.peer for door in found] == [there, here, called, away]
