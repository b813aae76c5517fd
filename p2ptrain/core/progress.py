"""How far this peer is and how good its weights are: what its reports say."""

import math

import msgspec
from msgspec import Struct

from p2ptrain.core.effects import Combine, Effect, Evaluate, Tell, Train
from p2ptrain.core.inputs import Evaluated, Staged, Trained, TrainerReady
from p2ptrain.core.keep import Keep
from p2ptrain.core.messages import Offer, Report
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import OWN, Ref, Seconds, Slot

MEASURING_SHARE = 0.005
"""Of the time, for reports (guess)."""

SNAPSHOT = Slot(Ref("snapshot"))

LR_SCALE_MIN = 1 / 64
"""No rate is halved more often than six times, or adopted from so careful a peer (guess)."""


class Memory(Struct, frozen=True):
    """What survives a restart of the program."""

    keep: Offer | None
    lr_scale: float


class Progress:
    """The own part of a strategy's state.

    step, samples: taken since the beginning of this peer's work.
    loss: of the own weights, as measured last; inf before that.
    accuracy: measured with it; None where the task has none.
    lr_scale: multiplies the task's learning rate.
    keep: the best own weights.
    """

    __slots__ = ("_measuring_s", "_reported", "accuracy", "keep", "loss", "lr_scale", "samples", "step")

    def __init__(self) -> None:
        self.step = self.samples = 0
        self.loss = math.inf
        self.accuracy: float | None = None
        self.lr_scale = 1.0
        self.keep = Keep()
        self._reported = -math.inf
        self._measuring_s: Seconds = 0.0

    def take(self, event: Trained | Staged | TrainerReady) -> None:
        """Steps were taken."""
        self.step, self.samples = event.step, event.samples

    def is_due(self, now: Seconds, every_s: Seconds) -> bool:
        """Say whether the own weights are to be measured again: so often, if it takes little of the time."""
        if now - self._reported < max(every_s, self._measuring_s / MEASURING_SHARE):
            return False
        self._reported = now
        return True

    def look(self, tag: str) -> list[Effect]:
        """Measure the weights of now; training may go on meanwhile."""
        return [Combine(tag, SNAPSHOT, ((1.0, OWN),)), Evaluate(tag, (SNAPSHOT,))]

    def memory(self) -> bytes:
        """Return the best offer and the learning rate, for `resume`."""
        return msgspec.msgpack.encode(Memory(self.keep.offer, self.lr_scale))

    def resume(self, ctx: Context, ready: TrainerReady) -> None:
        """Go on where the trainer stands, with what `memory` kept."""
        self.take(ready)
        if ready.memory:
            memory = msgspec.msgpack.decode(ready.memory, type=Memory)
            self.lr_scale, self.keep = memory.lr_scale, Keep(ctx.best_kept(memory.keep))

    def measure(self, event: Evaluated) -> bool:
        """Note what the own weights are worth; say whether they are finite."""
        self.loss, self._measuring_s = event.losses[0], event.seconds
        self.accuracy = event.accuracies[0] if math.isfinite(event.accuracies[0]) else None
        return math.isfinite(self.loss)

    def propose(self) -> list[Effect]:
        """Write the weights that `look` measured, if they are the best so far."""
        return self.keep.propose(self.loss, self.lr_scale, SNAPSHOT)

    def tell(self) -> list[Effect]:
        """Report; nothing before the first measurement."""
        if not math.isfinite(self.loss):
            return []
        return [Tell(Report(self.step, self.samples, self.loss, self.accuracy, self.keep.offer))]

    def be_careful(self) -> None:
        """Training diverged: halve the learning rate."""
        self.lr_scale = max(LR_SCALE_MIN, 0.5 * self.lr_scale)

    def is_done(self, ctx: Context) -> bool:
        """Say whether all steps that were agreed are taken."""
        return 0 < ctx.manifest.steps <= self.step

    def train(self, ctx: Context, steps: int) -> Train:
        """Take a round of so many steps, or what is left."""
        left = ctx.manifest.steps - self.step if ctx.manifest.steps else steps
        return Train(min(steps, left), self.step // steps)
