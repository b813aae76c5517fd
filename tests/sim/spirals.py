"""Two spirals in each other, with noise, told apart by a small net: many bad minima (ALGORITHMS 4.2, B2)."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import TensorDataset

from p2ptrain.learn.losses import classification
from p2ptrain.learn.task import Task

TURNS = 1.5
NOISE = 0.02
COUNTS = {"train": 1200, "test": 1000}


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    lr_final: float = 1.0
    batch_size: int = 32
    width: int = 16


def model(cfg: Config) -> nn.Module:
    hidden = nn.Sequential(nn.Linear(2, cfg.width), nn.Tanh(), nn.Linear(cfg.width, cfg.width), nn.Tanh())
    return nn.Sequential(hidden, nn.Linear(cfg.width, 2))


def data(cfg: Config, split: str) -> TensorDataset:
    drawn = torch.Generator().manual_seed(1 if split == "train" else 2)
    count = COUNTS[split]
    arms = torch.arange(count) % 2
    lengths = torch.rand(count, generator=drawn).sqrt()
    angles = lengths * TURNS * 2 * math.pi + arms * math.pi
    points = torch.stack((angles.cos(), angles.sin()), 1) * lengths.unsqueeze(1)
    return TensorDataset(points + NOISE * torch.randn(count, 2, generator=drawn), arms)


def optimizer(net: nn.Module, cfg: Config) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=cfg.lr, momentum=0.9)


task = Task(
    "spirals", version="1", model=model, data=data, loss=classification, config=Config, optimizer=optimizer
)
