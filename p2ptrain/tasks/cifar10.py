"""CIFAR-10: 50,000 photographs of 32x32 pixels in ten classes to train on, 10,000 to test on."""

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

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

LOOK = Look(32, 10, lambda: NAMES, IMAGENET_MEAN, IMAGENET_DEVIATION)
"""As the weights that are shared for ResNet-20 want it."""


def data(cfg: PhotoConfig, split: str) -> TensorDataset:
    images, labels = cifar.read(cifar.find("cifar10"), split)
    return first(cfg.examples if split == "train" else 0, images, labels)


task = picture_task("cifar10", lambda cfg: LOOK, data, PhotoConfig)
