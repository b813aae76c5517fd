"""What a strategy is: the contract between the node and one file in `strategies/`.

A strategy sees events and returns effects. It owns its own state and nothing else: no clock, no
randomness but the given one, no weights. Its messages are Structs listed in the file's `MESSAGES`,
its settings a Struct called `Config`, its class is called `Strategy`.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.blobs import Blobs
from p2ptrain.core.conduct import Conduct
from p2ptrain.core.effects import Effect, Fetch
from p2ptrain.core.inputs import (
    Adopted,
    Combined,
    Evaluated,
    Fetched,
    FetchFailed,
    LearnFailed,
    PeerDown,
    PeerUp,
    Published,
    Reduced,
    ReduceFailed,
    Staged,
    TimerFired,
    Trained,
    TrainerReady,
)
from p2ptrain.core.ledger import Ledger, Stated
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.membership import Membership
from p2ptrain.core.messages import Message, Offer
from p2ptrain.core.types import BlobId, PeerId, Seconds


class Told(Struct, frozen=True):
    """A message of this strategy came from a peer."""

    sender: PeerId
    message: Message


class Learned(Struct, frozen=True):
    """A report came to be known that offers better weights than any before."""

    report: Stated


Event = (
    Adopted
    | Combined
    | Evaluated
    | Fetched
    | FetchFailed
    | LearnFailed
    | Learned
    | PeerDown
    | PeerUp
    | Published
    | Reduced
    | ReduceFailed
    | Staged
    | TimerFired
    | Told
    | Trained
)


class Context:
    """What a strategy may look at while it handles an event."""

    __slots__ = ("_blobs", "_conduct", "ledger", "manifest", "me", "membership", "now", "paused", "rng")

    def __init__(
        self,
        me: PeerId,
        manifest: Manifest,
        rng: Random,
        ledger: Ledger,
        membership: Membership,
        conduct: Conduct,
        blobs: Blobs,
    ) -> None:
        self.now: Seconds = 0.0
        self.paused = False  # then nothing that peers say comes to the strategy
        self.me = me
        self.manifest = manifest
        self.rng = rng
        self.ledger = ledger
        self.membership = membership
        self._conduct = conduct
        self._blobs = blobs

    def partners(self) -> list[PeerId]:
        """Members that train, can be reached now and are not paused, without this node, sorted."""
        return [peer for peer in self.membership.trainers if self.is_partner(peer)]

    def is_partner(self, peer: PeerId) -> bool:
        """Say whether a peer is another member that trains, can be reached now and is not paused."""
        if not self.membership.trains(peer):
            return False
        entry = self.ledger.of(peer)
        paused = entry is not None and entry.report.message.paused
        return peer != self.me and not paused and self.membership.reachable(peer, self.now)

    def trusts(self, peer: PeerId) -> bool:
        """Say whether a peer's statements count now."""
        return self._conduct.believes(peer, self.now)

    def holds(self, blob: BlobId) -> bool:
        """Say whether weights are here."""
        return blob in self._blobs.held

    def best_kept(self, saved: Offer | None) -> Offer | None:
        """Return the best own offer whose weights are still here, and keep them here.

        It is the saved one or the one last told: a checkpoint may be older.
        """
        told = self.ledger.of(self.me)
        offers = (saved, told.report.message.offer if told else None)
        held = [offer for offer in offers if offer is not None and self.holds(offer.blob)]
        best = min(held, key=lambda offer: offer.loss, default=None)
        if best is not None:
            self._blobs.pin(best.blob)
        return best

    def fetch(self, author: PeerId, offer: Offer) -> Fetch:
        """Build the effect that brings offered weights here, from the author or any other holder.

        The time allowed is that of a slow home line (guess: 1 Mbit/s) which all fetches share, at least 10 s.
        """
        known = self._blobs.holders(offer.blob)
        holders = [peer for peer in known if self.membership.reachable(peer, self.now)]
        self.rng.shuffle(holders)
        sources = tuple(dict.fromkeys([author, *holders])) if author != self.me else tuple(holders)
        return Fetch(
            offer.blob, offer.size_bytes, sources, max(10.0, limits.FETCHES_MAX * offer.size_bytes * 8 / 1e6)
        )


class Strategy(Protocol):
    """One way of cooperating. Built anew at each start of the trainer."""

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        """Begin, or go on where `ready.memory` left off."""
        ...

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Answer an event. Never raises for anything a peer did."""
        ...

    def memory(self) -> bytes:
        """What to keep across a restart, at most `limits.MEMORY_BYTES_MAX`."""
        ...

    def activity(self) -> str:
        """What goes on, in words for the owner."""
        ...


class Rules(Struct, frozen=True):
    """A strategy's file, loaded.

    config: the type of its settings.
    messages: its private messages; a message's place is its kind, so the list is append only.
    build: makes a strategy from settings.
    """

    name: str
    config: Any
    messages: tuple[type[Message], ...]
    build: Callable[[Any], Strategy]
