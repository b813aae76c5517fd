"""What an engine does for a loop that is somebody's own."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from p2ptrain.core.effects import Adopt, Checkpoint, Combine, Evaluate, Fresh, Guide, OptimizerState, Publish
from p2ptrain.core.errors import ManifestError, WeightsError
from p2ptrain.core.inputs import Evaluated, Published
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.loop import Loop, OwnLoop, draw_anew, parts_of_loop
from p2ptrain.learn.losses import classification
from p2ptrain.learn.process.greeting import check_same, describe
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.weights.checkpoint import MemoryCheckpoints
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.learn.wire import Setup


def net_of(seed: int = 0, width: int = 8) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, 3))


class Eager(torch.optim.SGD):
    """Makes its state at once, as some do, and needs it."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter] = {"step": torch.tensor(0.0), "sum": torch.zeros_like(parameter)}

    def step(self, closure: Any = None) -> None:
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["step"] += 1
            self.state[parameter]["sum"] += parameter.grad
        super().step()


class Bench:
    """A net, its optimiser, and an engine for both."""

    def __init__(self, kind: Any = None, checkpoints: Any = None, **loop: Any) -> None:
        self.net = loop.pop("net", None) or net_of()
        self.optimizer = (kind or (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)))(self.net.parameters())
        inputs = torch.randn(40, 4)
        self.batch = inputs, (inputs.sum(1) > 0).long()
        given = {"evaluate": None, "held_out": self.batch, "loss": classification, "restart": None}
        keeps = loop.pop("keeps_start", True)
        self.loop = Loop(
            net=self.net,
            vector=Vector(self.net, gradients=False),
            optimizer=self.optimizer,
            keeps_start=keeps,
            **{**given, **loop},
        )
        self.steps = OwnLoop(self.loop)
        self.engine = Engine(
            Setup(task="attached:t", seed=3),
            MemoryBlobs(),
            checkpoints,
            build=lambda setup: parts_of_loop(self.loop, self.steps, setup),
        )

    @property
    def flat(self) -> torch.Tensor:
        return self.loop.vector.flat.clone()

    def train(self, count: int = 3) -> None:
        for _ in range(count):
            self.optimizer.zero_grad()
            classification(self.net, self.batch)[0].mean().backward()
            self.optimizer.step()
            self.steps.step += 1
            self.steps.samples += 40
        self.loop.vector.settle()

    def perform(self, effect: Any) -> Any:
        return self.engine.perform(effect)


def test_what_the_loop_trains_is_what_the_swarm_sees() -> None:
    bench = Bench()
    before = bench.flat
    bench.train()
    assert not torch.equal(before, bench.flat)
    first = next(bench.net.parameters())
    assert torch.equal(bench.flat[: first.numel()].view_as(first), first)


def test_the_seed_of_the_swarm_decides_on_the_start_and_mine_keeps_it() -> None:
    one, other = Bench(net=net_of(1), keeps_start=False), Bench(net=net_of(2), keeps_start=False)
    assert torch.equal(one.flat, other.flat)
    assert not torch.equal(Bench(net=net_of(1)).flat, one.flat)
    assert torch.equal(Bench(net=net_of(1)).flat, Bench(net=net_of(1)).flat)


def test_the_chance_of_the_loop_is_left_alone() -> None:
    bench = Bench()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    bench.perform(Evaluate("t", (OWN,)))
    bench.perform(Fresh(1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "kind",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.Adagrad(p, lr=0.01),
        Eager,
    ],
    ids=["sgd", "adam", "adagrad", "eager"],
)
def test_momentum_is_kept_or_forgotten_as_the_strategy_says(kind: Any) -> None:
    bench = Bench(kind)
    bench.train()
    own = bench.perform(Publish("t"))
    assert isinstance(own, Published)

    def remembered() -> float:
        state = bench.optimizer.state_dict()["state"]
        return sum(float(v.abs().sum()) for one in state.values() for v in one.values() if v is not None)

    before = remembered()
    bench.perform(Adopt("t", own.blob, OptimizerState.KEEP))
    assert remembered() == before > 0
    bench.perform(Adopt("t", own.blob, OptimizerState.RESET))
    assert remembered() == 0
    bench.train(1)  # an optimiser whose state was taken away must still be able to go on
    assert remembered() > 0


def test_the_rate_follows_the_swarm() -> None:
    bench = Bench()
    bench.perform(Fresh(1, lr_scale=0.5))
    assert bench.optimizer.param_groups[0]["lr"] == 0.05
    own = bench.perform(Publish("t"))
    bench.perform(Adopt("t", own.blob, OptimizerState.KEEP, 2.0))
    assert math.isclose(bench.optimizer.param_groups[0]["lr"], 0.2)


