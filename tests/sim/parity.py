"""Parity of four bits by a 4-4-2 network: a small problem full of bad minima (ALGORITHMS 4.1, B1)."""

import itertools
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import TensorDataset

from p2ptrain.learn.losses import classification
from p2ptrain.learn.task import Task

COPIES = 40
"""Every pattern lies in the training part and in the validation part."""


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    lr_final: float = 1.0
    batch_size: int = 16


def model(cfg: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))


def data(cfg: Config, split: str) -> TensorDataset:
    bits = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))
    parity = (bits.prod(1) > 0).long()
    copies = COPIES if split == "train" else 1
    return TensorDataset(bits.repeat(copies, 1), parity.repeat(copies))


def optimizer(net: nn.Module, cfg: Config) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=cfg.lr, momentum=0.9)


task = Task(
    "parity", version="1", model=model, data=data, loss=classification, config=Config, optimizer=optimizer
)
