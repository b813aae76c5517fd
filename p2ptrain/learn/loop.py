"""A net that its owner trains in a loop of their own: what an engine needs of it."""

import copy
import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import torch
from torch import Tensor, nn, optim
from torch.utils.data import Dataset, TensorDataset

from p2ptrain.core.errors import ManifestError, WeightsError
from p2ptrain.core.inputs import Layer
from p2ptrain.learn.data.splits import Selection, Source, Splits
from p2ptrain.learn.parts import Measures, Parts
from p2ptrain.learn.randomness import Randomness, mix
from p2ptrain.learn.task import Task
from p2ptrain.learn.training import optimizer as optimizers
from p2ptrain.learn.training.guide import Guidance
from p2ptrain.learn.training.optimizer import Number
from p2ptrain.learn.weights.evaluate import Evaluator, Score, evaluating, score_of
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.learn.wire import Setup

Evaluate = Callable[[nn.Module], Any]
"""Measures the weights that are in the net now: a loss, or (loss, metrics), as a task's `loss` gives them."""

Restart = Callable[[nn.Module], None]
"""Draws all weights of a net anew, from torch's global generator."""

_KIND = "optimizer kind/"


class Loop(NamedTuple):
    """What an owner brings.

    evaluate, or held_out and loss: how weights are measured.
    restart: makes the weights random; None: `draw_anew`.
    """

    net: nn.Module
    vector: Vector
    optimizer: optim.Optimizer | None
    evaluate: Evaluate | None
    held_out: "Dataset[Any] | tuple[Tensor, ...] | None"
    loss: Callable[[nn.Module, Any], Any]
    restart: Restart | None
    keeps_start: bool


class OwnLoop:
    """The `Steps` of a loop that is elsewhere: it counts them, and knows net and optimiser.

    Those of its methods that use torch's generators need `randomness` borrowed.

    Attributes:
        samples: examples that were trained on.
        lr_scale: the optimiser's rates, and those that a schedule began with, are multiplied by its changes.
    """

    def __init__(self, loop: Loop) -> None:
        self.vector = loop.vector
        self.randomness = Randomness(loop.vector.flat.device)
        self.step = self.samples = 0
        self._shift: Tensor | None = None
        self._net, self._optimizer = loop.net, loop.optimizer
        self._restart = loop.restart or draw_anew
        self._lr_scale = 1.0
        state = loop.optimizer.state if loop.optimizer is not None else {}
        is_new = not any(map(_has_stepped, state.values()))
        self._blank = {key: copy.deepcopy(value) for key, value in state.items()} if is_new else {}

    @property
    def lr_scale(self) -> float:
        """What the swarm multiplies the learning rate by."""
        return self._lr_scale

    @lr_scale.setter
    def lr_scale(self, scale: float) -> None:
        change, self._lr_scale = scale / self._lr_scale, scale
        for group in self._optimizer.param_groups if self._optimizer is not None else ():
            for name in ("lr", "initial_lr"):
                if name in group:
                    group[name] *= change

    @property
    def layers(self) -> tuple[Layer, ...]:
        """One: nobody looks into the net of somebody's own loop."""
        count = self.vector.spec.count
        return (Layer(((0, count),), float(count)),)

    def guide(self, guidance: Guidance | None) -> None:
        """Shift the weights like this after each step from now on.

        Raises:
            WeightsError: it is about the gradient, which is the loop's own affair.
        """
        if guidance is not None and (guidance.layers is not None or guidance.pull):
            raise WeightsError("a training loop of somebody's own finds its gradients itself")
        self._shift = None if guidance is None else guidance.shift

    def shift(self) -> None:
        """Change the weights after a step, as the guide says."""
        if self._shift is not None:
            trained = self.vector.spec.trainable
            self.vector.flat[:trained].add_(self._shift[:trained])

    def take_step(self) -> Tensor:
        """Count one; it was taken elsewhere."""
        self.step += 1
        return torch.tensor(math.nan)

    def restart(self, seed: int) -> None:
        """Go to the random point of that seed."""
        self.randomness.reseed(mix("start", seed))
        with torch.no_grad():
            self._restart(self._net)
        self.vector.settle()
        self.forget_momentum()

    def draw(self, seed: int) -> Tensor:
        """Return the random point of that seed, and stay where the net is."""
        own = self.vector.flat.clone()
        counters = {name: counter.clone() for name, counter in self.vector.counters.items()}
        self.randomness.reseed(mix("start", seed))
        with torch.no_grad():
            self._restart(self._net)
        self.vector.settle()
        drawn = self.vector.flat.clone()
        self.vector.flat.copy_(own)
        for name, counter in counters.items():
            self.vector.counters[name].copy_(counter)
        return drawn

    def forget_momentum(self) -> None:
        """Give the optimiser the state back that it was made with."""
        if self._optimizer is not None:
            self._optimizer.state.clear()
            self._optimizer.state.update({key: copy.deepcopy(value) for key, value in self._blank.items()})

    def state(self) -> tuple[dict[str, Tensor], dict[str, Number]]:
        """Return copies of all that the next steps depend on and that is known here."""
        tensors = {"weights": self.vector.flat.cpu().clone(), "samples": torch.tensor(self.samples)}
        for name, counter in self.vector.counters.items():
            tensors[f"counter/{name}"] = counter.cpu().clone()
        if self._optimizer is None:
            return tensors, {}
        try:
            remembered, numbers = optimizers.state(self._optimizer)
        except ManifestError:
            return tensors, {}  # such a one begins anew after a break; weights are more
        tensors |= {f"optimizer/{name}": tensor for name, tensor in remembered.items()}
        return tensors, {**numbers, _kind(self._optimizer): True}

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Number]) -> None:
        """Take over what `state` returned; an optimiser of another kind begins anew."""
        self.vector.flat.copy_(tensors["weights"])
        self.samples = int(tensors["samples"])
        for name, counter in self.vector.counters.items():
            counter.copy_(tensors[f"counter/{name}"])
        if self._optimizer is None or _kind(self._optimizer) not in numbers:
            return
        prefix = "optimizer/"
        remembered = {
            name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)
        }
        plain = {name: number for name, number in numbers.items() if not name.startswith(_KIND)}
        optimizers.restore(self._optimizer, remembered, plain)


