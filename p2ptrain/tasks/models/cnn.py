"""Small convolutional nets of own making."""

from torch import nn


def cnn2(*, in_channels: int, size: int, classes: int, width: int = 16, dropout: float = 0.5) -> nn.Module:
    """Two convolutions. It halves the picture at once: that doubles its speed on a CPU.

    Args:
        in_channels: of the pictures.
        size: pixels a side, at least 3.
        classes: scores that come out.
        width: channels of the first convolution; the second has twice as many.
        dropout: share that is left out before the scores.
    """
    layers = [
        nn.Conv2d(in_channels, width, 5, stride=2, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
    ]
    return _classified(layers, 2 * width, (size + 1) // 4, 8, dropout, classes)


def cnn3(*, in_channels: int, size: int, classes: int, width: int = 32, dropout: float = 0.5) -> nn.Module:
    """The net of the study of optimisers (source 002): three times 3x3 convolution, ReLU and max pooling.

    The source does not state the widths: 32, 64 and 128 are ours. Pooling before ReLU gives the same
    numbers for a quarter of the work.

    Args:
        in_channels: of the pictures.
        size: pixels a side, at least 8.
        classes: scores that come out.
        width: channels of the first convolution; each further one has twice as many.
        dropout: share that is left out before the scores.
    """
    layers: list[nn.Module] = []
    channels, wide = in_channels, width
    for _ in range(3):
        layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        channels, wide = wide, 2 * wide
    return _classified(layers, channels, size // 8, 4, dropout, classes)


def _classified(
    layers: list[nn.Module], channels: int, side: int, side_max: int, dropout: float, classes: int
) -> nn.Module:
    """End a net whose last map has that many channels and places a side; more places are averaged."""
    if side > side_max:
        layers.append(nn.AdaptiveAvgPool2d(side_max))
        side = side_max
    scores = nn.Linear(channels * side * side, classes)
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout), scores)
