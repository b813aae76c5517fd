"""One peer's part in a line: its layers, for micro-batches that come and go; see `core.effects.Stage`.

It has no thread and no line of its own: its owner hands it what came from the neighbours, has it work a
little, and sends what it wants to be sent. Between two steps nothing is under way (GPipe, 1811.06965): so a
line takes the same steps as one peer with all layers would. What a peer keeps for the way back is at most one
batch. Gradients are taken before activations, so that the way back is not held up.
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from p2ptrain.core import effects, inputs
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.limits import MIB
from p2ptrain.core.types import Seconds
from p2ptrain.learn.data.splits import Selection
from p2ptrain.learn.standin import Standin
from p2ptrain.learn.training import frames
from p2ptrain.learn.training.frames import Backward, Forward
from p2ptrain.learn.training.memory import is_exhausted
from p2ptrain.learn.training.trainer import Trainer
from p2ptrain.learn.weights import codecs
from p2ptrain.learn.wire import Side

LIKE_EXAMPLES = 2

FRAME_BYTES_MAX = 256 * MIB
"""Of activations whose shape is not known (guess)."""

SLACK, SLACK_BYTES = 4, MIB
"""Others may have larger batches, and scales beside their numbers."""


class Held(NamedTuple):
    """What is kept of a micro-batch until its gradient comes. entered: None for the first of the line."""

    entered: Tensor | None
    left: Tensor


class Part:
    """A part, from its first step to its last.

    Args:
        effect: what is to be done.
        clock: seconds, of `Staged.seconds`.

    Attributes:
        outbox: frames for the neighbours; whoever sends them takes them out.
        answer: the end; None before.
        taken: steps so far.
        loss_sum: of these, and of the micro-batches since.

    Raises:
        WeightsError: there are no such layers.
    """

    def __init__(self, trainer: Trainer, effect: effects.Stage, clock: Callable[[], Seconds]) -> None:
        self.outbox: deque[tuple[Side, bytes]] = deque()
        self.answer: inputs.Staged | None = None
        self.taken = 0
        self.loss_sum = 0.0
        self._trainer, self._effect, self._clock = trainer, effect, clock
        chain, (first, last) = trainer.chain, effect.layers
        self._is_first, self._is_last = effect.before is None, effect.after is None
        fits = 0 <= first < last <= len(chain)
        if not fits or self._is_first != (first == 0) or self._is_last != (last == len(chain)):
            reason = f"layers {first} to {last} of {len(chain)} cannot be this part of a line"
            raise WeightsError(reason, chain.notice)
        self._ranges = chain.ranges(first, last)
        self._codec = codecs.find(effect.codec)
        self._comes: dict[Side, deque[bytes]] = {side: deque() for side in Side}
        self._like: Any = trainer.prepared(LIKE_EXAMPLES)
        classes = chain.shapes[-1][-1] if chain.shapes else 0
        self._unpacker = frames.Unpacker(self._like, classes)
        self._seconds: Seconds = 0.0
        self._begin_step()

    @property
    def tag(self) -> str:
        """Of the effect."""
        return self._effect.tag

    @property
    def has_work(self) -> bool:
        """Whether `work` would do something."""
        if self.answer is not None:
            return False
        return bool(self._comes[Side.AFTER] or self._comes[Side.BEFORE] or self._batches)

    def receive(self, side: Side, frame: bytes) -> None:
        """Take what came from a neighbour; more than a step consists of is no good line."""
        if self.answer is not None:
            return
        if len(self._comes[side]) > self._effect.micro:
            self.end(f"the peer {side} it does not wait for its turn", side)
        self._comes[side].append(frame)

    @property
    def frame_bytes_max(self) -> int:
        """No frame of this net is larger."""
        shapes, (first, last) = self._trainer.chain.shapes, self._effect.layers
        if not shapes:
            return FRAME_BYTES_MAX
        numbers = max([shape.numel() for shape in (shapes[first - 1], shapes[last - 1])])
        batch = self._unpacker.batch_bytes // LIKE_EXAMPLES
        examples = max(self._trainer.batch_size, LIKE_EXAMPLES) * SLACK
        return min(FRAME_BYTES_MAX, examples * (4 * numbers // shapes[0][0] + batch) + SLACK_BYTES)

    def end(self, reason: str, side: Side | None = None) -> inputs.Staged:
        """It is over before its time; side: whose fault it is."""
        if self.answer is None:
            silent = {None: None, Side.BEFORE: self._effect.before, Side.AFTER: self._effect.after}[side]
            self._settle(reason, silent)
        assert self.answer is not None
        return self.answer

    def work(self) -> bool:
        """Compute one micro-batch, forward or back; say whether there was one."""
        if not self.has_work:
            return False
        began = self._clock()
        side: Side | None = None
        try:
            with self._trainer.randomness.borrowed():
                if self._comes[Side.AFTER]:
                    side = Side.AFTER
                    self._go_back(self._comes[side].popleft())
                elif self._batches:
                    self._begin_batch(*self._batches.popleft())
                else:
                    side = Side.BEFORE
                    self._go_on(self._comes[side].popleft())
                self._seconds += self._clock() - began
                if self._done == self._count:
                    self._end_step()
        except WeightsError as error:
            self._fail(error, side)
        except (RuntimeError, IndexError) as error:
            if side is None or is_exhausted(error):
                raise
            self._fail(error, side)
        return True

    # -- a step ------------------------------------------------------------------------------------

    def _begin_step(self) -> None:
        self._held: dict[int, Held] = {}
        self._next = self._done = 0
        self._count = -1
        self._batches: deque[tuple[int, Any, float]] = deque()
        if self.taken == self._effect.steps:
            return self._settle("", None)
        self._trainer.begin_step()
        if self._is_first:
            pieces = self._trainer.pieces_of_batch(self._effect.micro)
            self._count = len(pieces)
            self._batches += [(index, *piece) for index, piece in enumerate(pieces)]

    def _end_step(self) -> None:
        if not math.isfinite(self.loss_sum):
            raise _DivergedError("its loss is not finite")
        began = self._clock()
        self._trainer.end_step(self._ranges)
        self.taken += 1
        self._seconds += self._clock() - began
        self._begin_step()

    def _fail(self, error: Exception, side: Side | None) -> None:
        """Something was wrong with the own numbers, or with what a neighbour gave."""
        if side is None or isinstance(error, _DivergedError):
            self.loss_sum = math.nan
            return self._settle(str(error), None)
        self.end(f"what came from the peer {side} it is of no use: {error}", side)

    def _settle(self, reason: str, silent: Any) -> None:
        trainer = self._trainer
        trainer.vector.settle()
        loss = self.loss_sum / self.taken if self.taken else math.nan
        tag, step, samples = self._effect.tag, trainer.step, trainer.samples
        self.answer = inputs.Staged(tag, step, samples, self.taken, loss, self._seconds, reason, silent)
        self._held = {}

    # -- forward -----------------------------------------------------------------------------------

    def _begin_batch(self, index: int, batch: Any, share: float) -> None:
        entering = self._trainer.entering(batch)
        if entering is None:
            raise WeightsError("the loss of this task gives its net something else than one tensor")
        self._next = index + 1
        if self._is_last:
            return self._judge(index, None, batch, share, self._compute)
        left = self._compute(entering)
        self._held[index] = Held(None, left)
        self._pass_on(index, share, left, frames.pack(batch, entering))

    def _go_on(self, data: bytes) -> None:
        """Take what leaves the layer before through the own ones."""
        frame = frames.decode(data)
        if not isinstance(frame, Forward) or (frame.step, frame.index) != (self.taken, self._next):
            raise WeightsError("a frame out of turn")
        count = frame.count if self._next == 0 else self._count
        if frame.count != count or not frame.index < count <= self._effect.micro:
            raise WeightsError("more micro-batches than were agreed on")
        self._check_shape(frame.shape)
        entered = frames.read(frame.numbers, frame.shape, self._codec, self._trainer.vector.flat.device)
        entered.requires_grad_()
        self._count, self._next = count, self._next + 1
        if self._is_last:
            batch = self._unpacker.unpack(frame.batch)
            self._judge(frame.index, entered, batch, frame.share, lambda _: self._compute(entered))
        else:
            left = self._compute(entered)
            self._held[frame.index] = Held(entered, left)
            self._pass_on(frame.index, frame.share, left, frame.batch)

    def _compute(self, numbers: Tensor) -> Tensor:
        trainer, (first, last) = self._trainer, self._effect.layers
        return trainer.manner.apply(lambda _, x: trainer.chain.run(x, first, last), trainer.net, numbers)

    def _pass_on(self, index: int, share: float, left: Tensor, batch: bytes) -> None:
        numbers = self._own(left)
        frame = Forward(self.taken, index, self._count, share, tuple(left.shape), numbers, batch)
        self.outbox.append((Side.AFTER, frames.encode(frame)))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Demand what the layer before gives, for any number of examples."""
        shapes, (first, _) = self._trainer.chain.shapes, self._effect.layers
        if shapes and (len(shape) != len(shapes[first - 1]) or shape[1:] != tuple(shapes[first - 1][1:])):
            raise WeightsError(f"numbers of shape {shape} where {tuple(shapes[first - 1])} are expected")

    # -- and back ----------------------------------------------------------------------------------

    def _judge(
        self, index: int, entered: Tensor | None, batch: Any, share: float, compute: Callable[..., Any]
    ) -> None:
        """Compute the last layers, the loss and its gradient."""
        loss = self._trainer.judge(batch, Standin(self._trainer.net, compute)) * share
        loss.backward()  # type: ignore[no-untyped-call]
        self._count_back(index, entered, float(loss.detach()))

    def _go_back(self, data: bytes) -> None:
        """Take a gradient through the own layers."""
        frame = frames.decode(data)
        if not isinstance(frame, Backward) or frame.step != self.taken or frame.index not in self._held:
            raise WeightsError("a gradient that nobody asked for")
        held = self._held.pop(frame.index)
        if frame.shape != tuple(held.left.shape):
            raise WeightsError(f"a gradient of shape {frame.shape} for numbers of {tuple(held.left.shape)}")
        gradient = frames.read(frame.numbers, frame.shape, self._codec, held.left.device)
        held.left.backward(gradient.to(held.left.dtype))  # type: ignore[no-untyped-call]
        self._count_back(frame.index, held.entered, frame.loss)

    def _count_back(self, index: int, entered: Tensor | None, loss: float) -> None:
        self.loss_sum += loss
        self._done += 1
        if entered is None:
            return
        gradient = torch.zeros_like(entered) if entered.grad is None else entered.grad
        frame = Backward(self.taken, index, loss, tuple(entered.shape), self._own(gradient))
        self.outbox.append((Side.BEFORE, frames.encode(frame)))

    def _own(self, numbers: Tensor) -> bytes:
        """Write what this peer computed."""
        try:
            return frames.write(numbers, self._codec)
        except WeightsError:
            raise _DivergedError("its numbers are not finite") from None


def begun(trainer: object, examples: Selection, effect: effects.Stage, clock: Callable[[], Seconds]) -> Part:
    """Begin a part with these examples.

    Raises:
        WeightsError: this net cannot be cut like that.
    """
    if not isinstance(trainer, Trainer) or not trainer.group.is_alone:
        raise WeightsError(
            "only a net that one device of this computer trains can be a part of a line",
            "name one device as `device` under [training]",
        )
    examples.turn_to(effect.round)
    with trainer.randomness.borrowed():
        return Part(trainer, effect, clock)


class _DivergedError(WeightsError):
    """The own numbers are useless, whoever's fault it is."""