class Asked:
    """Measures by the owner's own function."""

    def __init__(self, net: nn.Module, evaluate: Evaluate) -> None:
        self._net, self._evaluate = net, evaluate

    def score(self, examples: Selection) -> Score:
        """Ask; which examples it takes is the owner's affair."""
        with evaluating(self._net):
            result = self._evaluate(self._net)
        loss, metrics = result if isinstance(result, tuple) else (result, {})
        losses = torch.as_tensor(loss).detach().reshape(-1).cpu().double()
        accuracy = torch.as_tensor(metrics.get("accuracy", math.nan)).detach().double().mean()
        return score_of(losses, torch.ones_like(losses), float(accuracy))


def parts_of_loop(loop: Loop, steps: OwnLoop, setup: Setup) -> Parts:
    """Bring the net to the swarm's start, and gather what an engine drives.

    Raises:
        ManifestError: the weights cannot be measured or drawn like this.
    """
    device = loop.vector.flat.device
    with steps.randomness.borrowed():
        if not loop.keeps_start:
            steps.restart(setup.seed)
        examples, evaluator = _measure(loop, device)
    same = hashlib.sha256(msgspec.json.encode((setup.task, setup.seed, loop.vector.spec))).hexdigest()
    return Parts(device, steps.randomness, Splits(examples, examples, examples), steps, evaluator, same)


def _measure(loop: Loop, device: torch.device) -> tuple[Selection, Measures]:
    nothing = Source(TensorDataset(torch.zeros(1)), device)
    if loop.evaluate is not None:
        return Selection(nothing, torch.arange(0)), Asked(loop.net, loop.evaluate)
    assert loop.held_out is not None
    held = loop.held_out if not isinstance(loop.held_out, tuple) else TensorDataset(*loop.held_out)
    source = Source(held, device)  # type: ignore[arg-type]  # map-style: it was looked at
    examples = Selection(source, torch.arange(len(source)))
    own = Task("own", "1", model=_unused, data=_unused, loss=loop.loss, config=object)
    return examples, Evaluator(loop.net, own, None, examples.take(slice(2)))


def draw_anew(net: nn.Module) -> None:
    """Have every module draw its parameters anew, as PyTorch's own do.

    Raises:
        ManifestError: some are not drawn by any module's `reset_parameters`.
    """
    drawn: dict[int, None] = {}
    for module in net.modules():
        draw = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if draw is not None:
            draw()
            drawn |= {id(parameter): None for parameter in module.parameters()}
    for name, parameter in net.named_parameters():
        if id(parameter) not in drawn:
            raise ManifestError(
                f"no module of the net knows how to draw `{name}` anew",
                'give `restart=function` that draws all weights of a net, or `start="mine"`',
            )


def _unused(*_: Any) -> Any:
    raise AssertionError


def _kind(optimizer: optim.Optimizer) -> str:
    return _KIND + type(optimizer).__name__


def _has_stepped(remembered: dict[str, Any]) -> bool:
    """Say whether the state of one parameter is more than what the optimiser was made with."""
    return "step" not in remembered or float(remembered["step"]) > 0
