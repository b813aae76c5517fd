"""A real task in virtual time: the engine of the daemon's trainer, driven by the simulator."""

import math
from collections.abc import Sequence

import torch

from p2ptrain.core.effects import Effect, Evaluate, Split
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import Evaluated, Input, TrainerReady
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import OWN, BlobId
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.weights import codecs
from p2ptrain.learn.weights.blobs import Buffer, MemoryBlobs
from p2ptrain.learn.weights.checkpoint import MemoryCheckpoints
from p2ptrain.learn.weights.packing import EXACT, codec_of
from p2ptrain.learn.wire import Learning, Setup
from p2ptrain.sim.poison import CHANGES, Poison
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
        self.trained = 0

    def put(self, pieces: Sequence[Buffer]) -> tuple[BlobId, int]:
        """Keep the joined pieces of a blob; return its id and size."""
        if self.poison is None:
            return super().put(pieces)
        header, fixed, trained = pieces
        written = codecs.find(codec_of(header))
        fixed = self._poisoned(fixed, codecs.find(EXACT), len(fixed) // 4)
        return super().put((header, fixed, self._poisoned(trained, written, self.trained)))

    def _poisoned(self, data: Buffer, codec: codecs.Codec, count: int) -> Buffer:
        if self.poison is None or count == 0:
            return data
        vector = codec.decode(torch.frombuffer(bytearray(data), dtype=torch.uint8), count)
        factor, shift = CHANGES[self.poison]
        signs = 1 - 2 * (torch.arange(len(vector)) % 2)
        poisoned = factor * vector + shift * vector.square().mean().sqrt() * signs
        if not bool(poisoned.isfinite().all()):
            return b"\xff" * len(data)  # NaN by any codec
        return codec.encode(poisoned).numpy().data


class TorchLearner:
    """The engine of one simulated peer. Its checkpoints and blobs survive a crash, as files do."""

    def __init__(self, manifest: Manifest, number: int) -> None:
        self.blobs = PoisonedBlobs()
        self._setup = setup_of(manifest, number)
        self._checkpoints = MemoryCheckpoints()
        self._engine = self._build()
        self.blobs.trained = self._engine.ready().parameters

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
        return ""

    def perform(self, effect: Effect) -> Input | None:
        """Carry out one effect."""
        assert isinstance(effect, Learning)
        return self._engine.perform(effect)

    def score(self) -> tuple[float, float | None]:
        """Return loss and accuracy of the own weights on the test split."""
        answer = self._engine.perform(Evaluate("score", (OWN,), Split.TEST))
        if not isinstance(answer, Evaluated):
            return math.nan, None
        accuracy = answer.accuracies[0]
        return answer.losses[0], accuracy if math.isfinite(accuracy) else None

    def _build(self) -> Engine:
        return Engine(self._setup, self.blobs, self._checkpoints, clock=lambda: 0.0)  # time is virtual here
