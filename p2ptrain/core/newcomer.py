"""Taking another's weights over whole, if they are better here: coming late, or lost.

A newcomer looks at the weights of the peer who is furthest, once. Who cannot mix with a partner looks at
the partner's: after a lie was let in early, nobody's weights mix with the own any more.
"""

import math

from p2ptrain.core.effects import Adopt, Effect, Evaluate, Note, OptimizerState
from p2ptrain.core.inputs import Evaluated
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import OWN, BlobId

TAG = "join"


class Newcomer:
    """Whether this peer may still take another's weights over, and which it is looking at.

    age: steps behind those, as their author says.
    """

    __slots__ = ("_offer", "age", "may_join")

    def __init__(self) -> None:
        self.may_join = False
        self.age = 0
        self._offer: Offer | None = None

    def look(self, ctx: Context, ahead_step: int) -> list[Effect]:
        """Fetch the weights of who is furthest, if anybody is beyond that step."""
        if not self.may_join:
            return []
        ahead = [
            (report.message.step, report.sender, offer)
            for report, offer in ctx.ledger.ranked(ctx.now, math.inf, ctx.me)
            if report.message.step >= ahead_step and ctx.trusts(report.sender)
        ]
        if not ahead:
            return []
        self.may_join = False
        self.age, author, self._offer = max(ahead, key=lambda found: found[:2])
        return [ctx.fetch(author, self._offer)]

    def awaited(self, blob: BlobId) -> Offer | None:
        """Return the offer that was asked for, if these are its weights."""
        return self._offer if self._offer is not None and self._offer.blob == blob else None

    def measure(self, offer: Offer, examples_max: int, age: int = 0) -> list[Effect]:
        """They are here: compare them with the own."""
        self._offer, self.age = offer, age
        return [Evaluate(TAG, (OWN, offer.blob), examples_max=examples_max)]

    def give_up(self) -> None:
        """They did not come."""
        self._offer = None

    def decide(self, event: Evaluated) -> list[Effect]:
        """Take them over if they are better here."""
        offer, self._offer = self._offer, None
        if offer is None or not event.losses[1] < event.losses[0]:
            return []
        note = Note("caught_up", {"loss": event.losses[1], "before": event.losses[0]})
        return [note, Adopt(TAG, offer.blob, OptimizerState.RESET)]
