"""In which order points of the line are tried, and which one is gone to. ALGORITHMS 2.2."""

import math

import pytest

from p2ptrain.core.ladder import Ladder, Line, slot_at

FIRST = {0.0: 1.0, 1.0: 2.0}


def line(ladder: Ladder, losses: dict[float, float], error: float = math.nan) -> Line:
    return Line(ladder, 1e-4, FIRST | losses, dict.fromkeys(FIRST | losses, error))


def test_the_line_asks_for_all_points_at_once() -> None:
    assert line(Ladder.LINE, {}).next(lowest=0.5) == (0.5, 1.5, 2.0)
    assert line(Ladder.LINE, {0.5: 1.0, 1.5: 1.0, 2.0: 1.0}).next(lowest=0.5) == ()


@pytest.mark.parametrize(
    ("reflected", "lowest", "asked"),
    [
        (0.4, 0.5, (3.0,)),  # better than everybody: further
        (0.6, 0.5, ()),  # better than the own: enough
        (1.1, 0.5, (1.5, 0.5)),  # worse: nearer
    ],
)
def test_the_simplex_reflects_first_and_then_expands_or_contracts(
    reflected: float, lowest: float, asked: tuple[float, ...]
) -> None:
    assert line(Ladder.SIMPLEX, {}).next(lowest) == (2.0,)
    assert line(Ladder.SIMPLEX, {2.0: reflected}).next(lowest) == asked
    assert line(Ladder.SIMPLEX, {2.0: reflected} | dict.fromkeys(asked, 0.1)).next(lowest) == ()


@pytest.mark.parametrize(
    ("ladder", "losses", "best"),
    [
        (Ladder.LINE, {0.5: 0.8, 1.5: 0.7, 2.0: 0.9}, 1.5),
        (Ladder.LINE, {1.0: 0.1, 0.5: 0.8, 1.5: 0.7, 2.0: 0.9}, 1.0),
        (Ladder.LINE, {0.5: 1.1, 1.5: 1.2, 2.0: 1.3}, 0.0),
        (Ladder.SIMPLEX, {1.0: 0.1, 2.0: 0.9}, 2.0),  # the mean is where all become alike
        (Ladder.SIMPLEX, {2.0: 0.4, 3.0: 0.3}, 3.0),
        (Ladder.SIMPLEX, {2.0: 0.4, 3.0: 0.5}, 2.0),
        (Ladder.SIMPLEX, {2.0: 1.1, 1.5: 0.9, 0.5: 0.2}, 1.5),  # the first that is better
        (Ladder.SIMPLEX, {2.0: 1.1, 1.5: 1.1, 0.5: 0.2}, 0.5),
        (Ladder.SIMPLEX, {2.0: 1.1, 1.5: math.inf, 0.5: 1.0}, 0.0),
    ],
)
def test_a_better_point_is_gone_to(ladder: Ladder, losses: dict[float, float], best: float) -> None:
    assert line(ladder, losses).best() == best


@pytest.mark.parametrize("ladder", list(Ladder))
@pytest.mark.parametrize(("error", "best"), [(0.0, 2.0), (0.19, 2.0), (0.21, 0.0), (math.nan, 2.0)])
def test_what_may_be_chance_is_not_better(ladder: Ladder, error: float, best: float) -> None:
    """A tenth lower, by errors of the difference on the same examples."""
    assert line(ladder, {0.5: 1.0, 1.5: 1.0, 2.0: 0.9}, error).best() == best


def test_what_is_hardly_lower_is_not_better() -> None:
    assert line(Ladder.LINE, {0.5: 1.0 - 0.9e-4}).best() == 0.0
    assert line(Ladder.LINE, {0.5: 1.0 - 1.1e-4}).best() == 0.5


def test_every_point_has_a_slot_of_its_own() -> None:
    slots = [slot_at(t) for t in (0.5, 1.5, 2.0, 3.0)]
    assert len(dict.fromkeys(slots)) == len(slots)
