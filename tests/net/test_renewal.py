"""A member stays one: certificates are renewed in time, by who may, for who is one."""

from datetime import datetime, timedelta
from functools import partial
from random import Random

import pytest

from p2ptrain.core.errors import RefusedError, UnreachableError
from p2ptrain.net.addresses import AddressBook, is_dialable
from p2ptrain.net.members.admission import Admission, AdmissionBook, JoinRefusedError, Refusal
from p2ptrain.net.members.renewal import (
    LOOK_EVERY_S,
    RETRY_FIRST_S,
    RETRY_MAX_S,
    RenewalDesk,
    Renewer,
    ask_for_renewal,
)
from p2ptrain.net.reach.connector import PeerConnector
from p2ptrain.net.reach.dialling import open_session
from p2ptrain.net.trust import tls
from p2ptrain.net.trust.authority import ISSUER_LIFE, LEAF_LIFE, Root, is_due, renewal_due
from p2ptrain.net.trust.certificates import Role, check_member, host_name, read_leaf, wall_clock
from p2ptrain.net.trust.identity import Identity

NOW = wall_clock()
DAY = timedelta(days=1)
ME = Identity.create().peer
ISSUER = Identity.create().peer


class World:
    """One member, one issuer, a clock that is set, and a line between them that may be down."""

    def __init__(self) -> None:
        self.now = NOW
        self.root = Root.create(NOW)
        self.up = True
        self.banned: set[bytes] = set()
        self.asked: list[datetime] = []
        self.kept: list[object] = []
        self.told: list[str] = []
        self.admission = Admission(
            self.root.appoint(NOW),
            AdmissionBook(),
            lambda _: None,
            self.banned.__contains__,
            lambda: self.now,
        )
        first = self.admission.enroll(ME, Role.MEMBER)
        self.renewer = Renewer(
            first, lambda: [ISSUER], self.ask, self.kept.append, self.told.append, lambda: self.now
        )

    async def ask(self, issuer):
        assert issuer == ISSUER
        self.asked.append(self.now)
        if not self.up:
            raise UnreachableError("no answer")
        try:
            return self.admission.renew(self.renewer.membership.member)
        except JoinRefusedError as error:
            raise RefusedError(error.message) from None

    async def live(self, time: timedelta) -> None:
        """Let virtual time pass."""
        ends = self.now + time
        while self.now < ends:
            self.now += timedelta(seconds=await self.renewer.step())


def test_a_third_of_the_life_is_left():
    leaf = World().renewer.membership.leaf
    assert renewal_due(leaf) == (NOW + LEAF_LIFE * 2 / 3).replace(microsecond=0)
    assert not is_due(leaf, NOW + 19 * DAY)
    assert is_due(leaf, NOW + 20 * DAY)


async def test_a_year_with_an_issuer_that_is_always_on():
    world = World()
    for _ in range(12):
        await world.live(30 * DAY)
        world.admission.issuer = world.root.appoint(world.now)
    assert world.renewer.membership.member.expires > world.now
    assert len(world.kept) == len(world.asked) == 360 // 20
    assert world.renewer.membership.member.slot == 0


async def test_an_issuer_that_is_off_is_asked_less_and_less_often_and_nothing_is_lost():
    world = World()
    world.up = False
    await world.live(25 * DAY)
    waits = [b - a for a, b in zip(world.asked, world.asked[1:], strict=False)]
    assert waits[0] == timedelta(seconds=RETRY_FIRST_S)
    assert waits[1] == 2 * waits[0]
    assert max(waits) == timedelta(seconds=RETRY_MAX_S)
    assert len(world.asked) < 5 * 24 + 10  # one an hour, once it is that rare
    assert "could not be renewed yet" in world.told[-1]
    world.up = True
    await world.live(DAY / 12)
    assert world.renewer.membership.member.expires >= world.now + 29 * DAY
    world.up = False
    await world.live(31 * DAY)
    assert "join again by an invite" in world.told[-1]


async def test_it_waits_an_hour_at_most_because_computers_sleep():
    world = World()
    assert await world.renewer.step() == LOOK_EVERY_S
    world.now = NOW + 25 * DAY
    await world.renewer.step()
    assert len(world.kept) == 1


@pytest.mark.parametrize("seed", [20261120])
async def test_any_moment_of_being_switched_off_and_on(seed):
    rng = Random(seed)
    for _ in range(20):
        world = World()
        for _ in range(6):
            await world.live(timedelta(hours=rng.uniform(1, 200)))
            world.now += timedelta(hours=rng.uniform(0, 9 * 24))  # off, but not for the last third
            if is_due(world.admission.issuer.certificate, world.now):
                world.admission.issuer = world.root.appoint(world.now)
        assert world.renewer.membership.member.expires > world.now


