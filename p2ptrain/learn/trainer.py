"""One net in training. A step follows from the weights, the optimiser's state and the step's number."""

from typing import Any

import torch
from torch import Tensor

from p2ptrain.core.errors import ManifestError
from p2ptrain.learn import optimizer as optimizers
from p2ptrain.learn.data import Order, Selection
from p2ptrain.learn.optimizer import Number
from p2ptrain.learn.randomness import Randomness, mix
from p2ptrain.learn.task import Task
from p2ptrain.learn.vector import Vector
from p2ptrain.learn.wire import Setup

BATCH_SIZE = 32
LR_FINAL = 0.1


class Trainer:
    """Holds the net, its optimiser and its place in the data.

    Everything here may use torch's generators: call it with `randomness` borrowed.

    Args:
        examples: what this peer trains on.

    Attributes:
        net: in training mode between uses.
        vector: its weights.
        step: optimiser steps since the beginning of this peer's work.
        lr_scale: multiplies the task's learning rate.
    """

    def __init__(
        self,
        task: Task,
        cfg: Any,
        setup: Setup,
        device: torch.device,
        randomness: Randomness,
        examples: Selection,
    ) -> None:
        self._task, self._cfg, self._setup = task, cfg, setup
        self._randomness = randomness
        self._examples = examples
        batch_size = getattr(cfg, "batch_size", BATCH_SIZE)
        if batch_size < 1:
            raise ManifestError(
                f"the task {task.name} has batches of {batch_size}", "set `batch_size` to 1 or more"
            )
        self._order = Order(len(examples), batch_size, setup.seed, setup.slot)
        randomness.reseed(mix("start", setup.seed))
        self.net = task.model(cfg).to(device)
        self.net.train()
        self.vector = Vector(self.net)
        self.step = 0
        self.lr_scale = 1.0
        self.forget_momentum()

    @property
    def samples(self) -> int:
        """Examples trained on since the beginning of this peer's work."""
        return self.step * self._order.batch_size

    def take_step(self) -> Tensor:
        """Train on one batch; return its mean loss, shape (), on the device."""
        self._randomness.reseed(mix("step", self._setup.peer_seed, self.step))
        batch = self._examples.take(self._order.places(self.step))
        batch = self._task.prepared(self._cfg, batch, True)
        self.vector.gradient.zero_()
        result = self._task.loss(self.net, batch)
        loss = result[0] if isinstance(result, tuple) else result
        loss = loss.mean() if loss.ndim else loss
        loss.backward()  # type: ignore[no-untyped-call]
        rate = self.lr_scale * self._decay()
        for group, base in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        self._optimizer.step()
        self.step += 1
        return loss.detach()

    def restart(self, seed: int) -> None:
        """Go to the random point of that seed, which is the same on every peer up to rounding."""
        self._randomness.reseed(mix("start", seed))
        self.vector.flat.copy_(Vector(self._task.model(self._cfg)).flat)
        self.forget_momentum()

    def forget_momentum(self) -> None:
        """Give the optimiser a fresh state."""
        self._optimizer = optimizers.build(self._task, self._cfg, self.net, self.vector)
        self._rates = [float(group["lr"]) for group in self._optimizer.param_groups]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Number]]:
        """Return copies of all tensors and plain numbers that the next steps depend on."""
        remembered, numbers = optimizers.state(self._optimizer)
        tensors = {"weights": self.vector.flat.cpu().clone()}
        tensors |= {
            f"counter/{name}": counter.cpu().clone() for name, counter in self.vector.counters.items()
        }
        tensors |= {f"optimizer/{name}": tensor for name, tensor in remembered.items()}
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Number]) -> None:
        """Take over what `state` returned; `step` and `lr_scale` are set by the caller."""
        self.vector.flat.copy_(tensors["weights"])
        for name, counter in self.vector.counters.items():
            counter.copy_(tensors[f"counter/{name}"])
        prefix = "optimizer/"
        remembered = {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
        optimizers.restore(self._optimizer, remembered, numbers)

    def _decay(self) -> float:
        """Return this step's share of the learning rate: it falls to `lr_final` if an end is planned."""
        if self._setup.steps == 0:
            return 1.0
        final: float = getattr(self._cfg, "lr_final", LR_FINAL)
        return 1.0 - (1.0 - final) * min(1.0, self.step / self._setup.steps)
