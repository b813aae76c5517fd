"""Which connections are wanted: everybody with everybody in a small swarm, a few by chance in a large one.

In a large one a member dials `DIALLED` others that chance picks among those it may ask (see `lots`), never
whom somebody names, and accepts as many; when more ask, the nearest stay. Other connections, which strategies
and fetches cause, are spare: they end when nothing used them for a while.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from random import Random

from msgspec import Struct

from p2ptrain.core import limits, lots
from p2ptrain.core.conduct import Conduct
from p2ptrain.core.directory import Directory, Introduced
from p2ptrain.core.effects import Dial, Effect, Hangup, Send, SetTimer
from p2ptrain.core.messages import Link
from p2ptrain.core.types import PeerId, Seconds

TIMER = "dial"
DIAL_EVERY_S: Seconds = 1.0
"""How often the missing connections are looked at (guess)."""

LOOK_EVERY_S: Seconds = 10.0
"""How often links are looked at when none is missing (guess)."""

BACKOFF_FIRST_S: Seconds = 1.0
BACKOFF_MAX_S: Seconds = 60.0
"""A member that does not answer is dialled less and less often (guess)."""

REFUSED_S: Seconds = 60.0
"""A member that has links enough is asked again so much later; longer after each refusal (guess)."""

DIALLED = 4
LINKS_MAX = 8
"""Links of a member in a large swarm: 99.9 % can still be reached when 30 % die at once (net 4.2)."""

CHOICE = 5
"""Chance picks among so many of the nearest; more would leave room to hostile askers (measured, LOG.md)."""

MESH_AGAIN = limits.MESH_PEERS_MAX - 2
"""A swarm that shrinks to this is small again; in between nothing changes to and fro."""

ROTATE_S: Seconds = 600.0
"""So often one dialled link gives way to another: whoever is surrounded does not stay so (net 4.3)."""

ANSWER_S: Seconds = 10.0
"""So long may the answer to a wish for a link take."""

IDLE_S: Seconds = 60.0
LINGER_S: Seconds = 5.0
"""A spare connection ends after so long; sooner after a refused link."""

SPARE_MAX = 16
"""More spare connections at once than strategies ever need (guess)."""

NETWORK_LINKS_MAX = 2
"""Links to members in one public network, /24 or /48."""

FORMER_DIALLED_MAX = limits.MESH_PEERS_MAX
"""Members that expired and are still dialled by who is nearly alone."""


class Attempt(Struct, frozen=True):
    """Failed attempts to reach a peer in a row, and when the next one is due."""

    failures: int
    due: Seconds


class Links:
    """Connections, and what becomes of them.

    connected: since when.
    is_mesh: whether the swarm is small.
    neighbours: the other ends of all links, sorted.
    """

    __slots__ = (
        "_accepted",
        "_asked",
        "_attempts",
        "_conduct",
        "_dialled",
        "_directory",
        "_ending",
        "_me",
        "_rng",
        "_rotate_at",
        "_spare",
        "connected",
        "is_mesh",
        "neighbours",
    )

    def __init__(self, me: PeerId, rng: Random, conduct: Conduct, directory: Directory) -> None:
        self.connected: dict[PeerId, Seconds] = {}
        self.is_mesh = True
        self.neighbours: tuple[PeerId, ...] = ()
        self._me = me
        self._rng = rng
        self._conduct = conduct
        self._directory = directory
        self._dialled: dict[PeerId, None] = {}
        self._accepted: dict[PeerId, None] = {}
        self._asked: dict[PeerId, Seconds] = {}
        self._spare: dict[PeerId, Seconds] = {}
        self._ending: dict[PeerId, Seconds] = {}
        self._attempts: dict[PeerId, Attempt] = {}
        self._rotate_at: Seconds | None = None

    # -- what happens ------------------------------------------------------------------------------

    def look(self, now: Seconds) -> list[Effect]:
        """Dial what is missing and end what is too much, each when its time has come."""
        self._choose_form(now)
        if self.is_mesh:
            return self._look_in_mesh(now)
        effects = [*self._give_up(now), *self._rotate(now), *self._ask_more(now), *self._end_spare(now)]
        missing = len(self._dialled) < DIALLED
        self._settle()
        return [*effects, SetTimer(TIMER, DIAL_EVERY_S if missing else LOOK_EVERY_S)]

    def on_up(self, peer: PeerId, now: Seconds) -> list[Effect]:
        """A connection stands."""
        self.connected[peer] = now
        self._ending.pop(peer, None)
        self._attempts.pop(peer, None)
        self._choose_form(now)
        effects: list[Effect] = []
        if peer in self._asked:
            self._asked[peer] = now + ANSWER_S
            effects = [Send(peer, Link(True))]
        elif not self.is_mesh and not self._is_link(peer):
            self._spare[peer] = now
            effects = self._end_spare(now)
        self._settle()
        return effects

    def on_down(self, peer: PeerId, now: Seconds) -> tuple[bool, list[Effect]]:
        """A connection ended or could not be made: say whether that was unexpected, and try again later."""
        was_ending = self._ending.pop(peer, None) is not None
        was_spare = self._spare.pop(peer, None) is not None
        was = self.connected.pop(peer, None)
        linked = self._is_link(peer)
        self._dialled.pop(peer, None)
        self._accepted.pop(peer, None)
        self._asked.pop(peer, None)
        failures = 0 if was is not None else self._attempts.get(peer, Attempt(0, now)).failures + 1
        wait_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 10))
        effects: list[Effect] = []
        if self._directory.get(peer) is not None:
            self._wait(peer, Attempt(failures, now + wait_s * (0.5 + self._rng.random())))
            effects = [SetTimer(TIMER, DIAL_EVERY_S)]
        self._settle()
        if linked and not self.is_mesh:
            effects = self.look(now)
        return not (was_spare or was_ending), effects

    def on_link(self, peer: PeerId, wanted: bool, now: Seconds) -> list[Effect]:
        """The other end says what this connection is to it: a wish, an answer, or the end of a link."""
        if peer not in self.connected:
            return []
        asked = self._asked.pop(peer, None) is not None
        if not wanted:
            return self._lose(peer, asked, now)
        effects: list[Effect] = []
        if asked:
            self._accepted.pop(peer, None)
            self._dialled[peer] = None
            if self._accepted and len(self._dialled) + len(self._accepted) > LINKS_MAX and not self.is_mesh:
                effects = self._let_go(max(self._accepted, key=self._distance), now)
        elif not self._is_link(peer):
            effects = self._answer(peer, now)
        if self._is_link(peer):
            self._spare.pop(peer, None)
        self._settle()
        return effects

    def stray(self, now: Seconds) -> list[Effect]:
        """Who has no link dials anybody, only to learn what is new; lots do not count for that."""
        if self.is_mesh or self.neighbours:
            return []
        members = [record.contact.sender for record in self._directory]
        self._rng.shuffle(members)
        return [self._dial(contact, now) for contact in self._usable(members, 1, now)]

    def on_used(self, peer: PeerId, now: Seconds) -> None:
        """A strategy uses a connection."""
        if peer in self._spare:
            self._spare[peer] = now

    def on_new_address(self, peer: PeerId) -> None:
        """A member moved: it may be dialled at once."""
        self._attempts.pop(peer, None)

    # -- a small swarm -----------------------------------------------------------------------------

    def _choose_form(self, now: Seconds) -> None:
        count = len(self._directory)
        if self.is_mesh and count > limits.MESH_PEERS_MAX:
            self.is_mesh = False
            self._spare = {peer: now for peer in self.connected if not self._is_link(peer)}
        elif not self.is_mesh and count <= MESH_AGAIN:
            self.is_mesh = True
            self._spare.clear()
            self._asked.clear()

    def _look_in_mesh(self, now: Seconds) -> list[Effect]:
        wanted = [record.contact for record in self._directory]
        wanted += list(self._directory.former)[-FORMER_DIALLED_MAX:]
        missing = [c for c in wanted if self._is_dialable(c) and c.sender not in self.connected]
        self._settle()
        dials = [self._dial(c, now) for c in missing if self._is_due(c.sender, now)]
        return [*dials, SetTimer(TIMER, DIAL_EVERY_S)] if missing else []

    # -- a large swarm -----------------------------------------------------------------------------

    def _ask_more(self, now: Seconds) -> list[Effect]:
        effects: list[Effect] = []
        for contact in self._choose(DIALLED - len(self._dialled) - len(self._asked), now):
            peer = contact.sender
            if peer in self.connected:
                self._asked[peer] = now + ANSWER_S
                effects.append(Send(peer, Link(True)))
            else:
                self._asked[peer] = now + BACKOFF_MAX_S
                effects.append(self._dial(contact, now))
        return effects

    def _choose(self, count: int, now: Seconds) -> list[Introduced]:
        """Pick some by chance among the nearest that may be asked now."""
        own, directory = self._directory.get(self._me), self._directory
        if count <= 0 or own is None:
            return []
        if len(directory) <= lots.FREE_MAX:
            peers = [record.contact.sender for record in directory]
            self._rng.shuffle(peers)
            found = self._usable(peers, CHOICE, now)
        else:
            found = self._usable(lots.nearest(own.contact, directory), CHOICE, now)
        if not found and not self._dialled:
            former = [c for c in directory.former if self._is_dialable(c) and self._is_due(c.sender, now)]
            found = former[-FORMER_DIALLED_MAX:]
        chosen: list[Introduced] = []
        for contact in self._rng.sample(found, len(found)):
            if len(chosen) < count and self._has_room([*chosen, contact]):
                chosen.append(contact)
        return chosen

    def _usable(self, peers: Iterable[PeerId], most: int, now: Seconds) -> list[Introduced]:
        found: dict[PeerId, Introduced] = {}
        for peer in peers:
            record = self._directory.get(peer)
            free = not self._is_link(peer) and peer not in self._asked and self._is_due(peer, now)
            if record is None or not free or not self._is_dialable(record.contact):
                continue
            found[peer] = record.contact
            if len(found) == most:
                break
        return list(found.values())

    def _has_room(self, more: list[Introduced]) -> bool:
        """Say whether not too many links would lead into one network."""
        counts: dict[str, int] = {}
        for peer in (*self._dialled, *self._accepted, *self._asked):
            record = self._directory.get(peer)
            if record is not None:
                more = [*more, record.contact]
        for contact in more:
            for network in networks_of(contact.message.addresses):
                counts[network] = counts.get(network, 0) + 1
        return all(count <= NETWORK_LINKS_MAX for count in counts.values())

    def _answer(self, peer: PeerId, now: Seconds) -> list[Effect]:
        """Accept a wish for a link, or not."""
        effects: list[Effect] = []
        if not self.is_mesh:
            record, own = self._directory.get(peer), self._directory.get(self._me)
            far = record is None or own is None or not self._may_ask(record.contact, own.place)
            if far or record is None or not self._has_room([record.contact]):
                return [Send(peer, Link(False))]
            if len(self._accepted) >= LINKS_MAX - min(DIALLED, len(self._dialled) + len(self._asked)):
                farthest = max([*self._accepted, peer], key=self._distance)
                if farthest == peer:
                    return [Send(peer, Link(False))]
                effects = self._let_go(farthest, now)
        self._accepted[peer] = None
        return [*effects, Send(peer, Link(True))]

    def _may_ask(self, asker: Introduced, place: int) -> bool:
        members = len(self._directory)
        return members <= lots.FREE_MAX or lots.distance(asker, place, members) <= lots.REACH

    def _distance(self, peer: PeerId) -> float:
        record, own = self._directory.get(peer), self._directory.get(self._me)
        return lots.distance(record.contact, own.place, 1) if record and own else lots.POINTS

    def _let_go(self, peer: PeerId, now: Seconds) -> list[Effect]:
        """End a link in order; the connection may still be useful."""
        self._dialled.pop(peer, None)
        self._accepted.pop(peer, None)
        self._spare[peer] = now - IDLE_S + LINGER_S
        return [Send(peer, Link(False))]

    def _lose(self, peer: PeerId, asked: bool, now: Seconds) -> list[Effect]:
        """The other end has no room, or no more."""
        mine = asked or peer in self._dialled
        self._dialled.pop(peer, None)
        self._accepted.pop(peer, None)
        if self.is_mesh:
            return []
        self._spare.setdefault(peer, now - IDLE_S + LINGER_S)
        if not mine:
            self._settle()
            return []
        self._wait(peer, Attempt(0, now + REFUSED_S * (0.5 + self._rng.random())))
        return self.look(now)

    def _give_up(self, now: Seconds) -> list[Effect]:
        """Who does not answer a wish for a link gets none."""
        for peer in [peer for peer, due in self._asked.items() if now >= due]:
            del self._asked[peer]
            self._wait(peer, Attempt(0, now + REFUSED_S * (0.5 + self._rng.random())))
            if peer in self.connected:
                self._spare.setdefault(peer, now - IDLE_S)
        return []

    def _rotate(self, now: Seconds) -> list[Effect]:
        due, full = self._rotate_at, len(self._dialled) == DIALLED
        if due is None or (now >= due and full):
            self._rotate_at = now + ROTATE_S * (0.8 + 0.4 * self._rng.random())
        if due is None or now < due or not full:
            return []
        peer = self._rng.choice(list(self._dialled))
        self._wait(peer, Attempt(0, now + ROTATE_S))
        return self._let_go(peer, now)

    def _end_spare(self, now: Seconds) -> list[Effect]:
        """End connections that nothing used for long, and the longest unused of too many."""
        order = sorted(self._spare, key=lambda peer: self._spare[peer])
        many = order[: max(0, len(order) - SPARE_MAX)]
        ending = [peer for peer in order if peer in many or now - self._spare[peer] >= IDLE_S]
        for peer in ending:
            self._ending[peer] = self._spare.pop(peer)
        return [Hangup(peer, "this connection is not needed now", 0.0) for peer in ending]

    # -- steps -------------------------------------------------------------------------------------

    def _is_link(self, peer: PeerId) -> bool:
        return peer in self._dialled or peer in self._accepted

    def _is_dialable(self, contact: Introduced) -> bool:
        return contact.sender != self._me and bool(contact.message.addresses)

    def _is_due(self, peer: PeerId, now: Seconds) -> bool:
        attempt = self._attempts.get(peer)
        return (attempt is None or now >= attempt.due) and self._conduct.admits(peer, now)

    def _dial(self, contact: Introduced, now: Seconds) -> Dial:
        failures = self._attempts.get(contact.sender, Attempt(0, now)).failures
        self._wait(contact.sender, Attempt(failures, now + BACKOFF_MAX_S))
        return Dial(contact.sender, contact.message.addresses)

    def _wait(self, peer: PeerId, attempt: Attempt) -> None:
        self._attempts.pop(peer, None)
        self._attempts[peer] = attempt
        if len(self._attempts) > limits.PEERS_MAX:
            del self._attempts[next(iter(self._attempts))]

    def _settle(self) -> None:
        linked = self.connected if self.is_mesh else {**self._dialled, **self._accepted}
        self.neighbours = tuple(sorted(linked))


@lru_cache(maxsize=limits.PEERS_MAX)
def networks_of(addresses: tuple[str, ...]) -> list[str]:
    """Name the public networks that a member says it is in, /24 or /48."""
    found: dict[str, None] = {}
    for text in addresses:
        host = text.rpartition(":")[0].strip("[]").partition("%")[0]
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            continue  # a relay, or something that a newer version knows
        if address.is_global:
            bits = 24 if address.version == 4 else 48
            found[str(ipaddress.ip_network((address, bits), strict=False))] = None
    return list(found)
