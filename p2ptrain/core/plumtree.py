"""Broadcast: what is new goes along a tree, and along all other links only its name, so that nothing is lost.

A link is lazy until the name of something that does not come was announced over it; then it is eager, until
something known comes over it. The tree grows by itself, and mends itself when members die. Among few members
everything goes over every link. Source: Leitao 2007 (Plumtree), where links begin eager: so everything came
over every link at first, 6.6 times to each (measured, LOG.md). Times from net 4.3.
"""

from collections.abc import Iterable

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.effects import Effect, Send, SetTimer
from p2ptrain.core.messages import Graft, Have, Prune, Push
from p2ptrain.core.types import PeerId, Seconds

TIMER = "broadcast"

FLOOD_PEERS_MAX = 32
"""Up to so many members everything goes over every link (net 4.3)."""

HAVE_AFTER_S: Seconds = 0.1
GRAFT_AFTER_S: Seconds = 0.5
GRAFT_AGAIN_S: Seconds = 0.25
SEEN_S: Seconds = 600.0

EARLY_S: Seconds = 0.001
"""What is due so soon is done now: a timer may come early by a rounding."""

ANNOUNCERS_MAX = 8
"""As many as there are links."""


class Fresh(Struct, frozen=True):
    """Something to be passed on: a signed contact, its name and its subject."""

    name: bytes
    raw: bytes
    subject: PeerId


class Missing(Struct):
    """Something announced that did not come. `due`: when the next announcer is asked."""

    announcers: list[PeerId]
    due: Seconds


class Plumtree:
    """One node's part of the trees."""

    __slots__ = ("_eager", "_flood", "_have_at", "_lazy", "_missing", "_queued", "_seen", "_wake")

    def __init__(self) -> None:
        self._flood = True
        self._eager: dict[PeerId, None] = {}
        self._lazy: dict[PeerId, None] = {}
        self._seen: dict[bytes, tuple[PeerId, Seconds]] = {}
        self._missing: dict[bytes, Missing] = {}
        self._queued: dict[PeerId, list[bytes]] = {}
        self._have_at: Seconds = 0.0
        self._wake: Seconds | None = None

    def use(self, neighbours: Iterable[PeerId], members: int) -> None:
        """Take the links as they are now; new ones are lazy."""
        now_linked = dict.fromkeys(neighbours)
        self._flood = members <= FLOOD_PEERS_MAX
        self._eager = {peer: None for peer in self._eager if peer in now_linked}
        self._lazy = {peer: None for peer in now_linked if peer not in self._eager}
        self._queued = {peer: ids for peer, ids in self._queued.items() if peer in now_linked}

    def has_seen(self, name: bytes) -> bool:
        """Say whether something came already."""
        return name in self._seen

    def see(self, name: bytes, subject: PeerId, now: Seconds) -> None:
        """Something came, from wherever: it is not awaited any more."""
        self._missing.pop(name, None)
        self._seen[name] = (subject, now)
        while len(self._seen) > limits.IDS_MAX or now - next(iter(self._seen.values()))[1] > SEEN_S:
            del self._seen[next(iter(self._seen))]

    def pass_on(self, fresh: list[Fresh], via: PeerId | None, now: Seconds) -> list[Effect]:
        """Something new came over a link, or is of this node: everybody else is to have it."""
        if via is not None:
            self._make_eager(via)
        push = Push(tuple(one.raw for one in fresh))
        effects: list[Effect] = [Send(peer, push) for peer in self._eager if peer != via]
        if self._flood:
            return [*effects, *(Send(peer, push) for peer in self._lazy if peer != via)]
        if not self._queued:
            self._have_at = now + HAVE_AFTER_S
        for peer in self._lazy:
            if peer != via:
                queue = self._queued.setdefault(peer, [])
                queue += [one.name for one in fresh[: limits.IDS_PER_MESSAGE_MAX - len(queue)]]
        return [*effects, *self._arm(now)]

    def on_known(self, via: PeerId) -> list[Effect]:
        """All that came over a link was known: its name would have been enough."""
        if self._flood or via not in self._eager:
            return []
        self._make_lazy(via)
        return [Send(via, Prune())]

    def on_prune(self, via: PeerId) -> None:
        """The other end has another way."""
        if via in self._eager:
            self._make_lazy(via)

    def on_have(self, via: PeerId, ids: list[bytes], now: Seconds) -> list[Effect]:
        """Names of what may not have come yet."""
        for name in ids:
            missing = self._missing.get(name)
            if name in self._seen:
                continue
            if missing is None and len(self._missing) < limits.MISSING_MAX:
                self._missing[name] = Missing([via], now + (GRAFT_AFTER_S if self._eager else 0.0))
            elif missing and via not in missing.announcers and len(missing.announcers) < ANNOUNCERS_MAX:
                missing.announcers.append(via)
        return self._arm(now)

    def on_graft(self, via: PeerId, ids: list[bytes]) -> list[PeerId]:
        """The other end lacks something: push to it again. Return whose contacts it lacks."""
        self._make_eager(via)
        return list(dict.fromkeys(self._seen[name][0] for name in ids if name in self._seen))

    def on_timer(self, now: Seconds) -> list[Effect]:
        """Name what was queued, and ask for what did not come."""
        self._wake = None
        effects: list[Effect] = []
        due = now + EARLY_S
        if self._queued and due >= self._have_at:
            effects += [Send(peer, Have(b"".join(ids))) for peer, ids in self._queued.items() if ids]
            self._queued = {}
        asked: dict[PeerId, list[bytes]] = {}
        for name, missing in list(self._missing.items()):
            if due < missing.due:
                continue
            linked = [peer for peer in missing.announcers if peer in self._eager or peer in self._lazy]
            if not linked:
                del self._missing[name]
                continue
            asked.setdefault(linked[0], []).append(name)
            missing.announcers = linked[1:]
            missing.due = now + GRAFT_AGAIN_S
        for peer, ids in asked.items():
            self._make_eager(peer)
            effects.append(Send(peer, Graft(b"".join(ids[: limits.IDS_PER_MESSAGE_MAX]))))
        return [*effects, *self._arm(now)]

    def _arm(self, now: Seconds) -> list[Effect]:
        """Set the timer to what is due first, unless it is set to that or earlier."""
        due = [missing.due for missing in self._missing.values()]
        if self._queued:
            due.append(self._have_at)
        if not due or (self._wake is not None and self._wake <= min(due)):
            return []
        self._wake = min(due)
        return [SetTimer(TIMER, max(0.0, self._wake - now))]

    def _make_eager(self, peer: PeerId) -> None:
        if self._lazy.pop(peer, self) is None:
            self._eager[peer] = None

    def _make_lazy(self, peer: PeerId) -> None:
        del self._eager[peer]
        self._lazy[peer] = None
