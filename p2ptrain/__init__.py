"""Train one PyTorch network together on home PCs, with no central server."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2ptrain.learn.task import Task

__version__ = "0.1.0"
__all__ = ["Task", "__version__"]

_LAZY = {"Task": "p2ptrain.learn.task"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: most commands never need it."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
