"""One net in training. A step follows from the weights, the optimiser's state and the step's number."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from p2ptrain.core.inputs import Layer
from p2ptrain.core.types import Ranges
from p2ptrain.learn import recipe as recipes
from p2ptrain.learn.data.splits import Order, Selection
from p2ptrain.learn.layers import Chain
from p2ptrain.learn.randomness import Randomness, mix
from p2ptrain.learn.standin import entering
from p2ptrain.learn.task import Task
from p2ptrain.learn.training import optimizer as optimizers
from p2ptrain.learn.training import schedule
from p2ptrain.learn.training.blocks import PREFIX, Blocks, below
from p2ptrain.learn.training.graph import CapturedGradient, FindGradient
from p2ptrain.learn.training.guide import Guidance, Way, way_of
from p2ptrain.learn.training.memory import EXAMPLES_MIN, Pieces
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
        blocks: what training some layers at a time remembers.
        manner: how the net computes.
        pieces: how batches are cut.
        randomness: what everything here borrows.
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
        self.randomness = randomness
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
        self.find_gradient: FindGradient = self.add_gradient
        self.group = Group()
        self.step = 0
        self.lr_scale = 1.0
        self._version = -1
        self.blocks = Blocks(
            lambda: self.chain,
            lambda borders: optimizers.build(task, cfg, self.net, self.vector, borders),
            device,
            lambda span: randomness.reseed(mix("head", setup.seed, *span)),
        )
        self._way = Way(self)
        self.forget_momentum()

    @cached_property
    def chain(self) -> Chain:
        """The layers of the net."""
        enters = self.example()
        closed = "" if enters is not None else "its loss gives it something else than one tensor"
        return Chain(self.net, self.vector.spec, enters, closed)

    def example(self, count: int = EXAMPLES_MIN) -> Tensor | None:
        """Return what enters the net of so many examples; None if it is not one tensor."""
        return self.entering(self.prepared(count))

    @property
    def batch_size(self) -> int:
        """Examples of one step."""
        return self._order.batch_size

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the net, for others."""
        return self.chain.layers

    @property
    def clip(self) -> float:
        """Longest gradient; 0: any."""
        return self._recipe.clip

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

    def guide(self, guidance: Guidance | None) -> None:
        """Take steps like this from now on; None: by the gradient of the task's loss.

        Raises:
            WeightsError: that cannot be done here; nothing changes.
        """
        self._way = way_of(self, guidance)

    def take_step(self) -> Tensor:
        """Train on one batch; return its mean loss, shape (), on the device."""
        way = self._way
        self.group.begin(self)
        with way.entered():
            loss = self.pieces.fitting(self._find_gradient)
            while not self.group.reduce(self.vector.gradient, loss):
                loss = self.pieces.fitting(self._find_gradient)
        way.bend()
        self._use_gradient(way.step)
        way.end()
        self._version = self.vector.flat._version
        return loss

    def _use_gradient(self, step: Callable[[float], None]) -> None:
        """Have a step taken by the gradient that was found."""
        if self.clip:
            schedule.clip(self.vector.gradient, self.clip)
        step(self.lr_scale * schedule.share(self._recipe, self.step, self._setup.steps))
        self.step += 1
        self._look_ahead()

    # -- a step that others take a part in, see `stage.py` -----------------------------------------

    def begin_step(self) -> None:
        """Forget the last gradient."""
        self.randomness.reseed(mix("step", self._setup.peer_seed, self.step))
        self.vector.gradient.zero_()

    def pieces_of_batch(self, count: int) -> list[tuple[Any, float]]:
        """Return this step's batch, prepared, in at most so many pieces, and how much each counts."""
        places = self._order.places(self.step)
        return [(self._prepared(piece), len(piece) / len(places)) for piece in places.chunk(count)]

    def prepared(self, count: int) -> Any:
        """Return some examples as a batch, prepared."""
        return self._prepared(slice(count))

    def entering(self, batch: Any) -> Tensor | None:
        """Return what enters the net of a prepared batch; None if it is not one tensor."""
        return entering(self._task.loss, self.net, batch)

    def end_step(self, trained: Ranges) -> None:
        """Take a step with these numbers, of whole layers; clipping looks at their gradient alone."""
        self._use_gradient(lambda rate: self.blocks.step(trained, rate))
        self._version = self.vector.flat._version

    def _prepared(self, places: Any) -> Any:
        return self._task.prepared(self._cfg, self._examples.take(places), True)

    def restart(self, seed: int) -> None:
        """Go to the random point of that seed, which is the same on every peer up to rounding."""
        self.vector.flat.copy_(self.draw(seed))
        self.forget_momentum()
        self.blocks.forget()

    def draw(self, seed: int) -> Tensor:
        """Return the random point of that seed, and stay where the net is."""
        self.randomness.reseed(mix("start", seed))
        return Vector(self._task.model(self._cfg)).flat

    def forget_momentum(self) -> None:
        """Give the optimiser a fresh state."""
        self._optimizer = optimizers.build(self._task, self._cfg, self.net, self.vector)
        self._rates = optimizers.rates(self._optimizer)
        self.blocks.forget_momentum()

    def use_optimizer(self, rate: float) -> None:
        """Have the optimiser change all weights; `rate` multiplies its learning rate."""
        optimizers.take_step(self._optimizer, self._rates, rate)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Number]]:
        """Return copies, on the device, of all tensors and plain numbers that the next steps depend on."""
        remembered, numbers = optimizers.state(self._optimizer)
        tensors, plain = self.blocks.state()
        tensors |= {"weights": self.vector.flat.clone()}
        tensors |= {f"counter/{name}": counter.clone() for name, counter in self.vector.counters.items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in remembered.items()}
        return tensors, numbers | plain

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Number]) -> None:
        """Take over what `state` returned; `step` and `lr_scale` are set by the caller."""
        self.vector.flat.copy_(tensors["weights"])
        for name, counter in self.vector.counters.items():
            counter.copy_(tensors[f"counter/{name}"])
        own = {name: number for name, number in numbers.items() if not name.startswith(PREFIX)}
        optimizers.restore(self._optimizer, below("optimizer/", tensors), own)
        self.blocks.restore(tensors, numbers)

    def capture(self) -> None:
        """Find gradients by a CUDA graph from now on.

        Raises:
            RuntimeError: that does not work, or would be wrong.
        """
        eager = self.find_gradient = self.add_gradient
        expected = self._find_gradient(1).clone(), self.vector.gradient.clone()
        batch = self._prepared(self._order.places(self.step + 1))
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
        self.randomness.reseed(mix("step", self._setup.peer_seed, self.step, *self.group.salt))
        self.vector.gradient.zero_()
        self._way.begin()
        places = self._order.places(self.step)
        share = self.group.share(places)
        if len(share) == 0:
            return self.vector.flat.new_zeros(())
        losses = []
        for piece in share.chunk(pieces):
            batch = self._prepared(piece)
            if len(piece) == len(places):
                return self._way.find_gradient(batch)
            losses.append(self._way.add_gradient(batch, len(piece) / len(places)))
        return torch.stack(losses).sum()

    def add_gradient(self, batch: Any, weight: float = 1.0, net: nn.Module | None = None) -> Tensor:
        """Add the gradient of a prepared batch, which counts so much; return its loss as it counts.

        Args:
            batch: prepared.
            weight: multiplies the mean loss.
            net: what the task's loss is given in place of the net.
        """
        loss = self.judge(batch, self.net if net is None else net)
        loss = loss if weight == 1.0 else loss * weight
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def judge(self, batch: Any, net: nn.Module) -> Tensor:
        """Return the mean loss of a prepared batch, shape (); `net` is what the task's loss is given."""
        result = self.manner.apply(self._task.loss, net, batch)
        loss: Tensor = result[0] if isinstance(result, tuple) else result
        return loss.mean() if loss.ndim else loss


def _close(ours: Tensor, theirs: Tensor) -> bool:
    """Say whether two results differ by rounding only, in whatever precision."""
    distance = torch.linalg.vector_norm(ours - theirs)
    return float(distance) <= CLOSE * max(float(torch.linalg.vector_norm(theirs)), 1e-12)
