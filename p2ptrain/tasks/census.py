"""Adult: who of 32,561 people in the census of 1994 earned more than 50,000 dollars; 16,281 to test on."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.data import TensorDataset

from p2ptrain.learn.losses import classification, smoothed
from p2ptrain.learn.recipe import Recipe
from p2ptrain.learn.task import Task
from p2ptrain.tasks.loaders import census
from p2ptrain.tasks.models.mlp import perceptron

COLUMNS = sum(len(values.split()) or 1 for values in census.FEATURES.values())
"""One for each measured feature, and one for each value of the others."""


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    """Settings of the net.

    width: of each hidden layer.
    layers: how many hidden ones there are.
    dropout: share that is left out after each of them.
    """

    width: int = 32
    layers: int = 1
    dropout: float = 0.2


def model(cfg: Config) -> nn.Module:
    return perceptron(COLUMNS, 2, cfg.width, cfg.layers, cfg.dropout)


def data(cfg: Config, split: str) -> TensorDataset:
    table = census.read(census.find(), split)
    return TensorDataset(table.values, table.labels)


def prepare(cfg: Config, batch: tuple[Tensor, Tensor], training: bool) -> tuple[Tensor, Tensor]:
    """Smooth the labels in training, if the config says so."""
    values, labels = batch
    return values, smoothed(labels, 2, cfg.label_smoothing) if training and cfg.label_smoothing else labels


task = Task(
    "census", version="1", model=model, data=data, loss=classification, config=Config, prepare=prepare
)
