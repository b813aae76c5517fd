"""Losses that many tasks share."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def classification(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy in nats, and whether the answer is right; one of each an example.

    Args:
        net: gives scores of shape (examples, classes).
        batch: inputs, and classes as int64 of shape (examples,).
    """
    inputs, classes = batch
    scores = net(inputs)
    losses = cross_entropy(scores, classes, reduction="none")
    return losses, {"accuracy": scores.argmax(1) == classes}
