"""One result after the other is averaged in as long as the loss does not rise. ALGORITHMS 2.7."""

import math
from random import Random

import pytest

from p2ptrain.core.effects import Combine, Evaluate
from p2ptrain.core.soup import POTS, Soup
from tests.helpers import blob


def test_the_soup_the_other_and_both_are_measured_on_the_same_examples() -> None:
    assert Soup(blob(1)).taste("taste", blob(2)) == [
        Combine("taste", POTS[0], ((0.5, blob(1)), (0.5, blob(2)))),
        Evaluate("taste", (blob(1), blob(2), POTS[0])),
    ]


def test_what_tastes_best_is_kept() -> None:
    cases = (
        ((1.0, 2.0, 3.0), blob(1)),
        ((2.0, 1.0, 3.0), blob(2)),
        ((3.0, 1.0, 2.0), blob(2)),
        ((3.0, 2.0, 1.0), POTS[0]),
    )
    for losses, kept in cases:
        soup = Soup(blob(1))
        soup.judge(blob(2), "bert", losses)
        assert (soup.ref, soup.loss) == (kept, min(losses))


def test_a_tie_changes_nothing() -> None:
    soup = Soup(blob(1))
    soup.judge(blob(2), "bert", (1.0, 1.0, 1.0))
    assert soup.ref == blob(1)
    assert not soup.is_mixed


def test_every_result_in_a_soup_has_the_same_share() -> None:
    soup = Soup(blob(1))
    soup.judge(blob(2), "bert", (3.0, 3.0, 2.0))
    (combine, _) = soup.taste("taste", blob(3))
    assert isinstance(combine, Combine)
    assert combine.terms == ((pytest.approx(2 / 3), POTS[0]), (pytest.approx(1 / 3), blob(3)))
    assert combine.out == POTS[1], "the soup so far is not spilt"


def test_broken_weights_are_never_kept() -> None:
    for broken in (math.nan, math.inf):
        soup = Soup(blob(1))
        soup.judge(blob(2), "mallory", (1.0, broken, broken))
        assert soup.ref == blob(1)


def test_whoever_is_better_than_broken_own_weights_is_taken() -> None:
    soup = Soup(blob(1))
    soup.judge(blob(2), "bert", (math.nan, 5.0, math.nan))
    assert (soup.ref, soup.loss) == (blob(2), 5.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_soup_is_never_worse_than_the_best_single_result(seed: int) -> None:
    rng = Random(seed)
    soup, own, best = Soup(blob(0)), rng.random(), math.inf
    for number in range(1, 20):
        alone, mixed = rng.random(), rng.random()
        soup.judge(blob(number), "somebody", (own, alone, mixed))
        best = min(best, own, alone)
        assert soup.loss <= best, seed
        own = soup.loss
