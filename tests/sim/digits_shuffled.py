"""`digits` divided by lot, as ALGORITHMS 4.1 measured B1. The built-in task tests on other writers."""

from dataclasses import replace

import torch
from torch.utils.data import TensorDataset

from p2ptrain.tasks import digits

TRAIN = 1_437


def data(cfg: digits.Config, split: str) -> TensorDataset:
    parts = [digits.data(cfg, part).tensors for part in ("train", "test")]
    images, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    chosen = order[:TRAIN] if split == "train" else order[TRAIN:]
    return TensorDataset(images[chosen], labels[chosen])


task = replace(digits.task, name="digits-shuffled", data=data)
