"""Rules that make one vector out of several. A new rule is a new function and a line in the table."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from p2ptrain.core import limits
from p2ptrain.core.errors import WeightsError

Rule = Callable[[Sequence[float], Sequence[Tensor]], Tensor]
"""Coefficients and as many vectors of one shape; returns a new vector, changes none."""


def weighted_sum(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return sum(coefficient * vector), added up in the order given."""
    total = torch.zeros_like(vectors[0])
    for coefficient, vector in zip(coefficients, vectors, strict=True):
        total.add_(vector, alpha=coefficient)
    return total


RULES: dict[str, Rule] = {"weighted_sum": weighted_sum}


def combine(rule: str, coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Apply a rule by name.

    Raises:
        WeightsError: no such rule, nothing to combine, or a coefficient that is no usable number.
    """
    if rule not in RULES:
        raise WeightsError(f"there is no rule `{rule}`", f"known are: {', '.join(RULES)}")
    if not vectors:
        raise WeightsError("there is nothing to combine")
    if not all(abs(coefficient) <= limits.ABSOLUTE_NUMBER_MAX for coefficient in coefficients):
        raise WeightsError(f"weights cannot be multiplied by {max(coefficients, key=abs)}")
    return RULES[rule](coefficients, vectors)
