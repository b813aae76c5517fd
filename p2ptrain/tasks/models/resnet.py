"""ResNet-50 and ResNet-152 (He 2015)."""

from typing import Any

from torch import nn

from p2ptrain.tasks.models.zoo import SMALL, average_any_size, collection


def resnet50(*, in_channels: int, size: int, classes: int) -> nn.Module:
    """25,557,032 parameters for 1000 classes; the small variant has 23,520,842 for ten.

    The 3x3 convolution of a block halves the picture, as in everybody's measurements, not the 1x1 before
    it, as in the paper. The small variant (up to 64 pixels a side) is the usual one for CIFAR: it begins
    with a 3x3 convolution that keeps the size, and no pooling.

    Args:
        in_channels: of the pictures.
        size: pixels a side.
        classes: scores that come out.
    """
    return _resnet(50, in_channels, size, classes)


def resnet152(*, in_channels: int, size: int, classes: int) -> nn.Module:
    """60,192,808 parameters for 1000 classes; the small variant has 58,156,618 for ten. See `resnet50`."""
    return _resnet(152, in_channels, size, classes)


def _resnet(blocks: int, in_channels: int, size: int, classes: int) -> nn.Module:
    family = collection("resnet")
    net: Any = family.get_resnet(blocks, conv1_stride=False, in_channels=in_channels, num_classes=classes)
    average_any_size(net.features)
    if size <= SMALL:
        begin = net.features.init_block
        begin.conv.conv = nn.Conv2d(in_channels, begin.conv.conv.out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_uniform_(begin.conv.conv.weight)
        begin.pool = nn.Identity()
    return net  # type: ignore[no-any-return]
