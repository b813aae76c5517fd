"""Training equals plain PyTorch, and nothing but setup and effects decides on it."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from p2ptrain.core.effects import Adopt, Evaluate, Fresh, Halt, OptimizerState, Train
from p2ptrain.core.errors import ManifestError
from p2ptrain.core.inputs import Adopted, Trained
from p2ptrain.core.types import OWN
from p2ptrain.learn.data.splits import Order, split
from p2ptrain.learn.randomness import mix
from p2ptrain.learn.task import find
from p2ptrain.learn.wire import Setup


def weights(engine):
    return engine._trainer.vector.flat.clone()


def plain_loop(name: str, steps: int) -> nn.Module:
    """Train as a tutorial does, with the engine's seeds and order."""
    task, setup = find(name), Setup(task=name)
    cfg = task.configure({})
    splits = split(task, cfg, torch.device("cpu"), setup)
    order = Order(len(splits.training), cfg.batch_size, setup.seed, setup.slot)
    torch.manual_seed(mix("start", 0))
    net = task.model(cfg)
    optimizer = (
        task.optimizer(net, cfg)
        if task.optimizer
        else torch.optim.SGD(net.parameters(), lr=cfg.lr, momentum=cfg.momentum)
    )
    for step in range(steps):
        torch.manual_seed(mix("step", 0, step))
        result = task.loss(net, splits.training.take(order.places(step)))
        loss = result[0] if isinstance(result, tuple) else result
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("name", ["toys:plain", "toys:normed", "toys:pairs"])
def test_same_numbers_as_plain_pytorch(engine, name):
    flat = engine(name)
    flat.perform(Train(60))
    expected = plain_loop(name, 60).state_dict()
    for entry, view in flat._trainer.vector.views(weights(flat)):
        torch.testing.assert_close(view, expected[entry.name], rtol=1e-6, atol=1e-7)


def test_an_optimizer_that_is_not_elementwise_works_on_the_nets_own_tensors(engine, monkeypatch):
    class Own(torch.optim.SGD):
        """Needs the shapes, for all we know."""

    def optimizer(net, cfg):
        return Own(net.parameters(), lr=cfg.lr, momentum=cfg.momentum)

    toys = sys.modules["toys"]
    monkeypatch.setattr(toys, "own", replace(toys.plain, optimizer=optimizer), raising=False)
    usual, other = engine(), engine("toys:own")
    for one in (usual, other):
        one.perform(Train(30))
    assert len(other._trainer._optimizer.param_groups[0]["params"]) == 4
    assert len(usual._trainer._optimizer.param_groups[0]["params"]) == 1
    torch.testing.assert_close(weights(usual), weights(other))


@pytest.mark.parametrize("name", ["toys:plain", "toys:normed"])
def test_slices_and_other_engines_change_nothing(engine, name):
    whole, sliced, other = engine(name, steps=90), engine(name, steps=90), engine(name, seed=5)
    trained = whole.perform(Train(90))
    sliced.begin(Train(90))
    answer = None
    for steps in (1, 7, 0, 30, 2, 100):
        assert answer is None
        torch.manual_seed(steps)
        torch.randn(3)
        other.perform(Train(3))
        answer = sliced.advance(steps)
        if steps < 30:
            sliced.perform(Evaluate("x", (OWN,)))
    assert torch.equal(weights(whole), weights(sliced))
    assert (answer.step, answer.samples, answer.loss) == (90, 90 * 16, trained.loss)


def test_the_callers_randomness_is_left_alone(engine):
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    one = engine()
    one.perform(Fresh(1))
    one.perform(Train(5))
    one.perform(Evaluate("x", (OWN,)))
    assert torch.equal(torch.randn(4), expected)


