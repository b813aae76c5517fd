"""`swarm revoke` among real daemons: out at once, everywhere, and not let in again."""

import pytest

from p2ptrain.core.types import peer_from_text, peer_text
from p2ptrain.net.members.state import SwarmState, read_state
from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import Home, until


def state_of(home: Home) -> SwarmState:
    return read_state(home.folder.membership().root_key, home.folder.state())


def connected(home: Home) -> set[str]:
    return {peer.peer for peer in home.now().node.peers if peer.connected}


def all_connected(homes: MakeHome) -> list[Home]:
    founder, good, bad = made = [homes("founder"), homes("good"), homes("bad")]
    founder.found()
    founder.start()
    invite = founder.invite()
    for home in (good, bad):
        assert home.join(invite).code == 0
        home.start()
    until(lambda: all(len(connected(home)) == 2 for home in made), "not all are connected")
    return made


def test_among_daemons(homes: MakeHome) -> None:
    """One story, because three daemons take seconds to start."""
    founder, good, bad = all_connected(homes)
    revoked = bad.now().peer
    assert founder.call("swarm", "revoke", revoked[:8], "--yes").code == 0

    # Who is revoked is alone at once.
    until(lambda: connected(bad) == set(), "the revoked is still connected")
    until(lambda: connected(founder) == {good.now().peer}, "the good are not connected")
    until(lambda: connected(good) == {founder.now().peer}, "the good are not connected")
    assert "the swarm revoked this membership" in bad.log
    until(lambda: "the swarm revoked this membership" in bad.now().node.reason, "it is not said why")
    assert "revoked" in bad.call("status").out
    assert all("revoked" not in home.now().node.reason for home in (founder, good))

    # Everyone keeps it and shows it.
    for home in (founder, good):
        assert state_of(home).revoked == {peer_from_text(revoked)}
        assert home.call("swarm", "show", "--json").json["revoked"] == [revoked]
        assert "revoked are" in home.log

    # No invite brings it back.
    said = bad.join(founder.invite())
    assert (said.code, "turned away by the swarm" in said.err) == (4, True)

    # Only who made the swarm can revoke.
    said = good.call("swarm", "revoke", founder.now().peer[:8], "--yes")
    assert said.code == 2
    assert "this computer did not make `test`" in said.err
    assert "fix: do this on the computer that did" in said.err

    withdraws_an_invite(founder, homes)


def withdraws_an_invite(founder: Home, homes: MakeHome) -> None:
    made = founder.call("invite", "--uses", "2", "--json").json
    assert homes("one").join(made["invite"]).code == 0
    (listed,) = (
        one for one in founder.call("invite", "list", "--json").json["invites"] if one["id"] == made["id"]
    )
    assert (listed["state"], listed["used"], listed["left"]) == ("open", 1, 1)
    assert founder.call("invite", "revoke", made["id"]).code == 0
    assert f"{made['id']}  revoked" in founder.call("invite", "list").out
    said = homes("two").join(made["invite"])
    assert (said.code, "turned away" in said.err) == (4, True)


# -- without a daemon --------------------------------------------------------------------------------


@pytest.fixture
def founder(home: Home) -> Home:
    home.found(task="digits")
    return home


SOMEBODY = "a" * 52


def test_what_is_decided_without_a_daemon_waits_for_one_and_can_be_undone(founder: Home) -> None:
    said = founder.call("swarm", "revoke", SOMEBODY, "--yes")
    assert said.code == 0
    assert "hear of it when it runs here: `p2ptrain start" in said.err
    assert state_of(founder).revoked == {peer_from_text(SOMEBODY)}
    before = state_of(founder).version
    assert founder.call("swarm", "revoke", SOMEBODY, "--yes").code == 0
    assert state_of(founder).version == before
    assert founder.call("swarm", "revoke", "aaaa", "--undo").code == 0
    assert state_of(founder).revoked == set()
    assert state_of(founder).version > before


def test_nobody_is_revoked_without_a_yes(founder: Home) -> None:
    assert founder.call("swarm", "revoke", SOMEBODY, stdin="n\n").code == 130
    assert state_of(founder) == SwarmState()
    assert founder.call("swarm", "revoke", SOMEBODY, stdin="y\n").code == 0


@pytest.mark.parametrize("text", ["b", "", "zzzz", "ä", SOMEBODY[1:] + "1"])
def test_who_is_not_known_is_said(text: str, founder: Home) -> None:
    said = founder.call("swarm", "revoke", text, "--yes")
    assert said.code == 2
    assert "no member's id begins with" in said.err
    assert "fix: known are: " in said.err


def test_the_founder_cannot_revoke_itself(founder: Home) -> None:
    own = founder.folder.membership().member.peer
    said = founder.call("swarm", "revoke", peer_text(own), "--yes")
    assert said.code == 2
    assert "cannot be revoked" in said.err


def test_a_damaged_state_is_named_with_what_to_do(founder: Home) -> None:
    path = founder.folder.path / "state"
    path.write_bytes(b"garbage")
    for command in (("start",), ("swarm", "show"), ("swarm", "revoke", SOMEBODY, "--yes")):
        said = founder.call(*command)
        assert said.code == 2
        assert f"{path} is damaged" in said.err
        assert "delete it" in said.err
