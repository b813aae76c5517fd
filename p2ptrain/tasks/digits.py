"""Handwritten digits of 8x8 pixels: 1,437 to train on, 360 to test on; part of the package."""

from dataclasses import dataclass
from importlib.resources import files

from torch import nn
from torch.utils.data import TensorDataset

from p2ptrain.learn.losses import classification
from p2ptrain.learn.task import Task
from p2ptrain.tasks.loaders.idx import read_pictures


@dataclass(frozen=True)
class Config:
    width: int = 32
    dropout: float = 0.2
    lr: float = 0.1
    batch_size: int = 32


def model(cfg: Config) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, cfg.width),
        nn.ReLU(),
        nn.Dropout(cfg.dropout),
        nn.Linear(cfg.width, 10),
    )


def data(cfg: Config, split: str) -> TensorDataset:
    images, labels = read_pictures(files("p2ptrain.tasks") / "data" / "digits-8x8", split)
    return TensorDataset(images / 16, labels)


task = Task("digits", version="1", model=model, data=data, loss=classification, config=Config)
