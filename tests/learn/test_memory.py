"""Batches are cut until they fit, the gradient stays, and the owner reads why."""

import sys
from dataclasses import replace

import pytest
import torch

from p2ptrain.core.effects import Evaluate, Train
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.types import OWN
from p2ptrain.learn.task import find
from p2ptrain.learn.training import memory
from p2ptrain.learn.wire import Setup

FULL = [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory")]


@pytest.fixture
def narrow(engine):
    """An engine on a device where no more than so many examples fit."""

    def make(most, error, base="toys:plain"):
        task = find(base)

        def loss(net, batch):
            if len(batch[0]) > most:
                raise error
            return task.loss(net, batch)

        sys.modules["toys"].narrow = replace(task, loss=loss)
        return engine("toys:narrow", task_config={"dropout": 0.0})

    return make


def weights(engine):
    return engine._trainer.vector.flat.clone()


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_pieces_that_fit_give_the_same_gradient(engine, narrow, error):
    whole, cut = engine(task_config={"dropout": 0.0}), narrow(5, error)
    for one in (whole, cut):
        one.perform(Train(20))
    torch.testing.assert_close(weights(whole), weights(cut), rtol=1e-4, atol=1e-6)
    assert cut.notices == [
        "batches of 16 in 2 pieces: memory is full",
        "batches of 16 in 4 pieces: memory is full",
    ]
    measured = [one.perform(Evaluate("x", (OWN,))).losses[0] for one in (whole, cut)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)


def test_pieces_of_unequal_size_count_by_their_size(engine):
    whole, cut = engine(task_config={"dropout": 0.0}), engine(task_config={"dropout": 0.0})
    cut._trainer.pieces.count = 3
    losses = [one.perform(Train(1)).loss for one in (whole, cut)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(weights(whole), weights(cut), rtol=1e-5, atol=1e-7)


def test_what_batch_norm_sees_is_said(narrow):
    cut = narrow(8, FULL[0], "toys:normed")
    cut.perform(Train(1))
    assert cut.notices == ["batches of 16 in 2 pieces: memory is full; batch norm sees 8 examples at once"]


def test_what_never_fits_and_other_errors_are_not_hidden(narrow):
    with pytest.raises(torch.OutOfMemoryError):
        narrow(0, FULL[0])
    engine = narrow(2, FULL[0])
    with pytest.raises(RuntimeError, match="shapes"):
        engine._trainer.pieces.fitting(lambda _: (_ for _ in ()).throw(RuntimeError("shapes")))


@pytest.fixture
def weighed(engine, monkeypatch):
    """An engine whose process takes 1 GiB, and an eighth for each example in the net at once."""
    one = engine(task_config={"dropout": 0.0})
    trainer, peaks = one._trainer, [1.0]
    step = trainer.take_step

    def take_step():
        peaks.append(max(peaks[-1], 1 + 0.125 * 16 / trainer.pieces.count))
        return step()

    monkeypatch.setattr(trainer, "take_step", take_step)
    monkeypatch.setattr(memory, "_peak_bytes", lambda: peaks[-1] * 2**30)
    return one


@pytest.mark.parametrize(("gb", "pieces"), [(4.0, 1), (3.0, 2), (2.1, 2), (1.9, 4), (1.3, 8)])
def test_memory_on_a_cpu_is_bounded_before_it_is_taken(weighed, gb, pieces):
    before = weights(weighed)
    weighed.tune(Setup(task="toys:plain", threads=1, memory_gb=gb))
    assert weighed._trainer.pieces.count == pieces
    assert memory._peak_bytes() < gb * 2**30
    said = [f"batches of 16 in {pieces} pieces: `memory_gb` is {gb:g}"]
    assert weighed.notices == (said if pieces > 1 else [])
    assert torch.equal(weights(weighed), before)


def test_too_little_memory_is_a_sentence(weighed):
    with pytest.raises(ConfigError, match=r"takes 1\.2 GB here, more than `memory_gb = 1`") as refused:
        weighed.tune(Setup(task="toys:plain", threads=1, memory_gb=1.0))
    assert "1.5 or more" in refused.value.hint
