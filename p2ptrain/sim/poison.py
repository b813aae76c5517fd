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
    ZEROS = "zeros"
    MINUS = "minus"
    NOISE = "noise"
    ALIE = "alie"


class Change(NamedTuple):
    """weights <- factor * weights + shift * rms(weights) * (+1, -1, +1 ...) + noise * N(0, 1)."""

    factor: float
    shift: float = 0.0
    noise: float = 0.0


CHANGES = {
    Poison.FLIP: Change(-4.0),
    Poison.CLAIM: Change(1.0),
    Poison.NAN: Change(math.nan),
    Poison.SCALE: Change(100.0),
    Poison.SHIFT: Change(1.0, SHIFT),
    Poison.ZEROS: Change(0.0),
    Poison.MINUS: Change(-1.0),
    Poison.NOISE: Change(1.0, noise=1.0),
    Poison.ALIE: Change(1.0),
}
"""Turned round; honest but for the claim; broken; too long; moved a little, by all liars alike; nothing; the
others' mean, turned: who averages has it; useless; honest, until others' weights were seen. Those of
ALGORITHMS 4.6 among them."""

ALIE_DEVIATIONS = 1.5
"""A little is enough: mean - 1.5 deviations of the weights fetched last, in each number (ALGORITHMS 4.6)."""

SEEN_MAX = 4
"""So many of them (guess)."""

MIXED = (Poison.FLIP, Poison.CLAIM, Poison.NAN)
"""The n-th liar takes the n-th of these, where the attack is `mixed`."""


def poison_of(attack: str, number: int) -> Poison:
    """Return what the n-th liar does. Raises ValueError for an attack that is not known."""
    return MIXED[number % len(MIXED)] if attack == "mixed" else Poison(attack)