def test_seeds(engine):
    runs = {}
    for name, setup in {
        "same": {},
        "again": {},
        "peer": {"peer_seed": 1},
        "slot": {"slot": 1},
        "seed": {"seed": 1},
    }.items():
        one = engine(**setup)
        start = weights(one)
        one.perform(Train(10))
        runs[name] = (start, weights(one))
    assert torch.equal(runs["same"][1], runs["again"][1])
    for name in ("peer", "slot"):
        assert torch.equal(runs["same"][0], runs[name][0])
        assert not torch.equal(runs["same"][1], runs[name][1])
    assert not torch.equal(runs["same"][0], runs["seed"][0])


def test_fresh_starts_anew_from_a_seed_and_a_rate(engine):
    one, other = engine(), engine(seed=9)
    start = weights(one)
    one.perform(Train(20))
    assert one.perform(Fresh(9, lr_scale=0.5)) == Adopted("fresh")
    assert torch.equal(weights(one), weights(other))
    assert one._trainer.lr_scale == 0.5
    assert not one._trainer._optimizer.state
    one.perform(Fresh(0))
    assert torch.equal(weights(one), start)
    assert one.perform(Train(1)).step == 21


def test_momentum_is_kept_or_forgotten(engine):
    kept, reset, alone = engine(), engine(), engine()
    for one in (kept, reset, alone):
        one.perform(Train(20))
    kept.perform(Adopt("a", OWN, OptimizerState.KEEP))
    reset.perform(Adopt("a", OWN, OptimizerState.RESET))
    for one in (kept, reset, alone):
        one.perform(Train(1))
    assert torch.equal(weights(kept), weights(alone))
    assert not torch.equal(weights(kept), weights(reset))


def test_the_learning_rate_falls_to_a_tenth(engine):
    one = engine(steps=100)
    rates = []
    for _ in range(4):
        one.perform(Train(1))
        rates.append(one._trainer._optimizer.param_groups[0]["lr"])
        one.perform(Train(39))
    assert rates == pytest.approx([0.05, 0.05 * 0.64, 0.05 * 0.28, 0.05 * 0.1])
    one.perform(Adopt("a", OWN, lr_scale=2.0))
    one.perform(Train(1))
    assert one._trainer._optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
    endless = engine()
    endless.perform(Train(50))
    assert endless._trainer._optimizer.param_groups[0]["lr"] == 0.05


def test_halt_answers_for_the_steps_taken(engine):
    one = engine()
    assert one.perform(Halt()) is None
    assert one.begin(Train(100)) is None
    assert one.advance(30) is None
    answer = one.perform(Halt())
    assert isinstance(answer, Trained)
    assert answer.step == 30
    assert one.advance(30) is None
    assert not one.is_training
    nothing = one.perform(Train(0))
    assert nothing.step == 30
    assert math.isnan(nothing.loss)


def test_a_second_train_adds_its_steps(engine):
    one = engine()
    one.begin(Train(5))
    one.begin(Train(5))
    assert one.advance(9) is None
    assert one.advance(9).step == 10


def test_a_slice_ends_in_time(engine):
    one = engine()
    one._clock = iter(range(1000)).__next__
    one.begin(Train(100))
    assert one.advance(seconds=10) is None
    assert one._trainer.step == 10


def test_divergence_is_a_number_not_an_accident(engine):
    one = engine(task_config={"lr": 3e38})
    assert not math.isfinite(one.perform(Train(20)).loss)
    assert not math.isfinite(one.perform(Evaluate("x", (OWN,))).losses[0])
    one.perform(Fresh(0, lr_scale=1e-40))
    assert math.isfinite(one.perform(Train(20)).loss)


def test_choosing_threads_leaves_no_trace(engine):
    one, other = engine(), engine()
    for each in (one, other):
        each.perform(Train(5))
    one.choose_threads()
    for each in (one, other):
        each.perform(Train(5))
    assert torch.get_num_threads() == 1
    assert torch.equal(weights(one), weights(other))


def test_batches_must_have_examples(engine):
    with pytest.raises(ManifestError, match="batches of 0"):
        engine(task_config={"batch_size": 0})
