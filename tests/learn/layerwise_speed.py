"""`python -m tests.learn.layerwise_speed`: a step on a block of layers beside one on the whole net, by time.

One thread; each block is timed on its own, as one peer would train it: a round waits for the dearest.
`speedup`: of plain training, whole / dearest; `over_sequential`: of layers one after the other, sum / dearest
(ALGORITHMS 4.3, B3). The turns of what is compared alternate, so that a busy computer slows all alike.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from p2ptrain.core.blocks import balanced
from p2ptrain.core.effects import Guide, Train
from p2ptrain.core.inputs import Trained
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.losses import classification
from p2ptrain.learn.recipe import Recipe
from p2ptrain.learn.task import Task
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.wire import Setup
from tests.learn import deep_nets

EXAMPLES = 512
STEPS = 10
"""Timed at once: more than a clock's grain, less than a computer's moods."""


@dataclass(frozen=True, kw_only=True)
class Small(Recipe):
    batch_size: int = 16


@dataclass(frozen=True, kw_only=True)
class Usual(Recipe):
    batch_size: int = 32


def on_noise(name: str, model: Callable[[Any], nn.Module], shape: tuple[int, ...], config: type) -> Task:
    """Return a task whose data mean nothing: time does not depend on that."""

    def data(_: Any, __: str) -> TensorDataset:
        pictures = torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(1))
        return TensorDataset(pictures, torch.arange(EXAMPLES) % 10)

    return Task(name, version="1", model=model, data=data, loss=classification, config=config)


mlp5 = on_noise("mlp5", deep_nets.mlp_net, (1, 28, 28), Usual)
cnn4 = on_noise("cnn4", deep_nets.cnn_net, (1, 28, 28), Usual)
cnn9 = on_noise("cnn9", deep_nets.vgg_net, (3, 32, 32), Small)
NETS = ("mlp5", "cnn4", "cnn9")


def step_s(engine: Engine, guide: Guide | None) -> float:
    """Train for some steps; return the processor's seconds of one."""
    began = time.thread_time()
    answer = engine.perform(Train(STEPS, 0, guide))
    assert isinstance(answer, Trained), answer
    return (time.thread_time() - began) / STEPS


def measure(net: str, group: int, turns: int, local: bool) -> dict[str, Any]:
    """Compare one step of each block with one of the whole net."""
    setup = Setup(task=f"tests.learn.layerwise_speed:{net}", device="cpu", threads=1)
    engine = Engine(setup, MemoryBlobs())
    costs = tuple(layer.cost for layer in engine.ready().layers)
    blocks = balanced(costs, max(1, len(costs) // group), 1 / 3 if local else 0.0)
    ways: list[Guide | None] = [None, *(Guide(layers=block, local=local) for block in blocks)]
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(turns + 1):
        for found, guide in zip(times, ways, strict=True):
            taken = step_s(engine, guide)
            if turn:  # the first is for warming up
                found.append(taken)
    whole, *parts = map(median, times)
    return {
        "net": net,
        "loss": "local" if local else "global",
        "blocks": blocks,
        "whole_ms": round(1e3 * whole, 3),
        "blocks_ms": [round(1e3 * part, 3) for part in parts],
        "speedup": round(whole / max(parts), 2),
        "over_sequential": round(sum(parts) / max(parts), 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as asked for, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--group", type=int, default=1, help="layers in a block")
    parser.add_argument("--turns", type=int, default=30)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for net in options.nets:
        for local in (True, False):
            sys.stdout.write(json.dumps(measure(net, options.group, options.turns, local)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
