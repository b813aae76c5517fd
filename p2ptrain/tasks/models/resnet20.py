"""ResNet-20 for small pictures (He 2015, section 4.2): 269,722 parameters for ten classes.

Its tensors have the names and shapes of the weights that are widely shared for it.
"""

from torch import Tensor, nn
from torch.nn.functional import pad, relu

BLOCKS = 3


def resnet20(*, in_channels: int, size: int, classes: int, width: int = 16) -> nn.Module:
    """Three stages of three blocks, the picture halved between them; made for 32 pixels a side.

    Args:
        in_channels: of the pictures.
        size: pixels a side, any: the last map is averaged.
        classes: scores that come out.
        width: channels of the first stage; each further one has twice as many.
    """
    return ResNet20(in_channels, classes, width)


class ResNet20(nn.Module):
    """Scores of shape (examples, classes) for pictures of shape (examples, in_channels, any, any)."""

    def __init__(self, in_channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width)
        self.layer2 = _stage(width, 2 * width)
        self.layer3 = _stage(2 * width, 4 * width)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, pictures: Tensor) -> Tensor:
        maps: Tensor = relu(self.bn1(self.conv1(pictures)), inplace=True)
        maps = self.layer3(self.layer2(self.layer1(maps)))
        scores: Tensor = self.linear(maps.mean((2, 3)))
        return scores


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters: every other pixel, new channels 0 (option A)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self._halves = channels != in_channels
        self._new = (channels - in_channels) // 2
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 2 if self._halves else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor) -> Tensor:
        inner = relu(self.bn1(self.conv1(maps)), inplace=True)
        inner = self.bn2(self.conv2(inner))
        if self._halves:
            maps = pad(maps[:, :, ::2, ::2], (0, 0, 0, 0, self._new, self._new))
        return relu(inner + maps, inplace=True)


def _stage(in_channels: int, channels: int) -> nn.Sequential:
    first = Block(in_channels, channels)
    return nn.Sequential(first, *(Block(channels, channels) for _ in range(BLOCKS - 1)))
