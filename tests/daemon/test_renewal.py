"""Members whose certificates are about to end get new ones while they work, without being asked."""

from datetime import timedelta

from p2ptrain.net.trust.authority import Issuer
from p2ptrain.net.trust.certificates import wall_clock
from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import Home, until

DAY = timedelta(days=1)


def grow_old(home: Home, issuer: Issuer | None) -> None:
    """Put a certificate there that is 25 of its 30 days old."""
    assert issuer is not None
    member = home.folder.membership().member
    then = wall_clock() - 25 * DAY
    home.folder.save_membership(issuer.certify(member.peer, member.role, member.slot, then))


def time_left(home: Home) -> timedelta:
    return home.folder.membership().member.expires - wall_clock()


def test_founder_and_member_stay_members(homes: MakeHome) -> None:
    founder, member = homes("founder"), homes("member")
    founder.found()
    root = founder.folder.root()
    assert root is not None
    founder.folder.save_issuer(root.appoint(wall_clock() - 70 * DAY))
    grow_old(founder, founder.folder.issuer())
    founder.start()
    until(lambda: time_left(founder) > 29 * DAY, "the founder does not renew itself")
    renewed = founder.folder.issuer()
    assert renewed is not None
    assert renewed.expires > wall_clock() + 89 * DAY

    assert member.join(founder.invite()).code == 0
    grow_old(member, renewed)
    assert time_left(member) < 6 * DAY
    member.start()
    until(lambda: time_left(member) > 29 * DAY, "the member is not renewed")
    until(lambda: "the certificate was renewed" in member.log, "its owner is not told")
    fresh = member.folder.membership().chain
    assert founder.terminate() == 0
    replayed = founder.call("replay", founder.folder.journal)
    assert replayed.code == 0, replayed.err
    assert any(fresh in raw for raw in founder.folder.contacts()), "others did not hear of it"
