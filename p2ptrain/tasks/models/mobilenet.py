"""MobileNetV3, large (Howard 2019)."""

from typing import Any

from torch import nn

from p2ptrain.tasks.models.zoo import SMALL, average_any_size, collection


def mobilenetv3(*, in_channels: int, size: int, classes: int, dropout: float = 0.2) -> nn.Module:
    """5,481,752 parameters for 1000 classes; 4,213,562 for ten.

    The small variant (up to 64 pixels a side) halves the picture three times instead of five: the first two
    halvings are left out. The parameters are the same.

    Args:
        in_channels: of the pictures.
        size: pixels a side.
        classes: scores that come out.
        dropout: share that is left out before the scores.
    """
    family = collection("mobilenetv3")
    net: Any = family.get_mobilenetv3("large", 1.0, in_channels=in_channels, num_classes=classes)
    average_any_size(net.features)
    net.output.dropout.p = dropout
    if size <= SMALL:
        net.features.init_block.conv.stride = (1, 1)
        net.features.stage2.unit1.conv1.conv.stride = (1, 1)
    return net  # type: ignore[no-any-return]
