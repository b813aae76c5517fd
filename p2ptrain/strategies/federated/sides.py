"""Two histories of global weights meet: of a network that was cut, or of who comes and knows less.

The better of them, or the middle where that is better still, is gone on from: measured on held-out data.
"""

import math

from p2ptrain.core.effects import Combine, Effect, Evaluate, Note, Publish
from p2ptrain.core.inputs import Evaluated, LearnFailed, Published
from p2ptrain.core.messages import Offer
from p2ptrain.core.types import BlobId
from p2ptrain.strategies.federated.gather import MIX
from p2ptrain.strategies.federated.rounds import Known


class Sides:
    """One comparison after the other.

    Attributes:
        other: the side that is looked at; None: none is.
        chosen: what to go on from, once that is known.
        is_decided: whether it is; without anything chosen the own weights stay.
    """

    __slots__ = ("_count", "_examples", "_own", "chosen", "is_decided", "other")

    def __init__(self, examples: int) -> None:
        self._examples, self._count = examples, 0
        self._own: BlobId | None = None
        self.other: Known | None = None
        self.chosen: Offer | None = None
        self.is_decided = False

    def clear(self) -> None:
        """Nothing is looked at any more."""
        self._own = self.other = self.chosen = None
        self.is_decided = False

    def give_up(self, other: Known) -> None:
        """Its weights are not to be had: the own ones stay."""
        self.other, self.is_decided = other, True

    def begin(self, own: BlobId, other: Known) -> list[Effect]:
        """Its weights are here: compare them, and the middle of both, with the own ones."""
        if other.blob is None:
            return []
        self.clear()
        self._own, self.other = own, other
        self._count += 1
        mix = Combine(self._tag("side"), MIX, ((0.5, own), (0.5, other.blob)))
        return [mix, Evaluate(self._tag("side"), (own, other.blob, MIX), examples_max=self._examples)]

    def handle(self, event: Evaluated | LearnFailed | Published) -> list[Effect]:
        """Answer an event of training that may be meant for this."""
        other = self.other
        if other is None or other.blob is None or event.tag not in (self._tag("side"), self._tag("joined")):
            return []
        if isinstance(event, Published):
            self.chosen = Offer(event.blob, event.size_bytes, 0.0)
        if isinstance(event, Evaluated):
            own, theirs, both = (loss if math.isfinite(loss) else math.inf for loss in event.losses)
            note = Note("sides", {"own": own, "theirs": theirs, "both": both})
            if both < min(own, theirs) and self._own is not None:
                mix = Combine(self._tag("joined"), MIX, ((0.5, self._own), (0.5, other.blob)))
                return [note, mix, Publish(self._tag("joined"), MIX)]
            self.chosen = Offer(other.blob, other.size_bytes, 0.0) if theirs < own else None
            self.is_decided = True
            return [note]
        self.is_decided = True
        return []

    def _tag(self, what: str) -> str:
        return f"{what}:{self._count}"
