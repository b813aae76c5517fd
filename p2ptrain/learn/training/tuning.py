"""How a net trains fastest on this computer: tried on steps of training, before the first one counts."""

from collections.abc import Callable

import torch

from p2ptrain.learn.training.memory import fit
from p2ptrain.learn.training.precision import convolves, cpu_has_bf16
from p2ptrain.learn.training.threads import GAIN, seconds_of, set_fastest
from p2ptrain.learn.training.trainer import Trainer
from p2ptrain.learn.wire import Setup

LAYOUT_GAIN = 0.98
"""The other layout of pictures costs nothing, so little is enough. Guess."""

REASON_CHARS_MAX = 200


def tune(trainer: Trainer, setup: Setup) -> list[str]:
    """Set threads, layout, precision and pieces of batches as the owner wants them; return what went wrong.

    Takes steps: the caller puts everything back.

    Raises:
        ConfigError: the owner allows less memory than is needed.
    """
    manner = trainer.manner
    if manner.device.type == "cpu":
        if setup.memory_gb:
            fit(trainer.pieces, trainer.take_step, setup.memory_gb)
        if setup.threads == 0:
            set_fastest(trainer.take_step, torch.get_num_threads())
        if convolves(trainer.net):
            manner.channels_last = _is_faster(trainer, "channels_last", LAYOUT_GAIN)
        if setup.precision == "auto" and cpu_has_bf16():
            manner.bf16 = _is_faster(trainer, "bf16", GAIN)
    if setup.compile:
        return _compile(trainer)
    if manner.device.type == "cuda" and trainer.pieces.count == 1:
        return _capture(trainer)
    return []


def _is_faster(trainer: Trainer, name: str, gain: float) -> bool:
    """Say whether a step with this takes less than that share of the time without."""
    without = seconds_of(trainer.take_step)
    setattr(trainer.manner, name, True)
    return seconds_of(trainer.take_step) < gain * without


def _compile(trainer: Trainer) -> list[str]:
    """Have the net compiled; return why it is not."""
    trainer.net.compile()
    reason = _failure(trainer.take_step)
    if not reason:
        return []
    trainer.net._compiled_call_impl = None
    return [f"the net is not compiled: {reason}"]


def _capture(trainer: Trainer) -> list[str]:
    """Find gradients by a CUDA graph where that is faster; return why it is not possible."""
    without, eager = seconds_of(trainer.take_step), trainer.find_gradient
    reason = _failure(trainer.capture)
    if reason:
        trainer.find_gradient = eager
        return [f"kernels are launched one by one: {reason}"]
    if seconds_of(trainer.take_step) > GAIN * without:
        trainer.find_gradient = eager
    return []


def _failure(step: Callable[[], object]) -> str:
    """Take a step; return in a line why that failed."""
    try:
        step()
    except RuntimeError as error:  # of which all of the compiler's are
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return (lines[0] if lines else type(error).__name__)[:REASON_CHARS_MAX]
    return ""
