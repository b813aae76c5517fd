"""What makes a member, and everything that does not."""

import random
from datetime import timedelta

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError, Offence, RemoteProtocolError
from p2ptrain.core.types import PeerId
from p2ptrain.net.trust import authority
from p2ptrain.net.trust.authority import Issuer, Root, decode_issuer, decode_root
from p2ptrain.net.trust.certificates import (
    Chain,
    Membership,
    Role,
    check_member,
    decode_membership,
    manifest_is_signed,
    read_leaf,
    wall_clock,
)
from p2ptrain.net.trust.identity import Identity
from p2ptrain.net.trust.verifier import SwarmVerifier

NOW = wall_clock()
ROOT = Root.create(NOW)
ISSUER = ROOT.appoint(NOW)
PEER = Identity.create().peer


def certify(now=NOW, issuer=ISSUER, peer=PEER) -> Membership:
    return issuer.certify(peer, Role.MEMBER, 7, now)


def refuse(membership: Membership, match: str, now=NOW) -> None:
    with pytest.raises(RemoteProtocolError, match=match) as error:
        check_member(ROOT.certificate, membership.chain, now)
    assert error.value.offence is Offence.FOREIGN


def test_a_member():
    membership = certify()
    member = check_member(ROOT.certificate, membership.chain, NOW)
    assert (member.peer, member.role, member.slot) == (PEER, Role.MEMBER, 7)
    assert timedelta(days=29) < member.expires - NOW <= timedelta(days=30)
    assert membership.member == member
    assert membership.swarm == ROOT.swarm
    assert len(membership.chain) < limits.CERTIFICATE_BYTES_MAX / 3


def test_files_round_trip():
    membership = certify()
    assert decode_membership(membership.encode()) == membership
    root, issuer = decode_root(ROOT.encode()), decode_issuer(ISSUER.encode())
    assert (root.public_key, root.certificate) == (ROOT.public_key, ROOT.certificate)
    again = issuer.certify(PEER, Role.OBSERVER, 0, NOW)
    assert check_member(ROOT.certificate, again.chain, NOW).role is Role.OBSERVER


@pytest.mark.parametrize("decode", [decode_membership, decode_root, decode_issuer])
def test_damaged_files_are_named(decode):
    whole = {decode_membership: certify(), decode_root: ROOT, decode_issuer: ISSUER}[decode].encode()
    for data in (b"", b"\xc1", whole[:-9], whole[:40] + b"\0\0\0" + whole[43:]):
        with pytest.raises(ConfigError, match="damaged"):
            decode(data)


def test_expired():
    refuse(certify(), "expired on", NOW + timedelta(days=31))


def test_not_valid_yet():
    refuse(certify(NOW + timedelta(days=2)), "not valid before")


def test_clocks_may_differ_by_a_day():
    check_member(ROOT.certificate, certify(NOW + timedelta(hours=23)).chain, NOW)


def test_a_leaf_never_outlives_its_issuer():
    late = NOW + timedelta(days=80)
    assert certify(late).member.expires <= ISSUER.expires


def test_another_swarm():
    refuse(certify(issuer=Root.create(NOW).appoint(NOW)), "do not lead to the root")


def test_a_leaf_may_not_sign():
    key = Ed25519PrivateKey.generate()
    leaf = certify(peer=PeerId(key.public_key().public_bytes_raw()))
    refuse(certify(issuer=Issuer(key, leaf.leaf, ROOT.certificate)), "do not lead to the root")


def test_an_issuer_may_not_appoint():
    key = Ed25519PrivateKey.generate()
    name = authority._name("issuer", key.public_key())
    parent = authority.x509.load_der_x509_certificate(ISSUER.certificate).subject
    life = (NOW, NOW + timedelta(days=9))
    below = authority._authority(name, key.public_key(), parent, ISSUER._key, life, path_length=0)
    refuse(certify(issuer=Issuer(key, below, ROOT.certificate)), "do not lead to the root")


def test_an_issuer_is_not_a_member():
    for leaf in (ISSUER.certificate, ROOT.certificate):
        with pytest.raises(RemoteProtocolError, match=r"cannot be read|another peer"):
            read_leaf(leaf)
        refuse(
            Membership(leaf, ISSUER.certificate, ROOT.certificate), "lead to the root|cannot be read|another"
        )


@pytest.mark.parametrize("lie", ["peer_text", "host_name"])
def test_a_lying_issuer(monkeypatch, lie):
    """The name of one peer over the key of another is worth nothing, in either place."""
    victim = Identity.create().peer
    honest = getattr(authority, lie)
    monkeypatch.setattr(authority, lie, lambda _: honest(victim))
    refuse(certify(), "names another peer than its key")


def test_a_swapped_key():
    """A stolen certificate does not become another's by putting another key in."""
    membership = certify()
    stolen = membership.leaf.replace(PEER, Identity.create().peer)
    refuse(Membership(stolen, membership.issuer, membership.root), "do not lead to the root")


def test_too_many_bytes():
    chain = msgspec.msgpack.encode(Chain(bytes(limits.CERTIFICATE_BYTES_MAX), b""))
    with pytest.raises(RemoteProtocolError, match="bytes of certificates"):
        check_member(ROOT.certificate, chain, NOW)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_mutants_are_refused_without_surprise():
    """Flips one to three bits anywhere. The one byte without meaning counts a signature's unused bits."""
    dice = random.Random(5)
    membership = certify()
    whole = membership.chain
    for _ in range(3000):
        mutant = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            mutant[dice.randrange(len(mutant))] ^= 1 << dice.randrange(8)
        try:
            member = check_member(ROOT.certificate, bytes(mutant), NOW)
        except RemoteProtocolError:
            continue
        assert member == membership.member


def test_the_root_signs_the_manifest():
    signature = ROOT.sign_manifest(b"manifest")
    assert manifest_is_signed(ROOT.public_key, signature, b"manifest")
    assert not manifest_is_signed(ROOT.public_key, signature, b"Manifest")
    assert not manifest_is_signed(ROOT.public_key, ROOT.sign(b"manifest"), b"manifest")


def test_the_verifier_vouches_for_members_only():
    clock = NOW
    banned = set()
    verifier = SwarmVerifier(ROOT.certificate, banned.__contains__, lambda: clock)
    chain = certify().chain
    assert verifier.vouch(PEER, chain)
    assert verifier.vouch(PEER, chain)
    assert not verifier.vouch(Identity.create().peer, chain)
    assert not verifier.vouch(PEER, b"")
    assert not verifier.vouch(PEER, certify(issuer=Root.create(NOW).appoint(NOW)).chain)
    banned.add(PEER)
    assert not verifier.vouch(PEER, chain)
    banned.clear()
    clock = NOW + timedelta(days=31)
    assert not verifier.vouch(PEER, chain)


def test_the_verifier_forgets(monkeypatch):
    monkeypatch.setattr(limits, "PEERS_MAX", 4)
    verifier = SwarmVerifier(ROOT.certificate, lambda _: False)
    for _ in range(9):
        peer = Identity.create().peer
        assert verifier.vouch(peer, certify(peer=peer).chain)
    assert len(verifier._vouched) == 4
