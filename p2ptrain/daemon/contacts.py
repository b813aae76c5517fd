"""The other members as they introduced themselves: kept for the next start, told to who joins."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

from p2ptrain.core import limits
from p2ptrain.core.envelope import Opener, Verified
from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.messages import Contact, Message
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.daemon.logs import logger
from p2ptrain.daemon.swarms import SwarmFolder

SAVE_EVERY_S: Seconds = 5.0
"""What was heard since then is heard again after a power cut."""


class ContactBook:
    """Signed contacts by peer, in memory and in the swarm's folder.

    Args:
        folder: of the swarm.
        opener: checks them.
    """

    def __init__(self, folder: SwarmFolder, opener: Opener) -> None:
        self._folder = folder
        self._opener = opener
        self._raw: dict[PeerId, bytes] = {}
        self._changed = False

    def load(self) -> tuple[Verified[Message], ...]:
        """Read the file; what is no longer good is left out."""
        contacts = []
        for raw in self._folder.contacts():
            try:
                contacts.append(self._opener.open_statement(raw))
            except RemoteProtocolError as error:
                logger.info("a remembered contact is no longer good: %s", error.detail)
        self._raw = {contact.sender: contact.raw for contact in contacts}
        return tuple(contacts)

    def remember(self, peer: PeerId, raw: bytes) -> None:
        """Keep what a peer says of itself now."""
        self._raw[peer] = raw
        self._changed = True

    def forget(self, peer: PeerId) -> None:
        """Keep nothing of a peer."""
        self._changed |= self._raw.pop(peer, None) is not None

    def of(self, peer: PeerId) -> Contact | None:
        """What a peer says of itself, if it is good now."""
        with suppress(RemoteProtocolError, KeyError):
            contact = self._opener.open_statement(self._raw[peer]).message
            return contact if isinstance(contact, Contact) else None
        return None

    def all(self) -> Iterator[tuple[PeerId, Contact]]:
        """Those that are good now."""
        for peer in list(self._raw):
            contact = self.of(peer)
            if contact is not None:
                yield peer, contact

    def some(self, wanted: Callable[[Contact], bool], most: int) -> list[tuple[PeerId, Contact]]:
        """Return the first few that are as wanted."""
        return list(islice(((peer, one) for peer, one in self.all() if wanted(one)), most))

    def certificates(self) -> Iterator[tuple[PeerId, bytes]]:
        """The members' certificates as their contacts carry them."""
        for peer, contact in self.all():
            yield peer, contact.certificate

    def introductions(self, own: bytes | None) -> list[bytes]:
        """What a new member is told of others: this node first."""
        return [*([own] if own else []), *self._raw.values()][: limits.CONTACTS_PER_MESSAGE_MAX]

    async def run(self) -> None:
        """Keep the file up to date, for ever."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            self.save()

    def save(self) -> None:
        """Write the file, if anything changed."""
        if self._changed:
            self._changed = False
            self._folder.save_contacts(self._raw)
