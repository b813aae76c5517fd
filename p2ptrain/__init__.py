"""Train one PyTorch network together on home PCs, with no central server."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2ptrain.learn.task import Task
    from p2ptrain.own_loop import Attached, attach

__version__ = "0.1.0"
__all__ = ["Attached", "Task", "__version__", "attach"]

_LAZY = {
    "Task": "p2ptrain.learn.task",
    "Attached": "p2ptrain.own_loop",
    "attach": "p2ptrain.own_loop",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: most commands never need it."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
