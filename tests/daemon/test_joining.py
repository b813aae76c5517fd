"""`p2ptrain join`: who gets in, and what is said to who does not. Nothing of a failed try is left behind."""

from collections.abc import Iterator
from datetime import UTC, datetime
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread

import pytest

from p2ptrain import strategies
from p2ptrain.core.types import peer_from_text
from p2ptrain.daemon.swarms import Swarms
from p2ptrain.net.members.invite import Door, create_invite
from tests.daemon.conftest import MakeHome, homes_in
from tests.daemon.helpers import Home, Outcome


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A daemon that admits members."""
    with homes_in(tmp_path_factory.mktemp("issuer")) as make:
        home = make("issuer")
        home.found()
        home.start()
        yield home


@pytest.fixture
def guest(homes: MakeHome) -> Home:
    """Somebody with an invite."""
    return homes("guest")


def is_refused(guest: Home, said: Outcome, code: int, problem: str, fix: str) -> None:
    assert said.code == code, said
    assert problem in said.err
    assert f"fix: {fix}" in said.err
    assert guest.call("swarm", "list", "--json").json == {"swarms": []}


# -- what is wrong with the invite itself ----------------------------------------------------------


def test_a_mistyped_letter_is_noticed(issuer: Home, guest: Home) -> None:
    invite = issuer.invite()
    for at in (5, 40, 100, len(invite) - 1):
        wrong = invite[:at] + ("a" if invite[at] != "a" else "b") + invite[at + 1 :]
        is_refused(guest, guest.join(wrong), 4, "damaged invite: part of it is missing or mistyped", "copy")


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_part_of_an_invite_is_noticed(left: float, issuer: Home, guest: Home) -> None:
    invite = issuer.invite()
    is_refused(guest, guest.join(invite[: int(left * len(invite))]), 4, "damaged invite", "copy the whole")


def test_a_chat_may_break_an_invite_into_lines_and_blanks(issuer: Home, guest: Home) -> None:
    invite = issuer.invite()
    pieces = [invite[at : at + 40] for at in range(0, len(invite), 40)]
    assert guest.call("join", *pieces, "--yes").code == 0


@pytest.mark.parametrize("text", ["hello", "https://example.org/invite", "p2pt2abc", "-", "p2pt1", "ä" * 50])
def test_something_else_is_no_invite(text: str, guest: Home) -> None:
    said = guest.call("join", "--yes", "--", text)
    assert said.code == 4
    assert "invite" in said.err
    assert "fix: " in said.err
    assert guest.call("swarm", "list", "--json").json == {"swarms": []}


def test_an_expired_invite_says_so_without_asking_anyone(issuer: Home, guest: Home) -> None:
    invite = issuer.call("invite", "--expires", "0s", "--json").json["invite"]
    is_refused(guest, guest.join(invite), 4, "this invite expired on ", "ask for a new one")


# -- what the issuer says --------------------------------------------------------------------------


def test_an_invite_admits_as_often_as_it_says_and_the_same_computer_again(
    issuer: Home, guest: Home, homes: MakeHome
) -> None:
    invite = issuer.call("invite", "--uses", "1", "--json").json["invite"]
    assert guest.join(invite).code == 0
    second = homes("second")
    is_refused(second, second.join(invite), 4, "used as often as it may be", "ask for a new invite")
    assert guest.join(invite).code == 0
    assert len(guest.call("swarm", "list", "--json").json["swarms"]) == 1


def test_an_invite_of_another_swarm_behind_the_same_door_is_refused(
    issuer: Home, guest: Home, homes: MakeHome
) -> None:
    other = homes("other")
    other.found(task="digits")
    root = Swarms(other.home / "swarms").find(None).root()
    assert root is not None
    here = issuer.now()
    port = int(here.addresses[0].rpartition(":")[2])
    door = Door("127.0.0.1", port, peer_from_text(here.peer))
    until = other.folder.membership().member.expires
    invite = create_invite(root, bytes(16), until, doors=(door,)).encode()
    is_refused(guest, guest.join(invite), 4, "does not recognise this invite", "ask for a new invite")


# -- nobody there ----------------------------------------------------------------------------------


def test_nobody_answers(homes: MakeHome, guest: Home) -> None:
    off = homes("off")
    off.found(task="digits")
    is_refused(guest, guest.join(off.invite()), 6, "nobody who could admit this computer", "check the")


def test_something_else_answers(homes: MakeHome, guest: Home) -> None:
    off = homes("off")
    off.found(task="digits")
    port = off.folder.record().port

    class NoPeer(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

    with TCPServer(("127.0.0.1", port), NoPeer) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        said = guest.join(off.invite())
        server.shutdown()
    is_refused(guest, said, 6, f"127.0.0.1 port {port}", "check the")


# -- after joining ---------------------------------------------------------------------------------


def test_joining_says_what_it_means_and_what_comes_next(issuer: Home, guest: Home) -> None:
    said = guest.join(issuer.invite())
    assert said.code == 0
    assert said.out == ""
    for words in ("asks", "valid until", "others see", "never files or programs", "joined `test`", "next: "):
        assert words in said.err


def test_whoever_left_and_joined_again_is_newer_than_before(issuer: Home, guest: Home) -> None:
    """Others take what is older for a replay: without this, nobody would hear the guest ever again."""
    invite = issuer.invite()
    guest.join(invite)
    before = [guest.folder.count_boot().boots for _ in range(5)]
    guest.call("swarm", "leave", "test", "--yes")
    guest.join(invite)
    after = [guest.folder.count_boot().boots for _ in range(5)]
    assert before + after == sorted({*before, *after})


def test_a_clock_that_went_back_makes_nobody_older(guest: Home) -> None:
    guest.found(task="digits")
    boots = guest.folder.count_boot().boots
    assert guest.folder.count_boot(lambda: datetime(1999, 12, 31, tzinfo=UTC)).boots == boots + 1


def test_a_damaged_membership_is_repaired_by_joining_again(issuer: Home, guest: Home) -> None:
    invite = issuer.invite()
    guest.join(invite)
    for name in ("membership", "swarm.msgpack"):
        (guest.folder.path / name).write_bytes(b"")
        assert guest.call("swarm", "show").code == 2
        assert guest.join(invite).code == 0
        assert guest.call("swarm", "show").code == 0


def test_only_who_made_the_swarm_can_invite(issuer: Home, guest: Home) -> None:
    guest.join(issuer.invite())
    said = guest.call("invite")
    assert said.code == 2
    assert "this computer did not make `test`" in said.err
    assert "ask whoever did" in said.err


def test_who_lacks_the_strategy_is_told(issuer: Home, guest: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "names", lambda: ["restart"])
    said = guest.join(issuer.invite())
    is_refused(guest, said, 2, "there is no strategy `gossip` here", "known are: restart; others come with")
