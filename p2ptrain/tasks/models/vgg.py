"""VGG-16 and VGG-19 (Simonyan 2014)."""

from typing import Any

from torch import nn

from p2ptrain.tasks.models.zoo import SMALL, collection

SIDE = 7
"""Of the map that the classifier of the paper takes."""


def vgg16(*, in_channels: int, size: int, classes: int, dropout: float = 0.5) -> nn.Module:
    """138,357,544 parameters for 1000 classes at 224 pixels; the small variant has 14,728,266 for ten.

    The small variant (up to 64 pixels a side) is the usual one for CIFAR: batch norm after each
    convolution, and one layer on the averaged last map instead of the classifier's three.

    Args:
        in_channels: of the pictures.
        size: pixels a side, at least 32.
        classes: scores that come out.
        dropout: share that is left out in the classifier.
    """
    return _vgg(16, in_channels, size, classes, dropout)


def vgg19(*, in_channels: int, size: int, classes: int, dropout: float = 0.5) -> nn.Module:
    """143,667,240 parameters for 1000 classes at 224 pixels; the small variant has 20,040,522 for ten.

    See `vgg16`.
    """
    return _vgg(19, in_channels, size, classes, dropout)


def _vgg(blocks: int, in_channels: int, size: int, classes: int, dropout: float) -> nn.Module:
    family = collection("vgg")
    if size <= SMALL:
        with_classifier = family.get_vgg(blocks, use_bn=True, in_channels=in_channels, num_classes=1)
        return _small(with_classifier.features, classes, dropout)
    net: Any = family.get_vgg(blocks, in_channels=in_channels, num_classes=classes)
    net.features.append(nn.AdaptiveAvgPool2d(SIDE))
    for dense in (net.output.fc1, net.output.fc2):
        dense.dropout.p = dropout
    return net  # type: ignore[no-any-return]


def _small(features: nn.Sequential, classes: int, dropout: float) -> nn.Module:
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
    return nn.Sequential(features, *pooled, nn.Linear(512, classes))
