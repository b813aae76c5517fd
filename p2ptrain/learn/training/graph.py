"""Loss and gradient of a batch as one CUDA graph: for small nets, launching kernels takes longer than they.

Written by torch's documentation of CUDA graphs; see docs/LOG.md for whether it was tried on a GPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from p2ptrain.learn.training.precision import over_tensors

WARM_UP = 3
"""Runs before capturing, on a stream of their own, as torch wants it."""

FindGradient = Callable[[Any], Tensor]
"""Adds the gradient of a prepared batch to the net's; returns the mean loss, shape ()."""


class CapturedGradient:
    """Does what `find` did with its first batch, with the numbers of any batch of the same shape.

    Raises:
        RuntimeError: it cannot be captured: it waits for the GPU, or looks at numbers there.
    """

    def __init__(self, find: FindGradient, batch: Any) -> None:
        self._find = find
        self._batch = over_tensors(batch, torch.clone)
        self._shapes = _shapes(batch)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                find(self._batch)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = find(self._batch)

    def __call__(self, batch: Any) -> Tensor:
        """Find the gradient of a batch; another shape than usual takes the slow way."""
        if _shapes(batch) != self._shapes:
            return self._find(batch)
        for ours, theirs in zip(_tensors(self._batch), _tensors(batch), strict=True):
            ours.copy_(theirs)
        self._graph.replay()
        return self._loss.clone()


def _tensors(batch: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    over_tensors(batch, keep)
    return found


def _shapes(batch: Any) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in _tensors(batch)]