async def test_a_revoked_member_is_not_renewed():
    world = World()
    world.banned.add(ME)
    world.now = NOW + 21 * DAY
    await world.renewer.step()
    assert world.kept == []
    assert "turned away" in world.told[-1]


async def test_an_answer_for_somebody_else_or_of_another_swarm_is_not_taken():
    world = World()
    world.now = NOW + 21 * DAY
    other = Root.create(NOW).appoint(world.now)
    for issuer, peer, slot in (
        (world.admission.issuer, ISSUER, 0),
        (world.admission.issuer, ME, 1),
        (other, ME, 0),
    ):
        answer = issuer.certify(peer, Role.MEMBER, slot, world.now)

        async def ask(_, answer=answer):
            return answer

        old, clock = world.renewer.membership, lambda: world.now
        await Renewer(old, lambda: [ISSUER], ask, world.kept.append, world.told.append, clock).step()
        assert world.kept == []


async def test_an_issuer_at_its_own_end_gives_nothing_that_lasts_longer():
    world = World()
    world.now = NOW + 85 * DAY
    short = world.admission.issuer.certify(ME, Role.MEMBER, 0, world.now)
    assert short.member.expires <= NOW + ISSUER_LIFE
    world.renewer.membership = short
    world.now = NOW + 89 * DAY
    await world.renewer.step()
    assert world.kept == []


def test_an_issuer_takes_role_and_slot_from_the_certificate_and_remembers_them():
    """Another issuer admitted this member: the slot must not be given to somebody else."""
    world = World()
    stranger = Identity.create().peer
    member = world.root.appoint(NOW).certify(stranger, Role.OBSERVER, 1, NOW).member
    again = world.admission.renew(member).member
    assert (again.peer, again.role, again.slot) == (stranger, Role.OBSERVER, 1)
    assert world.admission.enroll(Identity.create().peer, Role.MEMBER).member.slot == 2


@pytest.mark.parametrize("days", [31, 91])
def test_what_has_expired_is_not_renewed(days):
    world = World()
    member = world.renewer.membership.member
    world.now = NOW + days * DAY
    with pytest.raises(JoinRefusedError) as error:
        world.admission.renew(member)
    assert error.value.refusal is Refusal.CLOSED


# -- over TLS --------------------------------------------------------------------------------------


def make_desk(swarm, banned=frozenset()):
    return RenewalDesk(Admission(swarm.issuer, AdmissionBook(), lambda _: None, banned.__contains__))


async def test_over_the_connection_that_proves_who_asks(swarm, until):
    desk = make_desk(swarm)
    issuer = await swarm.node(routes=desk.routes())
    identity = Identity.create()
    old = swarm.issuer.certify(identity.peer, Role.MEMBER, 3, wall_clock() - 25 * DAY)
    member = await swarm.node(identity, old)
    assert await member.dial(issuer)
    fresh = await ask_for_renewal(member.transport, issuer.peer)
    now = wall_clock()
    assert check_member(old.root, fresh.chain, now).slot == 3
    assert fresh.member.expires > old.member.expires + 20 * DAY
    assert read_leaf(fresh.leaf).peer == identity.peer
    member.transport.renew(fresh)
    third = await swarm.node()
    assert await third.dial(member)
    await until(lambda: member.peer in third.transport.connected)


async def test_who_is_no_issuer_says_so(swarm):
    plain, desk = await swarm.pair(), RenewalDesk(None)
    closed = await swarm.node(routes=desk.routes())
    one, other = plain
    await one.dial(other)
    await one.dial(closed)
    for peer in (other.peer, closed.peer):
        with pytest.raises(RefusedError, match="does not renew"):
            await ask_for_renewal(one.transport, peer)


async def test_revoked_and_too_often_are_refused_in_a_word(swarm):
    banned: set[bytes] = set()
    issuer = await swarm.node(routes=make_desk(swarm, banned).routes())
    member = await swarm.node()
    await member.dial(issuer)
    for _ in range(3):
        await ask_for_renewal(member.transport, issuer.peer)
    banned.add(member.peer)
    with pytest.raises(RefusedError, match="revoked"):
        await ask_for_renewal(member.transport, issuer.peer)
    with pytest.raises(RefusedError, match="busy"):
        await ask_for_renewal(member.transport, issuer.peer)


async def test_a_stranger_gets_no_certificate_here(reception):
    """An issuer's listener lets strangers in, but to one place only."""
    node = await reception.start()
    book = AddressBook(partial(is_dialable, loopback=True))
    book.learn(node.peer, node.addresses)
    async with (
        open_session(PeerConnector(book, tls.joining_context())) as session,
        session.post(f"https://{host_name(node.peer)}/v1/renew") as answer,
    ):
        assert answer.status == 401
