"""Handwritten digits of 8x8 pixels: 1,437 to train on, 360 to test on; part of the package."""

from dataclasses import dataclass
from importlib.resources import files

from torch.utils.data import TensorDataset

from p2ptrain.tasks.loaders.idx import read_pictures
from p2ptrain.tasks.shared.pictures import Look, PictureConfig, picture_task

LOOK = Look(8, 10, lambda: "0123456789", mean=(0.0,), deviation=(1.0,), flips=False, white=16)


@dataclass(frozen=True, kw_only=True)
class Config(PictureConfig):
    model: str = "mlp"
    width: int = 32
    dropout: float = 0.2
    lr: float = 0.1


def data(cfg: Config, split: str) -> TensorDataset:
    images, labels = read_pictures(files("p2ptrain.tasks") / "data" / "digits-8x8", split)
    return TensorDataset(images.unsqueeze(1), labels)


task = picture_task("digits", lambda cfg: LOOK, data, Config)
