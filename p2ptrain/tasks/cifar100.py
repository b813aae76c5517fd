"""CIFAR-100: 50,000 photographs of 32x32 pixels in a hundred classes to train on, 10,000 to test on."""

from collections.abc import Sequence

from torch.utils.data import TensorDataset

from p2ptrain.tasks.loaders import cifar
from p2ptrain.tasks.shared.pictures import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Look,
    PhotoConfig,
    first,
    picture_task,
)


def names() -> Sequence[str]:
    return cifar.class_names(cifar.find("cifar100"))


LOOK = Look(32, 100, names, IMAGENET_MEAN, IMAGENET_DEVIATION)


def data(cfg: PhotoConfig, split: str) -> TensorDataset:
    images, labels = cifar.read(cifar.find("cifar100"), split)
    return first(cfg.examples if split == "train" else 0, images, labels)


task = picture_task("cifar100", lambda cfg: LOOK, data, PhotoConfig)
