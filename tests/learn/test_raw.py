"""Numbers for rings: written as they are, taken over only if they are usable weights."""

import numpy as np
import pytest
import torch

from p2ptrain.core.effects import Combine, Evaluate, Train
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import Evaluated
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.learn.weights.raw import move
from p2ptrain.learn.wire import Export, Import

A, B = Slot(Ref("a")), Slot(Ref("b"))


def test_all_numbers_come_back_as_they_were(engine, tmp_path):
    one, file = engine("toys:normed"), str(tmp_path / "x")
    one.perform(Train(3))
    count = len(one.numbers(OWN, ()))
    moved = move(one, Export("t", OWN, file))
    assert (moved.tag, moved.numbers, moved.reason) == ("t", count, "")
    assert np.fromfile(file, np.float32).tobytes() == one.numbers(OWN, ()).numpy().tobytes()
    assert move(one, Import("u", A, file)).numbers == count
    assert torch.equal(one.numbers(A, ()), one.numbers(OWN, ()))
    evaluated = one.perform(Evaluate("e", (OWN, A)))
    assert isinstance(evaluated, Evaluated)
    assert evaluated.losses[0] == evaluated.losses[1]


def test_what_was_written_does_not_change_with_training(engine):
    one = engine()
    before = one.numbers(OWN, ())
    kept = before.clone()
    one.perform(Train(3))
    assert torch.equal(before, kept)
    assert not torch.equal(one.numbers(OWN, ()), kept)


def test_ranges_are_written_and_change_alone(engine, tmp_path):
    one, file, ranges = engine(), str(tmp_path / "x"), ((1, 4), (7, 8))
    assert move(one, Export("t", OWN, file, ranges)).numbers == 4
    one.perform(Combine("c", B, ((2.0, OWN),)))
    doubled = one.numbers(B, ())
    for slot, elsewhere in ((A, torch.zeros_like(doubled)), (B, doubled)):
        assert move(one, Import("t", slot, file, ranges)).numbers == 4
        expected = elsewhere.clone()
        for begin, end in ranges:
            expected[begin:end] = one.numbers(OWN, ())[begin:end]
        assert torch.equal(one.numbers(slot, ()), expected)


@pytest.mark.byzantine
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_no_weights_are_refused(engine, tmp_path, value):
    one, file = engine(), tmp_path / "x"
    numbers = one.numbers(OWN, ()).numpy().copy()
    numbers[3] = value
    numbers.tofile(file)
    moved = move(one, Import("t", A, str(file)))
    assert moved.numbers == 0
    assert "length" in moved.reason
    with pytest.raises(WeightsError):
        one.numbers(A, ())


def test_own_weights_that_are_not_finite_are_not_given(engine, tmp_path):
    one = engine()
    one._trainer.vector.flat[0] = torch.nan
    moved = move(one, Export("t", OWN, str(tmp_path / "x")))
    assert moved.reason == "the weights are not finite"
    assert not (tmp_path / "x").exists()


def test_a_file_of_another_length_is_refused(engine, tmp_path):
    one, file = engine(), tmp_path / "x"
    one.numbers(OWN, ()).numpy()[:-1].tofile(file)
    assert "places" in move(one, Import("t", A, str(file))).reason


def test_what_is_not_there_is_said(engine, tmp_path):
    one = engine()
    assert "no weights called" in move(one, Export("t", A, str(tmp_path / "x"))).reason
    assert "could not be moved" in move(one, Import("t", A, str(tmp_path / "none"))).reason
