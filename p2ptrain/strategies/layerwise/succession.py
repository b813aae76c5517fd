"""A new coordinator finds the newest weights: it asks everybody, and goes on from the latest that are good.

What others name is a claim: it is fetched and measured here first (ALGORITHMS 2.3).
"""

import math

from msgspec import Struct

from p2ptrain.core.effects import Accuse, Effect, Evaluate, Publish
from p2ptrain.core.ending import claim_limit
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Fetched, FetchFailed, LearnFailed, Published
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import OWN, PeerId, Seconds

TRIES = 3
"""So many are looked at: the newest may be lies (guess)."""


class Newest(Struct, frozen=True):
    """Common weights, and the number of the round that they begin."""

    number: int
    offer: Offer


def is_good(loss: float, error: float, claimed: float, known: float, tolerance: float) -> bool:
    """Say whether common weights may be taken over: they are as claimed, or no worse than those known."""
    bearable = max(
        (claim_limit(one, tolerance, error) for one in (claimed, known) if math.isfinite(one)),
        default=-math.inf,
    )
    return math.isfinite(loss) and loss <= bearable


class Succession:
    """One new coordinator's search.

    Args:
        tag: of what is asked of the trainer, and of nothing else.
        known: the newest common weights that are here, with the loss measured here.
        number: of the round that these begin, or the own weights where there are none.
        asked: who is to answer.
        until: they are waited for so long.

    Attributes:
        found: what to go on from.
        has_failed: there is nothing to go on from, nor can it be written.
        is_asking: whether answers are waited for.
    """

    def __init__(
        self,
        tag: str,
        known: Newest | None,
        number: int,
        asked: list[PeerId],
        until: Seconds,
        *,
        examples: int,
        tolerance: float,
    ) -> None:
        self.found: Newest | None = None
        self.has_failed = False
        self.is_asking = True
        self._tag, self._known, self._number, self._until = tag, known, number, until
        self._missing = dict.fromkeys(asked)
        self._examples, self._tolerance = examples, tolerance
        self._named: list[tuple[PeerId, Newest]] = []
        self._looking: tuple[PeerId, Newest] | None = None
        self._tries = 0
        self._loss = math.nan

    @property
    def missing(self) -> list[PeerId]:
        """Who did not answer yet."""
        return list(self._missing)

    def hear(self, peer: PeerId, newest: Newest | None) -> None:
        """A peer answers."""
        if peer in self._missing:
            del self._missing[peer]
            if newest is not None:
                self._named.append((peer, newest))

    def go_on(self, ctx: Context) -> list[Effect]:
        """Look at what was named, once all have answered or were waited for."""
        missing = [peer for peer in self._missing if ctx.is_partner(peer) and ctx.trusts(peer)]
        if not self.is_asking or (missing and ctx.now < self._until):
            return []
        self.is_asking = False
        self._named.sort(key=lambda named: (named[1].number, -named[1].offer.loss, named[0]))
        return self._next(ctx)

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Take in what was fetched, measured or written."""
        match event:
            case Fetched(blob=blob) if self._looking and self._looking[1].offer.blob == blob:
                return [Evaluate(self._named_tag(), (blob,), examples_max=self._examples)]
            case FetchFailed(blob=blob) if self._looking and self._looking[1].offer.blob == blob:
                return self._next(ctx)
            case LearnFailed() if self._looking and event.tag == self._named_tag():
                return self._next(ctx)
            case Evaluated() if self._looking and event.tag == self._named_tag() and event.losses:
                return self._on_measured(ctx, *self._looking, event)
            case Evaluated() if event.tag == self._tag and event.losses:
                self._loss = event.losses[0]
                self.has_failed = not math.isfinite(self._loss)
                return [] if self.has_failed else [Publish(self._tag)]
            case Published() if event.tag == self._tag and self.found is None:
                offer = Offer(event.blob, event.size_bytes, self._loss)
                self.found = Newest(self._number, offer)
            case LearnFailed() if event.tag == self._tag:
                self.has_failed = True
            case _:
                pass
        return []

    def _named_tag(self) -> str:
        return f"{self._tag}:{self._tries}"

    def _next(self, ctx: Context) -> list[Effect]:
        self._looking = None
        least = self._number if self._known or self._number else -1
        while self._named and self._tries < TRIES:
            author, newest = self._named.pop()
            if newest.number > least and ctx.trusts(author):
                self._looking = (author, newest)
                self._tries += 1
                return [ctx.fetch(author, newest.offer)]
        if self._known is not None and ctx.holds(self._known.offer.blob):
            self.found = self._known
            return []
        return [Evaluate(self._tag, (OWN,), examples_max=self._examples)]

    def _on_measured(self, ctx: Context, author: PeerId, newest: Newest, event: Evaluated) -> list[Effect]:
        loss, error, claimed = event.losses[0], event.errors[0], newest.offer.loss
        known = self._known.offer.loss if self._known else math.inf
        if is_good(loss, error, claimed, known, self._tolerance):
            offer = Offer(newest.offer.blob, newest.offer.size_bytes, loss)
            self._looking, self.found = None, Newest(newest.number, offer)
            return []
        detail = f"claimed {claimed:.4g}, measured {loss:.4g}"
        return [Accuse(author, Offence.FALSE_CLAIM, detail), *self._next(ctx)]
