"""Carries out `Reduce`: the trainer writes numbers to a file, a ring averages it, the trainer reads it."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from p2ptrain.core.effects import Reduce
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.inputs import Input, Reduced, ReduceFailed
from p2ptrain.daemon.clock import now
from p2ptrain.daemon.ring import Numbers, Place, RingError, average, refuse
from p2ptrain.learn.wire import Export, Import
from p2ptrain.net.flows.flows import Flows

NAME = re.compile("[0-9a-f]{32}")
"""Of a reduction: it names a file and flows."""

FILE = ".ring"
"""Ends the name of a file that is being averaged."""


class Mover(Protocol):
    """What is needed of a trainer."""

    async def move(self, command: Export | Import) -> int:
        """Write or read a file; raises P2PTrainError when that cannot be."""
        ...


async def reduce(
    effect: Reduce, flows: Flows, trainer: Mover, folder: Path, feed: Callable[[Input], None]
) -> None:
    """Carry it out, and feed the answer."""
    if not NAME.fullmatch(effect.name):
        return feed(ReduceFailed(effect.tag, "that is no name of a ring"))
    began, file = now(), folder / f"{effect.name}{FILE}"
    try:
        await _reduce(effect, flows, trainer, file)
    except RingError as error:
        feed(ReduceFailed(effect.tag, error.message, error.silent))
    except P2PTrainError as error:
        feed(ReduceFailed(effect.tag, error.message))
    except OSError as error:
        feed(ReduceFailed(effect.tag, f"the numbers cannot be read: {error.strerror}"))
    else:
        feed(Reduced(effect.tag, now() - began))
    finally:
        with suppress(OSError):
            file.unlink()


async def _reduce(effect: Reduce, flows: Flows, trainer: Mover, file: Path) -> None:
    group, me = effect.group, flows.me
    unlike = len(dict.fromkeys(group)) == len(group)
    if not unlike or len(group) < 2 or me not in group:
        raise RingError("that is no ring for this peer")
    place = Place(group, group.index(me), effect.name, effect.silence_s, effect.ranges)
    try:
        await trainer.move(Export(effect.tag, effect.ref, str(file), effect.ranges))
    except P2PTrainError as error:
        refuse(flows, place, error.message)
        raise
    await average(flows, place, _mapped(file), effect.weight)
    await trainer.move(Import(effect.tag, effect.out, str(file), effect.ranges))


def _mapped(file: Path) -> Numbers:
    return np.memmap(file, np.float32, "r+") if file.stat().st_size else np.zeros(0, np.float32)


def forget_rings(folder: Path) -> None:
    """Delete what an earlier run of the program left behind."""
    for leftover in folder.glob(f"*{FILE}"):
        leftover.unlink(missing_ok=True)
