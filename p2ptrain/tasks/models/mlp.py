"""Fully connected nets."""

from torch import nn


def mlp(
    *, in_channels: int, size: int, classes: int, width: int = 64, layers: int = 1, dropout: float = 0.0
) -> nn.Module:
    """Take a picture as one list of numbers.

    Args:
        in_channels: of the pictures.
        size: pixels a side.
        classes: scores that come out.
        width: of each hidden layer.
        layers: how many hidden ones there are.
        dropout: share that is left out after each of them.
    """
    return perceptron(in_channels * size * size, classes, width, layers, dropout)


def perceptron(inputs: int, classes: int, width: int, layers: int, dropout: float) -> nn.Module:
    """Return a net for inputs of any shape with that many numbers an example."""
    found: list[nn.Module] = [nn.Flatten()]
    for _ in range(layers):
        found += [nn.Linear(inputs, width), nn.ReLU()]
        if dropout:
            found.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*found, nn.Linear(inputs, classes))
