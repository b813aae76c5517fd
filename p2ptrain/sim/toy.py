"""A learner of eight floats whose loss is known in closed form: thousands fit into one process.

The landscape is an egg box around a centre. Each coordinate lies in a basin j and at a distance r from
its bottom; loss = mean(DEPTH * |j| + r^2). Training moves r towards the own bias and never leaves the
basin: good starts matter (restarts), and averaging over peers cancels the biases (gossip), as with
networks trained on parts of the data.
"""

import hashlib
import math
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, repeat
from math import remainder
from operator import add, mul, sub
from random import Random
from statistics import fmean, stdev

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
    Stage,
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
from p2ptrain.core.types import OWN, BlobId, Ranges, Ref, Slot
from p2ptrain.sim.poison import ALIE_DEVIATIONS, CHANGES, SEEN_MAX, Poison

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


def take(vector: Vector, ranges: Ranges) -> Vector:
    """Return these numbers, in order; all if there are no ranges."""
    return tuple(x for begin, end in ranges or ((0, SIZE),) for x in vector[begin:end])


def weighted_sum(coefficients: Iterable[float], vectors: Iterable[Vector]) -> Vector:
    """Return sum(coefficient * vector)."""
    total: Iterable[float] = _ORIGIN
    for coefficient, vector in zip(coefficients, vectors, strict=True):
        total = map(add, total, map(mul, repeat(coefficient), vector))
    return tuple(total)


ADAPTIVE: dict[str, Callable[..., float]] = {
    "adam_moment": lambda c, v, d: c[0] * v + c[1] * d * d,
    "yogi_moment": lambda c, v, d: v - c[1] * d * d * ((v > d * d) - (v < d * d)),
    "adaptive_step": lambda c, g, m, v: c[0] * g + c[1] * m / (math.sqrt(max(v, 0.0)) + c[2]),
}
"""Number by number, as in learn/weights/combine.py; other rules are a sum here."""


class ToyLearner:
    """Carries out the effects of learning on eight floats.

    Args:
        seed: of the common start.
        own_seed: of the own bias and noise.
        blobs: the weights of all peers, by id.
    """

    __slots__ = (
        "_bias",
        "_blobs",
        "_goal",
        "_lr_scale",
        "_own",
        "_rng",
        "_saved",
        "_seen",
        "_slots",
        "_step",
        "poison",
    )

    def __init__(self, seed: int, own_seed: int, blobs: ToyBlobs) -> None:
        self.poison: Poison | None = None
        self._rng = Random(own_seed)
        self._bias = tuple(self._rng.uniform(-BIAS, BIAS) for _ in range(SIZE))
        self._goal = self._bias
        self._own = random_point(Random(seed))
        self._slots: dict[Ref, Vector] = {}
        self._blobs = blobs
        self._seen: deque[Vector] = deque(maxlen=SEEN_MAX)
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
        if not all(map(math.isfinite, self._blobs[blob])):
            return "weights are not finite"
        if self.poison is Poison.ALIE:
            self._seen.append(self._blobs[blob])
        return ""

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
            case Fresh() if effect.out != OWN:
                self._slots[effect.out] = random_point(Random(effect.seed))
                return Combined("fresh")
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
                numbers = sum(end - begin for begin, end in effect.ranges) or SIZE
                return Published(effect.tag, blob, numbers * _PACK.size // SIZE)
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
        if self.poison is Poison.ALIE and len(self._seen) > 1:
            return tuple(
                fmean(seen) - ALIE_DEVIATIONS * stdev(seen) for seen in zip(*self._seen, strict=True)
            )
        factor, shift, noise = CHANGES[self.poison]
        step = shift * math.hypot(*vector) / math.sqrt(SIZE)
        moves, chance = cycle((step, -step)), Random(_PACK.pack(*vector))
        return tuple(
            factor * x + move + (noise and noise * chance.gauss(0.0, 1.0))
            for x, move in zip(vector, moves, strict=False)
        )

    def _find(self, ref: Ref) -> Vector | None:
        if ref == OWN:
            return self._own
        return self._slots.get(ref) or self._blobs.get(BlobId(ref))

    def _train(self, steps: int, guide: Guide | None) -> Trained | LearnFailed:
        if math.isfinite(sum(self._own)):
            if guide is None:
                self._own = self._moved(steps, self._goal)
            elif not self._be_guided(steps, guide):
                return LearnFailed("train", "no such weights")
        self._step += steps
        return Trained(self._step, self._step * BATCH, toy_loss(self._own), 0.0)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Pairs of numbers."""
        return LAYERS

    @property
    def line_bytes(self) -> int:
        """What a batch needs is as large as the net."""
        return _PACK.size

    def step_in_line(self, line: "Sequence[tuple[ToyLearner, Stage]]") -> list[Trained]:
        """Everyone moves its own numbers towards the goal of the first, whose examples these are."""
        taken: list[Trained] = []
        for learner, stage in line:
            learner._goal = self._bias
            trained = learner.perform(Train(1, guide=Guide(layers=stage.layers)))
            learner._goal = learner._bias
            assert isinstance(trained, Trained)
            taken.append(trained)
        return taken

    def contribution(self, ref: Ref, ranges: Ranges) -> Vector | None:
        """Return what it gives to a ring: a liar gives poison."""
        vector = self._find(ref)
        if vector is None or not math.isfinite(sum(vector)):
            return None
        return take(self._poisoned(vector), ranges)

    def mean(self, parts: Sequence[tuple[float, Vector]]) -> Vector | None:
        """Return the weighted mean."""
        total = sum(weight for weight, _ in parts)
        if not total > 0:
            return None
        shares = [(weight / total, vector) for weight, vector in parts if weight]
        mean = tuple(sum(share * vector[at] for share, vector in shares) for at in range(len(parts[0][1])))
        return mean if math.isfinite(sum(mean)) else None

    def take_over(self, out: Slot, ranges: Ranges, numbers: Vector) -> str:
        """Put a mean into a slot."""
        whole, left = list(self._slots.get(out, _ORIGIN)), iter(numbers)
        for begin, end in ranges or ((0, SIZE),):
            whole[begin:end] = [next(left) for _ in range(begin, end)]
        self._slots[out] = tuple(whole)
        return ""

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
        moved = self._moved(steps, tuple(map(add, self._goal, (one / rate for one in shift))))
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
        losses = tuple(map(toy_loss, found))
        return Evaluated(effect.tag, losses, zeros, none, distances, examples, differences=zeros)

    def _combine(self, effect: Combine) -> Input:
        vectors = [self._find(ref) for _, ref in effect.terms]
        found = [vector for vector in vectors if vector is not None]
        if len(found) < len(vectors):
            return LearnFailed(effect.tag, "no such weights")
        coefficients = [coefficient for coefficient, _ in effect.terms]
        if effect.rule in ADAPTIVE:
            vector = tuple(ADAPTIVE[effect.rule](coefficients, *one) for one in zip(*found, strict=True))
        else:
            vector = weighted_sum(coefficients, found)
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
