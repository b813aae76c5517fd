"""What a task's loss is given in place of its net, so that a part of it is trained by the task's own loss."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.learn.blame import own_code


class Standin(nn.Module):
    """Computes something else when it is called, and has all else from the net.

    Args:
        compute: takes what the loss gives to the net.
    """

    def __init__(self, net: nn.Module, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.net = net
        self.training = net.training
        self._compute = compute

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compute(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("net"), name)


def entering(loss: Callable[[nn.Module, Any], Any], net: nn.Module, batch: Any) -> Tensor | None:
    """Return the tensor that a loss gives to the net; None if it gives anything else, or nothing.

    A loss that fails shows it where it is taken for training.
    """

    def stop(*args: Any, **kwargs: Any) -> Any:
        raise _Entered(args, kwargs)

    try:
        with own_code("the loss fails"):
            loss(Standin(net, stop), batch)
    except _Entered as entered:
        args, kwargs = entered.args
        return args[0] if len(args) == 1 and not kwargs and isinstance(args[0], Tensor) else None
    except P2PTrainError:
        return None
    return None


class _Entered(BaseException):
    """The net was called: nothing went wrong."""
