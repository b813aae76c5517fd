"""Tiny-ImageNet: 100,000 photographs of 64x64 pixels in 200 classes to train on, 10,000 to test on."""

from collections.abc import Sequence

from torch.utils.data import TensorDataset

from p2ptrain.tasks.loaders import tiny_imagenet
from p2ptrain.tasks.shared.pictures import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Look,
    PictureConfig,
    picture_task,
)


def names() -> Sequence[str]:
    return tiny_imagenet.class_names(tiny_imagenet.find())


LOOK = Look(tiny_imagenet.SIDE, 200, names, IMAGENET_MEAN, IMAGENET_DEVIATION)


def data(cfg: PictureConfig, split: str) -> TensorDataset:
    return TensorDataset(*tiny_imagenet.read(tiny_imagenet.find(), split))


task = picture_task("tiny_imagenet", lambda cfg: LOOK, data, PictureConfig)
