"""Mutated envelopes, invites, and what a live member is sent: nothing forged may be accepted, only the
border's own errors come out.

`python -m tests.fuzz --envelopes 1000000 --invites 1000000 --live 200000 --seed 1` takes minutes; a sample
runs with the tests.
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from p2ptrain.core.codec import Codec
from p2ptrain.core.envelope import Opener, Sealer, Verified
from p2ptrain.core.errors import InviteError, RemoteProtocolError
from p2ptrain.core.messages import Contact, Contacts, Leave, Message, News, Report
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
from p2ptrain.sim.keys import SWARM, SimVerifier
from tests.helpers import Author, offer
from tests.net.fuzz_live import attack_live

BODY_AT, MESSAGE_AT = 100, 116
DOOR = Door("203.0.113.9", 47777, PeerId(bytes(range(32))))
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def mutated(rng: Random, raw: bytes, others: list[bytes]) -> bytes:
    """Change an envelope as a careless or clever attacker would."""
    data = bytearray(raw)
    match rng.randrange(6):
        case 0:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            data += rng.randbytes(rng.randrange(1, 40))
        case 3:
            at, other = rng.choice((4, 36, BODY_AT, MESSAGE_AT)), rng.choice(others)
            data[at:] = other[at:]
        case 4:
            data[BODY_AT:MESSAGE_AT] = rng.randbytes(16)
        case _:
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
    return bytes(data)


def honest_envelopes(*authors: Author) -> list[Verified[Message]]:
    said: list[Verified[Message]] = []
    for author in authors:
        reports = [author.reports(0.5), author.reports(0.25)]
        said += [
            author.says(News(tuple(report.raw for report in reports), (True, False), hops=3)),
            author.says(Contacts((author.contact("192.0.2.1:7", name="a").raw,))),
            author.says(Leave("bye")),
            author.says(Report(1, 2, 3.0, 0.5, offer(0.25))),
        ]
    return said


def accepted_forgeries(border: Opener, seed: int, count: int, honest: list[Verified[Message]]) -> int:
    """Offer mutations; any exception but the border's own passes through to the test."""
    rng, raws, accepted = Random(seed), [message.raw for message in honest], 0
    for _ in range(count):
        message = rng.choice(honest)
        raw = mutated(rng, message.raw, raws)
        try:
            found = border.receive(raw, message.sender)
        except RemoteProtocolError:
            continue
        accepted += found is not None and raw not in raws
    return accepted


class RealSigner:
    """Ed25519, as in production."""

    def __init__(self, seed: int) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.peer = PeerId(self._key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


class RealVerifier(SimVerifier):
    def verify(self, peer: PeerId, signature: bytes, data: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(peer).verify(signature, data)
        except InvalidSignature:
            return False
        return True


def real_envelopes(seed: int) -> tuple[Opener, list[Verified[Message]]]:
    """A border that checks Ed25519, and what an honest member said."""
    sealer = Sealer(RealSigner(seed), SWARM, Codec(), 1)
    report = sealer.seal(Report(1, 2, 3.0, 0.5, offer(0.25)))
    contact = sealer.seal(Contact(b"member", ("192.0.2.1:7",)))
    said = [News((report.raw,), (True,), hops=3), Contacts((contact.raw,)), Leave("bye")]
    return Opener(RealVerifier(), SWARM, Codec()), [report, *map(sealer.seal, said)]


def accepted_invites(invite: Invite, seed: int, count: int) -> int:
    """Offer mutated invites, every second one under a right checksum; count those read with other terms."""
    rng, text, accepted = Random(seed), invite.encode(), 0
    for number in range(count):
        changed = resealed(rng, text) if number % 2 else misspelt(rng, text)
        try:
            read = decode_invite(changed)
        except InviteError:
            continue
        # Addresses are hints that nobody signed.
        accepted += read.terms != invite.terms or read.key != invite.key
    return accepted


def misspelt(rng: Random, text: str) -> str:
    """Change some letters."""
    letters = list(text)
    for _ in range(rng.randint(1, 4)):
        letters[rng.randrange(len(letters))] = rng.choice(ALPHABET + "018 #é=")
    return "".join(letters)


def resealed(rng: Random, text: str) -> str:
    """Change some bytes and put a right checksum behind them."""
    data = bytearray(_unpack_text(text))
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    return PREFIX + _base32(bytes(data) + _checksum(bytes(data)))


def main() -> None:
    """Run as many as asked and say what passed: nothing may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--envelopes", type=int, default=1_000_000)
    parser.add_argument("--invites", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=200_000, help="requests, frames, names, chunks")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    now = datetime.now(UTC)
    print(f"seed {asked.seed}")  # noqa: T201
    began = time.monotonic()
    border, honest = real_envelopes(asked.seed % 256)
    passed = accepted_forgeries(border, asked.seed, asked.envelopes, honest)
    print(f"envelopes: {asked.envelopes}, accepted: {passed}, {time.monotonic() - began:.0f} s")  # noqa: T201
    began = time.monotonic()
    invite = create_invite(Root.create(now), bytes(16), now + timedelta(days=7), doors=(DOOR,))
    read = accepted_invites(invite, asked.seed, asked.invites)
    print(f"invites: {asked.invites}, accepted: {read}, {time.monotonic() - began:.0f} s")  # noqa: T201
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        live = attack_live(Path(folder), asked.seed, asked.live)
    print(f"live: {live.cases}, wrong: {len(live.wrong)}, {time.monotonic() - began:.0f} s")  # noqa: T201
    print(*live.wrong[:3], dict(live.done), sep="\n")  # noqa: T201
    if passed or read or live.wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
