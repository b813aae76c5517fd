"""A real task in virtual time: the engine of the daemon's trainer, driven by the simulator."""

import math
import zlib
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from p2ptrain.core.effects import Effect, Evaluate, Split, Stage
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import Evaluated, Input, Layer, Trained, TrainerReady
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import OWN, BlobId, Ranges, Ref, Slot
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.training.stage import Part
from p2ptrain.learn.weights import codecs, pieces
from p2ptrain.learn.weights.blobs import Buffer, MemoryBlobs
from p2ptrain.learn.weights.checkpoint import MemoryCheckpoints
from p2ptrain.learn.weights.packing import EXACT, kind_of
from p2ptrain.learn.wire import Learning, Setup, Side
from p2ptrain.sim.poison import ALIE_DEVIATIONS, CHANGES, SEEN_MAX, Poison
from p2ptrain.sim.trainer import Learner


def setup_of(manifest: Manifest, number: int) -> Setup:
    """What the trainer of the n-th member would be told."""
    return Setup(
        task=manifest.task,
        task_config=manifest.task_config,
        seed=manifest.seed,
        peer_seed=number,
        slot=number,
        parts=manifest.parts,
        pool=manifest.pool,
        skew=manifest.skew,
        balance=manifest.balance,
        classes=manifest.classes,
        uneven=manifest.uneven,
        formation=manifest.formation,
        keep=manifest.keep,
        disjoint=manifest.disjoint,
        steps=manifest.steps,
        codec=manifest.codec,
        device="cpu",
        threads=1,
    )


def use_one_thread() -> None:
    """Keep torch from splitting work that is too small to be split."""
    torch.set_num_threads(1)


class PoisonedBlobs(MemoryBlobs):
    """The blobs of a peer that may be a liar: what it writes is poisoned, under the right name."""

    def __init__(self) -> None:
        super().__init__()
        self.poison: Poison | None = None
        self.seen: deque[Tensor] = deque(maxlen=SEEN_MAX)
        self.trained = 0

    def put(self, parts: Sequence[Buffer]) -> tuple[BlobId, int]:
        """Keep the joined parts of a blob; return its id and size."""
        if self.poison is None:
            return super().put(parts)
        header, fixed, trained = parts
        kind = kind_of(header)
        assert kind is not None
        count = pieces.size(pieces.part(kind.ranges, 0, self.trained)) if kind.ranges else self.trained
        fixed = self._poisoned(fixed, codecs.find(EXACT), len(fixed) // 4)
        return super().put((header, fixed, self._poisoned(trained, codecs.find(kind.codec), count)))

    def _poisoned(self, data: Buffer, codec: codecs.Codec, count: int) -> Buffer:
        if self.poison is None or count == 0:
            return data
        vector = codec.decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), count)
        changed = poisoned(vector, self.poison, [other[:count] for other in self.seen])
        if not bool(changed.isfinite().all()):
            return b"\xff" * len(data)  # NaN by any codec
        return codec.encode(changed).numpy().data


def poisoned(vector: Tensor, poison: Poison, seen: Sequence[Tensor] = ()) -> Tensor:
    """Return what a liar makes of weights, having seen others'."""
    if poison is Poison.ALIE and len(seen) > 1 and all(len(other) == len(vector) for other in seen):
        others = torch.stack(tuple(seen))
        return others.mean(dim=0) - ALIE_DEVIATIONS * others.std(dim=0)
    factor, shift, noise = CHANGES[poison]
    signs = 1 - 2 * (torch.arange(len(vector)) % 2)
    changed = factor * vector + shift * vector.square().mean().sqrt() * signs
    if noise:
        chance = torch.Generator().manual_seed(zlib.crc32(vector.numpy().tobytes()))
        changed += noise * torch.randn(len(vector), generator=chance)
    return changed


def pump(parts: Sequence[Part]) -> int:
    """Have a line take one step, as far as it can; return the bytes that went along it."""
    goals, sent_bytes = [part.taken + 1 for part in parts], 0
    while any(part.taken < goal and part.work() for part, goal in zip(parts, goals, strict=True)):
        for at, part in enumerate(parts):
            while part.outbox:
                side, frame = part.outbox.popleft()
                sent_bytes += len(frame)
                if side is Side.AFTER:
                    parts[at + 1].receive(Side.BEFORE, frame)
                else:
                    parts[at - 1].receive(Side.AFTER, frame)
    return sent_bytes


def _loss(part: Part, before: float) -> float:
    """Return the loss of the last step; NaN if there was none."""
    is_broken = part.answer is not None and part.answer.reason
    return math.nan if is_broken else part.loss_sum - before