def test_a_break_costs_nothing() -> None:
    kept = MemoryCheckpoints()
    first = Bench(checkpoints=kept)
    first.train()
    first.perform(Checkpoint(b"thoughts"))
    second = Bench(checkpoints=kept, net=net_of(9))
    assert torch.equal(second.flat, first.flat)
    ready = second.engine.ready()
    assert (ready.step, ready.samples, ready.memory) == (3, 120, b"thoughts")
    for bench in (first, second):
        bench.batch = first.batch
        bench.train()
    assert torch.equal(second.flat, first.flat)


def test_another_optimiser_begins_anew_with_the_same_weights() -> None:
    kept = MemoryCheckpoints()
    first = Bench(checkpoints=kept)
    first.train()
    first.perform(Checkpoint(b""))
    second = Bench(lambda p: torch.optim.Adam(p, lr=0.01), checkpoints=kept)
    assert torch.equal(second.flat, first.flat)
    assert second.optimizer.state_dict()["state"] == {}


@pytest.mark.parametrize(
    ("result", "loss", "error", "accuracy"),
    [
        (0.5, 0.5, math.inf, math.nan),
        (torch.tensor([1.0, 3.0]), 2.0, 1.0, math.nan),
        ((torch.tensor([1.0, 3.0]), {"accuracy": torch.tensor([True, False])}), 2.0, 1.0, 0.5),
        ((0.25, {"accuracy": 0.75}), 0.25, math.inf, 0.75),
        (math.nan, math.nan, math.inf, math.nan),
    ],
)
def test_an_own_function_measures(result: Any, loss: float, error: float, accuracy: float) -> None:
    modes = []

    def evaluate(net: nn.Module) -> Any:
        modes.append((net.training, torch.is_grad_enabled()))
        return result

    bench = Bench(evaluate=evaluate, held_out=None)
    answer = bench.perform(Evaluate("t", (OWN,)))
    assert isinstance(answer, Evaluated)
    found = (answer.losses[0], answer.errors[0], answer.accuracies[0])
    assert found == pytest.approx((loss, error, accuracy), nan_ok=True)
    assert modes == [(False, False)]
    assert bench.net.training


def test_what_nobody_can_draw_is_named() -> None:
    net = nn.Module()
    net.linear = nn.Linear(2, 2)
    net.position = nn.Parameter(torch.zeros(3))
    with pytest.raises(ManifestError, match="draw `position` anew"):
        draw_anew(net)


def test_a_net_is_given_back() -> None:
    bench = Bench()
    bench.train()
    before = bench.flat
    bench.loop.vector.release(bench.net)
    storages = {parameter.untyped_storage().data_ptr() for parameter in bench.net.parameters()}
    assert len(storages) == len(list(bench.net.parameters()))
    assert torch.equal(Vector(bench.net).flat, before)


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        (["`a` [2]", "`b` [3]"], ["`a` [2]", "`b` [4]"], "it has `b` [4], and the swarm's `b` [3]"),
        (["`a` [2]"], ["`a` [2]", "`b` [4]"], "it has 2 tensors, and the swarm's 1"),
        ([f"`{i}` [2]" for i in range(2000)], ["`a` [2]"], "it has 1 tensors, and the swarm's 2000"),
    ],
)
def test_a_net_that_differs_is_told_apart(theirs: list[str], ours: list[str], said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        check_same(describe(theirs, "seed"), describe(ours, "seed"))
    assert said in caught.value.message
    check_same(describe(ours, "seed"), describe(ours, "seed"))


@pytest.mark.parametrize(
    ("theirs", "ours", "fix"),
    [("seed", "abc", 'start="seed"'), ("abc", "seed", 'start="mine"'), ("abc", "def", "load the same file")],
)
def test_another_start_is_noticed(theirs: str, ours: str, fix: str) -> None:
    with pytest.raises(ManifestError) as caught:
        check_same(describe(["`a` [2]"], theirs), describe(["`a` [2]"], ours))
    assert fix in caught.value.hint


def test_a_loop_shifts_its_weights_and_leaves_gradients_to_their_owner() -> None:
    bench = Bench()
    trained = bench.loop.vector.spec.trainable
    slot = Slot(Ref("a"))
    bench.perform(Combine("c", slot, ((0.01, OWN),)))
    before = bench.flat
    bench.engine.guide(Guide(shift=slot))
    bench.steps.shift()
    assert torch.equal(bench.flat[:trained], before[:trained] + (0.01 * before)[:trained])
    assert torch.equal(bench.flat[trained:], before[trained:])
    bench.engine.guide(None)
    bench.steps.shift()
    assert torch.equal(bench.flat[:trained], before[:trained] + (0.01 * before)[:trained])
    for guide in (Guide((0, 1)), Guide(towards=slot, pull=0.1), Guide(shift=Ref("b"))):
        with pytest.raises(WeightsError):
            bench.engine.guide(guide)


def test_a_loops_net_is_one_layer() -> None:
    ready = Bench().engine.ready()
    assert [layer.ranges for layer in ready.layers] == [((0, ready.numbers),)]
