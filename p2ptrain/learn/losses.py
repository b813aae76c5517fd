"""Losses that many tasks share."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot


def classification(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy in nats, and whether the answer is right; one of each an example.

    Args:
        net: gives scores of shape (examples, classes).
        batch: inputs, and classes as int64 of shape (examples,), or the share of each class as floats of
            shape (examples, classes).
    """
    inputs, classes = batch
    scores = net(inputs)
    losses = cross_entropy(scores, classes, reduction="none")
    truth = classes if classes.ndim == 1 else classes.argmax(1)
    return losses, {"accuracy": scores.argmax(1) == truth}


def smoothed(labels: Tensor, classes: int, share: float) -> Tensor:
    """Return how much of the truth each class has: `share` of it goes to all alike (Szegedy 2015).

    Args:
        labels: int64 of any shape.
        classes: how many there are; the result has one more dimension of that size.
        share: from 0 to 1.
    """
    return one_hot(labels, classes) * (1 - share) + share / classes
