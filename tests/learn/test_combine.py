"""Rules that make one vector out of several: what liars can do to each."""

import pytest
import torch
from torch import Tensor

from p2ptrain.core.errors import WeightsError
from p2ptrain.learn.weights import combine as module
from p2ptrain.learn.weights.combine import EQUAL_VOICES, RULES, TERMS, combine

pytestmark = pytest.mark.byzantine

SIZE = 1000


def honest(count: int, seed: int = 0) -> list[Tensor]:
    """Vectors around ones."""
    generator = torch.Generator().manual_seed(seed)
    return [1 + 0.1 * torch.randn(SIZE, generator=generator) for _ in range(count)]


def together(rule: str, vectors: list[Tensor]) -> Tensor:
    return combine(rule, [1 / len(vectors)] * len(vectors), vectors)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in TERMS])
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


# -- servers whose steps adapt ---------------------------------------------------------------------


def quadratic(rule: str, rounds: int, rate: float = 0.1) -> Tensor:
    """Go down sum(scale * x^2) with scales from 1 to 10^4, by the combinations of a server."""
    scales = torch.logspace(0, 4, 9)
    weights, first, second = torch.ones(9), torch.zeros(9), torch.zeros(9)
    for _ in range(rounds):
        move = -0.001 * 2 * scales * weights
        first = combine("weighted_sum", [0.9, 0.1], [first, move])
        second = combine(rule, [0.99, 0.01], [second, move])
        weights = combine("adaptive_step", [1.0, rate, 1e-3], [weights, first, second])
    return weights


@pytest.mark.parametrize("rule", ["adam_moment", "yogi_moment"])
def test_adaptive_servers_move_numbers_of_all_scales(rule: str) -> None:
    """Gradients 10,000 times as large move a number not even 5 times as far."""
    after = quadratic(rule, 5, rate=0.01)
    assert float(after.max()) < 1.0
    assert float((1 - after).max() / (1 - after).min()) < 5.0
    assert float(quadratic(rule, 400, rate=0.01).abs().max()) < 0.2


def test_moments_are_what_their_papers_say() -> None:
    v, d = torch.tensor([4.0, 0.5, 0.0]), torch.tensor([1.0, -1.0, 3.0])
    assert torch.allclose(combine("adam_moment", [0.9, 0.1], [v, d]), torch.tensor([3.7, 0.55, 0.9]))
    assert torch.allclose(combine("yogi_moment", [1.0, 0.1], [v, d]), torch.tensor([3.9, 0.6, 0.9]))
    assert torch.equal(v, torch.tensor([4.0, 0.5, 0.0]))


def test_an_adaptive_step_divides_by_the_root_of_the_moment() -> None:
    weights, move, moment = torch.ones(3), torch.tensor([1.0, -2.0, 5.0]), torch.tensor([4.0, 0.0, -1.0])
    after = combine("adaptive_step", [1.0, 0.5, 0.5], [weights, move, moment])
    assert torch.allclose(after, torch.tensor([1.2, -1.0, 6.0]))
    kept = combine("adaptive_step", [1.0, 0.5, 0.5], [weights, move, moment], trained=1)
    assert torch.allclose(kept, torch.tensor([1.2, 1.0, 1.0])), "statistics stay those of the weights"


@pytest.mark.parametrize("rule", TERMS)
def test_terms_with_places_are_counted(rule: str) -> None:
    with pytest.raises(WeightsError, match="terms"):
        combine(rule, [1.0], honest(1))
    with pytest.raises(WeightsError):
        combine("adaptive_step", [1.0, 0.1, 0.0], honest(3))
