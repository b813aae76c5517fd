"""One net in training. A step follows from the weights, the optimiser's state and the step's number."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from p2ptrain.learn import recipe as recipes
from p2ptrain.learn.data.splits import Order, Selection
from p2ptrain.learn.randomness import Randomness, mix
from p2ptrain.learn.task import Task
from p2ptrain.learn.training import optimizer as optimizers
from p2ptrain.learn.training import schedule
from p2ptrain.learn.training.graph import CapturedGradient, FindGradient
from p2ptrain.learn.training.memory import Pieces
from p2ptrain.learn.training.optimizer import Number
from p2ptrain.learn.training.parallel import Group
from p2ptrain.learn.training.precision import manner_of
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.learn.wire import Setup

AHEAD_STEPS = 2
"""Batches that are brought ahead: one that comes late is made up for by the next. Guess."""


CLOSE = 0.02
"""A gradient found another way may differ by this share of its length: bf16 rounds that much. Guess."""


class Trainer:
    """Holds the net, its optimiser and its place in the data.

    Everything here may use torch's generators: call it with `randomness` borrowed.

    Args:
        examples: what this peer trains on.
        say: takes what the owner should read.

    Attributes:
        net: in training mode between uses.
        vector: its weights.
        find_gradient: adds that of a prepared batch.
        manner: how the net computes.
        pieces: how batches are cut.
        group: who else trains this net on this computer, if anybody.
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
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._task, self._cfg, self._setup = task, cfg, setup
        self._randomness = randomness
        self._examples = examples
        self._recipe = recipes.of(task, cfg)
        size = self._recipe.batch_size
        self._order = Order(len(examples), size, setup.seed, setup.slot, examples.place)
        randomness.reseed(mix("start", setup.seed))
        self.net = task.model(cfg).to(device)
        self.net.train()
        self.vector = Vector(self.net)
        self.manner = manner_of(device, self.net, setup.precision)
        self.pieces = Pieces(self._recipe.accumulate, self._order.batch_size, self.net, device, say)
        self.find_gradient: FindGradient = self._add_gradient
        self.group = Group()
        self.step = 0
        self.lr_scale = 1.0
        self._version = -1
        self.forget_momentum()

    @property
    def samples(self) -> int:
        """Examples trained on since the beginning of this peer's work."""
        return self.step * self._order.batch_size

    @property
    def round(self) -> int:
        """The round whose examples are trained on."""
        return self._examples.round

    @property
    def is_touched(self) -> bool:
        """Whether the weights were written since the last step."""
        return self.vector.flat._version != self._version

    def take_step(self) -> Tensor:
        """Train on one batch; return its mean loss, shape (), on the device."""
        self.group.begin(self)
        loss = self.pieces.fitting(self._find_gradient)
        while not self.group.reduce(self.vector.gradient, loss):
            loss = self.pieces.fitting(self._find_gradient)
        if self._recipe.clip:
            schedule.clip(self.vector.gradient, self._recipe.clip)
        rate = self.lr_scale * schedule.share(self._recipe, self.step, self._setup.steps)
        for group, base in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = base * rate
        self._optimizer.step()
        self.step += 1
        self._version = self.vector.flat._version
        self._look_ahead()
        return loss

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
        """Return copies, on the device, of all tensors and plain numbers that the next steps depend on."""
        remembered, numbers = optimizers.state(self._optimizer)
        tensors = {"weights": self.vector.flat.clone()}
        tensors |= {f"counter/{name}": counter.clone() for name, counter in self.vector.counters.items()}
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

    def capture(self) -> None:
        """Find gradients by a CUDA graph from now on.

        Raises:
            RuntimeError: that does not work, or would be wrong.
        """
        eager = self.find_gradient = self._add_gradient
        expected = self._find_gradient(1).clone(), self.vector.gradient.clone()
        batch = self._task.prepared(self._cfg, self._examples.take(self._order.places(self.step + 1)), True)
        drawn = torch.default_generator.get_state()
        eager(batch)
        if not torch.equal(drawn, torch.default_generator.get_state()):
            raise RuntimeError("the task draws random numbers on the CPU")
        self.find_gradient = CapturedGradient(eager, batch)
        loss = self._find_gradient(1)
        if not _close(loss, expected[0]) or not _close(self.vector.gradient, expected[1]):
            self.find_gradient = eager
            raise RuntimeError("it gives other numbers")

    def _look_ahead(self) -> None:
        """Have the next batches brought while the device is at work on this one."""
        if not self._examples.comes_ahead:
            return
        for step in range(self.step, self.step + AHEAD_STEPS):
            for piece in self.group.share(self._order.places(step)).chunk(self.pieces.count):
                self._examples.expect(piece)

    def _find_gradient(self, pieces: int) -> Tensor:
        """Find the gradient of this step's batch, taken in so many pieces; return its mean loss, shape ()."""
        self._randomness.reseed(mix("step", self._setup.peer_seed, self.step, *self.group.salt))
        self.vector.gradient.zero_()
        places = self._order.places(self.step)
        share = self.group.share(places)
        if len(share) == 0:
            return self.vector.flat.new_zeros(())
        losses = []
        for piece in share.chunk(pieces):
            batch = self._task.prepared(self._cfg, self._examples.take(piece), True)
            if len(piece) == len(places):
                return self.find_gradient(batch)
            losses.append(self._add_gradient(batch, len(piece) / len(places)))
        return torch.stack(losses).sum()

    def _add_gradient(self, batch: Any, weight: float = 1.0) -> Tensor:
        """Add the gradient of a prepared batch, which counts so much; return its loss as it counts."""
        result = self.manner.apply(self._task.loss, self.net, batch)
        loss = result[0] if isinstance(result, tuple) else result
        loss = loss.mean() if loss.ndim else loss
        loss = loss if weight == 1.0 else loss * weight
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()


def _close(ours: Tensor, theirs: Tensor) -> bool:
    """Say whether two results differ by rounding only, in whatever precision."""
    distance = torch.linalg.vector_norm(ours - theirs)
    return float(distance) <= CLOSE * max(float(torch.linalg.vector_norm(theirs)), 1e-12)
