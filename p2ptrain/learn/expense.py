"""What training a task costs this computer: time of a step, memory, and what would travel."""

import math

import psutil
import torch
from msgspec import Struct

from p2ptrain.core.types import Seconds
from p2ptrain.learn.alone import Alone
from p2ptrain.learn.parts import parts_of_task
from p2ptrain.learn.training.memory import free_bytes
from p2ptrain.learn.training.trainer import Trainer
from p2ptrain.learn.weights import packing
from p2ptrain.learn.wire import Setup

COPIES = 4
"""Of the weights, in training: themselves, the gradient, and up to two moments."""

F32_BYTES = 4


class Expense(Struct, frozen=True, kw_only=True):
    """One task on one device.

    step_s: measured.
    weights_bytes: of one set of weights as it travels.
    layers: cost of each, in operations; one: the net cannot be cut.
    activation_bytes: that leave the widest layer but the last for one batch; 0: not known.
    memory_bytes: that weights, gradient and optimiser take, without activations.
    fits: whether there is room for that here.
    """

    device: str
    step_s: Seconds
    parameters: int
    weights_bytes: int
    layers: tuple[float, ...]
    activation_bytes: int
    memory_bytes: int
    fits: bool


def measure(setup: Setup, seconds: Seconds) -> Expense:
    """Train for so long, the first half of it to warm up.

    Raises:
        ManifestError, ConfigError: the task, its data or the device is not here.
        WeightsError: training diverged.
    """
    alone = Alone(setup)
    *_, last = looks = list(alone.train(seconds, lambda: False))
    warm = next(look for look in looks if look.seconds >= last.seconds / 2)
    if warm.step == last.step:
        step_s = last.seconds / last.step
    else:
        step_s = (last.seconds - warm.seconds) / (last.step - warm.step)
    parts = parts_of_task(setup)
    assert isinstance(parts.trainer, Trainer)
    chain, spec = parts.trainer.chain, parts.trainer.vector.spec
    batch_size = last.samples // last.step
    widest = max((math.prod(shape[1:]) for shape in chain.shapes[:-1]), default=0)
    memory = COPIES * F32_BYTES * spec.count
    return Expense(
        device=alone.device,
        step_s=step_s,
        parameters=spec.trainable,
        weights_bytes=packing.blob_bytes(spec, setup.codec),
        layers=tuple(layer.cost for layer in chain.layers),
        activation_bytes=F32_BYTES * batch_size * widest,
        memory_bytes=memory,
        fits=memory < _room(parts.device),
    )


def _room(device: torch.device) -> float:
    if device.type == "cuda":
        return free_bytes(device)
    return float(psutil.virtual_memory().total)
