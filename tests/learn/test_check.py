"""`task check`: each thing that is wrong with a task is one sentence, and only one."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, make_dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from torch.utils.data import Dataset, TensorDataset

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError
from p2ptrain.learn import check as checks
from p2ptrain.learn.check import Checked, check, running
from p2ptrain.learn.task import Task
from tests.learn.conftest import Config, data, plain


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SPEED_S", 0.001)


@pytest.fixture(autouse=True)
def module() -> Iterator[ModuleType]:
    made = ModuleType("broken")
    sys.modules["broken"] = made
    yield made
    del sys.modules["broken"]


def loss(net: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    inputs, classes = batch
    scores = net(inputs)
    return cross_entropy(scores, classes, reduction="none"), {"accuracy": scores.argmax(1) == classes}


def sgd(net: nn.Module, cfg: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


SOUND = Task(
    "sound",
    version="1",
    model=plain,
    data=data,
    loss=loss,
    config=Config,
    optimizer=sgd,
    sample=lambda *_: "",
)


def look(module: ModuleType, task: Any, **settings: Any) -> Checked:
    module.task = task  # type: ignore[attr-defined]
    return check("broken:task", settings, "cpu")


def said(checked: Checked, state: str = "broken") -> list[tuple[str, str]]:
    return [(one.name, one.said) for one in checked.findings if one.state == state]


def test_a_sound_task_has_no_fault_and_its_figures_are_known(module: ModuleType) -> None:
    checked = look(module, SOUND, batch_size=8)
    assert said(checked) == said(checked, "skipped") == said(checked, "note") == []
    assert not checked.broken
    assert [one.name for one in checked.findings] == [part.name for part in checks.PARTS]
    figures = checked.figures
    assert figures.parameters == 4 * 8 + 8 + 8 * 3 + 3
    assert figures.megabytes["f32"] > figures.megabytes["bf16"] > 0
    assert figures.samples_per_s > 0
    assert figures.memory_bytes > 0
    assert (figures.train_examples, figures.test_examples) == (200, 50)
    assert figures.train_digest != figures.test_digest
    assert len(figures.package_sha256) == 64
    assert look(module, SOUND).figures.train_digest == figures.train_digest


@pytest.mark.parametrize("name", ["digits", "fashion"])
def test_built_in_tasks_are_sound(name: str) -> None:
    assert said(check(name, {}, "cpu")) == []


# -- broken ones -----------------------------------------------------------------------------------


@dataclass
class Melting:
    lr: float = 0.1


@dataclass(frozen=True)
class Needy:
    width: int


@dataclass(frozen=True)
class Shapely:
    sizes: tuple[int, int] = (1, 2)


@dataclass(frozen=True)
class Wordy:
    lr: float = "high"  # type: ignore[assignment]


class Layer(nn.Module):
    """A net with something special in its forward pass."""

    def __init__(self, act: Callable[[Tensor, "Layer"], Tensor], **tensors: Tensor) -> None:
        super().__init__()
        self.first, self.last, self.act = nn.Linear(4, 8), nn.Linear(8, 3), act
        self.calls = 0
        for name, tensor in tensors.items():
            setattr(self, name, tensor)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.last(self.act(self.first(inputs).tanh(), self))
        return scores


def acting(act: Callable[[Tensor, Layer], Tensor], **tensors: Tensor) -> Task:
    return replace(SOUND, model=lambda _: Layer(act, **tensors))


sizes = iter(range(8, 10_000))


def growing(_: Config) -> nn.Module:
    width = next(sizes)
    return nn.Sequential(nn.Linear(4, width), nn.Linear(width, 3))


def by_another_generator(cfg: Config) -> nn.Module:
    net = plain(cfg)
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(np.random.default_rng().normal(size=(8, 4))))
    return net


def misfit(_: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(9, 3))


def half(_: Config) -> nn.Module:
    return nn.Linear(4, 3).half()


def frozen(_: Config) -> nn.Module:
    return nn.Linear(4, 3).requires_grad_(False)


def unused(cfg: Config) -> nn.Module:
    net = plain(cfg)
    net.spare = nn.Linear(4, 4)
    net.forward = lambda inputs: net[3](net[2](net[1](net[0](inputs))))  # type: ignore[method-assign]
    return net


def some_data(train: Any, test: Any = None) -> Task:
    made = {"train": train, "test": test if test is not None else data(Config(), "test")}
    return replace(SOUND, data=lambda _, split: made[split]() if callable(made[split]) else made[split])


def shuffled() -> TensorDataset:
    inputs = torch.arange(400.0).view(100, 4) / 400
    order = list(range(100))
    np.random.shuffle(order)
    return TensorDataset(inputs[order], torch.arange(100) % 3)


lengths = iter(range(100, 10_000))


def longer() -> TensorDataset:
    return TensorDataset(torch.zeros(count := next(lengths), 4), torch.zeros(count, dtype=torch.int64))


def gaps() -> TensorDataset:
    return TensorDataset(torch.full((100, 4), torch.nan), torch.zeros(100, dtype=torch.int64))


class Unreadable(Dataset[Any]):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> Any:
        raise OSError("the disk is gone")


class Endless(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([])


def losing(change: Callable[[Tensor], Any]) -> Task:
    return replace(SOUND, loss=lambda net, batch: change(loss(net, batch)[0]))


def with_metric(metric: Any) -> Task:
    return replace(SOUND, loss=lambda net, batch: (loss(net, batch)[0], {"accuracy": metric}))


class Root(torch.autograd.Function):
    """A value that is right and a gradient that is not."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * torch.nan


