"""A learner of eight floats whose loss is known in closed form: thousands fit into one process.

The landscape is an egg box around a centre. Each coordinate lies in a basin j and at a distance r from
its bottom; loss = mean(DEPTH * |j| + r^2). Training moves r towards the own bias and never leaves the
basin: good starts matter (restarts), and averaging over peers cancels the biases (gossip), as with
networks trained on parts of the data.
"""

import hashlib
import math
import struct
from collections.abc import Iterable
from itertools import cycle, repeat
from math import remainder
from operator import add, mul, sub
from random import Random

from p2ptrain.core.effects import (
    Adopt,
    Checkpoint,
    Combine,
    Drop,
    Effect,
    Evaluate,
    Fresh,
    Guide,
    Publish,
    Split,
    Train,
)
from p2ptrain.core.inputs import (
    Adopted,
    Combined,
    Evaluated,
    Input,
    Layer,
    LearnFailed,
    Published,
    Saved,
    Trained,
    TrainerReady,
)
from p2ptrain.core.types import OWN, BlobId, Ranges, Ref
from p2ptrain.sim.poison import CHANGES, Poison

SIZE = 8
WIDTH = 2.0
DEPTH = 0.25
BIAS = 0.6
NOISE = 0.05
RATE = 0.02
BATCH = 32
EDGE = 0.99
SAVING_S = 0.5
"""A checkpoint of some 100 MB on a home disk (guess)."""

LAYERS = tuple(Layer(((at, at + 2),), 1.0) for at in range(0, SIZE, 2))

_PACK = struct.Struct(f">{SIZE}d")
_WIDTHS = (WIDTH,) * SIZE
_ORIGIN = (0.0,) * SIZE

Vector = tuple[float, ...]
ToyBlobs = dict[BlobId, Vector]


def toy_loss(vector: Vector) -> float:
    """Return the loss of a point; NaN for a point that is not finite."""
    if not math.isfinite(sum(vector)):
        return math.nan
    rests = tuple(map(remainder, vector, _WIDTHS))
    bottoms: float = sum(map(abs, map(sub, vector, rests)))
    return (DEPTH / WIDTH * bottoms + math.hypot(*rests) ** 2) / SIZE


def random_point(rng: Random) -> Vector:
    """Return a start up to three basins from the centre."""
    return tuple(rng.uniform(-3 * WIDTH, 3 * WIDTH) for _ in range(SIZE))


def blob_of(vector: Vector) -> BlobId:
    """Name a vector by its content."""
    return BlobId(Ref(hashlib.sha256(_PACK.pack(*vector)).hexdigest()))


def cut(vector: Vector, other: Vector, ranges: Ranges) -> Vector:
    """Return the first in these ranges, or everywhere if there are none, and the other elsewhere."""
    if not ranges:
        return vector
    mixed = list(other)
    for begin, end in ranges:
        mixed[begin:end] = vector[begin:end]
    return tuple(mixed)


