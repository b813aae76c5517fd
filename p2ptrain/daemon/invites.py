"""The invites that were made here: what may be listed and withdrawn; never the secret in them.

One file beside the root key. How often one was used is in the book of admissions.
"""

import ipaddress
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.codec import Codec
from p2ptrain.core.envelope import Opener
from p2ptrain.core.errors import ConfigError, RemoteProtocolError
from p2ptrain.core.messages import Contact
from p2ptrain.core.types import PeerId, short
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.net.addresses import VIA, parse_address
from p2ptrain.net.members.invite import Door, Invite, decode_invite
from p2ptrain.net.members.state import read_state
from p2ptrain.net.trust.private_files import read_private, write_private
from p2ptrain.net.trust.verifier import SwarmVerifier

INVITES_MAX = 1024
"""The oldest are forgotten first (guess)."""

FORGET_AFTER = timedelta(days=30)
"""An expired invite is shown that long (guess)."""


class Made(Struct, frozen=True):
    """One invite as it was made. key: its public key; expires: Unix seconds."""

    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    expires: int
    uses: int


class Listed(Struct, frozen=True):
    """One invite as its maker sees it. state: `open`, `used up`, `expired` or `revoked`."""

    id: str
    state: str
    uses: int
    used: int
    left: int
    expires: str


class Invites:
    """The invites of one swarm."""

    def __init__(self, folder: SwarmFolder) -> None:
        self._folder = folder
        self._path = folder.path / "invites"

    def remember(self, invite: Invite, now: datetime) -> None:
        """Keep a new one; those that expired long ago are forgotten."""
        since = int((now - FORGET_AFTER).timestamp())
        kept = [made for made in self._all() if made.expires > since][1 - INVITES_MAX :]
        kept.append(Made(invite.key, invite.expires, invite.uses))
        write_private(self._path, msgspec.msgpack.encode(kept))

    def listed(self, now: datetime) -> list[Listed]:
        """Show all, the newest first."""
        admission = self._folder.admission()
        used = {made.key: admission.book.uses(made.key) if admission else 0 for made in self._all()}
        revoked = self._revoked()
        return [_list(made, used[made.key], made.key in revoked, now) for made in reversed(self._all())]

    def revoke(self, text: str) -> str:
        """Withdraw an invite, by the beginning of its id or by its whole text; return its id.

        Raises:
            ConfigError: there is none, or more than one; or the root key is not here.
            InviteError: the text is an invite, but a damaged one.
        """
        key = self._find(text)
        self._folder.decide(lambda state: state.revoke_invite(key))
        return short(PeerId(key))

    def _find(self, text: str) -> bytes:
        word = "".join(text.split()).lower()
        if len(word) > 52:
            invite = decode_invite(text)
            if invite.swarm != self._folder.swarm:
                raise ConfigError("that invite is of another swarm", "name its swarm with --swarm")
            return invite.key
        found = {made.key for made in self._all() if word and short(PeerId(made.key)).startswith(word)}
        if len(found) == 1:
            return found.pop()
        problem = "more than one invite's" if found else "no invite's"
        raise ConfigError(f"{problem} id begins with `{text}`", "`p2ptrain invite list` shows them")

    def _revoked(self) -> frozenset[bytes]:
        return frozenset(read_state(self._folder.membership().root_key, self._folder.state()).invites)

    def _all(self) -> list[Made]:
        if not self._path.exists():
            return []
        try:
            return msgspec.msgpack.decode(read_private(self._path), type=list[Made])
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            raise ConfigError(
                f"{self._path} is damaged", "delete it: invites stay good, but are not listed"
            ) from None


def doors(
    folder: SwarmFolder, here: PeerId, addresses: Sequence[str], absent: Collection[PeerId] = ()
) -> tuple[Door, ...]:
    """Return where new members can ask: at most eight addresses, of bootstraps first.

    Every issuer gets one before any gets a second, so that the swarm survives the loss of any of them.

    Args:
        folder: of the swarm.
        here: this node.
        addresses: where it can be reached.
        absent: who is known to be away now: they come last.
    """
    issuers = sorted(
        [_Issuer(here, tuple(addresses), trains=True, mine=True), *_delegates(folder)],
        key=lambda one: (one.peer in absent, one.is_called, one.trains, not one.mine),
    )
    found = [_doors_of(issuer) for issuer in issuers]
    by_turns = [door for turn in zip_longest(*found) for door in turn if door is not None]
    chosen = by_turns[: limits.ADDRESSES_MAX]
    return tuple(door for of_one in found for door in of_one if door in chosen)


class _Issuer(Struct, frozen=True):
    peer: PeerId
    addresses: tuple[str, ...]
    trains: bool
    mine: bool = False

    @property
    def is_called(self) -> bool:
        """Whether members reach it through a relay only: who is none yet cannot."""
        return any(text.startswith(VIA) for text in self.addresses)


def _delegates(folder: SwarmFolder) -> Iterator[_Issuer]:
    membership = folder.membership()
    delegates = read_state(membership.root_key, folder.state()).delegates
    opener = Opener(SwarmVerifier(membership.root, lambda _: False), membership.swarm, Codec())
    for raw in folder.contacts():
        with suppress(RemoteProtocolError):
            contact = opener.open_statement(raw)
            if contact.sender in delegates and isinstance(contact.message, Contact):
                yield _Issuer(contact.sender, contact.message.addresses, contact.message.trains)


def _doors_of(issuer: _Issuer) -> list[Door]:
    """Return an issuer's addresses, those that the whole internet can use first."""
    found = []
    for text in issuer.addresses:
        with suppress(ValueError):
            found.append(parse_address(text))
    found.sort(key=lambda address: not ipaddress.ip_address(address.host).is_global)
    return [Door(*address, issuer.peer) for address in found]


def _list(made: Made, used: int, revoked: bool, now: datetime) -> Listed:
    until = datetime.fromtimestamp(made.expires, UTC)
    left = max(0, made.uses - used)
    state = "revoked" if revoked else "expired" if now >= until else "open" if left else "used up"
    return Listed(
        id=short(PeerId(made.key)),
        state=state,
        uses=made.uses,
        used=used,
        left=left if state == "open" else 0,
        expires=f"{until:%Y-%m-%dT%H:%M:%SZ}",
    )
