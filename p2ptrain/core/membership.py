"""Who belongs to the swarm, who can be reached now, and whom to dial.

Every member is connected with every other: right up to `limits.MESH_PEERS_MAX`, affordable to some
dozens. Larger swarms need a directory and chosen links; they replace `_wanted`, nothing else.
"""

from collections.abc import Iterable, Iterator
from random import Random
from typing import cast

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.conduct import Conduct
from p2ptrain.core.effects import Dial, Effect, Note, Remember, Send, SetTimer
from p2ptrain.core.envelope import Verified
from p2ptrain.core.messages import Contact, Contacts, Message
from p2ptrain.core.types import PeerId, Seconds, short

TIMER = "dial"
DIAL_EVERY_S = 1.0
"""How often the missing connections are looked at (guess)."""

BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 60.0
"""A member that does not answer is dialled less and less often (guess)."""

Introduced = Verified[Contact]


class Members:
    """An unchangeable sorted list of peers that many nodes of a simulation may share."""

    def __init__(self, peers: Iterable[PeerId]) -> None:
        self.order: tuple[PeerId, ...] = tuple(sorted(dict.fromkeys(peers)))
        self._index = dict.fromkeys(self.order)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._index

    def __len__(self) -> int:
        return len(self.order)

    def plus(self, peer: PeerId) -> "Members":
        """The same list with one more."""
        return self if peer in self._index else Members((*self.order, peer))


class Attempt(Struct, frozen=True):
    """Failed attempts to reach a peer in a row, and when the next one is due."""

    failures: int
    due: Seconds


