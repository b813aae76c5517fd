"""Pictures by chance, as large as those of ImageNet: nothing to learn, but they show how fast one trains."""

from dataclasses import dataclass

import torch
from torch.utils.data import Dataset, TensorDataset

from p2ptrain.tasks.loaders.synthetic import IMAGENET, Noise
from p2ptrain.tasks.shared.pictures import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Look,
    PictureConfig,
    picture_task,
)

TEST_SHARE = 8
"""For so many examples to train on there is one to test on."""


@dataclass(frozen=True, kw_only=True)
class Config(PictureConfig):
    """Settings of the pictures.

    size: pixels along a side: 224 or 256 are usual, 299 for Inception.
    classes: the pictures are given them in turn.
    examples: to train on, held in memory, 150 kB each at 224 pixels; 0: as many as ImageNet has, made
        when they are asked for.
    """

    model: str = "resnet50"
    size: int = 224
    classes: int = 1000
    examples: int = 512


def look(cfg: Config) -> Look:
    names = [f"class {number}" for number in range(cfg.classes)]
    return Look(cfg.size, cfg.classes, lambda: names, IMAGENET_MEAN, IMAGENET_DEVIATION)


def data(cfg: Config, split: str) -> "Dataset[tuple[torch.Tensor, ...]] | Noise":
    if not cfg.examples:
        return Noise(IMAGENET[split], cfg.size, cfg.classes, seed=int(split == "test"))
    count = cfg.examples if split == "train" else max(1, cfg.examples // TEST_SHARE)
    noise = Noise(count, cfg.size, cfg.classes, seed=int(split == "test"))
    return TensorDataset(*noise.take(torch.arange(count)))


task = picture_task("imagenet_synthetic", look, data, Config)
