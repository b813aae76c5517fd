"""Whom to address: as evenly as possible. ALGORITHMS 1.3."""

from random import Random

import pytest

from p2ptrain.core.law import Deck, expo, turns, uniform
from p2ptrain.core.types import PeerId
from tests.helpers import peer


def members(count: int) -> list[PeerId]:
    return [peer(number) for number in range(count)]


def everyone(_: PeerId) -> bool:
    return True


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 13, 16, 64, 100])
def test_in_one_turn_everyone_hears_from_exactly_one(count: int) -> None:
    them = members(count)
    for turn in range(2 * turns(count)):
        assert sorted(expo(them, me, turn, everyone) for me in them) == them


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 13, 16, 64, 100])
def test_as_many_turns_as_the_law_has_reach_as_many_different_peers(count: int) -> None:
    them = members(count)
    for me in them:
        for first in (0, 1, 7):
            addressed = [expo(them, me, first + turn, everyone) for turn in range(turns(count))]
            assert len(dict.fromkeys(addressed)) == turns(count)
            assert me not in addressed


@pytest.mark.parametrize("count", [4, 8, 16, 64])
def test_what_one_knows_reaches_everyone_in_log2_turns(count: int) -> None:
    """With everyone at the same turn: the reason for powers of two."""
    them = members(count)
    informed = [them[0]]
    for turn in range(turns(count)):
        informed += [to for me in informed if (to := expo(them, me, turn, everyone)) is not None]
    assert sorted(informed) == them


def test_the_number_of_turns_is_the_logarithm_rounded_up() -> None:
    assert [turns(count) for count in (0, 1, 2, 3, 4, 5, 8, 9, 16, 17)] == [1, 1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_alone_there_is_nobody_to_address() -> None:
    assert expo([], peer(1), 0, everyone) is None
    assert expo([peer(1)], peer(1), 0, everyone) is None
    assert uniform([peer(1)], peer(1), Random(0), everyone) is None


def test_who_cannot_be_reached_is_skipped_for_the_next_one() -> None:
    them, down = members(8), [peer(1), peer(2)]
    assert expo(them, peer(0), 0, lambda candidate: candidate not in down) == peer(3)
    assert expo(them, peer(7), 1, lambda candidate: candidate not in down) == peer(3)


def test_any_single_reachable_peer_is_found_from_anywhere() -> None:
    them = members(9)
    for only in them:
        for me in them:
            found = [expo(them, me, turn, only.__eq__) for turn in range(8)]
            assert found == [None if me == only else only] * 8


def test_nobody_addresses_itself_even_if_nobody_else_is_there() -> None:
    for turn in range(8):
        assert expo(members(5), peer(3), turn, peer(3).__eq__) is None


@pytest.mark.parametrize("seed", range(3))
def test_a_shuffled_round_robin_reaches_everyone_before_anybody_twice(seed: int) -> None:
    rng, deck, them = Random(seed), Deck(), members(6)
    others = [one for one in them if one != peer(2)]
    rounds = [[deck.draw(them, peer(2), rng, everyone) for _ in others] for _ in range(4)]
    assert all(sorted(filter(None, round_)) == others for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 1
    down = [deck.draw(them, peer(2), rng, peer(4).__ne__) for _ in range(40)]
    assert peer(4) not in down
    assert deck.draw(them, peer(2), rng, lambda _: False) is None
    assert Deck().draw([], peer(2), rng, everyone) is None


@pytest.mark.parametrize("seed", range(3))
def test_the_uniform_law_reaches_everyone_but_oneself(seed: int) -> None:
    rng, them = Random(seed), members(6)
    found = {uniform(them, peer(2), rng, peer(4).__ne__) for _ in range(200)}
    assert found == {peer(0), peer(1), peer(3), peer(5)}
