"""How a net trains fastest on this computer: tried on steps of training, before the first one counts."""

import time
from collections.abc import Callable
from math import inf

import torch

from p2ptrain.core.types import Seconds
from p2ptrain.learn.training.memory import fit
from p2ptrain.learn.training.precision import convolves, cpu_has_bf16
from p2ptrain.learn.training.threads import GAIN, TRIAL_S, seconds_of, seconds_of_one, set_fastest
from p2ptrain.learn.training.trainer import Trainer
from p2ptrain.learn.wire import Setup

TURNS = 4
TRIAL_MAX_S = 5.0
"""Two ways are tried so often, unless that takes too long. Guess: one try each of ResNet-20 on a PC at work
chose the slower layout for one of two peers, which cost it a fifth of its speed (measured, LOG.md)."""

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
            manner.channels_last = _is_faster(trainer, "channels_last", 1.0)
        if setup.precision == "auto" and cpu_has_bf16():
            manner.bf16 = _is_faster(trainer, "bf16", GAIN)
    if setup.compile:
        return _compile(trainer)
    if manner.device.type == "cuda" and trainer.pieces.count == 1:
        return _capture(trainer)
    return []


def _is_faster(trainer: Trainer, name: str, gain: float) -> bool:
    """Say whether a step with this takes less than that share of the time without; both in turns.

    Whatever else the computer does meanwhile, it does to both.
    """
    seconds = {False: inf, True: inf}
    began, turns = time.perf_counter(), -1  # the first turn only warms up
    while turns < 1 or _goes_on(turns, time.perf_counter() - began):
        for with_it in seconds:
            setattr(trainer.manner, name, with_it)
            step_s = seconds_of_one(trainer.take_step)
            seconds[with_it] = min(seconds[with_it], step_s) if turns >= 0 else inf
        turns += 1
    return seconds[True] < gain * seconds[False]


def _goes_on(turns: int, took: Seconds) -> bool:
    return took < TRIAL_S or (turns < TURNS and took < TRIAL_MAX_S)


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
