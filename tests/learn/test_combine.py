"""Rules that make one vector out of several: what liars can do to each."""

import pytest
import torch
from torch import Tensor

from p2ptrain.core.errors import WeightsError
from p2ptrain.learn.weights import combine as module
from p2ptrain.learn.weights.combine import EQUAL_VOICES, RULES, combine

pytestmark = pytest.mark.byzantine

SIZE = 1000


def honest(count: int, seed: int = 0) -> list[Tensor]:
    """Vectors around ones."""
    generator = torch.Generator().manual_seed(seed)
    return [1 + 0.1 * torch.randn(SIZE, generator=generator) for _ in range(count)]


def together(rule: str, vectors: list[Tensor]) -> Tensor:
    return combine(rule, [1 / len(vectors)] * len(vectors), vectors)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 10])
def test_honest_vectors_come_out_as_their_middle(rule: str, count: int) -> None:
    vectors = honest(count)
    before = [vector.clone() for vector in vectors]
    result = together(rule, vectors)
    assert float((result - 1).abs().mean()) <= 0.1
    assert all(torch.equal(one, other) for one, other in zip(vectors, before, strict=True))
    assert all(result.data_ptr() != vector.data_ptr() for vector in vectors)


@pytest.mark.parametrize("rule", EQUAL_VOICES)
@pytest.mark.parametrize("lie", [-4.0, 100.0, 1e6])
def test_two_liars_of_nine_move_it_little_but_rule_the_mean(rule: str, lie: float) -> None:
    vectors = [*honest(7), torch.full((SIZE,), lie), torch.full((SIZE,), lie)]
    assert float((together(rule, vectors) - 1).abs().max()) <= 0.6
    assert float((together("weighted_sum", vectors) - 1).abs().mean()) > 1.0


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_the_order_does_not_matter(rule: str) -> None:
    vectors = honest(6)
    assert torch.equal(together(rule, vectors), together(rule, vectors[::-1]))


def test_the_median_is_that_of_each_coordinate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SORTED_NUMBERS", 300)
    for count in (4, 5):
        stacked = torch.stack(vectors := honest(count))
        assert torch.allclose(together("median", vectors), stacked.quantile(0.5, dim=0))


def test_clipping_bounds_what_one_lie_can_do() -> None:
    """M2 of ALGORITHMS 2.7: ||x - w|| <= r * others / (others + 1)."""
    vectors = [*honest(5), torch.full((SIZE,), 1e6)]
    own = vectors[0]
    radius = float(torch.stack([(vector - own).norm() for vector in vectors[1:]]).quantile(0.5))
    assert float((together("centered_clip", vectors) - own).norm()) <= radius * 5 / 6 + 1e-3


def test_krum_returns_one_of_the_honest_vectors() -> None:
    vectors = [torch.full((SIZE,), -4.0), *honest(5), torch.full((SIZE,), -4.0)]
    assert any(torch.equal(together("krum", vectors), vector) for vector in vectors[1:6])


@pytest.mark.parametrize("rule", EQUAL_VOICES)
def test_rules_that_count_refuse_to_weigh(rule: str) -> None:
    with pytest.raises(WeightsError, match="one voice"):
        combine(rule, [0.3, 0.7], honest(2))


def test_statistics_stay_within_what_is_combined_where_weights_are_extrapolated() -> None:
    own, mean = torch.tensor([1.0, 1.0, 0.2]), torch.tensor([2.0, 0.4, 0.3])
    reflected = combine("weighted_sum", [-1, 2], [own, mean], trained=1)
    assert torch.allclose(reflected, torch.tensor([3.0, 0.4, 0.3]))


def test_statistics_of_a_difference_may_have_any_sign() -> None:
    own, base = torch.tensor([1.0, 1.0]), torch.tensor([2.0, 3.0])
    assert torch.equal(combine("weighted_sum", [1, -1], [own, base], trained=1), own - base)
