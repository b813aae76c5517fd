"""Points on the line through own weights and a mean, own + t (mean - own), and in which order they are tried.

t = 2 reflects the own weights through the mean, 3 expands, 1.5 and 0.5 contract; 1 is the mean itself.
Source: ALGORITHMS 2.2, 4.2.
"""

from enum import StrEnum

from p2ptrain.core.types import Ref, Slot


class Ladder(StrEnum):
    """In which order points of the line are tried."""

    SIMPLEX = "simplex"
    """Reflection first, as Nelder and Mead: keeps peers that started differently apart."""
    LINE = "line"
    """The best of four: for weights from a common start, or that were averaged before."""


def points(ladder: Ladder, tried: dict[float, float], lowest: float) -> tuple[float, ...]:
    """Return the t to measure next; none: enough is known.

    Args:
        ladder: in which order.
        tried: losses by t, those of 0 and 1 among them.
        lowest: the lowest loss that the chain met.
    """
    if ladder is Ladder.LINE:
        return () if 2.0 in tried else (0.5, 1.5, 2.0)
    if 2.0 not in tried:
        return (2.0,)
    if len(tried) > 3:
        return ()
    if tried[2.0] < tried[0.0]:
        return (3.0,) if tried[2.0] < lowest else ()
    return (1.5, 0.5)


def slot_at(t: float) -> Slot:
    """Return where the weights of a point are kept."""
    return Slot(Ref(f"at-{t:g}"))
