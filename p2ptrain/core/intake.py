"""Weights that others sent the names of, fetched a few at a time, each tried again before it is given up."""

from typing import Generic, TypeVar

from msgspec import Struct

from p2ptrain.core import limits
from p2ptrain.core.effects import Effect
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import BlobId, PeerId

TRIES = 3
WAITING_MAX = 256
"""Names that wait; more are forgotten, the oldest first (guess)."""

T = TypeVar("T")


class Wanted(Struct, Generic[T]):
    """Weights to be fetched: from whom, and what for."""

    author: PeerId
    offer: Offer
    what: T
    failures: int = 0


class Intake(Generic[T]):
    """A queue of one strategy; `what` tells its owner what a blob is for.

    Args:
        at_once: fetches under way at the same time; the node allows `limits.FETCHES_MAX` in all.
    """

    __slots__ = ("_at_once", "_coming", "_waiting")

    def __init__(self, at_once: int = limits.FETCHES_MAX) -> None:
        self._at_once = at_once
        self._waiting: list[Wanted[T]] = []
        self._coming: dict[BlobId, Wanted[T]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is awaited."""
        return not self._waiting and not self._coming

    def wants(self, blob: BlobId) -> bool:
        """Say whether these weights are still awaited: those of who lost its trust are not."""
        return blob in self._coming or any(wanted.offer.blob == blob for wanted in self._waiting)

    def add(self, ctx: Context, author: PeerId, offer: Offer, what: T) -> list[Effect]:
        """Want some weights; the same ones are wanted once."""
        if offer.blob in self._coming or any(wanted.offer.blob == offer.blob for wanted in self._waiting):
            return []
        self._waiting = [*self._waiting[1 - WAITING_MAX :], Wanted(author, offer, what)]
        return self.go_on(ctx)

    def go_on(self, ctx: Context) -> list[Effect]:
        """Fetch what is next, if there is room. What comes from who is not trusted any more is forgotten."""
        effects: list[Effect] = []
        while self._waiting and len(self._coming) < self._at_once:
            wanted = self._waiting.pop(0)
            if ctx.trusts(wanted.author):
                self._coming[wanted.offer.blob] = wanted
                effects.append(ctx.fetch(wanted.author, wanted.offer))
        return effects

    def take(self, blob: BlobId) -> Wanted[T] | None:
        """They are here: return what they are for; None if nobody here asked. Then `go_on`."""
        return self._coming.pop(blob, None)

    def fail(self, ctx: Context, blob: BlobId) -> Wanted[T] | None:
        """They did not come: return them if they are given up, else they wait for a later `go_on`.

        Call that from a timer, not at once: if there was no room to fetch, there is none yet.
        """
        wanted = self._coming.pop(blob, None)
        if wanted is None:
            return None
        wanted.failures += 1
        if wanted.failures >= TRIES or not ctx.trusts(wanted.author):
            return wanted
        self._waiting.append(wanted)
        return None

    def clear(self) -> None:
        """Want nothing any more; what is on its way means nothing when it comes."""
        self._waiting.clear()
        self._coming.clear()
