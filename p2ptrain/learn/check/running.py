"""Does it run as a peer: measured alike, repeated alike, resumed exactly, its weights of use to others."""

import math
from typing import Any

import psutil
import torch
from torch import Tensor

from p2ptrain.core import inputs
from p2ptrain.core.effects import Adopt, Checkpoint, Evaluate, Publish, Split, Train
from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.types import OWN, BlobId
from p2ptrain.learn.check.bench import Bench, TaskError, own_code, some
from p2ptrain.learn.check.learning import take
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.randomness import mix
from p2ptrain.learn.weights import packing
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.weights.checkpoint import MemoryCheckpoints
from p2ptrain.learn.weights.evaluate import Evaluator, Score
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.learn.wire import Learning

STEPS = 3
"""Before and after a checkpoint."""

EXAMPLES = 256
"""Of the test data are measured."""

ROUNDING = 1e-3
"""Relative; graphics cards add up in an order of their own. Guess."""

SPEED_S = 1.0
"""Training is timed for at least so long."""

CHANCE = (
    "switch it off when the net is not in training mode, or give `evaluate` a generator with a fixed seed"
)


def check_evaluation(bench: Bench) -> str:
    """Measure the same weights several times: the number must be the same, and nothing else changed."""
    net = bench.build(mix("start", 0)).to(bench.device).train()
    measure, name = bench.task.evaluate or bench.task.loss, "evaluate" if bench.task.evaluate else "loss"
    examples = bench.splits.test.first(EXAMPLES)
    probe = bench.splits.validation.take(slice(2))
    with own_code("test data cannot be prepared"):
        few = examples.take(slice(min(8, len(examples))))
        batch = bench.task.prepared(bench.cfg, few, False)
    before = {name: value.clone() for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    with torch.no_grad():
        take(bench, net.eval(), batch, min(8, len(examples)), measure, name)
    net.load_state_dict(before, strict=False)
    net.train()
    with own_code(f"`{name}` fails on test data"):
        evaluator = Evaluator(net, bench.task, bench.cfg, probe)
        scores = []
        for seed in (0, 0, 1):
            bench.randomness.reseed(seed)
            scores.append(evaluator.score(examples))
    changed = [
        key
        for key, value in net.state_dict().items()
        if isinstance(value, Tensor) and not torch.equal(value.cpu(), before[key].cpu())
    ]
    if changed:
        raise TaskError(
            f"measuring changes the net: {some(changed)}",
            "no net.train() and no optimiser in `evaluate` or `loss`; buffers change in training mode only",
        )
    first, again, other = scores
    if not _same(bench, first, again):
        raise TaskError(
            f"two measurements of the same weights differ: loss {first.loss:.6g}, then {again.loss:.6g}",
            "draw random numbers from torch's own generator only; " + CHANCE,
        )
    if not _same(bench, first, other):
        raise TaskError(
            f"a measurement depends on chance: loss {first.loss:.6g}, with another seed {other.loss:.6g}",
            CHANCE,
        )
    if not math.isfinite(first.loss):
        raise TaskError(f"the loss of the test data is {first.loss} before any training")
    shown = f"loss {first.loss:.4g} ± {first.error:.2g}"
    return f"{shown} on {len(examples)} test examples, the same each time, and nothing is changed"


def _same(bench: Bench, one: Score, other: Score) -> bool:
    if math.isnan(one.loss) and math.isnan(other.loss):
        return True
    tolerance = 0.0 if bench.device.type == "cpu" else ROUNDING * abs(one.loss)
    return abs(one.loss - other.loss) <= tolerance


class Peer:
    """An engine of the task, and where its weights and checkpoints lie."""

    def __init__(self, bench: Bench, checkpoints: MemoryCheckpoints | None = None) -> None:
        self._bench = bench
        self.blobs = MemoryBlobs()
        self.checkpoints = checkpoints or MemoryCheckpoints()
        with own_code("the trainer cannot be built"):
            self.engine = Engine(bench.setup(codec="f32"), self.blobs, self.checkpoints)

    def do(self, effect: Learning) -> Any:
        """Carry out an effect, at once."""
        with own_code("training fails"):
            outcome = self.engine.perform(effect)
        if isinstance(outcome, inputs.LearnFailed):
            raise TaskError(outcome.reason)
        return outcome

    def train(self, steps: int) -> None:
        """Take steps."""
        self.do(Train(steps))

    def publish(self) -> BlobId:
        """Write the own weights; equal ones have equal ids."""
        blob: BlobId = self.do(Publish("check")).blob
        return blob

    def differs(self, own: BlobId, other: "Peer", theirs: BlobId) -> bool:
        """Say whether weights are not the same, up to what this device promises."""
        if own == theirs:
            return False
        if self._bench.device.type == "cpu":
            return True
        self.blobs.take(theirs, other.blobs)
        answer = self.do(Evaluate("check", (own, theirs), examples_max=1))
        with self.blobs.open(own) as content:
            length = packing.norm(packing.decode(content, Vector(self._bench.net).spec, "f32"))
        return bool(answer.distances[1] > ROUNDING * (1 + length))


def check_seed(bench: Bench) -> str:
    """Train twice from the same seed."""
    first, second = Peer(bench), Peer(bench)
    for peer in (first, second):
        peer.train(2 * STEPS)
    own, other = first.publish(), second.publish()
    if first.differs(own, second, other):
        raise TaskError(
            f"two runs from the same seed differ after {2 * STEPS} steps",
            "draw random numbers from torch's own generator only: it is seeded for each step",
        )
    bench.figures["peer"] = first
    return f"two runs agree after {2 * STEPS} steps"


def check_resume(bench: Bench) -> str:
    """Go on from a checkpoint; it must be as if there had been no stop."""
    first = Peer(bench)
    first.train(STEPS)
    first.do(Checkpoint(b""))
    second = Peer(bench, first.checkpoints)
    for peer in (first, second):
        peer.train(STEPS)
    if first.differs(first.publish(), second, second.publish()):
        raise TaskError(
            "a run that goes on from a checkpoint differs from one without a stop",
            "keep what the net remembers in parameters and persistent buffers: nothing else is saved",
        )
    return f"a run stopped at step {STEPS} goes on as if it had not"


def check_weights(bench: Bench) -> str:
    """Give trained weights to a peer that has not trained: they must mean the same there."""
    trained: Peer = bench.figures["peer"]
    fresh = Peer(bench)
    blob = trained.publish()
    fresh.blobs.take(blob, trained.blobs)
    with own_code("another peer refuses the weights"):
        fresh.engine.accept(blob)
    fresh.do(Adopt("check", blob))
    look = Evaluate("check", (OWN,), Split.TEST, EXAMPLES)
    here, there = trained.do(look).losses[0], fresh.do(look).losses[0]
    if abs(here - there) > ROUNDING * abs(here):
        raise TaskError(
            f"trained weights have a loss of {here:.6g}, and {there:.6g} on a peer that received them",
            "keep what the net remembers in parameters and persistent buffers: nothing else travels",
        )
    return "mean the same on another peer"


def check_sample(bench: Bench) -> str:
    """Show what the net can do."""
    if bench.task.sample is None:
        return "none: `p2ptrain try` has nothing to show"
    net = bench.build(mix("start", 0)).to(bench.device).eval()
    with own_code("`sample` fails"), torch.no_grad():
        try:
            bench.task.sample(net, bench.cfg, "")
        except P2PTrainError as error:
            return f"asks for something to show: {error.message}"
    return "shows something"


def check_speed(bench: Bench) -> str:
    """Time training."""
    peer: Peer = bench.figures["peer"]
    if bench.device.type == "cpu":
        peer.engine.choose_threads()
    seconds, samples, steps = 0.0, 0, STEPS
    while seconds < SPEED_S:
        before = peer.engine.ready().samples
        trained = peer.do(Train(steps))
        seconds, samples = trained.seconds, trained.samples - before
        steps = min(2 * steps if seconds < SPEED_S / 4 else round(1.2 * steps * SPEED_S / seconds) + 1, 10**6)
    used = psutil.Process().memory_info().rss
    if bench.device.type == "cuda":
        used = torch.cuda.max_memory_allocated(bench.device)
    bench.figures |= {"samples_per_s": samples / seconds, "memory_bytes": used}
    return f"{samples / seconds:,.0f} samples/s, {used / 1e6:,.0f} MB of memory"
