"""What becomes of the common weights when the mean of everybody's ways is known: outer optimisers.

Sources: FedAvg (McMahan 2017), FedAvgM (Hsu 2019), FedAdam and FedYogi (Reddi 2021); what they did here:
ALGORITHMS 4.5.
"""

from enum import StrEnum

from p2ptrain.core.effects import Combine, Effect
from p2ptrain.core.types import BlobId, Ranges, Ref, Slot
from p2ptrain.strategies.federated.gather import MIX

FIRST = Slot(Ref("moment-1"))
SECOND = Slot(Ref("moment-2"))

BETA_1, BETA_2, TAU = 0.9, 0.99, 1e-3
"""Of the adaptive ones (ALGORITHMS 3.5)."""


class Outer(StrEnum):
    """How the common weights move."""

    AVERAGE = "average"
    """To the mean: FedAvg."""
    MOMENTUM = "momentum"
    """Beyond it, by a share of the last move: it survives a change of who coordinates."""
    ADAM = "adam"
    YOGI = "yogi"
    """Every number by its own rate; whoever coordinates next begins its moments anew."""


class OuterStep:
    """Makes the next common weights.

    Args:
        kind: the rule.
        rate: of the step; None: 1, or .01 for the adaptive ones.
        momentum: share of the last move.

    Attributes:
        statistics: numbers that nobody trains.
    """

    __slots__ = ("_has_moments", "_kind", "_momentum", "_rate", "statistics")

    def __init__(self, kind: Outer, rate: float | None, momentum: float) -> None:
        adaptive = kind in (Outer.ADAM, Outer.YOGI)
        self._kind, self._momentum = kind, momentum
        self._rate = (0.01 if adaptive else 1.0) if rate is None else rate
        self._has_moments = False
        self.statistics: Ranges = ()

    def forget(self) -> None:
        """Begin the moments anew."""
        self._has_moments = False

    def step(self, tag: str, base: BlobId, before: BlobId | None, mean: Slot) -> list[Effect]:
        """Put the next weights where the mean of the ways is.

        Args:
            tag: of the combinations.
            base: the common weights.
            before: those before, if they are here.
            mean: of the ways from `base`.
        """
        if self._kind in (Outer.ADAM, Outer.YOGI):
            return self._adaptive(tag, base, mean)
        effects: list[Effect] = [Combine(tag, mean, ((1.0, base), (self._rate, mean)))]
        if self._kind is Outer.MOMENTUM and before is not None:
            beta = self._momentum
            effects.append(Combine(tag, mean, ((1.0, mean), (beta, base), (-beta, before))))
        return effects

    def _adaptive(self, tag: str, base: BlobId, mean: Slot) -> list[Effect]:
        """Statistics of normalisation, which come after the numbers that are trained, go to their mean."""
        rule = f"{self._kind}_moment"
        zero: list[Effect] = [Combine(tag, moment, ((0.0, mean),)) for moment in (FIRST, SECOND)]
        effects = [] if self._has_moments else zero
        self._has_moments = True
        averaged = [Combine(tag, MIX, ((1.0, base), (1.0, mean)))] if self.statistics else []
        kept = [Combine(tag, mean, ((1.0, MIX),), ranges=self.statistics)] if self.statistics else []
        return [
            *effects,
            *averaged,
            Combine(tag, FIRST, ((BETA_1, FIRST), (1 - BETA_1, mean))),
            Combine(tag, SECOND, ((BETA_2, SECOND), (1 - BETA_2, mean)), rule),
            Combine(tag, mean, ((1.0, base), (self._rate, FIRST), (TAU, SECOND)), "adaptive_step"),
            *kept,
        ]
