"""The learning rate over the steps, and how long a gradient may be."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2ptrain.learn.recipe import SCHEDULES, Recipe
from p2ptrain.learn.training.schedule import clip, share


def shares(schedule: str, *steps: int, final: float = 0.1, warmup: int = 0) -> list[float]:
    recipe = Recipe(schedule=schedule, lr_final=final, warmup=warmup)
    return [share(recipe, step, 100) for step in steps]


def test_each_schedule_has_its_form():
    assert shares("constant", 0, 50, 100) == [1, 1, 1]
    assert shares("linear", 0, 50, 100, 300) == pytest.approx([1, 0.55, 0.1, 0.1])
    assert shares("cosine", 0, 25, 50, 100) == pytest.approx([1, 0.55 + 0.45 * math.sqrt(0.5), 0.55, 0.1])
    assert shares("step", 0, 49, 50, 74, 75, 100, final=0.01) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_rate_rises_first():
    assert shares("constant", 0, 4, 9, 10, warmup=10) == pytest.approx([0.1, 0.5, 1, 1])
    assert shares("linear", 50, warmup=100) == pytest.approx([0.51 * 0.55])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_a_planned_end_the_rate_stays(schedule):
    recipe = Recipe(schedule=schedule)
    assert [share(recipe, step, 0) for step in (0, 10, 10**9)] == [1, 1, 1]


@given(
    schedule=st.sampled_from(SCHEDULES),
    final=st.floats(0.001, 1),
    warmup=st.integers(0, 50),
    steps=st.integers(1, 1000),
)
def test_the_rate_never_rises_after_the_warm_up_and_ends_where_it_should(schedule, final, warmup, steps):
    recipe = Recipe(schedule=schedule, lr_final=final, warmup=warmup)
    rates = [share(recipe, step, steps) for step in range(steps + 2)]
    assert all(0 < rate <= 1 for rate in rates)
    falling = rates[warmup:]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(falling))
    if steps >= warmup:
        assert rates[-1] == pytest.approx(1 if schedule == "constant" else final)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=20), st.floats(1e-3, 1e4))
def test_clipping_is_that_of_torch(numbers, longest):
    own, theirs = torch.tensor(numbers), torch.nn.Parameter(torch.zeros(len(numbers)))
    theirs.grad = own.clone()
    torch.nn.utils.clip_grad_norm_([theirs], longest)
    clip(own, longest)
    torch.testing.assert_close(own, theirs.grad)
    assert torch.linalg.vector_norm(own) <= longest * (1 + 1e-5)


def test_a_gradient_that_is_no_number_stays_none():
    broken = torch.tensor([1.0, math.nan])
    clip(broken, 1.0)
    assert broken.isnan().all()
