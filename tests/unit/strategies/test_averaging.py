"""What two snapshots come to, carried out on the toy learner and compared with the formulas."""

import pytest

from p2ptrain.core.effects import Effect, Train
from p2ptrain.core.inputs import Evaluated, Published
from p2ptrain.core.messages import Offer
from p2ptrain.core.types import BlobId
from p2ptrain.sim.toy import SIZE, ToyBlobs, ToyLearner, Vector
from p2ptrain.strategies.gossip.age import Age
from p2ptrain.strategies.gossip.averaging import Averaging
from p2ptrain.strategies.gossip.exchange import Meeting
from p2ptrain.strategies.gossip.noloco import SlowWeights
from tests.helpers import peer

ROUNDS = 6

Numbers = tuple[float, float, float]


class Side:
    """One of the two."""

    def __init__(self, number: int, blobs: ToyBlobs, abg: Numbers, fragments: int) -> None:
        self.learner = ToyLearner(0, number, blobs)
        self.averaging = Averaging(SlowWeights(*abg), Age(200, 0.5), fragments, 1)
        self.do(self.averaging.start(1, SIZE, 0))
        self.meeting = Meeting(peer(number), 1, 0, True, 0.0)

    @property
    def own(self) -> Vector:
        return self.learner._own

    def do(self, effects: list[Effect]) -> object:
        return [self.learner.perform(effect) for effect in effects][-1] if effects else None

    def write(self, turn: int) -> BlobId:
        self.meeting = Meeting(peer(9), 1, turn, True, 0.0)
        published = self.do(self.averaging.write("swap:1", turn))
        assert isinstance(published, Published)
        self.meeting.mine = published.blob
        return published.blob

    def move(self, theirs: BlobId, share: float) -> Evaluated:
        self.meeting.theirs, self.meeting.share = Offer(theirs, 64, 0.0), share
        measured = self.do(self.averaging.measure("mix:1", self.meeting, 10))
        assert isinstance(measured, Evaluated)
        self.do(self.averaging.move(self.meeting, 1.0))
        return measured


def pair(abg: Numbers = (0.0, 1.0, 1.0), fragments: int = 1) -> tuple[Side, Side]:
    blobs: ToyBlobs = {}
    return Side(1, blobs, abg, fragments), Side(2, blobs, abg, fragments)


def mean(one: Vector, other: Vector) -> Vector:
    return tuple((x + y) / 2 for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize(
    "abg", [(0.5, 0.7, 0.7), (0.3, 0.7, 0.5), (0.0, 0.5, 1.0), (0.4, 0.0, 0.3), (0.0, 1.0, 1.0)]
)
def test_momentum_is_that_of_the_paper(abg: Numbers) -> None:
    """m <- a m + b mean(w - phi) + g (mean(phi) - phi), phi <- phi + m, while training goes on."""
    a, b, g = abg
    sides = pair(abg)
    phi = [side.own for side in sides]
    m: list[Vector] = [(0.0,) * SIZE] * 2
    for turn in range(ROUNDS):
        for side in sides:
            side.learner.perform(Train(25))
        then = [side.own for side in sides]
        blobs = [side.write(turn) for side in sides]
        for side in sides:
            side.learner.perform(Train(5))
        since = [
            tuple(x - y for x, y in zip(side.own, w, strict=True))
            for side, w in zip(sides, then, strict=True)
        ]
        way = mean(*(tuple(x - y for x, y in zip(w, p, strict=True)) for w, p in zip(then, phi, strict=True)))
        middle = mean(*phi)
        m = [
            tuple(a * o + b * d + g * (c - p) for o, d, c, p in zip(old, way, middle, slow, strict=True))
            for old, slow in zip(m, phi, strict=True)
        ]
        phi = [tuple(p + o for p, o in zip(*both, strict=True)) for both in zip(phi, m, strict=True)]
        for side, theirs in zip(sides, reversed(blobs), strict=True):
            side.move(theirs, 0.5)
        for side, slow, more in zip(sides, phi, since, strict=True):
            assert side.own == pytest.approx([p + s for p, s in zip(slow, more, strict=True)], abs=1e-9)


@pytest.mark.parametrize("abg", [(0.0, 1.0, 1.0), (0.5, 0.7, 0.7), (0.3, 0.7, 0.5)])
def test_only_the_piece_moves(abg: Numbers) -> None:
    sides = pair(abg, fragments=4)
    for turn in range(ROUNDS):
        for side in sides:
            side.learner.perform(Train(25))
        before = [side.own for side in sides]
        blobs = [side.write(turn) for side in sides]
        for side, theirs in zip(sides, reversed(blobs), strict=True):
            side.move(theirs, 0.5)
        moved = [
            [n for n in range(SIZE) if side.own[n] != old[n]] for side, old in zip(sides, before, strict=True)
        ]
        assert moved[0] == moved[1]
        assert len(moved[0]) == SIZE // 4
        if abg == (0.0, 1.0, 1.0):
            assert all(sides[0].own[n] == pytest.approx(sides[1].own[n]) for n in moved[0])


def test_plain_averaging_keeps_the_sum_whatever_the_weights_of_the_two() -> None:
    """The older moves by a quarter of the way, the younger by the rest: weighed, nothing is lost."""
    old, young = pair()
    for side, steps in ((old, 300), (young, 25)):
        side.learner.perform(Train(steps))
    before = [3 * x + y for x, y in zip(old.own, young.own, strict=True)]
    blobs = old.write(0), young.write(0)
    old.move(blobs[1], 0.25)
    young.move(blobs[0], 0.75)
    assert [3 * x + y for x, y in zip(old.own, young.own, strict=True)] == pytest.approx(before)
    assert old.own == pytest.approx(young.own)


def test_momentum_rests_where_nobody_trains() -> None:
    one, two = pair((0.5, 0.7, 0.7))
    for side in (one, two):
        side.averaging.start(1, SIZE, 1)
        side.learner.perform(Train(25))
    expected = mean(one.own, two.own)
    blobs = one.write(1), two.write(1)
    one.move(blobs[1], 0.5)
    assert one.own == pytest.approx(expected)


def measured(own: float, mixed: float) -> Evaluated:
    return Evaluated("mix", (own, mixed), (0.0,) * 2, (0.5,) * 2, (0.0, 1.0), 10)


@pytest.mark.parametrize(
    ("share", "mixed", "accepted"), [(0.5, 1.01, True), (0.9, 1.01, False), (0.9, 0.9, True)]
)
def test_an_age_leads_beyond_the_middle_only_where_that_is_better(
    share: float, mixed: float, accepted: bool
) -> None:
    """It is a claim; a mixture that hurts a little is let in otherwise."""
    (side, _) = pair()
    side.meeting.share = share
    assert side.averaging.accepts(side.meeting, measured(1.0, mixed)) is accepted
