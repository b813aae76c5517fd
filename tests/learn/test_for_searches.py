"""What strategies that search need of an engine: random points in slots, and sure differences."""

import math

import pytest
import torch

from p2ptrain.core.effects import Adopt, Combine, Evaluate, Fresh, OptimizerState, Split, Train
from p2ptrain.core.inputs import Combined
from p2ptrain.core.types import OWN, Ref, Slot
from tests.learn.test_loop import Bench

A, B = Slot(Ref("a")), Slot(Ref("b"))


def test_random_weights_are_drawn_into_a_slot_and_nothing_else_changes(engine):
    plain, drawing, other = engine("toys:normed"), engine("toys:normed"), engine("toys:normed")
    for one in (plain, drawing):
        one.perform(Train(10))
    assert drawing.perform(Fresh(7, out=A)) == Combined("fresh")
    for one in (plain, drawing):
        one.perform(Train(10))
    assert torch.equal(plain._trainer.vector.flat, drawing._trainer.vector.flat)
    other.perform(Fresh(7))
    assert torch.equal(drawing._refs.get(A), other._trainer.vector.flat)


def test_what_is_the_same_at_every_start_cancels_out(engine):
    """As `restart` adds noise: the gains and variances of normalisation stay."""
    one = engine("toys:normed")
    one.perform(Train(5))
    before = one._trainer.vector.flat.clone()
    one.perform(Fresh(1, out=A))
    one.perform(Fresh(2, out=B))
    fixed = one._refs.get(A) == one._refs.get(B)
    one.perform(Combine("point", A, ((1.0, OWN), (0.3, A), (-0.3, B))))
    one.perform(Adopt("adopt", A, OptimizerState.RESET))
    moved = one._trainer.vector.flat - before
    assert 0 < int(fixed.sum()) < len(fixed)
    assert float(moved[fixed].abs().max()) < 1e-6
    assert float(moved[~fixed].abs().min()) > 0


def test_the_difference_of_two_losses_is_surer_than_both(engine):
    one = engine()
    one.perform(Train(50))
    one.perform(Combine("c", A, ((0.98, OWN),)))
    answer = one.perform(Evaluate("t", (OWN, A), Split.TEST))
    inputs, classes = one._splits.test.take(slice(None))
    losses = []
    for scale in (1.0, 0.98):
        with torch.no_grad():
            one._trainer.vector.flat.mul_(scale)
            scores = one._trainer.net.eval()(inputs)
        losses.append(torch.nn.functional.cross_entropy(scores, classes, reduction="none"))
    due = float((losses[1] - losses[0]).std() / 50**0.5)
    assert answer.differences[0] == 0.0
    assert answer.differences[1] == pytest.approx(due, rel=1e-3)
    assert answer.differences[1] < 0.5 * min(answer.errors)


def test_of_one_number_nothing_is_known(engine):
    one = engine("toys:normed")  # its loss is for the whole batch
    answer = one.perform(Evaluate("t", (OWN, OWN), examples_max=3))
    assert all(map(math.isnan, answer.differences))


def test_an_own_loop_draws_too_and_stays_where_it_is():
    drawing, other = Bench(), Bench()
    before = drawing.flat.clone()
    assert drawing.perform(Fresh(7, out=A)) == Combined("fresh")
    assert torch.equal(drawing.flat, before)
    other.perform(Fresh(7))
    drawing.perform(Adopt("t", A))
    assert torch.equal(drawing.flat, other.flat)
