"""The loss of the weights that are in a net now, on given examples, and how sure it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf, nan
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from p2ptrain.learn.data.splits import Selection
from p2ptrain.learn.task import Task
from p2ptrain.learn.training.memory import is_exhausted
from p2ptrain.learn.training.precision import Manner

BATCH_LARGE = 256
"""Examples at once if the loss is one number an example: more gains little (measured on a CPU)."""

BATCH_SMALL = 32
"""Examples at once if the loss is one number a batch: its error shows in how the batches differ."""


class Score(NamedTuple):
    """A measurement.

    loss: mean over the examples, in the unit of the task's loss.
    error: standard error of that mean; infinite if there was only one number to judge by.
    accuracy: share of right answers, NaN where the task has none.
    losses, weights: the numbers that the mean is of, shape (n,): one an example, or one a batch.
    """

    loss: float
    error: float
    accuracy: float
    losses: Tensor
    weights: Tensor


class Evaluator:
    """Measures one net, always on the same batches, so that equal weights have equal scores.

    Args:
        net: its modes are as before after each use.
        task: its `evaluate`, else its `loss`, is what counts.
        cfg: the task's config.
        probe: a small batch: it shows whether the loss is one number an example.
        manner: how the net computes; by default as it is.
    """

    def __init__(
        self, net: nn.Module, task: Task, cfg: Any, probe: Any, manner: Manner | None = None
    ) -> None:
        self._net, self._task, self._cfg = net, task, cfg
        self._manner = manner or Manner(torch.device("cpu"))
        self._measure = task.evaluate or task.loss
        with evaluating(net):
            loss, _ = self._results(probe)
        self._batch_size = BATCH_LARGE if loss.ndim else BATCH_SMALL

    def score(self, examples: Selection) -> Score:
        """Measure on these examples, at least one; in smaller batches from now on if memory is full."""
        while True:
            try:
                return self._score(examples)
            except (RuntimeError, MemoryError) as error:
                if not is_exhausted(error) or self._batch_size == 1:
                    raise
            self._batch_size //= 2

    def _score(self, examples: Selection) -> Score:
        losses, weights = [], []
        right = 0.0
        with evaluating(self._net):
            for begin in range(0, len(examples), self._batch_size):
                end = min(begin + self._batch_size, len(examples))
                loss, accuracy = self._results(examples.take(slice(begin, end)))
                numbers = loss.reshape(end - begin, -1).mean(1) if loss.ndim else loss.reshape(1)
                losses.append(numbers.float().cpu().double())
                weights.append(torch.full_like(losses[-1], (end - begin) / len(numbers)))
                right += float(accuracy.cpu().double().mean()) * (end - begin)
        return score_of(torch.cat(losses), torch.cat(weights), right / len(examples))

    def _results(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy as the task gives them."""
        batch = self._task.prepared(self._cfg, batch, False)
        result = self._manner.apply(self._measure, self._net, batch)
        loss, metrics = result if isinstance(result, tuple) else (result, {})
        return loss, metrics.get("accuracy", torch.tensor(nan))


def score_of(losses: Tensor, weights: Tensor, accuracy: float) -> Score:
    """Sum up the losses of examples or batches."""
    return Score(*mean_and_error(losses, weights), accuracy, losses, weights)


def difference_error(one: Score, other: Score) -> float:
    """Return the standard error of the difference of two means over the same examples; NaN if unknown.

    It is smaller than the errors of both: what is hard for one is mostly hard for the other.
    """
    if len(one.losses) != len(other.losses) or len(one.losses) == 1:
        return nan
    return mean_and_error(other.losses - one.losses, one.weights)[1]


def mean_and_error(losses: Tensor, weights: Tensor) -> tuple[float, float]:
    """Weigh the losses; the mean of k examples varies k times less than one example does."""
    total = weights.sum()
    mean = (losses * weights).sum() / total
    if len(losses) == 1:
        return float(mean), inf
    variance = (weights * (losses - mean) ** 2).sum() / (len(losses) - 1)
    return float(mean), float((variance / total).sqrt())


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """No gradients and evaluation mode; a task may have modules that are never in training mode."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
