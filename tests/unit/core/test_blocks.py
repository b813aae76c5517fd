"""Groups of layers: each layer in one, and no better groups exist."""

from itertools import combinations, pairwise
from random import Random

import pytest

from p2ptrain.core.blocks import Block, balanced, ranges_of
from p2ptrain.core.inputs import Layer

SEEDS = range(60)


def dearest(costs: tuple[float, ...], blocks: tuple[Block, ...], lead: float) -> float:
    return max(lead * sum(costs[:first]) + sum(costs[first:last]) for first, last in blocks)


def every_way(layers: int, count: int) -> list[tuple[Block, ...]]:
    return [
        tuple(pairwise((0, *cuts, layers))) for cuts in combinations(range(1, layers), min(count, layers) - 1)
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_each_layer_is_in_one_group_and_no_other_groups_are_better(seed: int) -> None:
    rng = Random(seed)
    costs = tuple(rng.choice((0.0, 1.0, rng.uniform(0, 10))) for _ in range(rng.randint(1, 9)))
    count, lead = rng.randint(1, 11), rng.choice((0.0, 1 / 3))
    blocks = balanced(costs, count, lead)
    ways = every_way(len(costs), count)
    assert blocks in ways, f"{costs} {count}"
    found, best = dearest(costs, blocks, lead), min(dearest(costs, way, lead) for way in ways)
    assert found == pytest.approx(best), f"{costs} {count} {lead}"


def test_what_comes_first_counts_where_it_has_to_be_computed() -> None:
    assert balanced((1.0,) * 6, 2) == ((0, 3), (3, 6))
    assert balanced((1.0,) * 6, 2, 0.5) == ((0, 4), (4, 6))


def test_a_block_has_the_numbers_of_its_layers() -> None:
    layers = (Layer(((0, 4),), 1.0), Layer(((4, 6), (9, 10)), 1.0), Layer(((6, 9),), 1.0))
    assert ranges_of(layers, (1, 3)) == ((4, 10),)
    assert ranges_of(layers, (1, 2)) == ((4, 6), (9, 10))
