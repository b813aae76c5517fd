"""The large nets of the papers come from the extra `zoo`; here is what their files share."""

import importlib
from typing import Any

from torch import nn

from p2ptrain.core.errors import ConfigError

SMALL = 64
"""Pictures of up to so many pixels a side get the small variant of a net that is made for large ones:
it halves them less often. CIFAR has 32, Tiny-ImageNet 64."""


def collection(family: str) -> Any:
    """Return a module of pytorchcv.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(f"pytorchcv.models.{family}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "this model comes with the extra `zoo`, which is not installed",
            "pip install 'p2ptrain[zoo]'",
        ) from error


def average_any_size(features: nn.Sequential) -> None:
    """Let the last pooling average whatever map arrives: the collection's demands one size of pictures."""
    features.final_pool = nn.AdaptiveAvgPool2d(1)
