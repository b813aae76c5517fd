"""Ways to take steps: by the gradient of the task's loss, and as `core.effects.Guide` says."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from p2ptrain.core.effects import Guide
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.types import Ranges, Ref
from p2ptrain.learn.following import plainly
from p2ptrain.learn.standin import Standin
from p2ptrain.learn.weights import pieces

if TYPE_CHECKING:
    from p2ptrain.learn.training.trainer import Trainer


class Guidance(NamedTuple):
    """A guide whose weights were found: vectors on the device that nobody changes."""

    layers: tuple[int, int] | None = None
    local: bool = False
    towards: Tensor | None = None
    pull: float = 0.0
    shift: Tensor | None = None


class Way:
    """The usual way."""

    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make the net ready for finding a gradient, and leave it as it was."""
        yield

    def begin(self) -> None:
        """Forget the gradient of the last step, where it lies outside of the vector's."""

    def find_gradient(self, batch: Any) -> Tensor:
        """Add the gradient of a whole prepared batch; return its mean loss, shape ()."""
        return self._trainer.find_gradient(batch)

    def add_gradient(self, batch: Any, weight: float) -> Tensor:
        """Add the gradient of a prepared batch, which counts so much; return its loss as it counts."""
        return self._trainer.add_gradient(batch, weight)

    def bend(self) -> None:
        """Change the gradient that was found."""

    def step(self, rate: float) -> None:
        """Have an optimiser change the weights; `rate` multiplies its learning rate."""
        self._trainer.use_optimizer(rate)

    def end(self) -> None:
        """Change the weights after the optimiser did."""


class Guided(Way):
    """All numbers are trained, with a pull towards other weights, or a shift after each step."""

    def __init__(self, trainer: "Trainer", guidance: Guidance) -> None:
        super().__init__(trainer)
        self._guidance = guidance
        self._trained: Ranges = ((0, trainer.vector.spec.trainable),)

    def bend(self) -> None:
        towards, pull, vector = self._guidance.towards, self._guidance.pull, self._trainer.vector
        if towards is None or not pull:
            return
        for begin, end in self._trained:
            away = vector.flat[begin:end] - towards[begin:end]
            vector.gradient[begin:end].add_(away, alpha=pull)

    def end(self) -> None:
        shift, flat = self._guidance.shift, self._trainer.vector.flat
        if shift is not None:
            for begin, end in self._trained:
                flat[begin:end].add_(shift[begin:end])


class Partial(Guided):
    """Some layers are trained. Gradients of the others' weights are not even computed.

    Statistics of the others' batch norms move in each forward pass, and are put back.

    Raises:
        WeightsError: there are no such layers, or they cannot have a loss of their own.
    """

    def __init__(self, trainer: "Trainer", guidance: Guidance, span: tuple[int, int]) -> None:
        super().__init__(trainer, guidance)
        first, last = self._span = span
        chain, spec = trainer.chain, trainer.vector.spec
        if not 0 <= first < last <= len(chain):
            raise WeightsError(
                f"there are no layers {first} to {last}: the net has {len(chain)}", chain.notice
            )
        ranges = chain.ranges(first, last)
        self._trained = pieces.part(ranges, 0, spec.trainable)
        offsets = {entry.name: entry.offset for entry in spec.entries}
        self._frozen = [
            parameter
            for name, parameter in trainer.net.named_parameters()
            if parameter.requires_grad and not pieces.part(ranges, offsets[name], offsets[name] + 1)
        ]
        buffers = dict(trainer.net.named_buffers())
        self._still: Ranges = tuple(
            (one.offset, one.offset + one.count)
            for one in spec.entries
            if one.name in buffers and one.count and not pieces.part(ranges, one.offset, one.offset + 1)
        )
        self._head = trainer.blocks.head(span) if guidance.local else None
        self._net = Standin(trainer.net, self._compute) if guidance.local else trainer.net

    @contextmanager
    def entered(self) -> Iterator[None]:
        vector = self._trainer.vector
        kept = pieces.take(vector.flat, self._still).clone()
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        try:
            with plainly(self._trainer.net):  # it was compiled for all weights
                yield
        finally:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            vector.settle()
            pieces.put(vector.flat, self._still, kept)

    def begin(self) -> None:
        if self._head is not None:
            self._head.optimizer.zero_grad()

    def find_gradient(self, batch: Any) -> Tensor:
        return self._trainer.add_gradient(batch, 1.0, self._net)

    def add_gradient(self, batch: Any, weight: float) -> Tensor:
        return self._trainer.add_gradient(batch, weight, self._net)

    def step(self, rate: float) -> None:
        self._trainer.blocks.step(self._trained, rate)
        if self._head is not None:
            self._head.step(rate, self._trainer.clip)

    def _compute(self, numbers: Tensor) -> Tensor:
        """Judge what leaves the last of the layers; torch remembers nothing of those below, which rest."""
        numbers = self._trainer.chain.run(numbers, 0, self._span[1])
        return numbers if self._head is None else self._head.module(numbers)


def found(guide: Guide, find: Callable[[Ref], Tensor]) -> Guidance:
    """Find the weights of a guide.

    Raises:
        WeightsError: some are gone.
    """
    towards = find(guide.towards) if guide.towards is not None and guide.pull else None
    shift = None if guide.shift is None else find(guide.shift)
    return Guidance(guide.layers, guide.local, towards, guide.pull, shift)


def way_of(trainer: "Trainer", guidance: Guidance | None) -> Way:
    """Return the way to take steps.

    Raises:
        WeightsError: it cannot be taken here.
    """
    if guidance is None:
        return Way(trainer)
    if not trainer.group.is_alone:
        raise WeightsError(
            "several devices together take only steps by the task's own loss",
            "name one device as `device` under [training]",
        )
    if guidance.layers is None:
        return Guided(trainer, guidance)
    return Partial(trainer, guidance, guidance.layers)
