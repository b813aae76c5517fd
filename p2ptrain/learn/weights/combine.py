"""Rules that make one vector out of several. A new rule is a new function and a line in the table."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from p2ptrain.core import limits
from p2ptrain.core.errors import WeightsError

TRIM = 0.25
"""Share that is cut at either end (ALGORITHMS 4.6)."""

SORTED_NUMBERS = 1 << 24
"""So many numbers are sorted at once: 64 MiB."""

EQUAL_VOICES = ("median", "trimmed_mean", "centered_clip", "krum")
"""Rules that count vectors, and so cannot weigh them."""

TERMS = {"adam_moment": 2, "yogi_moment": 2, "adaptive_step": 3}
"""Rules whose terms have places, and how many there are; see each for what its coefficients mean."""

Rule = Callable[[Sequence[float], Sequence[Tensor]], Tensor]
"""Coefficients and as many vectors of one shape; returns a new vector, changes none."""


def weighted_sum(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return sum(coefficient * vector), added up in the order given."""
    total = torch.zeros_like(vectors[0])
    for coefficient, vector in zip(coefficients, vectors, strict=True):
        total.add_(vector, alpha=coefficient)
    return total


def median(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return the middle of each coordinate, the mean of the two middle ones if their number is even.

    Robust against less than half of the vectors, not against a small shift by many (ALGORITHMS 4.6).
    """
    return _mean_of_middle(vectors, (len(vectors) - 1) // 2)


def trimmed_mean(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return the mean of each coordinate without the lowest and the highest quarter (Yin 2018)."""
    return _mean_of_middle(vectors, int(TRIM * len(vectors)))


def centered_clip(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Move the first vector towards the others, none of them counting from further than the median distance.

    x = w + sum(clip(v - w, r)) / (others + 1): no lie moves it by more than r / (others + 1).
    Source: Karimireddy 2021, in the form of ALGORITHMS 2.7.
    """
    own, others = vectors[0], vectors[1:]
    if not others:
        return own.clone()
    moves = [other - own for other in others]
    distances = torch.stack([torch.linalg.vector_norm(move) for move in moves])
    radius = torch.quantile(distances, 0.5)
    shares = torch.where(distances > radius, radius / distances, torch.ones_like(distances))
    return weighted_sum([1.0, *(shares / len(vectors)).tolist()], [own, *moves])


def krum(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return the vector with the least sum of squared distances to its nearest ones.

    Of n vectors f = (n - 3) // 2 may be lies; n - f - 2 neighbours count, at least one (Blanchard 2017).
    """
    count = len(vectors)
    if count == 1:
        return vectors[0].clone()
    squares = torch.tensor([[float((a - b).square().sum()) for b in vectors] for a in vectors])
    near = max(1, count - max(0, (count - 3) // 2) - 2)
    scores = squares.sort(dim=1).values[:, 1 : 1 + near].sum(dim=1)
    return vectors[int(scores.argmin())].clone()


def adam_moment(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return c0 * v + c1 * d^2: how far numbers move usually, squared (Kingma 2015, FedAdam of Reddi 2021).

    Args:
        coefficients: c0 and c1, usually 0.99 and 0.01.
        vectors: v, what it was so far, zeros at first; d, a move.
    """
    (keep, share), (so_far, move) = coefficients, vectors
    return so_far.mul(keep).addcmul_(move, move, value=share)


def yogi_moment(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return v - c1 * d^2 * sign(v - d^2): as `adam_moment`, and forgets slowly (FedYogi of Reddi 2021).

    Args:
        coefficients: the first one is not used.
        vectors: v, what it was so far; d, a move.
    """
    so_far, square = vectors[0], vectors[1].square()
    signs = torch.sign(so_far - square)
    return so_far.addcmul(square, signs, value=-coefficients[1])


def adaptive_step(coefficients: Sequence[float], vectors: Sequence[Tensor]) -> Tensor:
    """Return G + eta * m / (sqrt(v) + tau): what moves little usually, moves far now (Reddi 2021).

    Statistics, which nobody trains, stay those of G: average them by a combination of their own.

    Args:
        coefficients: 1, eta and tau, which is above 0.
        vectors: G, weights; m, the mean of recent moves; v, a moment as the two rules above give it.
    """
    scale, rate, least = coefficients
    weights, move, moment = vectors
    return weights.mul(scale).addcdiv_(move, moment.clamp(min=0).sqrt_().add_(least), value=rate)


def _mean_of_middle(vectors: Sequence[Tensor], cut: int) -> Tensor:
    """Return the mean of each coordinate without the `cut` lowest and highest; sorting takes room."""
    count, width = len(vectors), max(1, SORTED_NUMBERS // len(vectors))
    pieces = [
        torch.stack([vector[begin : begin + width] for vector in vectors]).sort(dim=0).values
        for begin in range(0, len(vectors[0]), width)
    ]
    return torch.cat([piece[cut : count - cut].mean(dim=0) for piece in pieces])


RULES: dict[str, Rule] = {
    "weighted_sum": weighted_sum,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "centered_clip": centered_clip,
    "krum": krum,
    "adam_moment": adam_moment,
    "yogi_moment": yogi_moment,
    "adaptive_step": adaptive_step,
}


def combine(
    rule: str, coefficients: Sequence[float], vectors: Sequence[Tensor], trained: int | None = None
) -> Tensor:
    """Apply a rule by name.

    Args:
        rule: one of `RULES`.
        coefficients: one a vector.
        vectors: of one shape.
        trained: so many numbers in front are what training changes; the rest are statistics, and stay
            within the range of those that are combined where weights are extrapolated.

    Raises:
        WeightsError: no such rule, nothing to combine, or a coefficient that is no usable number.
    """
    if rule not in RULES:
        raise WeightsError(f"there is no rule `{rule}`", f"known are: {', '.join(RULES)}")
    if not vectors:
        raise WeightsError("there is nothing to combine")
    if not all(abs(coefficient) <= limits.ABSOLUTE_NUMBER_MAX for coefficient in coefficients):
        raise WeightsError(f"weights cannot be multiplied by {max(coefficients, key=abs)}")
    if rule in EQUAL_VOICES and len(set(coefficients)) > 1:
        raise WeightsError(f"`{rule}` gives every vector one voice", "give all of them the same coefficient")
    if len(vectors) != TERMS.get(rule, len(vectors)):
        raise WeightsError(f"`{rule}` takes {TERMS[rule]} terms, not {len(vectors)}")
    if rule == "adaptive_step" and not coefficients[2] > 0:
        raise WeightsError(
            f"`{rule}` divides by numbers that may be zero", "let the last coefficient be above 0"
        )
    combined = RULES[rule](coefficients, vectors)
    if trained is not None and rule == "adaptive_step":
        combined[trained:] = vectors[0][trained:]
    if trained is not None and _extrapolates(coefficients):
        statistics = torch.stack([vector[trained:] for vector in vectors])
        combined[trained:].clamp_(statistics.amin(dim=0), statistics.amax(dim=0))
    return combined


def _extrapolates(coefficients: Sequence[float]) -> bool:
    """Say whether weights result that lie outside of those combined: a variance may become negative there.

    Coefficients of weights add up to one. Those of a difference do not, and any statistics may be in it.
    """
    return min(coefficients) < 0 and math.isclose(sum(coefficients), 1, abs_tol=1e-6)
