"""Whom the root revokes is out: everywhere, at once, and for whoever was away as soon as it is back."""

import asyncio
from pathlib import Path
from random import Random

import msgspec
import pytest

from p2ptrain.core.errors import ConfigError, Offence, RemoteProtocolError, UnreachableError
from p2ptrain.net.members import state as module
from p2ptrain.net.members.spreading import COMPARE_EVERY_S, EXCHANGES_BURST, STATE_PATH, Spreading, tag_of
from p2ptrain.net.members.state import (
    DELEGATE_BYTES_MAX,
    DELEGATES_MAX,
    REVOKED_INVITES_MAX,
    REVOKED_PEERS_MAX,
    STATE_BYTES_MAX,
    STATE_DOMAIN,
    StateKeeper,
    SwarmState,
    read_state,
    sign_state,
)
from p2ptrain.net.reach.ask import ask
from p2ptrain.net.trust.authority import Issuer, Root
from p2ptrain.net.trust.certificates import DELEGATE_PREFIX, Role, check_member, wall_clock
from p2ptrain.net.trust.identity import Identity
from p2ptrain.net.trust.verifier import SwarmVerifier

NOW = wall_clock()
ROOT = Root.create(NOW)
PEERS = [Identity.create().peer for _ in range(3)]


def signed(state: SwarmState, before: SwarmState = SwarmState(), root: Root = ROOT) -> bytes:  # noqa: B008
    return sign_state(root, state, before, NOW)


def successor(raw: bytes, peer: bytes, root: Root = ROOT) -> bytes:
    before = read_state(root.public_key, raw)
    return signed(before.revoke(peer), before, root)


def keeper() -> tuple[StateKeeper, list[bytes]]:
    saved: list[bytes] = []
    return StateKeeper(ROOT.public_key, b"", saved.append), saved


# -- the state itself ------------------------------------------------------------------------------


def test_a_state_says_what_the_root_decided():
    state = SwarmState().revoke(PEERS[0]).revoke(PEERS[1]).revoke(PEERS[0]).revoke_invite(bytes(32))
    read = read_state(ROOT.public_key, signed(state.readmit(PEERS[1])))
    assert (read.peers, read.invites) == ((PEERS[0],), (bytes(32),))
    assert read.version == int(NOW.timestamp())


@pytest.mark.parametrize("seed", [7])
def test_only_newer_ones_are_taken_whatever_the_order(seed):
    rng = Random(seed)
    states = [b""]
    for _ in range(8):
        states.append(successor(states[-1], Identity.create().peer))
    for _ in range(30):
        rng.shuffle(states)
        kept, saved = keeper()
        for raw in states:
            kept.take(raw)
        assert len(kept.revoked) == 8
        versions = [read_state(ROOT.public_key, raw).version for raw in saved]
        assert versions == sorted(set(versions))
        assert not kept.take(saved[-1])


def test_two_states_of_one_version_are_ordered_alike_by_everyone():
    one, other = signed(SwarmState().revoke(PEERS[0])), signed(SwarmState().revoke(PEERS[1]))
    ends = set()
    for order in ((one, other), (other, one)):
        kept, _ = keeper()
        for raw in order:
            kept.take(raw)
        ends.add(kept.raw)
    assert len(ends) == 1


