"""How large a step is: the share of the learning rate that a step takes, and how long a gradient may be."""

from math import cos, pi

import torch
from torch import Tensor

from p2ptrain.learn.recipe import Recipe

STAGES = (0.5, 0.75)
"""Where the schedule `step` lowers the rate (He 2016, ResNets on CIFAR-10)."""

EPSILON = 1e-6
"""Keeps a gradient of zeros from being divided by zero; as in torch."""


def share(recipe: Recipe, step: int, steps: int) -> float:
    """Return which share of the learning rate a step takes, from 0 to 1.

    Args:
        recipe: its `schedule` leads from 1 to `lr_final`, and `warmup` multiplies that.
        step: steps before this one.
        steps: how many are planned; 0: no end is known, so the rate does not fall.
    """
    return _warmed(step, recipe.warmup) * _left(recipe, min(1.0, step / steps) if steps else 0.0)


def _warmed(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _left(recipe: Recipe, progress: float) -> float:
    """Return what the schedule leaves at a point of the way, from 0 to 1."""
    final = recipe.lr_final
    match recipe.schedule:
        case "linear":
            return 1.0 - (1.0 - final) * progress
        case "cosine":
            return final + (1.0 - final) * (1.0 + cos(pi * progress)) / 2
        case "step":
            passed = sum(progress >= stage for stage in STAGES)
            return float(final ** (passed / len(STAGES)))
        case _:
            return 1.0


def clip(gradient: Tensor, longest: float) -> None:
    """Shorten a gradient in place to this Euclidean length; nothing waits for the device.

    Source: Pascanu 2013, as `torch.nn.utils.clip_grad_norm_` does it.
    """
    length = torch.linalg.vector_norm(gradient)
    gradient.mul_((longest / (length + EPSILON)).clamp(max=1.0))
