"""Who belongs to the swarm, who can be reached now, and what keeps everybody's knowledge of that equal.

The directory holds everybody's contact; links say who is connected with whom; what changes is broadcast along
them and repaired in pairs. Up to `limits.MESH_PEERS_MAX` members everybody is connected with everybody.
"""

from collections.abc import Callable, Iterable
from random import Random
from typing import Any, cast

from p2ptrain.core import limits, links, plumtree, repair
from p2ptrain.core.conduct import Conduct
from p2ptrain.core.directory import RENEW_S, Directory, Introduced, Record, name_of
from p2ptrain.core.effects import Effect, Note, Remember, Send, SetTimer, Sign
from p2ptrain.core.envelope import Verified
from p2ptrain.core.errors import Offence
from p2ptrain.core.links import Links
from p2ptrain.core.members import Members as Members
from p2ptrain.core.messages import (
    ID_BYTES,
    Compare,
    Contact,
    Contacts,
    Graft,
    Have,
    Link,
    Message,
    Prune,
    Push,
    Tags,
    Want,
)
from p2ptrain.core.plumtree import Fresh, Plumtree
from p2ptrain.core.repair import Repair
from p2ptrain.core.types import PeerId, Seconds, short

REPAIR_TIMER = "repair"
RENEW_TIMER = "renew"

SMALL_PEERS_MAX = plumtree.FLOOD_PEERS_MAX
"""Whoever connects is told of so many members at once; of more by comparing."""


