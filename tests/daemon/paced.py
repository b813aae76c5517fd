"""A task that takes its time: as many steps a second on every computer, and next to no work."""

import sys
from dataclasses import dataclass
from threading import Event

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from p2ptrain.learn.losses import classification
from p2ptrain.learn.task import Task

STEP_S = 0.005
IN_DAEMON = "p2ptrain.learn.process.worker" in sys.orig_argv
"""Elsewhere, as in the simulator, time is another."""


@dataclass(frozen=True)
class Config:
    lr: float = 0.02
    batch_size: int = 16


def model(cfg: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def data(cfg: Config, split: str) -> TensorDataset:
    points = torch.randn(800 if split == "train" else 200, 4)
    return TensorDataset(points, (points.sum(1) > 0).long())


def loss(net: nn.Module, batch: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    if IN_DAEMON:
        Event().wait(STEP_S)
    return classification(net, batch)


task = Task("paced", version="1", model=model, data=data, loss=loss, evaluate=classification, config=Config)
