"""Inception-v4 (Szegedy 2016)."""

from typing import Any

from torch import nn

from p2ptrain.tasks.models.zoo import average_any_size, collection

STEM_MIN = 75
"""Pixels a side; of fewer the stem and what follows leave nothing."""


def inceptionv4(*, in_channels: int, size: int, classes: int, dropout: float = 0.2) -> nn.Module:
    """42,679,816 parameters for 1000 classes, made for 299 pixels a side; 41,158,186 for ten.

    In the small variant (less than 75 pixels a side) the stem halves the picture once instead of three times,
    and loses no border: 32 pixels become 16, 7 and 3. The parameters are the same.

    Args:
        in_channels: of the pictures.
        size: pixels a side, at least 13.
        classes: scores that come out.
        dropout: share that is left out before the scores.
    """
    family = collection("inceptionv4")
    net: Any = family.InceptionV4(dropout_rate=dropout, in_channels=in_channels, num_classes=classes)
    average_any_size(net.features)
    if size < STEM_MIN:
        stem = net.features.init_block
        _keep_size(stem)
        for layer in stem.block3.modules():
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                layer.stride = (2, 2)
    return net  # type: ignore[no-any-return]


def _keep_size(stem: nn.Module) -> None:
    for layer in stem.modules():
        if isinstance(layer, nn.Conv2d):
            layer.stride = (1, 1)
            layer.padding = tuple(kernel // 2 for kernel in layer.kernel_size)
        elif isinstance(layer, nn.MaxPool2d):
            layer.stride, layer.padding = 1, 1
