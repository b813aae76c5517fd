"""Looking at what others gave to a mean that turned out bad: each alone is measured, and liars stand out.

A contribution is a lie if its loss here is worse than the own one and than twice the middle of all: honest
ones may be worse than the own on data of another kind, but then they are alike (guess).
"""

import math
from collections.abc import Sequence
from statistics import median

from p2ptrain.core.effects import Accuse, Effect, Evaluate
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Fetched, FetchFailed, LearnFailed
from p2ptrain.core.intake import Intake
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import OWN, BlobId, PeerId

FACTOR = 2.0


class Inspection:
    """The contributions that are being looked at, one after the other.

    examples: held-out examples on which they are measured.
    """

    __slots__ = ("_count", "_examples", "_intake", "_losses", "_measuring", "_noise", "_own")

    def __init__(self, examples: int) -> None:
        self._examples = examples
        self._intake: Intake[None] = Intake()
        self._measuring: dict[str, PeerId] = {}
        self._losses: dict[PeerId, float] = {}
        self._own, self._noise = math.inf, 0.0
        self._count = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is looked at any more."""
        return self._intake.is_empty and not self._measuring

    def begin(self, ctx: Context, shown: Sequence[tuple[PeerId, Offer]]) -> list[Effect]:
        """Look at contributions of others; what was looked at before is forgotten."""
        self._intake.clear()
        self._measuring.clear()
        self._losses.clear()
        effects: list[Effect] = []
        for author, offer in shown:
            if author != ctx.me and ctx.trusts(author):
                effects += self._intake.add(ctx, author, offer, None)
        return effects

    def handle(self, ctx: Context, event: Event) -> list[Effect] | None:
        """Answer what belongs to it, with accusations when all is seen; None for all else."""
        match event:
            case Fetched(blob=blob) if wanted := self._intake.take(blob):
                return [*self._measure(wanted.author, blob), *self._intake.go_on(ctx)]
            case FetchFailed(blob=blob) if self._intake.take(blob):
                return [*self._intake.go_on(ctx), *self._judge()]
            case Evaluated() if event.tag in self._measuring:
                author = self._measuring.pop(event.tag)
                self._own, self._losses[author] = event.losses[0], event.losses[1]
                self._noise = event.errors[0] if math.isfinite(event.errors[0]) else 0.0
                return self._judge()
            case LearnFailed() if event.tag in self._measuring:
                del self._measuring[event.tag]
                return self._judge()
            case _:
                return None

    def _measure(self, author: PeerId, blob: BlobId) -> list[Effect]:
        self._count += 1
        tag = f"inspect:{self._count}"
        self._measuring[tag] = author
        return [Evaluate(tag, (OWN, blob), examples_max=self._examples)]

    def _judge(self) -> list[Effect]:
        """When all are measured, accuse who stands out."""
        if not self.is_over or not math.isfinite(self._own):
            return []
        losses = [loss if math.isfinite(loss) else math.inf for loss in self._losses.values()]
        usual = max(self._own, median([self._own, *losses]))
        accused: list[Effect] = []
        for author, loss in self._losses.items():
            if not loss <= FACTOR * abs(usual) + 3 * self._noise:
                detail = f"gave weights of loss {loss:.4g} to a mean, usual is {usual:.4g}"
                accused.append(Accuse(author, Offence.FALSE_CLAIM, detail))
        self._losses.clear()
        return accused
