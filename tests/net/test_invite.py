"""An invite is read exactly, or refused in one plain sentence."""

import base64
import hashlib
import random
import struct
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from p2ptrain.core.errors import InviteError
from p2ptrain.core.types import PeerId
from p2ptrain.net.members.invite import (
    PREFIX,
    Door,
    Invite,
    _base32,
    _checksum,
    _unpack_text,
    create_invite,
    decode_invite,
)
from p2ptrain.net.trust.authority import Root
from p2ptrain.net.trust.certificates import Role, wall_clock
from p2ptrain.net.trust.identity import Identity
from tests.fuzz import accepted_invites

NOW = wall_clock()
ROOT = Root.create(NOW)
PEER = PeerId(bytes(range(32)))
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def invite(*doors: Door, **options) -> Invite:
    return create_invite(ROOT, bytes(16), NOW + timedelta(days=7), doors=doors, **options)


def repack(data: bytes) -> str:
    """Write bytes as an invite with the right checksum: what a forger would do."""
    return PREFIX + _base32(data + _checksum(data))


IPV4 = Door("203.0.113.9", 47777, PEER)
IPV6 = Door("2001:db8::9", 47777, PEER)
NAMED = Door("bootstrap.example.org", 47777, PEER)


@pytest.mark.parametrize(
    ("doors", "characters"),
    [((), 205), ((IPV4,), 268), ((NAMED,), 297), ((IPV4, IPV6, NAMED), 441), ((IPV4,) * 8, None)],
)
def test_round_trip(doors, characters):
    made = invite(*doors, role=Role.OBSERVER, uses=20, public=True)
    text = made.encode()
    assert characters in (len(text), None)
    read = decode_invite(text)
    assert read == made
    assert (read.role, read.uses, read.public, read.swarm) == (Role.OBSERVER, 20, True, ROOT.swarm)


def test_the_format_is_fixed():
    """The offsets that the module documents, from fixed keys: a change here is a new version."""
    root = Root(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), b"")
    expires = datetime(2030, 1, 2, tzinfo=UTC)
    made = create_invite(root, b"s" * 16, expires, 3, Role.OBSERVER, (IPV4, IPV6, NAMED), public=True)
    letters = made.encode().removeprefix("p2pt1").upper()
    data = base64.b32decode(letters + "=" * (-len(letters) % 8))
    assert data[:8] == bytes([1, 0x11]) + struct.pack(">IH", int(expires.timestamp()), 3)
    assert (data[8:40], data[40:56]) == (root.public_key, b"s" * 16)
    assert data[56:120] == root.sign(b"p2ptrain-invite-v1\0" + data[:40] + made.key)
    four = bytes([4, 203, 0, 113, 9]) + struct.pack(">H", 47777) + PEER
    assert data[120:160] == bytes([3]) + four
    assert data[211:234] == bytes([1, 21]) + b"bootstrap.example.org"
    assert hashlib.sha256(data[:-4]).digest()[:4] == data[-4:]
    assert made.key.hex() == "ab9462072d74d0ff85ca291488f9a97bece6847530ec44ec0b7af639ce883de2"
    assert (
        hashlib.sha256(made.encode().encode()).hexdigest()
        == "eaa8236f7231cd9fdc375c69b695cf493ff08d7686390923143db16cc3b4865f"
    )


def test_people_copy_badly():
    text = invite(IPV4).encode()
    broken = "\n  ".join(text[at : at + 40] for at in range(0, len(text), 40))
    for copied in (broken, text.upper(), f"  {text}\r\n", invite(IPV4).url(), invite(IPV4).url().upper()):
        assert decode_invite(copied) == invite(IPV4)
    assert decode_invite("https://p2ptrain.example/j#" + text) == invite(IPV4)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a p2ptrain invite"),
        ("hello", "not a p2ptrain invite"),
        ("p2p1aaaa", "not a p2ptrain invite"),
        ("p2pt2aaaa", "needs a newer p2ptrain"),
        ("p2pt1", "damaged invite"),
        ("p2pt1aaaa", "damaged invite"),
        ("p2pt1" + "ä" * 50, "damaged invite"),
        ("p2pt1" + "a" * 100_000, "damaged invite"),
    ],
)
def test_sentences(text, sentence):
    with pytest.raises(InviteError, match=sentence) as error:
        decode_invite(text)
    assert error.value.hint


def test_a_newer_version_with_a_right_checksum():
    data = b"\2" + _unpack_text(invite().encode())[1:]
    with pytest.raises(InviteError, match="needs a newer"):
        decode_invite(repack(data))


def test_a_part_is_missing():
    text = invite(IPV4).encode()
    for end in range(len(PREFIX), len(text)):
        with pytest.raises(InviteError, match="damaged"):
            decode_invite(text[:end])


def test_expired():
    old = create_invite(ROOT, bytes(16), NOW - timedelta(days=1))
    decode_invite(old.encode())
    with pytest.raises(InviteError, match=r"expired on \d{4}-\d\d-\d\d") as error:
        old.check_expiry(NOW)
    assert "new one" in error.value.hint
    invite().check_expiry(NOW)


@pytest.mark.attack
def test_forged():
    """Longer validity, more uses, another role, another root: each breaks the root's signature."""
    data = _unpack_text(invite(IPV4).encode())
    for at in (1, 2, 5, 6, 7, 8, 39, 40, 55, 56, 119):
        flip = 0x10 if at == 1 else 1
        forged = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
        with pytest.raises(InviteError, match=r"forged|damaged"):
            decode_invite(repack(forged))


@pytest.mark.attack
def test_every_changed_letter_is_refused():
    text = invite(IPV4).encode()
    for at, letter in enumerate(text):
        for other in random.Random(at).sample(ALPHABET, 6):
            if other != letter:
                with pytest.raises(InviteError):
                    decode_invite(text[:at] + other + text[at + 1 :])


@pytest.mark.attack
def test_the_bits_that_base32_ignores_count():
    text = invite(IPV4).encode()
    for other in ALPHABET:
        if other != text[-1]:
            with pytest.raises(InviteError):
                decode_invite(text[:-1] + other)


@pytest.mark.attack
def test_mutants():
    """A sample of `python -m tests.fuzz`: half of them carry a right checksum."""
    assert accepted_invites(invite(IPV4, NAMED), seed=7, count=20_000) == 0


def test_the_seed_never_travels():
    made = create_invite(ROOT, b"sixteen bytes...", NOW + timedelta(days=1), doors=(IPV4,))
    request = made.request(Identity.create(), PEER)
    assert len(request) == 232
    assert b"sixteen bytes..." not in request
