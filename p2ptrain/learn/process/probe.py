"""Says what is there of torch, its devices, a task and its data: `python -m p2ptrain.learn.process.probe`.

Reads one `Wanted` as JSON from stdin; writes one `Equipment` a line after each stage, so that whoever loses
patience knows how far it got.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec.structs import replace

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.learn.process.equipment import Equipment, Gpu, Stage, Wanted

if TYPE_CHECKING:
    import torch

TROUBLE_CHARS_MAX = 300
"""Drivers write pages; the beginning says what it is."""


def look(wanted: Wanted, tell: Callable[[Equipment], None]) -> None:
    """Tell after each stage what was found up to there.

    Raises:
        Exception: of any kind, from a broken installation or from somebody's task; what was told stays true.
    """
    found = Equipment()
    tell(found)
    import torch

    found = replace(
        found,
        stage=Stage.TORCH,
        torch=str(torch.__version__),
        cuda=torch.version.cuda or "",
        hip=getattr(torch.version, "hip", None) or "",
    )
    tell(found)
    found = _devices(found, wanted.device)
    tell(found)
    if wanted.task:
        _task(found, wanted, tell)


def _devices(found: Equipment, wanted: str) -> Equipment:
    import torch

    from p2ptrain.learn.device import choose_all, describe

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [_cuda(torch.device("cuda", index)) for index in range(count)]
        if torch.backends.mps.is_available():
            gpus.append(Gpu("Apple GPU", trouble=_try(torch.device("mps"))))
        try:
            chosen, trouble = describe(choose_all(wanted)[0]), ""
        except P2PTrainError as error:
            chosen, trouble = "", error.message
    trouble = trouble or "; ".join(str(one.message) for one in said)[:TROUBLE_CHARS_MAX]
    return replace(found, stage=Stage.DEVICES, gpus=tuple(gpus), chosen=chosen, trouble=trouble)


def _cuda(device: "torch.device") -> Gpu:
    import torch

    trouble = _try(device)
    free, total = (0, 0) if trouble else torch.cuda.mem_get_info(device)
    return Gpu(torch.cuda.get_device_name(device), total, free, trouble)


def _try(device: "torch.device") -> str:
    """Compute something; return why that fails."""
    import torch

    try:
        two = torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
        return "" if float(two.sum()) == 8 else "it computes wrongly"
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())[:TROUBLE_CHARS_MAX]


def _task(found: Equipment, wanted: Wanted, tell: Callable[[Equipment], None]) -> None:
    from p2ptrain.learn.data.splits import load
    from p2ptrain.learn.task import find

    try:
        task = find(wanted.task)
        config = task.configure(wanted.task_config)
    except P2PTrainError as error:
        tell(replace(found, stage=Stage.TASK, task_trouble=str(error)))
        return
    found = replace(found, stage=Stage.TASK, task_version=task.version)
    tell(found)
    try:
        found = replace(found, examples=len(load(task, config, "train")))
    except P2PTrainError as error:
        found = replace(found, data_trouble=str(error))
    tell(replace(found, stage=Stage.DATA))


def main() -> None:
    """Answer on the real stdout; whatever tasks print goes to stderr."""
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Wanted)
    with os.fdopen(os.dup(1), "wb") as out, contextlib.redirect_stdout(sys.stderr):
        os.dup2(2, 1)
        look(wanted, lambda found: _tell(out, found))


def _tell(out: BinaryIO, found: Equipment) -> None:
    out.write(msgspec.json.encode(found) + b"\n")
    out.flush()


if __name__ == "__main__":
    main()
