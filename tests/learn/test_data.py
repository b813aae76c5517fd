from collections import namedtuple

import torch
from torch.utils.data import TensorDataset

from p2ptrain.learn.data.splits import Order, Source

CPU = torch.device("cpu")


def test_an_epoch_shows_every_example_once():
    order = Order(50, 10, seed=1, slot=0)
    epochs = [[order.places(step) for step in range(5 * epoch, 5 * epoch + 5)] for epoch in range(2)]
    for epoch in epochs:
        assert sorted(torch.cat(epoch).tolist()) == list(range(50))
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert torch.equal(Order(50, 10, seed=1, slot=0).places(7), epochs[1][2])
    assert not torch.equal(Order(50, 10, seed=1, slot=1).places(0), epochs[0][0])


def test_the_last_smaller_batch_is_left_out():
    order = Order(25, 10, seed=1, slot=0)
    assert {len(order.places(step)) for step in range(10)} == {10}
    small = Order(3, 10, seed=1, slot=0)
    assert small.batch_size == len(small.places(9)) == 3


def test_tensors_and_single_examples_give_the_same_batch():
    tensors = TensorDataset(torch.arange(10.0), torch.arange(10))
    indices = torch.tensor([3, 1, 4])
    fast = Source(tensors, CPU).take(indices)
    slow = Source([tensors[i] for i in range(10)], CPU).take(indices)
    for ours, theirs in zip(fast, slow, strict=True):
        assert torch.equal(ours, theirs)
    named = Source([{"x": torch.tensor(i), "name": str(i)} for i in range(5)], CPU).take(indices)
    assert named["x"].tolist() == [3, 1, 4]
    assert named["name"] == ["3", "1", "4"]
    places = namedtuple("places", "x y")
    pairs = Source([places(i, -i) for i in range(5)], CPU).take(indices)
    assert pairs.y.tolist() == [-3, -1, -4]
    own = Source(tensors, CPU, collate=len)
    assert own.take(indices) == 3
