"""A net's layers in contiguous groups of about equal cost: what one peer trains, or holds.

A dynamic programme finds the groups whose largest is smallest (ALGORITHMS 2.3).
"""

from functools import lru_cache
from itertools import accumulate

from p2ptrain.core.inputs import Layer
from p2ptrain.core.types import Ranges

Block = tuple[int, int]
"""Layers, from the first to before the second."""


@lru_cache(maxsize=64)
def balanced(costs: tuple[float, ...], count: int, lead: float = 0.0) -> tuple[Block, ...]:
    """Cut layers into groups, as many as asked for or as there are layers, so that the dearest is cheapest.

    Args:
        costs: of each layer, not below 0; at least one.
        count: groups, at least one.
        lead: of the cost of each layer before a group, this share counts for the group too: where their
            output has to be computed first.
    """
    ends = tuple(accumulate(costs, initial=0.0))
    most = len(costs)
    count = min(count, most)

    def cost(first: int, last: int) -> float:
        return lead * ends[first] + ends[last] - ends[first]

    # best[last]: the dearest group, and the cut before it, of the layers before `last` in so many groups.
    best = [(0.0, 0), *((cost(0, last), 0) for last in range(1, most + 1))]
    cuts: list[list[int]] = []
    for groups in range(2, count + 1):
        best = [
            min(
                ((max(best[cut][0], cost(cut, last)), cut) for cut in range(groups - 1, last)),
                default=(0.0, 0),
            )
            for last in range(most + 1)
        ]
        cuts.append([cut for _, cut in best])
    blocks, last = [], most
    for row in reversed(cuts):
        blocks.append((row[last], last))
        last = row[last]
    return ((0, last), *reversed(blocks))


def ranges_of(layers: tuple[Layer, ...], block: Block) -> Ranges:
    """Return the numbers of a block in the vector of weights."""
    first, last = block
    found: list[tuple[int, int]] = []
    for begin, end in sorted(piece for layer in layers[first:last] for piece in layer.ranges):
        if found and found[-1][1] == begin:
            begin, _ = found.pop()
        found.append((begin, end))
    return tuple(found)
