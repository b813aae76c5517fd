"""Weights out of files that others wrote: safetensors, and checkpoints of torch without any code in them."""

import pickle as _pickle  # noqa: TID251 - only the name of its error is used
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from p2ptrain.core.errors import WeightsError

WITHIN = ("state_dict", "model_state_dict", "model", "net", "weights")
"""Under these names training scripts keep the weights, beside what else they remember."""

NAMED = 3
"""So many names are told of those that do not fit."""

DAMAGE = (
    _pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch raises over a file that was cut or overwritten, besides errors of the system."""

_CODE = re.compile(r"GLOBAL ([\w.]+)")

COUNTERS = (torch.int64, torch.int32, torch.uint8, torch.bool)


def read(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a file, on the CPU. Nothing in it is run.

    Raises:
        WeightsError: it is not there, damaged, of another kind, or holds code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[:2] == b"PK" or head[:1] == b"\x80":
            return _read_torch(path)
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise WeightsError(
            f"{path} cannot be read as weights: {why}", "give a .safetensors file, or a checkpoint of torch"
        ) from None


def fit(found: Mapping[str, Tensor], net: nn.Module) -> None:
    """Put weights into a net. A prefix that all names have is left out, or added.

    Counters may be missing: they do not change what a net says.

    Raises:
        WeightsError: a name is missing or too many, a shape differs, or a number is not finite.
    """
    wanted = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    renamed = _rename(found, wanted)
    needed = [name for name, value in wanted.items() if value.dtype not in COUNTERS]
    missing = [name for name in needed if name not in renamed]
    extra = [name for name in renamed if name not in wanted]
    if missing or extra:
        parts = ([f"{_some(missing)} missing"] if missing else []) + (
            [f"{_some(extra)} too many"] if extra else []
        )
        raise WeightsError(
            f"the weights are of another model: {', and '.join(parts)}",
            "choose the model that they are of: `--set model=…`",
        )
    for name, value in renamed.items():
        if value.shape != wanted[name].shape:
            there, here = tuple(value.shape), tuple(wanted[name].shape)
            raise WeightsError(
                f"the weights are of another size: `{name}` is {there} there and {here} in the model",
                "choose the settings that they were made with: `--set width=…` and the like",
            )
        if not torch.isfinite(value).all():
            raise WeightsError(
                f"the weights are not finite: `{name}`", "they are of a training that diverged"
            )
    with torch.no_grad():
        for name, value in renamed.items():
            wanted[name].copy_(value)


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - runs no code
    except DAMAGE as error:
        names = _CODE.search(str(error)) if isinstance(error, _pickle.UnpicklingError) else None
        if names:
            raise WeightsError(
                f"{path} holds code, not only weights: it wants `{names[1]}`; it was not run",
                "save the weights alone: torch.save(net.state_dict(), …)",
            ) from None
        raise WeightsError(f"{path} is damaged, or is no checkpoint of torch", "get the file again") from None
    return _tensors(content, path)


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the weights among what a training script saved."""
    while isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        inner = next((content[name] for name in WITHIN if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            if tensors:
                return tensors
            break
        content = inner
    raise WeightsError(
        f"{path} holds no weights", f"known are a state_dict, and one under {', '.join(WITHIN)}"
    )


def _rename(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off, or put before all names, what makes the most of them known; at best nothing."""
    prefixes = {""}
    for name in wanted:
        prefixes |= {other[: -len(name)] for other in found if other.endswith(f".{name}")}
    added = {name[: -len(other)] for other in found for name in wanted if name.endswith(f".{other}")}
    best, known = dict(found), sum(name in wanted for name in found)
    for prefix in sorted(prefixes):
        renamed = {name.removeprefix(prefix): value for name, value in found.items()}
        if len(renamed) == len(found) and (count := sum(name in wanted for name in renamed)) > known:
            best, known = renamed, count
    for prefix in sorted(added):
        renamed = {prefix + name: value for name, value in found.items()}
        if (count := sum(name in wanted for name in renamed)) > known:
            best, known = renamed, count
    return best


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown
