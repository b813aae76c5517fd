"""Which piece of the weights moves in a turn."""

import pytest

from p2ptrain.strategies.gossip.fragments import fragment_of


@pytest.mark.parametrize(("count", "numbers"), [(2, 8), (3, 8), (8, 8), (7, 1000)])
def test_in_so_many_turns_every_number_moves_once(count: int, numbers: int) -> None:
    for block in range(5):
        ranges = [fragment_of(1, block * count + turn, count, numbers) for turn in range(count)]
        moved = [number for ((begin, end),) in ranges for number in range(begin, end)]
        assert sorted(moved) == list(range(numbers))
        assert max(end - begin for ((begin, end),) in ranges) <= -(-numbers // count)


@pytest.mark.parametrize("numbers", [0, 1, 8])
def test_one_piece_is_all_of_it(numbers: int) -> None:
    assert fragment_of(1, 5, 1, numbers) == ()


def test_there_are_no_more_pieces_than_numbers() -> None:
    assert {fragment_of(1, turn, 100, 3) for turn in range(3)} == {((0, 1),), ((1, 2),), ((2, 3),)}


@pytest.mark.parametrize(("count", "period"), [(2, 2), (3, 3), (2, 4), (4, 2), (4, 4)])
def test_every_piece_meets_every_kind_of_partner(count: int, period: int) -> None:
    """The law of pairs repeats: in a fixed order a piece would come with the same few turns for ever."""
    met = {(fragment_of(1, turn, count, 64), turn % period) for turn in range(20 * count * period)}
    assert len(met) == count * period


def test_it_follows_from_seed_and_turn() -> None:
    orders = [tuple(fragment_of(seed, turn, 4, 64) for turn in range(40)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
