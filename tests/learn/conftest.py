"""Small tasks, found by name like anybody's, and engines on one thread."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

from p2ptrain.learn.engine import Engine
from p2ptrain.learn.losses import classification
from p2ptrain.learn.task import Task
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.wire import Setup


@dataclass(frozen=True)
class Config:
    lr: float = 0.05
    momentum: float = 0.9
    batch_size: int = 16
    dropout: float = 0.1


def data(cfg: Config, split: str) -> TensorDataset:
    inputs = torch.randn(200 if split == "train" else 50, 4)
    return TensorDataset(inputs, (inputs.sum(1) > 0).long() + (inputs[:, 0] > 1).long())


def plain(cfg: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(cfg.dropout), nn.Linear(8, 3))


def normed(cfg: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def adam(net: nn.Module, cfg: Config) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=0.01)


def batch_loss(net: nn.Module, batch: Any) -> torch.Tensor:
    inputs, classes = batch
    return cross_entropy(net(inputs), classes)


class Pairs(Dataset[Any]):
    """The same examples, one by one."""

    def __init__(self, cfg: Config, split: str) -> None:
        self._examples = data(cfg, split)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Any:
        return self._examples[index]


TASKS = {
    "plain": Task("plain", version="1", model=plain, data=data, loss=classification, config=Config),
    "normed": Task(
        "normed", version="1", model=normed, data=data, loss=batch_loss, config=Config, optimizer=adam
    ),
    "pairs": Task("pairs", version="1", model=plain, data=Pairs, loss=classification, config=Config),
}


@pytest.fixture(autouse=True)
def toys() -> Iterator[None]:
    torch.set_num_threads(1)
    module = ModuleType("toys")
    module.__dict__.update(TASKS)
    sys.modules["toys"] = module
    yield
    del sys.modules["toys"]


@pytest.fixture
def engine() -> Callable[..., Engine]:
    """Make an engine: `engine("toys:plain", slot=1)`; `blobs` and `checkpoints` are handed on."""

    def make(task: str = "toys:plain", blobs: Any = None, checkpoints: Any = None, **setup: Any) -> Engine:
        return Engine(Setup(task=task, **setup), blobs or MemoryBlobs(), checkpoints)

    return make
