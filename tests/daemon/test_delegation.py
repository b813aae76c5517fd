"""`swarm delegate` and invites for issuers: others are admitted and renewed while the founder is off."""

from datetime import timedelta

from p2ptrain.core.types import peer_text
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.net.members.invite import decode_invite
from p2ptrain.net.members.state import read_state
from p2ptrain.net.trust.certificates import Role, read_chain, wall_clock
from p2ptrain.net.trust.identity import Identity
from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import Home, until

DAY = timedelta(days=1)


def delegates(folder: SwarmFolder) -> int:
    return len(read_state(folder.membership().root_key, folder.state()).delegates)


def test_a_deputy_admits_and_renews_while_the_founder_is_off(homes: MakeHome) -> None:
    founder, deputy, guest = homes("founder"), homes("deputy"), homes("guest")
    founder.found()
    founder.start()
    assert deputy.join(founder.invite()).code == 0
    deputy.start()
    deputy.until(lambda status: status.node.peers and status.node.peers[0].connected, "not connected")
    assert not deputy.now().swarm.issuer
    assert founder.call("swarm", "delegate", deputy.now().peer[:8]).code == 0
    deputy.until(lambda status: status.swarm.issuer, "it was not told")
    assert founder.call("swarm", "show", "--json").json["delegates"] == [deputy.now().peer]
    until(founder.folder.contacts, "the founder does not note the deputy's address")
    founder.kill()
    invite = founder.invite()
    assert deputy.now().peer in {peer_text(door.peer) for door in decode_invite(invite).doors}
    said = guest.join(invite)
    assert said.code == 0, said.err
    member = guest.folder.membership().member
    assert member.slot == 2, "0 and 1 are the founder's and the deputy's"
    assert member.issuer == deputy.folder.membership().member.peer
    root = founder.folder.root()
    assert root is not None
    old = root.appoint(wall_clock()).certify(member.peer, Role.MEMBER, 2, wall_clock() - 25 * DAY)
    guest.folder.save_membership(old)
    guest.start()
    until(lambda: guest.folder.membership().member.expires > wall_clock() + 29 * DAY, "it was not renewed")


def test_an_invite_for_issuers_makes_one_and_its_right_is_renewed_by_the_founder(homes: MakeHome) -> None:
    founder, deputy = homes("founder"), homes("deputy")
    founder.found()
    root = founder.folder.root()
    assert root is not None
    ancient = root.delegate(Identity.create().peer, wall_clock() - 80 * DAY)
    founder.folder.decide(lambda state: state.delegate(ancient))
    founder.start()
    invite = str(founder.call("invite", "--role", "issuer", "--json").json["invite"])
    assert deputy.join(invite).code == 0
    assert read_chain(deputy.folder.membership().chain).role is Role.ISSUER
    until(lambda: delegates(founder.folder) == 2, "the founder did not let it issue")
    fresh = read_state(root.public_key, founder.folder.state()).issuers
    assert ancient not in fresh


def test_who_may_not_be_a_deputy_is_said(home: Home) -> None:
    home.found(task="digits")
    somebody = "a" * 52
    assert home.call("swarm", "revoke", somebody, "--yes").code == 0
    said = home.call("swarm", "delegate", "aaaa")
    assert said.code == 2
    assert "was revoked" in said.err
    assert home.call("swarm", "revoke", somebody, "--undo").code == 0
    assert home.call("swarm", "delegate", somebody).code == 0
    assert home.call("swarm", "revoke", somebody, "--yes").code == 0
    assert delegates(home.folder) == 0