class Membership:
    """Members, their contacts and the connections to them."""

    __slots__ = ("_attempts", "_conduct", "_connected", "_contacts", "_down", "_me", "_members", "_rng")

    def __init__(self, me: PeerId, rng: Random, conduct: Conduct, members: Members) -> None:
        self._me = me
        self._rng = rng
        self._conduct = conduct
        self._members = members.plus(me)
        self._contacts: dict[PeerId, Introduced] = {}
        self._connected: dict[PeerId, Seconds] = {}
        self._down: dict[PeerId, str] = {}
        self._attempts: dict[PeerId, Attempt] = {}

    # -- questions ---------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All members, sorted, this node among them."""
        return self._members.order

    def reachable(self, peer: PeerId, now: Seconds) -> bool:
        """Say whether a message to the member would arrive, as far as is known."""
        return peer not in self._down and self.allowed(peer, now)

    def allowed(self, peer: PeerId, now: Seconds) -> bool:
        """Say whether the peer is a member that is not banned."""
        return peer in self._members and self._conduct.admits(peer, now)

    def trusts(self, peer: PeerId, now: Seconds) -> bool:
        """Say whether the peer's reports count."""
        return peer in self._members and self._conduct.believes(peer, now)

    def partners(self, now: Seconds) -> list[PeerId]:
        """Members other than this node that can be reached now, sorted."""
        return [peer for peer in self.members if peer != self._me and self.reachable(peer, now)]

    def contact(self, peer: PeerId) -> Contact | None:
        """What a member said of itself."""
        introduced = self._contacts.get(peer)
        return introduced.message if introduced else None

    @property
    def own_contact(self) -> bytes | None:
        """What this node says of itself, signed; None before that."""
        contact = self._contacts.get(self._me)
        return contact.raw if contact else None

    def connected(self, peer: PeerId) -> bool:
        """Say whether a connection stands."""
        return peer in self._connected

    def trouble(self, peer: PeerId) -> str:
        """Why a member cannot be reached; empty if it can or nothing is known."""
        return self._down.get(peer, "")

    # -- what happens ------------------------------------------------------------------------------

    def start(self, contacts: Iterable[Verified[Message]], now: Seconds) -> list[Effect]:
        """Begin with what is remembered."""
        effects: list[Effect] = []
        for contact in contacts:
            effects += self._introduce(contact)
        return [*effects, *self.on_timer(now)]

    def on_timer(self, now: Seconds) -> list[Effect]:
        """Dial the members that are missing, each when its time has come."""
        effects: list[Effect] = []
        wanted = self._wanted()
        for peer in wanted:
            attempt = self._attempts.get(peer, Attempt(0, now))
            if now >= attempt.due and self._conduct.admits(peer, now):
                self._attempts[peer] = Attempt(attempt.failures, now + BACKOFF_MAX_S)
                effects.append(Dial(peer, self._contacts[peer].message.addresses))
        return [*effects, SetTimer(TIMER, DIAL_EVERY_S)] if wanted else []

    def on_up(self, peer: PeerId, now: Seconds) -> list[Effect]:
        """A connection stands: introduce everyone to each other."""
        self._members = self._members.plus(peer)
        self._connected[peer] = now
        self._down.pop(peer, None)
        self._attempts.pop(peer, None)
        return [Note("peer_up", {"peer": short(peer)}), *self._introductions(peer)]

    def on_down(self, peer: PeerId, reason: str, now: Seconds) -> list[Effect]:
        """A connection ended or could not be made: try again later."""
        was = self._connected.pop(peer, None)
        failures = 0 if was is not None else self._attempts.get(peer, Attempt(0, now)).failures + 1
        wait_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 10))
        effects: list[Effect] = []
        if peer in self._contacts:
            self._attempts[peer] = Attempt(failures, now + wait_s * (0.5 + self._rng.random()))
            effects.append(SetTimer(TIMER, DIAL_EVERY_S))
        if peer not in self._down:
            effects.append(Note("peer_down", {"peer": short(peer), "reason": reason[:200]}))
        self._down[peer] = reason[:200]
        if len(self._down) > limits.PEERS_MAX:
            del self._down[next(iter(self._down))]
        return effects

    def on_leave(self, peer: PeerId, reason: str) -> list[Effect]:
        """A member said goodbye: it is left alone until it is heard again. Its connection ends by itself."""
        self._down[peer] = reason[:200]
        return [Note("peer_down", {"peer": short(peer), "reason": reason[:200]})]

    def on_heard(self, peer: PeerId) -> None:
        """A message came: whatever was thought, the peer lives."""
        self._down.pop(peer, None)
        if peer not in self._members and len(self._members) < limits.PEERS_MAX:
            self._members = self._members.plus(peer)

    def on_contacts(self, message: Verified[Contacts], now: Seconds) -> list[Effect]:
        """Members were introduced. Who introduces itself is introduced to everyone connected."""
        effects: list[Effect] = []
        for contact in message.carried:
            news = self._introduce(contact)
            effects += news
            if news and contact.sender == message.sender:
                others = [peer for peer in self._connected if peer != contact.sender]
                effects += [Send(peer, Contacts((contact.raw,))) for peer in others]
        return [*effects, *self.on_timer(now)] if effects else []

    def on_own_contact(self, contact: Introduced) -> list[Effect]:
        """The own contact is signed, or changed: tell everyone connected."""
        self._contacts[self._me] = contact
        message = Contacts((contact.raw,))
        return [Send(peer, message) for peer in self._connected]

    # -- steps -------------------------------------------------------------------------------------

    def _wanted(self) -> list[PeerId]:
        return [
            peer
            for peer, contact in self._contacts.items()
            if peer != self._me and peer not in self._connected and contact.message.addresses
        ]

    def _introduce(self, statement: Verified[Message]) -> list[Effect]:
        contact = cast("Introduced", statement)
        peer = contact.sender
        known = self._contacts.get(peer)
        newer = known is None or (contact.boot, contact.sequence) > (known.boot, known.sequence)
        full = known is None and len(self._contacts) >= limits.PEERS_MAX
        if peer == self._me or not newer or full:
            return []
        self._contacts[peer] = contact
        self._members = self._members.plus(peer)
        if known is None or known.message.addresses != contact.message.addresses:
            self._attempts.pop(peer, None)
        return [Remember(peer, contact.raw)]

    def _introductions(self, peer: PeerId) -> list[Effect]:
        others = [contact.raw for subject, contact in self._contacts.items() if subject != peer]
        return [Send(peer, Contacts(tuple(page))) for page in pages(others)]


def pages(contacts: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Divide contacts into messages: most are small, but some may say much of themselves."""
    page: list[bytes] = []
    free = limits.FRAME_BYTES_MAX // 2
    for contact in contacts:
        if page and (len(contact) > free or len(page) == limits.CONTACTS_PER_MESSAGE_MAX):
            yield page
            page, free = [], limits.FRAME_BYTES_MAX // 2
        page.append(contact)
        free -= len(contact)
    if page:
        yield page
