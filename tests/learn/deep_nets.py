"""Nets of ALGORITHMS 4.3 as tasks, to train in layers: MNIST by 5 linear ones, or by 3 convolutions and one.

    p2ptrain simulate tests.learn.deep_nets:mlp5 --peers 5 --parts 1 --steps 1600 --strategy layerwise
        --set examples=10000 --strategy-set group=1

`alone_accuracy` is that of plain training with equal steps on the same data.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from p2ptrain.learn.task import Task
from p2ptrain.tasks import mnist
from p2ptrain.tasks.models.mlp import perceptron


@dataclass(frozen=True, kw_only=True)
class Config(mnist.Config):
    lr: float = 0.03


def narrow(channels: int, widths: tuple[int, ...], pooled: tuple[int, ...], side: int) -> nn.Module:
    """Convolutions of 3x3, some followed by pooling, then 10 scores; `side` is that of the last map."""
    layers: list[nn.Module] = []
    for at, width in enumerate(widths):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if at in pooled else []
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 10))


def mlp_net(_: Any = None) -> nn.Module:
    """784-128-128-128-128-10."""
    return perceptron(784, 10, 128, 4, 0.0)


def cnn_net(_: Any = None) -> nn.Module:
    """Three convolutions and one linear layer."""
    return narrow(1, (16, 32, 32), (0, 1, 2), 3)


def vgg_net(_: Any = None) -> nn.Module:
    """Eight convolutions and one linear layer, for 32x32 pixels in three colours."""
    return narrow(3, (32, 32, 64, 64, 128, 128, 256, 256), (1, 3, 5, 7), 2)


def _task(name: str, model: Any) -> Task:
    known = mnist.task
    return Task(
        name, version="1", model=model, data=mnist.data, loss=known.loss, config=Config, prepare=known.prepare
    )


mlp5 = _task("mlp5", mlp_net)
cnn4 = _task("cnn4", cnn_net)
