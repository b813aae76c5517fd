"""Mass is neither lost nor made, as long as somebody hears of it."""

from random import Random

import pytest

from p2ptrain.strategies.gossip.gifts import LEAST, REMEMBERED, Mass
from tests.helpers import peer


def test_gifts_keep_mass_and_weighed_sum_and_come_to_the_mean() -> None:
    """Push-sum on numbers: the sum of mass times weight stays."""
    rng, values = Random(1), [float(n) for n in range(8)]
    masses = [Mass() for _ in values]
    for _ in range(400):
        giver, taker = rng.sample(range(8), 2)
        aside = masses[giver].set_aside()
        share = masses[taker].share(aside, 1.0) * rng.choice((0.2, 1.0))
        share, taken = masses[taker].take(aside, share)
        values[taker] += share * (values[giver] - values[taker])
        masses[giver].settle(aside, taken)
        assert sum(mass.now for mass in masses) == pytest.approx(8.0)
        weighed = sum(mass.now * value for mass, value in zip(masses, values, strict=True))
        assert weighed == pytest.approx(28.0)
    assert values == pytest.approx([3.5] * 8, abs=0.01)


def test_nobody_is_moved_beyond_the_middle() -> None:
    mass = Mass()
    assert mass.share(1e4, 1.0) == 0.5
    mass.set_aside()
    share, taken = mass.take(1e4, mass.share(1e4, 1.0))
    assert (share, taken) == (0.5, 0.5)


def test_what_is_not_taken_comes_back() -> None:
    mass = Mass()
    mass.settle(mass.set_aside(), 0.2)
    assert mass.now == pytest.approx(0.8)


def test_who_claims_to_have_taken_more_takes_no_more() -> None:
    mass = Mass()
    mass.settle(mass.set_aside(), 1e4)
    assert mass.now == 0.5


def test_a_word_that_comes_late_still_counts_once() -> None:
    mass = Mass()
    mass.give_up(peer(1), 7, mass.set_aside())
    assert mass.now == 1.0
    for who, number in ((2, 7), (1, 8), (1, 7), (1, 7)):
        mass.on_late(peer(who), number, 0.5)
    assert mass.now == 0.5


def test_what_was_taken_late_and_given_to_others_too_leaves_something() -> None:
    mass = Mass()
    for number in range(3):
        mass.give_up(peer(1), number, 0.5)
    mass.now = 1.0
    for number in range(3):
        mass.on_late(peer(1), number, 0.5)
    assert 0 < mass.now < LEAST


def test_few_gifts_are_remembered() -> None:
    mass = Mass()
    for number in range(1000):
        mass.lend(peer(1), number, 0.1)
    assert len(mass._lent) == REMEMBERED


def test_who_has_little_gives_nothing() -> None:
    mass = Mass()
    assert mass.is_enough(at_end=False)
    assert mass.is_enough(at_end=True)
    mass.set_aside()
    assert mass.is_enough(at_end=False)
    assert not mass.is_enough(at_end=True)
    mass.set_aside()
    mass.set_aside()
    assert not mass.is_enough(at_end=False)
