"""How much each member of a ring counts: what it says, within bounds."""

from collections.abc import Sequence
from statistics import median_low

FACTOR = 4.0
"""Nobody counts more than so many times the middle one: a weight is a claim (guess)."""


def bounded(weights: Sequence[float]) -> list[float]:
    """Return what weights come to; those of 0 stay, and do not count for the middle."""
    counting = [weight for weight in weights if weight > 0]
    most = FACTOR * median_low(counting) if counting else 0.0
    return [min(weight, most) for weight in weights]
