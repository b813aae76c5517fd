"""In which order points of the line are tried. ALGORITHMS 2.2."""

import pytest

from p2ptrain.core.ladder import Ladder, points, slot_at


def test_the_line_asks_for_all_points_at_once() -> None:
    assert points(Ladder.LINE, {0.0: 1.0, 1.0: 2.0}, lowest=0.5) == (0.5, 1.5, 2.0)
    assert points(Ladder.LINE, {0.0: 1.0, 1.0: 2.0, 0.5: 1.0, 1.5: 1.0, 2.0: 1.0}, lowest=0.5) == ()


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
    tried = {0.0: 1.0, 1.0: 2.0}
    assert points(Ladder.SIMPLEX, tried, lowest) == (2.0,)
    tried[2.0] = reflected
    assert points(Ladder.SIMPLEX, tried, lowest) == asked
    assert points(Ladder.SIMPLEX, tried | dict.fromkeys(asked, 0.1), lowest) == ()


def test_every_point_has_a_slot_of_its_own() -> None:
    slots = [slot_at(t) for t in (0.5, 1.5, 2.0, 3.0)]
    assert len(dict.fromkeys(slots)) == len(slots)
