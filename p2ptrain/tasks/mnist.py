"""MNIST: 60,000 digits to train on, 10,000 to test on."""

from dataclasses import dataclass

from torch.utils.data import TensorDataset

from p2ptrain.tasks.loaders.files import find
from p2ptrain.tasks.loaders.idx import read_pictures
from p2ptrain.tasks.shared.pictures import Look, PictureConfig, first, picture_task

LOOK = Look(28, 10, lambda: "0123456789", mean=(0.0,), deviation=(1.0,), flips=False)


@dataclass(frozen=True, kw_only=True)
class Config(PictureConfig):
    """examples: so many of the training set; 0: all."""

    examples: int = 0
    model: str = "mlp"
    lr: float = 0.1


def data(cfg: Config, split: str) -> TensorDataset:
    images, labels = read_pictures(find("mnist"), split, "mnist")
    return first(cfg.examples if split == "train" else 0, images.unsqueeze(1), labels)


task = picture_task("mnist", lambda cfg: LOOK, data, Config)
