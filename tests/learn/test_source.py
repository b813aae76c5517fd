"""Batches come ahead of their use where that helps, and are the same as without."""

import sys
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from p2ptrain.core.effects import Evaluate, Train
from p2ptrain.core.types import OWN
from p2ptrain.learn.data import source
from p2ptrain.learn.data.source import Source
from p2ptrain.learn.task import find

CPU = torch.device("cpu")


class Recorded(Dataset[Any]):
    """Remembers in which thread each example was made; `chance` is added to it."""

    def __init__(self, count: int, chance: float = 0.0) -> None:
        self.threads: list[str] = []
        self._count, self._chance = count, chance

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if index >= self._count:
            raise IndexError
        self.threads.append(threading.current_thread().name)
        value = torch.tensor([index / 10, 1.0, -1.0, 0.5])
        noise = self._chance * torch.rand(4) if self._chance else 0.0
        return value + noise, index % 3


def ahead(threads: list[str]) -> int:
    return sum("examples" in name for name in threads)


def trained(engine, monkeypatch, chance: float, *, comes: bool):
    """Train on such data, with or without bringing batches ahead."""
    made = {}

    def data(cfg, split):
        made[split] = Recorded(200 if split == "train" else 50, chance)
        return made[split]

    sys.modules["toys"].recorded = replace(find("toys:plain"), data=data, version=f"{chance} {comes}")
    with monkeypatch.context() as patched:
        if not comes:
            patched.setattr(source._Ahead, "expect", lambda *_: None)
        one = engine("toys:recorded")
        losses = [one.perform(Train(9)).loss]
        one.perform(Evaluate("x", (OWN,)))
        losses.append(one.perform(Train(15)).loss)
    return losses, one._trainer.vector.flat, made["train"].threads


@pytest.mark.parametrize("chance", [0.0, 0.5])
def test_what_comes_ahead_is_what_would_have_come(engine, monkeypatch, chance):
    losses, weights, threads = trained(engine, monkeypatch, chance, comes=True)
    others, alone, main_only = trained(engine, monkeypatch, chance, comes=False)
    assert losses == others
    assert torch.equal(weights, alone)
    assert ahead(main_only) == 0
    if chance:
        assert ahead(threads) == 0, "chance would come at another time in every run"
    else:
        assert ahead(threads) > 300


def test_what_is_not_wanted_any_more_is_dropped():
    examples = Recorded(100)
    one = Source(examples, CPU)
    batches = [torch.arange(start, start + 5) for start in range(0, 100, 5)]
    one.take(batches[0])
    for batch in batches[1:6]:
        one.expect(batch)
    assert one.take(batches[4])[1].tolist() == [index % 3 for index in range(20, 25)]
    assert len(one._ahead._coming) == 1
    for _ in range(3):
        for batch in batches:
            one.expect(batch)
    assert len(one._ahead._coming) <= source.EXPECTED_MAX
    assert one.take(torch.tensor([99]))[1].tolist() == [0]


def test_an_error_in_the_data_is_not_lost():
    one = Source(Recorded(10), CPU)
    one.take(torch.tensor([1]))
    one.expect(torch.tensor([10]))
    with pytest.raises(IndexError):
        one.take(torch.tensor([10]))


def test_tensors_on_the_device_need_nobody_ahead():
    one = Source(TensorDataset(torch.arange(10.0)), CPU)
    assert not one.comes_ahead
    one.expect(torch.tensor([1]))
    assert not one._ahead._coming


def test_a_dataset_may_give_batches_and_labels_itself():
    class Whole(Recorded):
        labels = torch.tensor([2, 1, 0])

        def take(self, indices):
            return indices * 10, indices

    one = Source(Whole(3), CPU)
    assert one.take(torch.tensor([2, 0]))[0].tolist() == [20, 0]
    assert one.labels().tolist() == [2, 1, 0]
