import pytest
import torch
from torch import nn

from p2ptrain.core.errors import ManifestError
from p2ptrain.learn.weights.vector import Vector


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("cache", torch.ones(7), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.frozen(self.embed(tokens))))


def test_trained_parameters_first_then_frozen_then_buffers():
    vector = Vector(Tied())
    names = [entry.name for entry in vector.spec.entries]
    assert names == [
        "embed.weight",
        "norm.weight",
        "norm.bias",
        "frozen.weight",
        "frozen.bias",
        "norm.running_mean",
        "norm.running_var",
    ]
    assert vector.spec.trainable == 15 + 3 + 3
    assert vector.spec.count == vector.spec.trainable + 9 + 3 + 6
    assert list(vector.counters) == ["norm.num_batches_tracked"]


def test_net_and_vector_are_the_same_memory():
    torch.manual_seed(0)
    net, same = Tied(), Tied()
    same.load_state_dict(net.state_dict())
    vector = Vector(net)
    tokens = torch.tensor([0, 1, 2, 3])
    assert torch.equal(net(tokens), same(tokens))
    net(tokens).sum().backward()
    same(tokens).sum().backward()
    assert torch.equal(vector.gradient[:15].view(5, 3), same.embed.weight.grad)
    assert torch.equal(net.norm.running_mean, same.norm.running_mean)
    vector.flat.zero_()
    assert net.head.weight.abs().sum() == 0
    assert net.norm.running_var.abs().sum() == 0


def test_replaced_buffers_are_taken_in():
    net = nn.BatchNorm1d(2)
    vector = Vector(net)
    net.running_mean = torch.tensor([3.0, 4.0])
    vector.settle()
    assert vector.flat[-4:-2].tolist() == [3.0, 4.0]
    vector.flat[-4] = 9.0
    assert net.running_mean[0] == 9.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.complex64])
def test_only_float32_is_shared(dtype: torch.dtype):
    net = nn.Linear(2, 2)
    net.register_buffer("other", torch.zeros(1, dtype=dtype))
    with pytest.raises(ManifestError, match="`other` of the model"):
        Vector(net)


def test_nothing_to_train():
    with pytest.raises(ManifestError, match="no parameters to train"):
        Vector(nn.Linear(2, 2).requires_grad_(False))
