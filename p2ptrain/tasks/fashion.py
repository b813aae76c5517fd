"""Fashion-MNIST: clothes in ten classes; 4,000 to train on and 1,000 to test on are part of the package."""

from dataclasses import dataclass
from importlib.resources import files

from torch.utils.data import TensorDataset

from p2ptrain.tasks.loaders.files import find
from p2ptrain.tasks.loaders.idx import read_pictures
from p2ptrain.tasks.shared.pictures import Look, PictureConfig, picture_task

NAMES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

LOOK = Look(28, 10, lambda: NAMES, mean=(0.286,), deviation=(0.353,))
"""Measured on the whole Fashion-MNIST."""


@dataclass(frozen=True, kw_only=True)
class Config(PictureConfig):
    """full: the whole set of 60,000 and 10,000, which must be here or is downloaded."""

    full: bool = False
    model: str = "cnn2"
    lr: float = 0.02
    weight_decay: float = 3e-3


def data(cfg: Config, split: str) -> TensorDataset:
    mini = files("p2ptrain.tasks") / "data" / "fashion-mnist-mini"
    folder, name = (find("fashion_mnist"), "fashion_mnist") if cfg.full else (mini, "")
    images, labels = read_pictures(folder, split, name)
    return TensorDataset(images.unsqueeze(1), labels)


task = picture_task("fashion", lambda cfg: LOOK, data, Config)
