"""How a net computes changes nothing but rounding, and what is tried for it leaves no trace."""

import itertools
import sys
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from p2ptrain.core.effects import Evaluate, Train
from p2ptrain.core.types import OWN
from p2ptrain.learn.task import find
from p2ptrain.learn.training import tuning
from p2ptrain.learn.training.precision import Manner, convolves, manner_of
from p2ptrain.learn.wire import Setup

CPU = torch.device("cpu")


def pictures(cfg, split):
    images = torch.randn(120 if split == "train" else 40, 3, 8, 8)
    return TensorDataset(images, (images[:, 0].mean((1, 2)) > 0).long())


def conv(cfg):
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 3)
    )


@pytest.fixture
def seeing():
    """A task with convolutions."""
    sys.modules["toys"].conv = replace(find("toys:plain"), model=conv, data=pictures)
    return "toys:conv"


def weights(engine):
    return engine._trainer.vector.flat.clone()


def test_the_layout_of_pictures_changes_rounding_only(engine, seeing):
    usual, other = engine(seeing), engine(seeing)
    other._trainer.manner.channels_last = True
    seen = []
    other._trainer.net[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for one in (usual, other):
        one.perform(Train(5))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)
    torch.testing.assert_close(weights(usual), weights(other), rtol=1e-4, atol=1e-5)
    assert not torch.equal(weights(usual), weights(engine(seeing)))


def test_bf16_trains_and_measures_and_weights_stay_float32(engine, seeing):
    exact, other, again = engine(seeing), engine(seeing, precision="bf16"), engine(seeing, precision="bf16")
    inner = []
    other._trainer.net[0].register_forward_hook(lambda *args: inner.append(args[2].dtype))
    for one in (exact, other, again):
        one.perform(Train(30))
    assert set(inner) == {torch.bfloat16}
    assert weights(other).dtype == torch.float32
    assert torch.equal(weights(other), weights(again))
    assert not torch.equal(weights(other), weights(exact))
    losses = [one.perform(Evaluate("x", (OWN,))).losses[0] for one in (exact, other)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert losses[0] != losses[1]


def test_batches_of_any_form_are_laid_out():
    pair = namedtuple("pair", "x y")
    images, numbers = torch.rand(2, 3, 4, 4), torch.arange(2)
    batch = pair({"a": [images, images.byte()]}, (numbers, "name"))
    seen = Manner(CPU, channels_last=True).apply(lambda net, batch: batch, nn.Identity(), batch)
    assert isinstance(seen, pair)
    assert seen.x["a"][0].is_contiguous(memory_format=torch.channels_last)
    assert seen.x["a"][1].is_contiguous()
    assert seen.y[1] == "name"
    assert seen.y[0] is numbers


def test_what_is_safe_comes_first_on_a_cpu():
    assert manner_of(CPU, conv(None), "auto") == Manner(CPU)
    assert manner_of(CPU, conv(None), "bf16").bf16
    assert convolves(conv(None))
    assert not convolves(nn.Conv1d(1, 1, 1))


@pytest.mark.parametrize("pays", [True, False])
def test_what_is_faster_is_found_without_a_trace(engine, seeing, monkeypatch, pays):
    tuned, other = engine(seeing, precision="auto"), engine(seeing)
    for one in (tuned, other):
        one.perform(Train(3))
    others = itertools.count()

    def clocked(step):
        """Whoever else uses the computer makes every other turn ten times as long."""
        step()
        manner, busy = tuned._trainer.manner, 10.0 if next(others) // 2 % 2 else 1.0
        return busy * (0.5 if pays else 1.1) ** (manner.bf16 + manner.channels_last)

    monkeypatch.setattr(tuning, "seconds_of_one", clocked)
    monkeypatch.setattr(tuning, "cpu_has_bf16", lambda: True)
    tuned.tune(Setup(task=seeing, precision="auto", threads=1))
    assert tuned._trainer.manner == Manner(CPU, pays, pays)
    assert tuned.manner == (", in bf16" if pays else "")
    assert torch.equal(weights(tuned), weights(other))
    assert tuned._trainer.step == 3
    tuned._trainer.manner.bf16 = tuned._trainer.manner.channels_last = False
    for one in (tuned, other):
        one.perform(Train(3))
    assert torch.equal(weights(tuned), weights(other))


def test_who_cannot_compile_says_why_and_trains_on(engine, monkeypatch):
    one, other = engine(), engine()

    def compiled(net):
        def refuse(*_):
            raise RuntimeError("\nno C++ compiler\nis here")

        net._compiled_call_impl = refuse

    monkeypatch.setattr(nn.Module, "compile", compiled)
    one.tune(Setup(task="toys:plain", threads=1, compile=True))
    assert one.notices == ["the net is not compiled: no C++ compiler"]
    for each in (one, other):
        each.perform(Train(3))
    assert torch.equal(weights(one), weights(other))