def test_a_full_disk_does_not_keep_the_revoked_in():
    def save(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    told = []
    kept = StateKeeper(ROOT.public_key, b"", save, lambda: told.append(1))
    with pytest.raises(OSError, match="No space"):
        kept.take(signed(SwarmState().revoke(PEERS[0])))
    assert kept.revokes(PEERS[0])
    assert told == [1]


@pytest.mark.parametrize(
    ("raw", "offence"),
    [
        (bytes(10), Offence.FORGED),
        (bytes(STATE_BYTES_MAX + 1), Offence.OVERSIZED),
        (signed(SwarmState(), root=Root.create(NOW)), Offence.FORGED),
        (signed(SwarmState().revoke(PEERS[0]))[:-1] + b"\0", Offence.FORGED),
        (ROOT.sign(STATE_DOMAIN + b"\xc1") + b"\xc1", Offence.MALFORMED),
        (ROOT.sign(STATE_DOMAIN + b"\x92\x01\x91\x01") + b"\x92\x01\x91\x01", Offence.MALFORMED),
        (ROOT.sign(b"\x91\x01") + b"\x91\x01", Offence.FORGED),
    ],
    ids=["garbage", "long", "another root", "changed", "unreadable", "no peers", "another purpose"],
)
def test_what_is_no_state_of_this_swarm_is_an_offence(raw, offence):
    kept, saved = keeper()
    with pytest.raises(RemoteProtocolError) as error:
        kept.take(raw)
    assert error.value.offence is offence
    assert (kept.raw, saved) == (b"", [])


@pytest.mark.parametrize("seed", [11])
def test_ten_thousand_mutants(seed):
    rng = Random(seed)
    good = signed(SwarmState().revoke(PEERS[0]))
    kept, saved = keeper()
    for _ in range(10_000):
        wrong = bytearray(good)
        wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
        with pytest.raises(RemoteProtocolError):
            kept.take(bytes(wrong[: rng.choice([len(wrong), rng.randrange(1, len(wrong))])]))
    assert saved == []


def test_fields_of_newer_versions_are_passed_on_unread():
    data = msgspec.msgpack.encode([5, [PEERS[0]], [], [], ["new"], {"more": 1}])
    raw = ROOT.sign(STATE_DOMAIN + data) + data
    kept, saved = keeper()
    assert kept.take(raw)
    assert kept.revokes(PEERS[0])
    assert saved == [raw]


def test_everything_has_a_bound(monkeypatch):
    peers = tuple(bytes(28) + n.to_bytes(4, "big") for n in range(REVOKED_PEERS_MAX))
    invites = tuple(bytes(28) + n.to_bytes(4, "big") for n in range(REVOKED_INVITES_MAX))
    full = SwarmState(peers=peers, invites=invites)
    assert len(signed(full)) <= STATE_BYTES_MAX
    with pytest.raises(ConfigError, match="no more fit"):
        full.revoke(PEERS[0])
    assert full.revoke(peers[3]) == full
    assert full.revoke_invite(PEERS[0]).invites == (*invites[1:], PEERS[0])
    monkeypatch.setattr(module, "REVOKED_PEERS_MAX", 2000)
    with pytest.raises(RemoteProtocolError):
        read_state(ROOT.public_key, signed(msgspec.structs.replace(full, peers=(*peers, PEERS[0]))))


def test_nobody_vouches_for_the_revoked():
    peer = PEERS[0]
    chain = ROOT.appoint(NOW).certify(peer, Role.MEMBER, 0, NOW).chain
    kept, _ = keeper()
    verifier = SwarmVerifier(ROOT.certificate, kept.revokes)
    assert verifier.vouch(peer, chain)
    kept.take(successor(b"", peer))
    assert not verifier.vouch(peer, chain)


# -- over TLS --------------------------------------------------------------------------------------


class Party:
    """A node that keeps and spreads the state as the daemon does."""

    def __init__(self, swarm) -> None:
        self.swarm = swarm
        self.saved: list[bytes] = []
        self.offences: list[tuple[bytes, Offence]] = []
        self.keeper = StateKeeper(swarm.root.public_key, b"", self.saved.append, self._changed)
        self.spreading = Spreading(
            self.keeper, lambda peer, offence, _: self.offences.append((peer, offence))
        )

    async def start(self) -> "Party":
        self.node = await self.swarm.node(routes=self.spreading.routes(), refused=self.keeper.revokes)
        self.peer = self.node.peer
        self.transport = self.spreading.line = self.node.transport
        told = self.node.events.peer_up

        def peer_up(peer):
            told(peer)
            self.spreading.greet(peer)

        self.node.events.peer_up = peer_up
        return self

    def _changed(self) -> None:
        for peer in self.keeper.revoked:
            self.transport.hangup(peer, "revoked")

    async def dial(self, other: "Party") -> bool:
        return await self.node.dial(other.node)

    def knows(self, *others: "Party") -> None:
        for other in others:
            self.transport.learn(other.peer, other.node.addresses)

    def decide(self, raw: bytes) -> None:
        assert self.keeper.take(raw)
        self.spreading.tell_all()


@pytest.fixture
async def parties(swarm):
    made = [await Party(swarm).start() for _ in range(4)]
    yield made
    await asyncio.gather(*(one.spreading.close() for one in made))


async def test_a_decision_reaches_members_that_are_connected_only_through_others(swarm, parties, until):
    founder, middle, far, bad = parties
    for one, other in ((founder, middle), (middle, far), (far, bad)):
        await one.dial(other)
        other.knows(one)
    raw = successor(b"", bad.peer, swarm.root)
    founder.decide(raw)
    await until(lambda: all(one.keeper.raw == raw for one in (founder, middle, far)))
    assert far.saved == [raw]
    await until(lambda: bad.peer not in far.transport.connected)
    await until(lambda: bad.node.events.downs)
    assert (far.peer, "the peer closed the connection: revoked") in bad.node.events.downs


async def test_the_revoked_gets_in_nowhere_in_neither_direction(swarm, parties, until):
    good, bad = parties[0], parties[1]
    assert await good.dial(bad)
    good.decide(successor(b"", bad.peer, swarm.root))
    await until(lambda: not good.transport.connected and not bad.transport.connected)
    assert not await good.dial(bad)
    assert good.node.events.downs[-1] == (bad.peer, "this peer is refused here")
    await bad.dial(good)
    await until(lambda: not bad.transport.connected)
    assert good.transport.connected == []
    with pytest.raises(UnreachableError):
        await ask(bad.transport, "GET", good.peer, STATE_PATH, bytes_max=STATE_BYTES_MAX)
    with pytest.raises(UnreachableError, match="refused here"):
        await ask(good.transport, "GET", bad.peer, STATE_PATH, bytes_max=STATE_BYTES_MAX)


async def test_a_request_on_a_connection_of_before_is_refused_too(swarm, parties):
    good, bad = parties[0], parties[1]
    await bad.dial(good)
    one = await ask(bad.transport, "GET", good.peer, STATE_PATH, bytes_max=STATE_BYTES_MAX)
    assert one.status == 200
    good.knows(bad)
    await ask(good.transport, "GET", bad.peer, STATE_PATH, bytes_max=STATE_BYTES_MAX)
    good.keeper.take(successor(b"", bad.peer, swarm.root))
    two = await ask(bad.transport, "GET", good.peer, STATE_PATH, bytes_max=STATE_BYTES_MAX)
    assert two.status == 403
    with pytest.raises(UnreachableError):
        await ask(good.transport, "GET", bad.peer, STATE_PATH, bytes_max=STATE_BYTES_MAX)


async def test_whoever_was_away_learns_when_it_comes_back_whoever_dials(swarm, parties, until):
    knowing, dialled, dialling, bad = parties
    raw = successor(b"", bad.peer, swarm.root)
    assert knowing.keeper.take(raw)
    await knowing.dial(dialled)
    await dialling.dial(knowing)
    await until(lambda: dialled.keeper.raw == raw and dialling.keeper.raw == raw)


async def test_an_older_state_is_answered_with_the_newer_one(swarm, parties, until):
    one, other = parties[:2]
    old = successor(b"", PEERS[0], swarm.root)
    new = successor(old, PEERS[1], swarm.root)
    one.keeper.take(old)
    other.keeper.take(new)
    await one.dial(other)
    await until(lambda: one.keeper.raw == new)
    assert other.saved == [new]


async def test_a_forged_state_is_charged_to_who_sends_it(swarm, parties, until):
    good, bad = parties[:2]
    await bad.dial(good)
    forged = successor(b"", PEERS[0])
    answer = await ask(bad.transport, "PUT", good.peer, STATE_PATH, data=forged, bytes_max=STATE_BYTES_MAX)
    assert answer.status == 400
    assert good.offences == [(bad.peer, Offence.FORGED)]
    bad.keeper.raw = forged
    good.knows(bad)
    await good.spreading.compare(bad.peer)
    assert good.offences[1:] == [(bad.peer, Offence.FORGED)]
    assert good.keeper.raw == b""


async def test_floods_and_giants_are_refused(swarm, parties):
    good, bad = parties[:2]
    await bad.dial(good)
    answer = await ask(
        bad.transport, "PUT", good.peer, STATE_PATH, data=bytes(STATE_BYTES_MAX + 1), bytes_max=100
    )
    assert answer.status == 400
    assert good.offences == [(bad.peer, Offence.OVERSIZED)]
    statuses = [
        (await ask(bad.transport, "GET", good.peer, STATE_PATH, bytes_max=STATE_BYTES_MAX)).status
        for _ in range(EXCHANGES_BURST + 4)
    ]
    assert statuses[-1] == 429


async def test_the_same_state_costs_no_bytes(swarm, parties):
    one, other = parties[:2]
    raw = successor(b"", PEERS[0], swarm.root)
    for party in (one, other):
        party.keeper.take(raw)
    one.knows(other)
    answer = await ask(
        one.transport,
        "GET",
        other.peer,
        STATE_PATH,
        headers={"If-None-Match": tag_of(raw)},
        bytes_max=STATE_BYTES_MAX,
    )
    assert (answer.status, answer.body) == (304, b"")


# -- members that may issue ------------------------------------------------------------------------


def delegated(swarm) -> Identity:
    identity = Identity.create()
    swarm.by_deputy = Issuer.delegated(
        identity, swarm.root.delegate(identity.peer, wall_clock()), swarm.root.certificate
    )
    return identity


async def test_what_a_deputy_issued_is_good_until_it_is_revoked(swarm, parties, until):
    good = parties[0]
    deputy = delegated(swarm)
    identity = Identity.create()
    membership = swarm.by_deputy.certify(identity.peer, Role.MEMBER, 5, wall_clock())
    assert membership.member.issuer == deputy.peer
    verifier = SwarmVerifier(swarm.root.certificate, lambda _: False, distrusted=good.keeper.revokes)
    assert verifier.vouch(identity.peer, membership.chain)
    node = await swarm.node(distrusted=good.keeper.revokes)
    guest = await swarm.node(identity, membership)
    assert await guest.dial(node)
    await until(lambda: guest.peer in node.transport.connected)
    node.transport.hangup(guest.peer, "again")
    await until(lambda: not node.transport.connected)
    good.keeper.take(successor(b"", deputy.peer, swarm.root))
    assert not verifier.vouch(identity.peer, membership.chain)
    assert not await node.dial(guest)
    await guest.dial(node)
    await until(lambda: not guest.transport.connected)
    assert not node.transport.connected


def test_a_deputy_may_not_appoint_others(swarm):
    delegated(swarm)
    key = Identity.create()
    membership = swarm.by_deputy.certify(key.peer, Role.ISSUER, 0, wall_clock())
    below = Issuer.delegated(key, membership.leaf, swarm.root.certificate)
    leaf = below.certify(PEERS[0], Role.MEMBER, 0, wall_clock())
    with pytest.raises(RemoteProtocolError):
        check_member(swarm.root.certificate, leaf.chain, wall_clock())


def test_revoking_a_deputy_takes_its_right_and_only_sixteen_fit():
    state = SwarmState().delegate(ROOT.delegate(PEERS[0], NOW))
    assert set(read_state(ROOT.public_key, signed(state)).delegates) == {PEERS[0]}
    again = state.delegate(ROOT.delegate(PEERS[0], NOW))
    assert len(again.issuers) == 1
    assert state.revoke(PEERS[0]).delegates == {}
    with pytest.raises(ConfigError, match="was revoked"):
        state.revoke(PEERS[0]).delegate(ROOT.delegate(PEERS[0], NOW))
    for _ in range(DELEGATES_MAX - 1):
        state = state.delegate(ROOT.delegate(Identity.create().peer, NOW))
    with pytest.raises(ConfigError, match="no more fit"):
        state.delegate(ROOT.delegate(PEERS[1], NOW))
    peers = tuple(bytes(28) + n.to_bytes(4, "big") for n in range(REVOKED_PEERS_MAX))
    full = msgspec.structs.replace(state, peers=peers, invites=peers[:REVOKED_INVITES_MAX])
    assert len(signed(full)) <= STATE_BYTES_MAX


@pytest.mark.parametrize(
    "figure",
    [
        f"At most {STATE_BYTES_MAX:,} bytes",
        f"at most {REVOKED_PEERS_MAX:,} peer ids",
        f"at most {REVOKED_INVITES_MAX} keys",
        f"at most {DELEGATES_MAX} certificates, DER, at most {DELEGATE_BYTES_MAX} bytes",
        f"once in {COMPARE_EVERY_S:.0f} s",
        f"common name `{DELEGATE_PREFIX}`",
    ],
)
def test_the_page_of_the_protocol_says_the_same(figure):
    page = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
    assert figure in page.read_text(encoding="utf-8")
