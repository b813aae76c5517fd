"""A task of your own: two spirals. `python examples/own_task.py` trains it here, alone."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

from p2ptrain import Task


@dataclass(frozen=True)
class Config:
    width: int = 32
    lr: float = 0.1


def model(cfg):
    wide = nn.Linear(cfg.width, cfg.width)
    return nn.Sequential(nn.Linear(2, cfg.width), nn.Tanh(), wide, nn.Tanh(), nn.Linear(cfg.width, 1))


def data(cfg, split):
    arm = torch.randint(2, (1000,))
    radius = torch.rand(1000)
    angle = 3 * math.pi * radius + math.pi * arm
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return TensorDataset(points + 0.02 * torch.randn(1000, 2), arm.float())


def loss(net, batch):
    points, arm = batch
    score = net(points).squeeze(1)
    losses = binary_cross_entropy_with_logits(score, arm, reduction="none")
    return losses, {"accuracy": (score > 0) == (arm > 0)}


task = Task("spirals", version="1", model=model, data=data, loss=loss, config=Config)

if __name__ == "__main__":
    from p2ptrain.core.effects import Evaluate, Split, Train
    from p2ptrain.core.types import OWN
    from p2ptrain.learn.blobs import MemoryBlobs
    from p2ptrain.learn.engine import Engine
    from p2ptrain.learn.wire import Setup

    torch.set_num_threads(1)  # more of them only slow down so small a net
    engine = Engine(Setup(task="own_task:task", steps=3000), MemoryBlobs())
    print(engine.perform(Train(3000)))
    print(engine.perform(Evaluate("test", (OWN,), Split.TEST)))
