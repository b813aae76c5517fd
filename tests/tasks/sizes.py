"""Each model forward and backward at its sizes: `python -m tests.tasks.sizes` shows them all, in a minute.

Also of the small variants, on two pictures; the numbers are those of one CPU thread.
"""

import sys
import time
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from p2ptrain.learn.weights import packing
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.tasks import models

CIFAR = (32, 10)
TINY = (64, 200)


def imagenet(name: str) -> tuple[int, int]:
    """Return pixels a side and classes."""
    return (299 if name == "inceptionv4" else 224), 1000


class Seen(NamedTuple):
    """What a model was like: its numbers that are trained, those of a blob, and what came of a step."""

    trainable: int
    blob_bytes: int
    loss: float
    gradient: float
    build_s: float
    step_s: float


def step(name: str, size: int, classes: int) -> Seen:
    """Build a model in a flat vector, and take it forward and backward."""
    began = time.perf_counter()
    torch.manual_seed(0)
    net = models.build(name, in_channels=3, size=size, classes=classes)
    vector = Vector(net)
    built = time.perf_counter()
    loss = cross_entropy(net(torch.randn(2, 3, size, size)), torch.tensor([1, 2]))
    loss.backward()
    done = time.perf_counter()
    every = all(bool(parameter.grad is not None and parameter.grad.any()) for parameter in net.parameters())
    gradient = packing.norm(vector.gradient) if every else 0.0
    blob_bytes = packing.blob_bytes(vector.spec, "f32")
    return Seen(vector.spec.trainable, blob_bytes, loss.item(), gradient, built - began, done - built)


def main() -> None:
    torch.set_num_threads(1)
    write = sys.stdout.write
    write(f"{'model':12} pixels classes{'parameters':>13}{'blob MB':>9}{'build s':>9}{'step s':>8}\n")
    for name in models.PICTURE_MODELS:
        for size, classes in (CIFAR, TINY, imagenet(name)):
            seen = step(name, size, classes)
            assert seen.gradient > 0, name
            write(f"{name:12}{size:7}{classes:8}{seen.trainable:13,}{seen.blob_bytes / 1e6:9.1f}")
            write(f"{seen.build_s:9.2f}{seen.step_s:8.2f}\n")


if __name__ == "__main__":
    main()
