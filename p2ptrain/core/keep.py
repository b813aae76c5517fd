"""The best own weights: what is on offer, and what is being written to take its place (ALGORITHMS G6)."""

import math

from p2ptrain.core.effects import Effect, Publish
from p2ptrain.core.inputs import LearnFailed, Published
from p2ptrain.core.messages import Offer
from p2ptrain.core.types import OWN, Ref

TAG = "keep"


class Keep:
    """Grows better only.

    offer: the best so far; None before the first.
    """

    __slots__ = (
        "_writing",
        "offer",
    )

    def __init__(self, offer: Offer | None = None) -> None:
        self.offer = offer
        self._writing: list[tuple[float, float]] = []

    @property
    def is_writing(self) -> bool:
        """Whether better weights are being written."""
        return bool(self._writing)

    def propose(self, loss: float, lr_scale: float = 1.0, ref: Ref = OWN) -> list[Effect]:
        """Write weights, whose loss was just measured, if they are the best so far."""
        known = [known for known, _ in self._writing] + ([self.offer.loss] if self.offer else [])
        if loss >= min(known, default=math.inf):
            return []
        self._writing.append((loss, lr_scale))
        return [Publish(TAG, ref)]

    def on_written(self, event: Published | LearnFailed) -> Offer | None:
        """What was proposed first is offered, with the loss measured then, or could not be written."""
        if not self._writing:
            return None
        measured = self._writing.pop(0)
        if isinstance(event, LearnFailed):
            return None
        self.offer = Offer(event.blob, event.size_bytes, *measured)
        return self.offer