class Wall(Root):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 0


class Worse(Root):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Remembering(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["history"] = [1.0, 2.0]


class Asleep(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        pass


def optimizing(kind: Any, **settings: Any) -> Task:
    return replace(SOUND, optimizer=lambda net, cfg: kind(net.parameters(), **settings))


def measuring(net: nn.Module, batch: Any) -> Any:
    for parameter in net.parameters():
        parameter.data += 0.01
    return loss(net, batch)


def in_training_mode(net: nn.Module, batch: Any) -> Any:
    return loss(net.train(), batch)


def normed(_: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def noisy(net: nn.Module, batch: Any) -> Any:
    return loss(net, batch)[0] + np.random.normal()


def noisy_training(net: nn.Module, batch: Any) -> Any:
    factor = np.random.uniform(0.5, 1.5) if net.training else 1.0
    return loss(net, batch)[0] * factor


def counting(inner: Tensor, net: Layer) -> Tensor:
    net.calls += net.training
    return inner * (1 + 0.1 * net.calls if net.training else 1)


def remembering(inner: Tensor, net: Layer) -> Tensor:
    if net.training:
        net.mean = 0.5 * net.mean + inner.detach().mean(0)  # type: ignore[assignment]
    return inner - net.mean


def failing_sample(net: nn.Module, cfg: Any, prompt: str) -> str:
    return prompt[5]


def raising(*_: Any) -> Any:
    raise KeyError("no such thing")


BROKEN: dict[str, tuple[Any, str, str]] = {
    # name: the task, the check that finds it, words of the sentence
    "not a task": (object(), "task", "is a object, not a task"),
    "no function": (replace(SOUND, loss=0.5), "task", "`loss` of the task is a float"),  # type: ignore[arg-type]
    "no version": (replace(SOUND, version=1), "task", "are no words"),  # type: ignore[arg-type]
    "config melts": (replace(SOUND, config=Melting), "config", "can change"),
    "config is no dataclass": (replace(SOUND, config=dict), "config", "`dict` is no dataclass"),
    "setting without default": (replace(SOUND, config=Needy), "config", "`width` has no default"),
    "setting that cannot travel": (replace(SOUND, config=Shapely), "config", "`sizes` is a tuple"),
    "setting of another type": (replace(SOUND, config=Wordy), "config", "another type than it declares"),
    "batches of none": (
        replace(
            SOUND,
            config=make_dataclass("Empty", [("batch_size", int, field(default=0))], frozen=True),
        ),
        "config",
        "batches of 0",
    ),
    "model raises": (replace(SOUND, model=raising), "model", "cannot be built: KeyError: 'no such thing'"),
    "model is none": (replace(SOUND, model=lambda _: [1]), "model", "gives a list"),  # type: ignore[arg-type]
    "model grows": (replace(SOUND, model=growing), "model", "built differently each time: `0.weight` is"),
    "model by another generator": (
        replace(SOUND, model=by_another_generator),
        "model",
        "other weights each time, in spite of the same seed: `0.weight`",
    ),
    "model of halves": (replace(SOUND, model=half), "model", "is torch.float16"),
    "model without parameters": (replace(SOUND, model=lambda _: nn.ReLU()), "model", "no parameters"),
    "model frozen": (replace(SOUND, model=frozen), "model", "no parameters to train"),
    "data raises": (some_data(raising), "train data", "cannot be loaded: KeyError"),
    "data is empty": (some_data(TensorDataset(torch.zeros(0, 4))), "train data", "has no train data"),
    "data cannot be indexed": (some_data(Endless()), "train data", "cannot be indexed"),
    "data is unreadable": (
        some_data(Unreadable()),
        "train data",
        "example 0 of the train data cannot be read",
    ),
    "data is shuffled": (some_data(shuffled), "train data", "not the same twice"),
    "data grows": (some_data(longer), "train data", "examples, then"),
    "data has gaps": (some_data(gaps), "train data", "holds NaN"),
    "too little data": (
        some_data(TensorDataset(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))),
        "division",
        "too few",
    ),
    "test data is missing": (some_data(data(Config(), "train"), raising), "test data", "cannot be loaded"),
    "test data is empty": (
        some_data(data(Config(), "train"), TensorDataset(torch.zeros(0, 4))),
        "test data",
        "has no test data",
    ),
    "layers do not fit": (
        replace(SOUND, model=misfit),
        "loss",
        "the layer `1` (Linear) cannot take a batch of the shapes 16x4 and 16: RuntimeError: mat1 and mat2",
    ),
    "data does not fit the net": (
        some_data(
            TensorDataset(torch.zeros(100, 5), torch.zeros(100, dtype=torch.int64)),
            TensorDataset(torch.zeros(100, 5), torch.zeros(100, dtype=torch.int64)),
        ),
        "loss",
        "the layer `0` (Linear) cannot take a batch of the shapes 16x5 and 16",
    ),
    "loss raises": (replace(SOUND, loss=raising), "loss", "`loss` cannot take a batch"),
    "collate raises": (replace(SOUND, collate=raising), "loss", "a batch of the train data cannot be made"),
    "prepare raises": (replace(SOUND, prepare=raising), "loss", "`prepare` fails"),
    "loss is a number": (losing(lambda value: 0.5), "loss", "`loss` gives a float"),
    "loss is an integer": (losing(lambda value: torch.ones(16, dtype=torch.int64)), "loss", "torch.int64"),
    "loss of another length": (losing(lambda value: value[:5]), "loss", "5 numbers for 16 examples"),
    "accuracy is a number": (with_metric(0.5), "loss", "the metric `accuracy` of `loss` is float"),
    "accuracy of another length": (with_metric(torch.ones(3)), "loss", "is 3"),
    "loss is NaN": (losing(lambda value: value * torch.nan), "loss", "the loss is nan at the start"),
    "loss is infinite": (losing(lambda value: value / 0), "loss", "the loss is inf at the start"),
    "loss is detached": (losing(lambda value: value.detach()), "loss", "has no gradient"),
    "a layer is unused": (replace(SOUND, model=unused), "gradient", "never get a gradient: `spare.weight`"),
    "a layer is detached": (
        acting(lambda inner, _: inner.detach()),
        "gradient",
        "never get a gradient: `first.weight`, `first.bias`",
    ),
    "gradient is NaN": (
        acting(lambda inner, _: Root.apply(inner)),
        "gradient",
        "its gradient is not: `first.",
    ),
    "gradient is zero": (losing(Wall.apply), "gradient", "zero everywhere"),
    "optimizer raises": (replace(SOUND, optimizer=raising), "optimizer", "the optimiser cannot be built"),
    "optimizer is none": (replace(SOUND, optimizer=lambda *_: 1), "optimizer", "gives a int"),  # type: ignore[arg-type]
    "optimizer wants a closure": (optimizing(torch.optim.LBFGS), "optimizer", "cannot take a step"),
    "optimizer sleeps": (optimizing(Asleep, lr=0.1), "optimizer", "changes nothing"),
    "optimizer keeps a list": (optimizing(Remembering, lr=0.1), "optimizer", "keeps a list"),
    "learning rate too small": (optimizing(torch.optim.SGD, lr=1e-5), "learning", "but Adam"),
    "learning rate too large": (optimizing(torch.optim.SGD, lr=1e30), "learning", "training diverges"),
    "gradient points up": (losing(Worse.apply), "learning", "cannot learn even one batch"),
    "evaluate raises": (replace(SOUND, evaluate=raising), "evaluation", "`evaluate` cannot take a batch"),
    "evaluate trains": (replace(SOUND, evaluate=measuring), "evaluation", "measuring changes the net: `0."),
    "evaluate in training mode": (
        replace(SOUND, model=normed, evaluate=in_training_mode),
        "evaluation",
        "measuring changes the net: `1.running_mean`",
    ),
    "evaluate by another generator": (
        replace(SOUND, evaluate=noisy),
        "evaluation",
        "two measurements of the same weights differ",
    ),
    "dropout is always on": (
        acting(lambda inner, _: dropout(inner, 0.5)),
        "evaluation",
        "a measurement depends on chance",
    ),
    "training by another generator": (
        replace(SOUND, loss=noisy_training),
        "seed",
        "two runs from the same seed differ",
    ),
    "the net counts": (acting(counting), "resume", "goes on from a checkpoint differs"),
    "sample raises": (replace(SOUND, sample=failing_sample), "sample", "`sample` fails: IndexError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_is_one_sentence(name: str, module: ModuleType) -> None:
    task, part, words = BROKEN[name]
    checked = look(module, task)
    found = said(checked)
    assert len(found) == 1, found
    assert found[0][0] == part
    assert words in found[0][1]
    assert "\n" not in found[0][1]
    assert checked.broken


def test_what_does_not_travel_is_found_when_weights_come_to_another_peer(module: ModuleType) -> None:
    """It is also what a checkpoint forgets: two faults."""
    checked = look(module, acting(remembering, mean=torch.zeros(8)))
    assert [name for name, _ in said(checked)] == ["resume", "weights"]
    assert "on a peer that received them" in said(checked)[1][1]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("BLOB_BYTES_MAX", "too many to be sent"),
        ("BLOB_HEADER_BYTES_MAX", "the names and shapes of the model"),
    ],
)
def test_a_model_can_be_too_large_to_travel(
    limit: str, words: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, limit, 200)
    ((part, sentence),) = said(look(module, SOUND))
    assert part == "size"
    assert words in sentence


def test_several_faults_are_a_sentence_each(module: ModuleType) -> None:
    task = replace(
        SOUND, evaluate=noisy, sample=failing_sample, optimizer=optimizing(Asleep, lr=0.1).optimizer
    )
    assert [name for name, _ in said(look(module, task))] == ["optimizer", "evaluation", "sample"]


def test_a_loss_for_the_batch_is_fine_but_could_be_better(module: ModuleType) -> None:
    checked = look(module, losing(lambda value: value.mean()))
    assert not checked.broken
    ((part, sentence),) = said(checked, "note")
    assert part == "loss"
    assert "one number a batch" in sentence


def test_a_module_that_cannot_be_imported_is_named_with_the_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "half_written.py").write_text("import torch\n\ntask = Task(\n")
    (tmp_path / "mistyped.py").write_text("import torch\n\ntask = Task()\n")
    for name, words in (("half_written", "SyntaxError"), ("mistyped", "NameError: name 'Task'")):
        ((part, sentence),) = said(check(f"{name}:task", {}, "cpu"))
        assert part == "task"
        assert words in sentence
        assert f"({name}.py, line 3)" in sentence


def test_an_unknown_task_and_an_unknown_setting_are_sentences(module: ModuleType) -> None:
    ((_, sentence),) = said(check("fashon", {}, "cpu"))
    assert "no task `fashon`" in sentence
    ((part, sentence),) = said(look(module, SOUND, with_of_layer=3))
    assert part == "config"
    assert "no setting `with_of_layer`" in sentence


def test_a_device_that_is_not_here_is_no_fault_of_the_task() -> None:
    with pytest.raises(ConfigError, match="is not here"):
        check("digits", {}, "cuda:7")
