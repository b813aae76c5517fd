"""What somebody's task did wrong, in one line, with the place in that somebody's file."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import p2ptrain.learn
from p2ptrain.core.errors import ManifestError, P2PTrainError

LINE_CHARS_MAX = 300

CHECK = "`p2ptrain task check` looks for the cause"

_OURS = (Path(torch.__file__).parent, Path(p2ptrain.learn.__file__).parent)
"""Here faults show that were made elsewhere."""


def blame(error: BaseException) -> str:
    """Return the kind of an error, the first line of what it says, and where the task's own code was."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({Path(error.filename or '?').name}, line {error.lineno})"
    lines = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    place = _place(error)
    return f"{said[:LINE_CHARS_MAX]} ({place})" if place else said[:LINE_CHARS_MAX]


def _place(error: BaseException) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and not any(path.is_relative_to(folder) for folder in _OURS):
            return f"{path.name}, line {frame.lineno}"
    return ""


@contextmanager
def own_code(what: str | Callable[[], str], fix: str = CHECK) -> Iterator[None]:
    """Run code of a task: what goes wrong in it is a sentence.

    Args:
        what: what could not be done; asked afterwards if it is a function.
        fix: what to do about it.

    Raises:
        ManifestError: in place of whatever the task raised.
    """
    try:
        yield
    except P2PTrainError:
        raise
    except Exception as error:
        raise ManifestError(f"{what if isinstance(what, str) else what()}: {blame(error)}", fix) from error
