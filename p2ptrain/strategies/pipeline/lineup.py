"""Which peers train together as a line, each some of the layers, and how many steps.

All that are free are put into lines of equal length, as like in speed as can be. From round to round they
turn by one place, so that each is first, and gives the examples, as often as any other (SWARM 2301.11913
wires by speed too). Layers are cut so that the slowest part is as fast as possible.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import inf, log2
from statistics import median
from typing import Annotated

from msgspec import Meta, Struct

from p2ptrain.core.blocks import Block
from p2ptrain.core.inputs import Layer, Staged
from p2ptrain.core.messages import Natural
from p2ptrain.core.types import PeerId, Seconds

PACE_STEP = 1.0
"""Peers are alike whose speeds differ by less than a factor of two (guess)."""

LEAST = 0.2
"""The slowest take this share of the steps of a round, and those whose pace is not known yet (guess)."""

BISECTIONS = 40
PACE_MAX = 1e6

STAGES_MAX = 8
"""Peers of a line: what they trained must be held at one place at once (`limits.HELD_BLOBS_MAX`)."""


PeerName = Annotated[PeerId, Meta(min_length=32, max_length=32)]


class Worker(Struct, frozen=True):
    """A peer that is free.

    left: steps that it has left.
    pace: seconds of a step with all layers; 0: not known yet.
    """

    peer: PeerId
    left: int
    pace: Seconds = 0.0


class Place(Struct, frozen=True, array_like=True):
    """A peer in a line: its layers from the first to before the last."""

    peer: PeerName
    first: Natural
    last: Natural


class Line(Struct, frozen=True, array_like=True):
    """Everyone's place in order, and the steps that they take together."""

    steps: Annotated[int, Meta(ge=1, le=2**53)]
    places: Annotated[tuple[Place, ...], Meta(min_length=1, max_length=STAGES_MAX)]


def line_up(
    workers: Sequence[Worker], costs: Sequence[float], stages: int, steps: int, turn: int
) -> list[Line]:
    """Put peers into lines.

    Args:
        workers: sorted by peer, each with steps left.
        costs: of the layers, in order.
        stages: peers of a line, at most.
        steps: of a line, at most; slow ones take fewer, so that all end at about the same time.
        turn: counts rounds.
    """
    shift = turn % max(1, len(workers))
    turned = [*workers[shift:], *workers[:shift]]
    usual = median([worker.pace for worker in turned if worker.pace] or [0.0])
    turned.sort(key=lambda worker: (min(worker.left, steps), _class(worker.pace or usual)))
    groups = _groups(turned, min(stages, len(costs)))
    paces = [[worker.pace or usual or 1.0 for worker in group] for group in groups]
    cuts = [cut(costs, pace) for pace in paces]
    times = [_slowest(costs, pace, ends) for pace, ends in zip(paces, cuts, strict=True)]
    usual_time = median(times) if times else 0.0
    lines = []
    for group, ends, time in zip(groups, cuts, times, strict=True):
        share = 1.0 if time <= 2**PACE_STEP * usual_time else max(usual_time / time, LEAST)
        share = share if all(worker.pace for worker in group) else LEAST
        most = min(worker.left for worker in group)
        places = [Place(worker.peer, *end) for worker, end in zip(group, ends, strict=True)]
        lines.append(Line(max(1, min(most, round(steps * share))), tuple(places)))
    return lines


def pace_of(layers: Sequence[Layer], block: Block, staged: Staged) -> Seconds:
    """Return how long a step with all layers takes whoever took these; 0: that is not known."""
    costs = [layer.cost for layer in layers]
    share = sum(costs[block[0] : block[1]]) / (sum(costs) or 1.0)
    if not (staged.taken and share and staged.seconds > 0):
        return 0.0
    return min(staged.seconds / staged.taken / share, PACE_MAX)


def cut(costs: Sequence[float], paces: Sequence[float]) -> list[tuple[int, int]]:
    """Cut layers into a part for each pace, in this order, so that the slowest part takes least.

    Args:
        costs: of the layers, at least as many as there are paces.
        paces: the time that each peer takes for a layer of cost 1.
    """
    low, high = 0.0, max(paces) * sum(costs)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _filled(costs, paces, middle) is None:
            low = middle
        else:
            high = middle
    ends = _filled(costs, paces, high) or [*range(1, len(paces)), len(costs)]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _filled(costs: Sequence[float], paces: Sequence[float], most: float) -> list[int] | None:
    """Give each as many layers as it can bear; return where the parts end, None if layers are left over."""
    ends: list[int] = []
    at = 0
    for number, pace in enumerate(paces):
        later, load = len(paces) - 1 - number, 0.0
        begin = at
        while at < len(costs) - later and (at == begin or load + costs[at] * pace <= most):
            load += costs[at] * pace
            at += 1
        if load > most:
            return None
        ends.append(at)
    return ends if at == len(costs) else None


def _groups(workers: list[Worker], size: int) -> list[list[Worker]]:
    """Cut a list into pieces of at most that size, as equal as can be."""
    count = -(-len(workers) // size)
    ends = [len(workers) * number // count for number in range(count + 1)] if count else [0]
    return [workers[begin:end] for begin, end in pairwise(ends)]


def _slowest(costs: Sequence[float], paces: Sequence[float], ends: list[tuple[int, int]]) -> float:
    return max(sum(costs[first:last]) * pace for (first, last), pace in zip(ends, paces, strict=True))


def _class(pace: Seconds) -> float:
    return round(log2(pace) / PACE_STEP) if 0 < pace < inf else 0.0
