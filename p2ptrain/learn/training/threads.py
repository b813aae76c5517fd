"""How many CPU threads a net trains best on: small nets lose most of their speed on more than one.

On two cores that other programs used too, a step of a small MLP took 68 times longer on two threads
than on one (measured, November 2026).
"""

import time
from collections.abc import Callable
from math import inf

import torch

TRIAL_S = 0.1
"""For each count, and at least two steps. Guess."""

GAIN = 0.9
"""More threads must take less than this share of the time: the owner uses the PC too. Guess."""


def set_fastest(step: Callable[[], object], most: int) -> None:
    """Try 1, 2, 4, ... threads up to `most` on a step of training, and leave torch at the best count."""
    best, best_s = 1, inf
    count = 1
    while count <= most:
        torch.set_num_threads(count)
        seconds = seconds_of(step)
        if seconds > GAIN * best_s:
            break
        best, best_s = count, seconds
        count *= 2
    torch.set_num_threads(best)


def seconds_of(step: Callable[[], object]) -> float:
    """Return the shortest time of a step: others only ever make it longer."""
    seconds_of_one(step)
    shortest = inf
    end = time.perf_counter() + TRIAL_S
    while shortest == inf or time.perf_counter() < end:
        shortest = min(shortest, seconds_of_one(step))
    return shortest


def seconds_of_one(step: Callable[[], object]) -> float:
    """Return the time of one step, to the end of what a GPU does for it."""
    began = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
