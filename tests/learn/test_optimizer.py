"""Optimizers by name, the settings of a recipe, gradients in pieces."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from p2ptrain.core.effects import Checkpoint, Train
from p2ptrain.core.errors import ManifestError
from p2ptrain.learn import recipe as recipes
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.losses import classification
from p2ptrain.learn.recipe import RATES, Recipe
from p2ptrain.learn.task import Task
from p2ptrain.learn.training import optimizer as optimizers
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.weights.checkpoint import FolderCheckpoints
from p2ptrain.learn.wire import Setup
from tests.learn.conftest import data, normed
from tests.learn.test_trainer import plain_loop


@dataclass(frozen=True, kw_only=True)
class Config(Recipe):
    lr: float = 0.05
    batch_size: int = 16
    dropout: float = 0.0


def net(cfg: Config) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


cooked = Task("cooked", version="1", model=net, data=data, loss=classification, config=Config)

IN_TORCH: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda trained: optim.SGD(trained, lr=0.05),
    "momentum": lambda trained: optim.SGD(trained, lr=0.01, momentum=0.9),
    "nesterov": lambda trained: optim.SGD(trained, lr=0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda trained: optim.RMSprop(trained, lr=1e-3),
    "adam": lambda trained: optim.Adam(trained, lr=1e-3),
    "adagrad": lambda trained: optim.Adagrad(trained, lr=0.01),
    "nadam": lambda trained: optim.NAdam(trained, lr=1e-3),
    "adamw": lambda trained: optim.AdamW(trained, lr=1e-3),
}
every_optimizer = pytest.mark.parametrize("name", IN_TORCH)


@pytest.fixture(autouse=True)
def tasks(toys: None) -> None:
    sys.modules["toys"].cooked = cooked


def weights(engine: Engine) -> torch.Tensor:
    return engine._trainer.vector.flat.clone()


def make(checkpoints: FolderCheckpoints | None = None, steps: int = 0, **settings: object) -> Engine:
    return Engine(Setup(task="toys:cooked", task_config=settings, steps=steps), MemoryBlobs(), checkpoints)


@every_optimizer
def test_a_name_stands_for_torchs_own_and_its_usual_rate(name, monkeypatch):
    one = make(optimizer=name, lr=0)
    one.perform(Train(40))
    own = replace(cooked, optimizer=lambda net, cfg: IN_TORCH[name](net.parameters()))
    monkeypatch.setattr(sys.modules["toys"], "own", own, raising=False)
    expected = plain_loop("toys:own", 40).state_dict()
    for entry, view in one._trainer.vector.views(weights(one)):
        torch.testing.assert_close(view, expected[entry.name], rtol=1e-5, atol=1e-6)
    stretches = one._trainer._optimizer.param_groups[0]["params"]
    assert [stretch.numel() for stretch in stretches] == [one._trainer.vector.spec.trainable]


@every_optimizer
def test_each_goes_on_exactly_where_it_stopped(name, tmp_path):
    whole, first = make(optimizer=name, steps=40), make(FolderCheckpoints(tmp_path), 40, optimizer=name)
    whole.perform(Train(40))
    first.perform(Train(15))
    first.perform(Checkpoint(b""))
    second = make(FolderCheckpoints(tmp_path), 40, optimizer=name)
    second.perform(Train(25))
    assert torch.equal(weights(second), weights(whole))


@pytest.mark.parametrize("capturable", [False, True])
def test_a_restored_count_is_where_the_optimizer_would_have_made_it(capturable):
    """Beside weights on a GPU, a number that is read in every step must not be there: that would wait."""
    there = nn.Parameter(torch.empty(3, device="meta"))
    one = optim.NAdam([there], capturable=capturable)
    moments = {"0/exp_avg": torch.zeros(3), "0/exp_avg_sq": torch.zeros(3)}
    counts = {"0/step": torch.tensor(4.0), "0/mu_product": torch.tensor(0.5)}
    optimizers.restore(one, moments | counts, {})
    devices = {name: value.device.type for name, value in one.state[there].items()}
    count = "meta" if capturable else "cpu"
    assert devices == {"exp_avg": "meta", "exp_avg_sq": "meta", "step": count, "mu_product": count}


def test_all_names_are_covered():
    assert list(IN_TORCH) == list(RATES)


def test_settings_reach_the_optimizer():
    def group(**settings: object) -> dict[str, object]:
        return make(**settings)._trainer._optimizer.param_groups[0]

    nesterov = group(optimizer="nesterov", lr=0.2, momentum=0.5, weight_decay=0.1)
    assert (nesterov["lr"], nesterov["momentum"], nesterov["weight_decay"]) == (0.2, 0.5, 0.1)
    assert nesterov["nesterov"]
    assert group(momentum=0)["momentum"] == 0
    assert [group(optimizer="adamw", weight_decay=decay)["weight_decay"] for decay in (0, 0.2)] == [0.01, 0.2]
    assert group(optimizer="adam")["weight_decay"] == 0


def test_a_tasks_rate_is_for_the_tasks_optimizer():
    assert cooked.configure({}).lr == cooked.configure({"optimizer": "momentum"}).lr == 0.05
    assert recipes.of(cooked, cooked.configure({"optimizer": "adam"})).rate == 1e-3
    assert recipes.of(cooked, cooked.configure({"optimizer": "adam", "lr": 0.05})).rate == 0.05
    assert recipes.of(cooked, cooked.configure({"lr": 0})).rate == 0.01


@pytest.mark.parametrize(
    ("setting", "value", "said", "fix"),
    [
        ("optimizer", "adm", "no optimizer `adm`", "did you mean `adam`?"),
        ("optimizer", "quux", "no optimizer `quux`", "known are: sgd, momentum"),
        ("schedule", "cosin", "no schedule `cosin`", "did you mean `cosine`?"),
        ("lr", -0.1, "`lr` is -0.1", "0 or more"),
        ("momentum", 1.0, "`momentum` is 1.0", "less than 1"),
        ("weight_decay", -1, "`weight_decay` is -1", "0 or more"),
        ("batch_size", 0, "batches of 0", "1 or more"),
        ("accumulate", 0, "`accumulate` is 0", "1 to `batch_size`"),
        ("accumulate", 17, "`accumulate` is 17", "1 to `batch_size`"),
        ("clip", -1, "`clip` is -1", "0 or more"),
        ("warmup", -1, "`warmup` is -1", "0 or more"),
        ("lr_final", 1.5, "`lr_final` is 1.5", "from 0 to 1"),
        ("label_smoothing", 1, "`label_smoothing` is 1", "less than 1"),
    ],
)
def test_a_wrong_setting_is_met_with_a_sentence(setting, value, said, fix):
    with pytest.raises(ManifestError, match=said) as caught:
        cooked.configure({setting: value})
    assert fix in caught.value.hint


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("momentum", {"optimizer": "nesterov", "momentum": 0}),
        ("lr_final", {"schedule": "step", "lr_final": 0}),
    ],
)
def test_settings_that_do_not_fit_each_other(name, settings):
    with pytest.raises(ManifestError, match=f"`{name}` is 0") as caught:
        cooked.configure(settings)
    assert "more than 0 for" in caught.value.hint


def test_a_config_that_inherits_nothing_is_checked_too(engine):
    with pytest.raises(ManifestError, match="`lr` is -1"):
        engine(task_config={"lr": -1.0})


def test_a_task_with_its_own_optimizer_may_use_the_words_otherwise(monkeypatch):
    @dataclass(frozen=True)
    class Own:
        optimizer: str = "lion"
        lr: str = "high"

    own = replace(cooked, config=Own, optimizer=lambda net, cfg: optim.SGD(net.parameters(), lr=0.1))
    monkeypatch.setattr(sys.modules["toys"], "own", own, raising=False)
    one = Engine(Setup(task="toys:own", task_config={"optimizer": "tiger"}), MemoryBlobs())
    assert one.perform(Train(1)).step == 1


@settings(max_examples=20, deadline=None)
@given(batch_size=st.integers(1, 40), pieces=st.integers(1, 40), name=st.sampled_from(["sgd", "adam"]))
def test_a_batch_in_pieces_is_the_same_batch(batch_size, pieces, name):
    pieces = min(pieces, batch_size)
    words = {"optimizer": name, "lr": 0.01, "batch_size": batch_size, "clip": 0.5}
    at_once, in_pieces = make(**words), make(**words, accumulate=pieces)
    losses = [one.perform(Train(5)).loss for one in (at_once, in_pieces)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(weights(at_once), weights(in_pieces), rtol=1e-4, atol=1e-5)


def test_pieces_have_their_own_statistics_in_a_batch_norm(monkeypatch):
    monkeypatch.setattr(sys.modules["toys"], "cooked", replace(cooked, model=normed))
    at_once, in_pieces = make(), make(accumulate=4)
    counters = []
    for one in (at_once, in_pieces):
        one.perform(Train(1))
        counters += [int(counter) for counter in one._trainer.vector.counters.values()]
    assert counters == [1, 4]