class TorchLearner:
    """The engine of one simulated peer. Its checkpoints and blobs survive a crash, as files do."""

    def __init__(self, manifest: Manifest, number: int) -> None:
        self.blobs = PoisonedBlobs()
        self._setup = setup_of(manifest, number)
        self._checkpoints = MemoryCheckpoints()
        self._engine = self._build()
        ready = self._engine.ready()
        self.blobs.trained, self._layers = ready.parameters, ready.layers
        self._stage: Stage | None = None
        self._line_bytes = 0

    def ready(self) -> TrainerReady:
        """Go back to the last checkpoint."""
        self._engine = self._build()
        return self._engine.ready()

    @property
    def poison(self) -> Poison | None:
        """What is done to weights before they are offered."""
        return self.blobs.poison

    @poison.setter
    def poison(self, poison: Poison | None) -> None:
        self.blobs.poison = poison

    @property
    def balance(self) -> float | None:
        """How evenly the classes occur in this peer's part; None: nobody asked for classes."""
        return self._engine.balance

    def accept(self, blob: BlobId, source: Learner) -> str:
        """Say why fetched weights are refused; empty if they are good."""
        if isinstance(source, TorchLearner):
            self.blobs.take(blob, source.blobs)
        try:
            self._engine.accept(blob)
        except WeightsError as error:
            return error.message
        if self.poison is Poison.ALIE:
            self.blobs.seen.append(self._engine.numbers(blob, ()))
        return ""

    def perform(self, effect: Effect) -> Input | None:
        """Carry out one effect."""
        assert isinstance(effect, Learning)
        return self._engine.perform(effect)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of the net."""
        return self._layers

    @property
    def line_bytes(self) -> int:
        """What the last batch took from one peer to the next, and back."""
        return self._line_bytes

    def step_in_line(self, line: "Sequence[tuple[TorchLearner, Stage]]") -> list[Trained]:
        """Hand frames over from peer to peer until all have taken a step, or one cannot."""
        parts = [learner._part(stage) for learner, stage in line]
        begun = [part for part in parts if part is not None]
        before = [part.loss_sum for part in begun]
        if len(begun) == len(parts):
            self._line_bytes = pump(begun) // max(1, len(parts) - 1)
        losses = iter([_loss(part, loss) for part, loss in zip(begun, before, strict=True)])
        return [
            learner._position(math.nan if part is None else next(losses))
            for (learner, _), part in zip(line, parts, strict=True)
        ]

    def _part(self, stage: Stage) -> Part | None:
        """Return the own part in a line, begun with its first step; None if it cannot be."""
        if self._stage is not stage or self._engine.part is None:
            self._stage = stage
            self._engine.perform(stage)
        return self._engine.part

    def _position(self, loss: float) -> Trained:
        ready = self._engine.ready()
        return Trained(ready.step, ready.samples, loss, 0.0)

    def contribution(self, ref: Ref, ranges: Ranges) -> Tensor | None:
        """Return what it gives to a ring: a liar gives poison."""
        try:
            numbers = self._engine.numbers(ref, ranges)
        except WeightsError:
            return None
        if not bool(numbers.isfinite().all()):
            return None
        return numbers if self.poison is None else poisoned(numbers, self.poison)

    def mean(self, parts: Sequence[tuple[float, Tensor]]) -> Tensor | None:
        """Return the weighted mean, added up in the order given."""
        total = math.fsum(weight for weight, _ in parts)
        if not total > 0:
            return None
        mean = torch.zeros_like(parts[0][1])
        for weight, numbers in parts:
            if weight:
                mean.add_(numbers, alpha=weight / total)
        return mean if bool(mean.isfinite().all()) else None

    def take_over(self, out: Slot, ranges: Ranges, numbers: Tensor) -> str:
        """Put a mean into a slot; say why it is refused, empty if it is good."""
        try:
            self._engine.fill(out, ranges, numbers)
        except WeightsError as error:
            return error.message
        return ""

    def score(self) -> tuple[float, float | None]:
        """Return loss and accuracy of the own weights on the test split."""
        answer = self._engine.perform(Evaluate("score", (OWN,), Split.TEST))
        if not isinstance(answer, Evaluated):
            return math.nan, None
        accuracy = answer.accuracies[0]
        return answer.losses[0], accuracy if math.isfinite(accuracy) else None

    def _build(self) -> Engine:
        return Engine(self._setup, self.blobs, self._checkpoints, clock=lambda: 0.0)  # time is virtual here