class ToyLearner:
    """Carries out the effects of learning on eight floats.

    Args:
        seed: of the common start.
        own_seed: of the own bias and noise.
        blobs: the weights of all peers, by id.
    """

    __slots__ = ("_bias", "_blobs", "_lr_scale", "_own", "_rng", "_saved", "_slots", "_step", "poison")

    def __init__(self, seed: int, own_seed: int, blobs: ToyBlobs) -> None:
        self.poison: Poison | None = None
        self._rng = Random(own_seed)
        self._bias = tuple(self._rng.uniform(-BIAS, BIAS) for _ in range(SIZE))
        self._own = random_point(Random(seed))
        self._slots: dict[Ref, Vector] = {}
        self._blobs = blobs
        self._lr_scale = 1.0
        self._step = 0
        self._saved: tuple[Vector, int, float, bytes] = (self._own, 0, 1.0, b"")

    def ready(self) -> TrainerReady:
        """Go back to the last checkpoint."""
        self._own, self._step, self._lr_scale, memory = self._saved
        return TrainerReady(self._step, self._step * BATCH, SIZE, _PACK.size, memory, SIZE, LAYERS)

    def score(self) -> tuple[float, float | None]:
        """Return the loss of the own weights; there is no accuracy."""
        return toy_loss(self._own), None

    def accept(self, blob: BlobId, source: object) -> str:
        """Say why fetched weights are refused; empty if they are good."""
        return "" if all(map(math.isfinite, self._blobs[blob])) else "weights are not finite"

    def perform(self, effect: Effect) -> Input | None:
        """Carry out one effect."""
        match effect:
            case Train():
                return self._train(effect.steps, effect.guide)
            case Evaluate():
                return self._evaluate(effect)
            case Combine():
                return self._combine(effect)
            case Adopt():
                return self._adopt(effect)
            case Fresh():
                self._own = random_point(Random(effect.seed))
                self._lr_scale = effect.lr_scale
                return Adopted("fresh")
            case Publish():
                vector = self._find(effect.ref)
                if vector is None or (effect.base is not None and self._find(effect.base) is None):
                    return LearnFailed(effect.tag, "no such weights")
                vector = cut(self._poisoned(vector), _ORIGIN, effect.ranges)
                blob = blob_of(vector)
                self._blobs[blob] = vector
                return Published(effect.tag, blob, _PACK.size)
            case Checkpoint():
                self._saved = (self._own, self._step, self._lr_scale, effect.memory)
                return Saved(self._step, SAVING_S)
            case Drop():
                return None
            case _:
                return None

    def _poisoned(self, vector: Vector) -> Vector:
        if self.poison is None:
            return vector
        factor, shift = CHANGES[self.poison]
        step = shift * math.hypot(*vector) / math.sqrt(SIZE)
        moves = cycle((step, -step))
        return tuple(factor * x + move for x, move in zip(vector, moves, strict=False))

    def _find(self, ref: Ref) -> Vector | None:
        if ref == OWN:
            return self._own
        return self._slots.get(ref) or self._blobs.get(BlobId(ref))

    def _train(self, steps: int, guide: Guide | None) -> Trained | LearnFailed:
        if math.isfinite(sum(self._own)):
            if guide is None:
                self._own = self._moved(steps, self._bias)
            elif not self._be_guided(steps, guide):
                return LearnFailed("train", "no such weights")
        self._step += steps
        return Trained(self._step, self._step * BATCH, toy_loss(self._own), 0.0)

    def _moved(self, steps: int, goal: Vector) -> Vector:
        """Return the point after so many steps: nearer to the goal, and in the same basin."""
        stay = (1 - RATE * min(self._lr_scale, 10.0)) ** steps
        noise = NOISE * math.sqrt(1 - stay * stay)
        random = self._rng.random
        rests = tuple(map(remainder, self._own, _WIDTHS))
        after = [
            to + (rest - to) * stay + noise * (2 * random() - 1) for rest, to in zip(rests, goal, strict=True)
        ]
        if not -EDGE < min(after) <= max(after) < EDGE:
            after = [min(max(rest, -EDGE), EDGE) for rest in after]
        return tuple(map(add, map(sub, self._own, rests), after))

    def _be_guided(self, steps: int, guide: Guide) -> bool:
        """Take steps as `Guide` says; say whether all weights that it names are here."""
        shift = _ORIGIN if guide.shift is None else self._find(guide.shift)
        towards = self._own if guide.towards is None else self._find(guide.towards)
        if shift is None or towards is None:
            return False
        rate = RATE * min(self._lr_scale, 10.0)
        moved = self._moved(steps, tuple(map(add, self._bias, (one / rate for one in shift))))
        if guide.pull:
            stay = (1 - rate * min(guide.pull, 1.0)) ** steps
            moved = tuple(to + (x - to) * stay for x, to in zip(moved, towards, strict=True))
        first, last = guide.layers or (0, len(LAYERS))
        self._own = cut(moved, self._own, tuple(at for layer in LAYERS[first:last] for at in layer.ranges))
        return True

    def _evaluate(self, effect: Evaluate) -> Input:
        vectors = [self._find(ref) for ref in effect.refs]
        found = [vector for vector in vectors if vector is not None]
        if len(found) < len(vectors):
            return LearnFailed(effect.tag, "no such weights")
        zeros = (0.0,) * len(found)
        none = (math.nan,) * len(found)
        distances = tuple(math.dist(found[0], vector) for vector in found)
        examples = 1000 if effect.split is Split.TEST else effect.examples_max
        return Evaluated(effect.tag, tuple(map(toy_loss, found)), zeros, none, distances, examples)

    def _combine(self, effect: Combine) -> Input:
        total: Iterable[float] = _ORIGIN
        for coefficient, ref in effect.terms:
            vector = self._find(ref)
            if vector is None:
                return LearnFailed(effect.tag, "no such weights")
            total = map(add, total, map(mul, repeat(coefficient), vector))
        vector = tuple(total)
        if effect.ranges:
            vector = cut(vector, self._find(effect.out) or _ORIGIN, effect.ranges)
        if effect.out == OWN:
            self._own = vector
        else:
            self._slots[effect.out] = vector
        return Combined(effect.tag)

    def _adopt(self, effect: Adopt) -> Input:
        vector = self._find(effect.ref)
        if vector is None:
            return LearnFailed(effect.tag, "no such weights")
        self._own = vector
        if effect.lr_scale is not None:
            self._lr_scale = effect.lr_scale
        return Adopted(effect.tag)