class Membership:
    """Members, their contacts and the connections to them."""

    __slots__ = (
        "_conduct",
        "_directory",
        "_down",
        "_links",
        "_me",
        "_members",
        "_own",
        "_plumtree",
        "_repair",
        "_repaired",
        "_rng",
        "_serving",
        "_trainers",
    )

    def __init__(self, me: PeerId, rng: Random, conduct: Conduct, members: Members) -> None:
        self._me = me
        self._rng = rng
        self._conduct = conduct
        self._members = members.plus(me)
        self._directory = Directory(members.directory)
        self._links = Links(me, rng, conduct, self._directory)
        self._plumtree = Plumtree()
        self._repair = Repair(self._directory, rng)
        self._repaired = -repair.EVERY_S
        self._own: Introduced | None = None
        self._down: dict[PeerId, str] = {}
        self._serving: dict[PeerId, None] = {}
        self._trainers: tuple[Members, tuple[PeerId, ...]] | None = None

    # -- questions ---------------------------------------------------------------------------------

    @property
    def members(self) -> tuple[PeerId, ...]:
        """All members, sorted, this node among them."""
        return self._members.order

    @property
    def trainers(self) -> tuple[PeerId, ...]:
        """The members that train, sorted, this node among them if it does."""
        if not self._serving:
            return self._members.order
        if self._trainers is None or self._trainers[0] is not self._members:
            self._trainers = self._members, tuple(filter(self.trains, self._members.order))
        return self._trainers[1]

    def trains(self, peer: PeerId) -> bool:
        """Say whether a member trains, as far as is known: a bootstrap does not."""
        return peer not in self._serving

    def reachable(self, peer: PeerId, now: Seconds) -> bool:
        """Say whether a message to the member would arrive, as far as is known."""
        return peer not in self._down and self.allowed(peer, now)

    def allowed(self, peer: PeerId, now: Seconds) -> bool:
        """Say whether the peer is a member that is not banned."""
        return peer in self._members and self._conduct.admits(peer, now)

    def trusted(self, statements: Iterable[Verified[Any]], now: Seconds) -> list[Verified[Any]]:
        """Return the statements that count, by their authors."""
        members = self._members.index
        known = [statement for statement in statements if statement.sender in members]
        if self._conduct.is_clean:
            return known
        return [statement for statement in known if self._conduct.believes(statement.sender, now)]

    def others(self, now: Seconds) -> list[PeerId]:
        """Members other than this node that can be reached now, sorted."""
        return [peer for peer in self.members if peer != self._me and self.reachable(peer, now)]

    def partners(self, now: Seconds) -> list[PeerId]:
        """Those of them that train."""
        return [peer for peer in self.trainers if peer != self._me and self.reachable(peer, now)]

    @property
    def neighbours(self) -> tuple[PeerId, ...] | None:
        """In a large swarm those whom news are told, sorted; None: tell them to any member."""
        return None if self._links.is_mesh else self._links.neighbours

    def audience(self, now: Seconds) -> list[PeerId]:
        """Those who can be told something without a connection being made for it only."""
        return self.others(now) if self._links.is_mesh else list(self._links.neighbours)

    def contact(self, peer: PeerId) -> Contact | None:
        """What a member said of itself."""
        record = self._directory.get(peer)
        return record.contact.message if record else None

    @property
    def own_contact(self) -> bytes | None:
        """What this node says of itself, signed; None before that."""
        return self._own.raw if self._own else None

    def connected(self, peer: PeerId) -> bool:
        """Say whether a connection stands."""
        return peer in self._links.connected

    def trouble(self, peer: PeerId) -> str:
        """Why a member cannot be reached; empty if it can or nothing is known."""
        return self._down.get(peer, "")

    # -- what happens ------------------------------------------------------------------------------

    def start(self, contacts: Iterable[Verified[Message]], now: Seconds) -> list[Effect]:
        """Begin with what is remembered."""
        effects = self._introduce([(cast("Introduced", contact), 0.0) for contact in contacts], now)[1]
        return [*effects, *self._look(now)]

    def on_timer(self, key: str, now: Seconds) -> list[Effect]:
        """Do what is due."""
        if key == links.TIMER:
            return self._look(now)
        if key == plumtree.TIMER:
            return self._plumtree.on_timer(now)
        if key == REPAIR_TIMER:
            return self._mend(now)
        return [Sign(self._own.message)] if self._own else []

    def on_up(self, peer: PeerId, now: Seconds) -> list[Effect]:
        """A connection stands: make both know the same."""
        self._members = self._members.plus(peer)
        self._down.pop(peer, None)
        self._directory.revive(peer, now)
        effects: list[Effect] = [Note("peer_up", {"peer": short(peer)}), *self._introductions(peer, now)]
        if self._own and now - self._repaired >= repair.EVERY_S:
            self._repaired = now
            effects += self._repair.ask(peer, now)
        effects += self._links.on_up(peer, now)
        self._rewire()
        return effects

    def on_down(self, peer: PeerId, reason: str, now: Seconds) -> list[Effect]:
        """A connection ended or could not be made."""
        unexpected, effects = self._links.on_down(peer, now)
        self._repair.forget(peer)
        self._rewire()
        if not unexpected:
            return effects
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

    def on_used(self, peer: PeerId, now: Seconds) -> None:
        """A strategy talks with a peer."""
        self._links.on_used(peer, now)

    def on_own_contact(self, contact: Introduced, now: Seconds) -> list[Effect]:
        """The own contact is signed, again or changed: tell everybody."""
        self._own = contact
        self._note_work(contact)
        record = self._directory.learn(contact, now, own=True)
        timers: list[Effect] = [
            SetTimer(RENEW_TIMER, self._about(RENEW_S)),
            SetTimer(REPAIR_TIMER, self._about(repair.EVERY_S)),
        ]
        return [*timers, *(self._pass_on([record], None, now) if record else [])]

    def on_message(self, via: PeerId, message: Verified[Message], now: Seconds) -> list[Effect]:
        """A member says something that concerns membership; see `HANDLERS`."""
        return HANDLERS[type(message.message)](self, via, message, now)

    # -- messages ----------------------------------------------------------------------------------

    def _on_contacts(self, via: PeerId, message: Verified[Contacts], now: Seconds) -> list[Effect]:
        """Members were introduced. Who introduces itself is introduced to everybody."""
        ages = dict(zip(message.message.carried, message.message.ages, strict=False))
        told = [(c, 0.0 if c.sender == via else float(ages.get(c.raw, 0))) for c in message.carried]
        records, effects = self._introduce(told, now)
        for record in records:
            self._plumtree.see(record.name, record.contact.sender, now)
        itself = [record for record in records if record.contact.sender == via]
        return [*effects, *self._pass_on(itself, via, now), *(self._look(now) if effects else [])]

    def _on_push(self, via: PeerId, message: Verified[Push], now: Seconds) -> list[Effect]:
        """Something new of members, or known already."""
        new = []
        for contact in message.carried:
            name = name_of(contact.raw)
            if not self._plumtree.has_seen(name):
                self._plumtree.see(name, contact.sender, now)
                new.append((contact, 0.0))
        if not new:
            return self._plumtree.on_known(via) if message.carried else []
        records, effects = self._introduce(new, now)
        return [*effects, *self._pass_on(records, via, now), *(self._look(now) if effects else [])]

    def _on_have(self, via: PeerId, message: Verified[Have], now: Seconds) -> list[Effect]:
        if len(message.message.ids) % ID_BYTES:
            return self._charge(via, "a part of an id", now)
        ids = repair.split(message.message.ids, ID_BYTES)
        return self._plumtree.on_have(via, ids, now) if via in self._links.neighbours else []

    def _on_graft(self, via: PeerId, message: Verified[Graft], now: Seconds) -> list[Effect]:
        if len(message.message.ids) % ID_BYTES:
            return self._charge(via, "a part of an id", now)
        subjects = self._plumtree.on_graft(via, repair.split(message.message.ids, ID_BYTES))
        records = [record for subject in subjects if (record := self._directory.get(subject))]
        found = self._repair.allow(via, records, now)
        return [Send(via, Push(page.carried)) for page in repair.pages(found, now)]

    def _on_prune(self, via: PeerId, message: Verified[Prune], now: Seconds) -> list[Effect]:
        self._plumtree.on_prune(via)
        return []

    def _on_link(self, via: PeerId, message: Verified[Link], now: Seconds) -> list[Effect]:
        effects = self._links.on_link(via, message.message.wanted, now)
        self._rewire()
        return effects

    def _on_compare(self, via: PeerId, message: Verified[Compare], now: Seconds) -> list[Effect]:
        return self._unless_faulty(via, self._repair.on_compare(via, message.message, now), now)

    def _on_tags(self, via: PeerId, message: Verified[Tags], now: Seconds) -> list[Effect]:
        effects = self._unless_faulty(via, self._repair.on_tags(via, message.message, now), now)
        return [*effects, SetTimer(REPAIR_TIMER, repair.AGAIN_S)] if self._repair.behind else effects

    def _on_want(self, via: PeerId, message: Verified[Want], now: Seconds) -> list[Effect]:
        return self._unless_faulty(via, self._repair.on_want(via, message.message, now), now)

    # -- steps -------------------------------------------------------------------------------------

    def _look(self, now: Seconds) -> list[Effect]:
        effects = self._links.look(now)
        self._rewire()
        return effects

    def _rewire(self) -> None:
        self._plumtree.use(self._links.neighbours, len(self._directory))

    def _mend(self, now: Seconds) -> list[Effect]:
        """Forget who is gone, and compare with one neighbour."""
        gone = self._directory.expire(now, {**self._links.connected, self._me: now})
        effects: list[Effect] = [SetTimer(REPAIR_TIMER, self._about(repair.EVERY_S))]
        if gone:
            lost = dict.fromkeys(peer for peer in gone if peer not in self._links.connected)
            self._members = self._members.minus(lost)
            for peer in lost:
                self._down.pop(peer, None)
                self._serving.pop(peer, None)
            self._trainers = None
            effects += [Note("members_expired", {"count": len(gone)}), *self._look(now)]
        if self._links.neighbours:
            self._repaired = now
            effects += self._repair.ask(self._rng.choice(self._links.neighbours), now)
        return [*effects, *self._links.stray(now)]

    def _introduce(
        self, told: list[tuple[Introduced, Seconds]], now: Seconds
    ) -> tuple[list[Record], list[Effect]]:
        """Take contacts with their ages in; return what was new, and what is to be kept of it."""
        records: list[Record] = []
        effects: list[Effect] = []
        for contact, age in told:
            peer = contact.sender
            known = self._directory.get(peer)
            if peer == self._me:
                if self._own and contact.boot > self._own.boot:
                    effects.append(Note("identity_used_elsewhere"))
                continue
            record = self._directory.learn(contact, now, age, kept=self._links.connected)
            if record is None:
                continue
            records.append(record)
            self._note_work(contact)
            if known is not None and peer not in self._links.connected:
                self._down.pop(peer, None)  # it lives: it signed this
            if known is None or known.contact.message.addresses != contact.message.addresses:
                self._links.on_new_address(peer)
            if known is None or known.contact.message != contact.message:
                effects.append(Remember(peer, contact.raw))
        self._members = self._members.plus(*(record.contact.sender for record in records))
        if len(self._members) > limits.PEERS_MAX:
            self._members = self._members.minus(dict.fromkeys(filter(self._is_forgotten, self.members)))
        return records, effects

    def _is_forgotten(self, peer: PeerId) -> bool:
        """Say whether a member gave way to others when the directory was full."""
        return peer != self._me and peer not in self._links.connected and self._directory.get(peer) is None

    def _pass_on(self, records: list[Record], via: PeerId | None, now: Seconds) -> list[Effect]:
        urgent = [record for record in records if record.urgent]
        for record in urgent:
            self._plumtree.see(record.name, record.contact.sender, now)
        fresh = [Fresh(record.name, record.contact.raw, record.contact.sender) for record in urgent]
        return self._plumtree.pass_on(fresh, via, now) if fresh else []

    def _introductions(self, peer: PeerId, now: Seconds) -> list[Effect]:
        """Everybody to everybody in a small swarm; in a large one only oneself."""
        if len(self._directory) <= SMALL_PEERS_MAX:
            records = [record for record in self._directory if record.contact.sender != peer]
            return [Send(peer, page) for page in repair.pages(records, now)]
        return [Send(peer, Contacts((self._own.raw,), (0,)))] if self._own else []

    def _note_work(self, contact: Introduced) -> None:
        if contact.message.trains == self.trains(contact.sender):
            return
        if contact.message.trains:
            del self._serving[contact.sender]
        else:
            self._serving[contact.sender] = None
        self._trainers = None

    def _unless_faulty(self, via: PeerId, answer: tuple[list[Effect], str], now: Seconds) -> list[Effect]:
        effects, fault = answer
        return self._charge(via, fault, now) if fault else effects

    def _charge(self, peer: PeerId, fault: str, now: Seconds) -> list[Effect]:
        return self._conduct.charge(peer, Offence.OUT_OF_RANGE, fault, now)

    def _about(self, seconds: Seconds) -> Seconds:
        """A fifth more or less: nobody is to do the same at the same time as others."""
        return seconds * (0.8 + 0.4 * self._rng.random())


HANDLERS: dict[type[Message], Callable[[Membership, PeerId, Any, Seconds], list[Effect]]] = {
    Contacts: Membership._on_contacts,
    Compare: Membership._on_compare,
    Tags: Membership._on_tags,
    Want: Membership._on_want,
    Link: Membership._on_link,
    Push: Membership._on_push,
    Have: Membership._on_have,
    Graft: Membership._on_graft,
    Prune: Membership._on_prune,
}

TIMERS = (links.TIMER, plumtree.TIMER, REPAIR_TIMER, RENEW_TIMER)
