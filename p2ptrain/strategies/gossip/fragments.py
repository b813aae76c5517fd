"""Which piece of the weights an exchange moves, where it does not move all of them.

Bytes of an exchange, and the peak on the line, fall to one part of `count`. In each `count` turns every piece
comes once, shuffled anew: in a fixed order a piece would meet the same few partners for ever, since who meets
whom has a period too. Source: Streaming DiLoCo (arXiv 2501.18512), ALGORITHMS 3.1; the order is a guess.
"""

from random import Random

from p2ptrain.core.types import Ranges


def fragment_of(seed: int, turn: int, count: int, numbers: int) -> Ranges:
    """Return the numbers that move in a turn, the same for all who know seed and turn.

    Args:
        seed: of the swarm.
        turn: of who asked.
        count: of pieces, all equal but for one number.
        numbers: in the vector of weights; 0: not known, all move.
    """
    count = min(count, numbers)
    if count <= 1:
        return ()
    block, place = divmod(turn, count)
    order = list(range(count))
    Random(f"fragments {seed} {block}").shuffle(order)
    piece = order[place]
    return ((numbers * piece // count, numbers * (piece + 1) // count),)
