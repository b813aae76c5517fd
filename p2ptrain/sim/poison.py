"""What a liar does to weights before it offers them."""

import math
from enum import StrEnum
from typing import NamedTuple

SHIFT = 0.1


class Poison(StrEnum):
    """Kinds of attack on weights."""

    FLIP = "flip"
    CLAIM = "claim"
    NAN = "nan"
    SCALE = "scale"
    SHIFT = "shift"


class Change(NamedTuple):
    """weights <- factor * weights + shift * root mean square of the weights * (+1, -1, +1 ...)."""

    factor: float
    shift: float = 0.0


CHANGES = {
    Poison.FLIP: Change(-4.0),
    Poison.CLAIM: Change(1.0),
    Poison.NAN: Change(math.nan),
    Poison.SCALE: Change(100.0),
    Poison.SHIFT: Change(1.0, SHIFT),
}
"""Turned round; honest but for the claim; broken; too long; moved a little, by all liars alike."""

MIXED = (Poison.FLIP, Poison.CLAIM, Poison.NAN)
"""The n-th liar takes the n-th of these, where the attack is `mixed`."""


def poison_of(attack: str, number: int) -> Poison:
    """Return what the n-th liar does. Raises ValueError for an attack that is not known."""
    return MIXED[number % len(MIXED)] if attack == "mixed" else Poison(attack)
