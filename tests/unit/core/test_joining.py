"""Layers joined and judged. ALGORITHMS 2.3: L2, L4, L5, and the search along the line."""

import math

import pytest

from p2ptrain.core.effects import Effect, Evaluate
from p2ptrain.core.inputs import Evaluated, Input, Layer, LearnFailed
from p2ptrain.core.joining import JOINT, Joining, Part
from p2ptrain.core.messages import Offer
from p2ptrain.core.types import BlobId
from p2ptrain.sim.toy import SIZE, ToyLearner, Vector, blob_of, toy_loss
from tests.helpers import peer

LAYERS = tuple(Layer(((at, at + 2),), 1.0) for at in range(0, SIZE, 2))
BEFORE: Vector = (0.5,) * SIZE
GOOD, BAD = 0.2, 5.0


class Bench:
    """A trainer, the weights before, and parts of it."""

    def __init__(self, *, search: bool = False) -> None:
        self.blobs: dict[BlobId, Vector] = {}
        self.learner = ToyLearner(0, 1, self.blobs)
        self.measured = 0
        base = Offer(self.put(BEFORE), 64, toy_loss(BEFORE))
        self.joining = Joining("x", LAYERS, base, search=search, examples=8, tolerance=0.1)
        self.perform(self.joining.begin())

    def put(self, vector: Vector) -> BlobId:
        self.blobs[blob_of(vector)] = vector
        return blob_of(vector)

    def part(
        self, number: int, block: tuple[int, int], value: float, *, claim: float = 0.0, steps: int = 16
    ) -> Part:
        inside = range(2 * block[0], 2 * block[1])
        vector = tuple(value if at in inside else 0.0 for at in range(SIZE))
        return Part(peer(number), block, Offer(self.put(vector), 64, claim), steps)

    def add(self, *parts: Part) -> None:
        for part in parts:
            self.perform(self.joining.add(part))

    def perform(self, effects: list[Effect], *, lost: BlobId | None = None) -> None:
        for effect in effects:
            answer: Input | None = self.learner.perform(effect)
            self.measured += len(effect.refs) if isinstance(effect, Evaluate) else 0
            if isinstance(answer, Evaluated | LearnFailed):
                self.perform(self.joining.answer(answer))

    def judge(self) -> tuple[float, Vector]:
        self.perform(self.joining.judge())
        assert self.joining.verdict is not None
        return self.joining.verdict.share, self.learner._slots[JOINT]


def test_each_layer_is_of_who_trained_it_and_the_others_stay() -> None:
    bench = Bench()
    bench.add(bench.part(1, (0, 1), GOOD), bench.part(2, (2, 4), 0.3))
    assert bench.joining.covered == 0.75
    assert bench.judge() == (1.0, pytest.approx((GOOD,) * 2 + (0.5,) * 2 + (0.3,) * 4))
    assert bench.measured == 1


def test_several_on_one_layer_are_averaged_by_their_steps() -> None:
    """Also where blocks overlap, as when coordinators change in the middle of a round."""
    bench = Bench()
    bench.add(bench.part(1, (0, 2), 0.0, steps=30), bench.part(2, (1, 3), 0.4, steps=10))
    assert bench.judge()[1] == pytest.approx((0.0,) * 2 + (0.1,) * 2 + (0.4,) * 2 + (0.5,) * 2)


def test_the_search_goes_as_far_as_is_best() -> None:
    for value, share in ((0.0, 1.0), (-0.5, 0.5), (-1.4, 0.25)):
        bench = Bench(search=True)
        bench.add(bench.part(1, (0, 4), value))
        found, joint = bench.judge()
        assert found == share
        assert joint == pytest.approx((0.5 + share * (value - 0.5),) * SIZE)


def test_what_is_worse_is_never_taken() -> None:
    bench = Bench()
    bench.add(bench.part(1, (0, 4), BAD, claim=0.1))
    assert bench.judge()[0] == 0.0
    assert bench.joining.verdict is not None
    assert bench.joining.verdict.loss == toy_loss(BEFORE)


def test_bad_parts_are_left_out_and_who_claimed_another_loss_is_named() -> None:
    bench = Bench()
    bench.add(
        bench.part(1, (0, 1), GOOD),
        bench.part(2, (1, 2), BAD, claim=0.1),
        bench.part(3, (2, 3), BAD, claim=1e9),
        bench.part(4, (2, 3), GOOD),
        bench.part(5, (3, 4), BAD, claim=0.1),
    )
    share, joint = bench.judge()
    assert (share, joint) == (1.0, pytest.approx((GOOD,) * 2 + (0.5,) * 2 + (GOOD,) * 2 + (0.5,) * 2))
    assert bench.joining.verdict is not None
    named = [author for author, _ in bench.joining.verdict.false]
    assert named == [peer(2), peer(5)], "who said that it was bad did not lie"


def test_a_part_that_is_gone_when_it_is_tried_alone_is_left_out() -> None:
    bench = Bench()
    gone = bench.part(1, (0, 1), GOOD)
    bench.add(gone, bench.part(2, (1, 4), BAD, claim=0.1), bench.part(3, (1, 2), GOOD))
    del bench.blobs[gone.offer.blob]
    assert bench.judge() == (1.0, pytest.approx((0.5,) * 2 + (GOOD,) * 2 + (0.5,) * 4))


def test_weights_that_are_gone_end_it() -> None:
    bench = Bench()
    bench.add(bench.part(1, (0, 1), GOOD))
    del bench.learner._slots[JOINT]
    bench.perform(bench.joining.judge())
    assert bench.joining.is_lost
    assert bench.joining.verdict is None


def test_a_loss_that_is_not_known_is_measured_with_the_others() -> None:
    bench = Bench()
    base = Offer(bench.put(BEFORE), 64, math.inf)
    bench.joining = Joining("y", LAYERS, base, search=False, examples=8, tolerance=0.1)
    bench.perform(bench.joining.begin())
    bench.add(bench.part(1, (0, 4), BAD))
    assert bench.judge()[0] == 0.0


def test_answers_to_something_else_mean_nothing() -> None:
    bench = Bench()
    bench.add(bench.part(1, (0, 4), BAD))
    effects = bench.joining.judge()
    for tag in ("x:line:0a", "x:alone:0", "x:alone:99", "x:line:", "y", "x:alone:-1", "x:alone:²"):
        told = Evaluated(tag, (0.0,), (0.0,), (math.nan,), (0.0,), 8)
        assert bench.joining.answer(told) == []
    assert bench.joining.answer(Evaluated("x:line:1a", (), (), (), (), 8)) == []
    assert bench.joining.verdict is None
    bench.perform(effects)
    assert bench.joining.verdict is not None
