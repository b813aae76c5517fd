"""MNIST in full: 60,000 digits to train on, 10,000 to test on; read from a folder of the owner's."""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.utils.data import TensorDataset

from p2ptrain.core.errors import ConfigError
from p2ptrain.learn.losses import classification
from p2ptrain.learn.task import Task
from p2ptrain.tasks.loaders.idx import FILES, read_pictures

FOLDER = "P2PTRAIN_DATA"


@dataclass(frozen=True)
class Config:
    """examples: so many of the training set; 0: all."""

    examples: int = 0
    width: int = 64
    lr: float = 0.1
    batch_size: int = 32


def model(cfg: Config) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, cfg.width), nn.ReLU(), nn.Linear(cfg.width, 10))


def data(cfg: Config, split: str) -> TensorDataset:
    """Read the official files from the folder that the environment variable `P2PTRAIN_DATA` names."""
    folder = Path(os.environ.get(FOLDER, ""))
    missing = [name for names in FILES.values() for name in names if not (folder / name).is_file()]
    if FOLDER not in os.environ or missing:
        raise ConfigError(
            f"MNIST is not here: {', '.join(missing) or 'no folder was named'}",
            f"put the four files of MNIST into a folder and set {FOLDER} to it",
        )
    images, labels = read_pictures(folder, split)
    count = cfg.examples if cfg.examples and split == "train" else len(images)
    return TensorDataset(images[:count] / 255, labels[:count])


task = Task("mnist", version="1", model=model, data=data, loss=classification, config=Config)
