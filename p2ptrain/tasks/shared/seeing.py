"""A picture of the owner's, made alike to those that a net was trained on."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from p2ptrain.core.errors import ConfigError
from p2ptrain.tasks.loaders import files
from p2ptrain.tasks.loaders.decoding import decode

FILE_BYTES_MAX = 64 * 1024 * 1024


def see(path: str, size: int, channels: int, white: int = 255) -> Tensor:
    """Read a PNG or JPEG, and scale the square in its middle.

    Args:
        path: of the file.
        size: pixels along a side.
        channels: 3: red, green and blue; 1: brightness.
        white: value of the brightest pixel.

    Returns:
        uint8 of shape (channels, size, size).

    Raises:
        ConfigError: there is no picture in that file.
    """
    if not path:
        raise ConfigError("there is no picture to look at", "name the file of one")
    file = Path(path).expanduser()
    content = files.read(file, most=FILE_BYTES_MAX)
    with files.reading(file):
        pixels = torch.from_numpy(decode(content, channels).copy())
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side].permute(2, 0, 1).unsqueeze(0).float()
    scaled = interpolate(square, (size, size), mode="bilinear", antialias=True)[0]
    return (scaled * (white / 255)).round().clamp(0, white).to(torch.uint8)
