"""What training some layers at a time remembers: the optimiser's state of each layer, and heads."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Size, Tensor, nn, optim

from p2ptrain.core.errors import WeightsError
from p2ptrain.core.types import Ranges
from p2ptrain.learn.layers import Chain
from p2ptrain.learn.training import optimizer as optimizers
from p2ptrain.learn.training.optimizer import Number
from p2ptrain.learn.weights import pieces

T = TypeVar("T")

HEADS_MAX = 16
"""Heads remembered: of more groups than one swarm tries. The one used longest ago is forgotten."""

SIDE = 3
"""Pictures are averaged to so many places a side before a head judges them (ALGORITHMS 2.3)."""

PREFIX = "blocks/"
"""Begins the names of all that is saved from here."""

_OPTIMIZER, _HEAD = f"{PREFIX}optimizer/", f"{PREFIX}head/"

Span = tuple[int, int]
"""Layers from the first to before the second."""


class Head:
    """Judges what leaves a layer in the middle of a net, as its last layer would; no part of the weights."""

    def __init__(self, module: nn.Module, optimizer: optim.Optimizer, rates: list[float]) -> None:
        self.module, self.optimizer, self._rates = module, optimizer, rates

    def step(self, rate: float, clip: float) -> None:
        """Take a step. rate: multiplies the learning rate; clip: longest gradient, 0: any."""
        if clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        optimizers.take_step(self.optimizer, self._rates, rate)


class Blocks:
    """The optimiser by layer, and the heads of groups of layers.

    Args:
        chain: finds the layers when they are needed first.
        build: makes the task's optimiser with a fresh state, whose stretches end at these places.
        device: of the net.
        reseed: begins a stream of chance for a head, which the span decides on.
    """

    def __init__(
        self,
        chain: Callable[[], Chain],
        build: Callable[[set[int]], optim.Optimizer],
        device: torch.device,
        reseed: Callable[[Span], None],
    ) -> None:
        self._chain, self._build, self._device, self._reseed = chain, build, device, reseed
        self._optimizer: optim.Optimizer | None = None
        self._rates: list[float] = []
        self._heads: dict[Span, Head] = {}

    def step(self, trained: Ranges, rate: float) -> None:
        """Have the optimiser change these numbers, of whole layers; the others and their state stay."""
        optimizer = self._ready()
        resting = [
            (parameter, parameter.grad)
            for group in optimizer.param_groups
            for parameter in group["params"]
            if not pieces.part(trained, (at := int(parameter.storage_offset())), at + 1)
        ]
        for parameter, _ in resting:
            parameter.grad = None
        optimizers.take_step(optimizer, self._rates, rate)
        for parameter, gradient in resting:
            parameter.grad = gradient

    def head(self, span: Span) -> Head | None:
        """Return the head of these layers; None for those whose result is the net's own.

        Raises:
            WeightsError: nothing is known that could judge them.
        """
        shapes = self._chain().shapes
        if span[1] == len(self._chain()):
            return None
        if not shapes:
            raise WeightsError("layers of this net cannot have losses of their own: its shapes are unknown")
        if span not in self._heads:
            self._reseed(span)
            module = _head(shapes[span[1] - 1], shapes[-1]).to(self._device)
            like = self._ready()
            rates = self._rates[:1]
            self._heads[span] = Head(module, optimizers.alike(like, module, rates[0]), rates)
        head = self._heads[span] = self._heads.pop(span)
        while len(self._heads) > HEADS_MAX:
            del self._heads[next(iter(self._heads))]
        return head

    def forget_momentum(self) -> None:
        """Begin with fresh optimisers; heads stay."""
        self._optimizer = None
        for head in self._heads.values():
            head.optimizer = optimizers.alike(self._ready(), head.module, self._rates[0])

    def forget(self) -> None:
        """Begin with nothing."""
        self._optimizer, self._heads = None, {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Number]]:
        """Return copies of all that the next steps depend on."""
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, Number] = {}
        for prefix, optimizer in self._optimizers():
            remembered, plain = optimizers.state(optimizer)
            tensors |= {prefix + name: tensor for name, tensor in remembered.items()}
            numbers |= {prefix + name: number for name, number in plain.items()}
        for span, head in self._heads.items():
            state = head.module.state_dict()
            tensors |= {f"{_prefix(span)}weights/{name}": tensor.clone() for name, tensor in state.items()}
        return tensors, numbers

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Number]) -> None:
        """Take over what `state` returned, among other things."""
        self.forget()
        names = [*tensors, *numbers]
        spans = dict.fromkeys(_span(name) for name in names if name.startswith(_HEAD))
        if spans or any(name.startswith(_OPTIMIZER) for name in names):
            self._ready()
        for span in spans:
            if (head := self.head(span)) is not None:
                head.module.load_state_dict(below(f"{_prefix(span)}weights/", tensors))
        for prefix, optimizer in self._optimizers():
            optimizers.restore(optimizer, below(prefix, tensors), below(prefix, numbers))

    def _ready(self) -> optim.Optimizer:
        if self._optimizer is None:
            layers = self._chain().layers
            self._optimizer = self._build(
                {place for layer in layers for one in layer.ranges for place in one}
            )
            self._rates = optimizers.rates(self._optimizer)
        return self._optimizer

    def _optimizers(self) -> list[tuple[str, optim.Optimizer]]:
        """Return all optimisers by the beginning of the names of what they remember."""
        own = [] if self._optimizer is None else [(_OPTIMIZER, self._optimizer)]
        return own + [(f"{_prefix(span)}optimizer/", head.optimizer) for span, head in self._heads.items()]


def below(prefix: str, values: Mapping[str, T]) -> dict[str, T]:
    """Return what has names with this beginning, by the rest of the names."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


class _Mean(nn.Module):
    """The mean over the places of a sequence."""

    def forward(self, numbers: Tensor) -> Tensor:
        return numbers.mean(1)


def _head(entering: Size, leaving: Size) -> nn.Module:
    """Make a head: pool and linear for pictures, linear for lists and for each place of a sequence."""
    classes = leaving[-1]
    match len(entering), len(leaving):
        case (2, 2) | (3, 3):
            return nn.Linear(entering[-1], classes)
        case (4, 2):
            places = nn.AdaptiveAvgPool2d(SIDE)
            return nn.Sequential(places, nn.Flatten(), nn.Linear(entering[1] * SIDE**2, classes))
        case (3, 2):
            return nn.Sequential(_Mean(), nn.Linear(entering[-1], classes))
        case _:
            raise WeightsError(
                f"layers that give {tuple(entering)} cannot have a loss of their own in a net that gives "
                f"{tuple(leaving)}"
            )


def _prefix(span: Span) -> str:
    return f"{_HEAD}{span[0]}-{span[1]}/"


def _span(name: str) -> Span:
    first, _, last = name.removeprefix(_HEAD).partition("/")[0].partition("-")
    return int(first), int(last)
