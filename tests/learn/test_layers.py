"""A net is cut into layers that compute what it computes, and that own each number of it once."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from p2ptrain.learn.layers import Chain
from p2ptrain.learn.standin import Standin, entering
from p2ptrain.learn.task import find
from p2ptrain.learn.weights.vector import Vector
from p2ptrain.tasks import models

PICTURES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 20, (2, 16), generator=torch.Generator().manual_seed(1))

COUNTS = {
    "cnn2": 3,
    "cnn3": 4,
    "mlp": 3,
    "resnet20": 11,
    "vgg16": 14,
    "vgg19": 17,
    "resnet50": 18,
    "inceptionv4": 23,
    "mobilenetv3": 32,
    "gpt": 1,
}
"""`resnet152`: as `resnet50`, and slow."""

SMALL = ("gpt", "resnet50", "inceptionv4", "mobilenetv3")
"""Inputs of 16 tokens or pixels a side; others have 32."""

SETTINGS = {"mlp": {"layers": 2, "dropout": 0.2}, "gpt": {"layers": 2, "width": 32, "dropout": 0.2}}


def built(name):
    torch.manual_seed(0)
    is_text = name == "gpt"
    size = 16 if name in SMALL else 32
    net = models.build(
        name,
        in_channels=1 if is_text else 3,
        size=size,
        classes=20 if is_text else 10,
        **SETTINGS.get(name, {}),
    )
    enters = TOKENS if is_text else PICTURES[..., :size, :size]
    return *cut(net, enters), enters


def cut(net: nn.Module, enters: Tensor | None):
    net.train()
    vector = Vector(net)
    return net, vector, Chain(net, vector.spec, enters)


def check_same(net, vector, chain, enters):
    """The pieces give the same result, gradient, statistics and random numbers as the net."""
    found = []
    start = vector.flat.clone()
    for compute in (net, chain.run):
        vector.flat.copy_(start)
        vector.gradient.zero_()
        torch.manual_seed(7)
        result = compute(enters)
        result.square().mean().backward()
        vector.settle()
        found.append((result.detach(), vector.gradient.clone(), vector.flat.clone(), torch.rand(1)))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def check_partition(vector, chain):
    owners = torch.zeros(vector.spec.count)
    for layer in chain.layers:
        assert list(layer.ranges) == sorted(layer.ranges)
        for begin, end in layer.ranges:
            owners[begin:end] += 1
    assert (owners == 1).all()


@pytest.mark.parametrize("name", COUNTS)
def test_pieces_are_the_net(name):
    net, vector, chain, enters = built(name)
    assert len(chain) == len(chain.pieces) == len(chain.layers) == COUNTS[name]
    check_partition(vector, chain)
    check_same(net, vector, chain, enters)
    assert all(layer.cost > 0 for layer in chain.layers)
    trained = vector.spec.trainable
    assert all(layer.ranges[0][0] < trained for layer in chain.layers)


def test_every_built_in_model_is_here():
    assert {*COUNTS, "resnet152"} == set(models.MODELS)


@pytest.mark.parametrize("name", ["digits", "fashion", "shakespeare", "census"])
def test_what_enters_the_nets_of_tasks(name):
    task = find(name)
    cfg = task.configure({})
    net = task.model(cfg)
    entered = []
    net.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    shape = {"digits": (2, 1, 8, 8), "fashion": (2, 1, 28, 28), "census": (2, 105)}.get(name)
    inputs = torch.zeros(2, 64, dtype=torch.long) if shape is None else torch.randn(shape)
    batch = inputs, inputs if shape is None else torch.zeros(2, dtype=torch.long)
    enters = entering(task.loss, net, batch)
    assert enters is not None
    assert not entered, "the net was not even called"
    if shape is None or name != "census":
        task.loss(net, batch)
        assert entered[0] is enters


def test_a_gpt_whose_tokens_are_not_tied_can_be_cut():
    torch.manual_seed(0)
    made = models.build("gpt", in_channels=1, size=16, classes=20, layers=3, width=16, heads=2, tied=False)
    net, vector, chain = cut(made, TOKENS)
    assert len(chain) == 8, "tokens, two halves of each block, scores"
    assert chain.notice == ""
    check_partition(vector, chain)
    check_same(net, vector, chain, TOKENS)


def test_costs_are_products_forward_and_backward():
    net, _, chain = cut(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(2, 4))
    forward = [2 * 2 * 4 * 8, 2 * 2 * 8 * 3]
    assert [layer.cost for layer in chain.layers] == [2 * forward[0], 3 * forward[1]]
    assert [tuple(shape) for shape in chain.shapes] == [(2, 8), (2, 3)]
    _, _, unmeasured = cut(net, None)
    assert [layer.cost for layer in unmeasured.layers] == [40, 27]
    assert unmeasured.shapes == []


def test_measuring_leaves_no_trace():
    torch.manual_seed(0)
    net = models.build("resnet20", in_channels=3, size=32, classes=10)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    drawn = torch.default_generator.get_state()
    _, vector, chain = cut(net, PICTURES)
    assert chain.shapes
    assert torch.equal(drawn, torch.default_generator.get_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert not vector.gradient.any()


# -- nets of somebody's own ------------------------------------------------------------------------


class Own(nn.Module):
    """A net whose forward pass is given."""

    def __init__(self, compute, **parts: nn.Module) -> None:
        super().__init__()
        self._compute = compute
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, numbers: Tensor) -> Tensor:
        return self._compute(self, numbers)


def three() -> dict[str, nn.Module]:
    return {name: nn.Linear(4, 4) for name in ("one", "two", "three")}


def own_chain(compute, **parts: nn.Module):
    torch.manual_seed(0)
    enters = torch.randn(3, 4)
    net, vector, chain = cut(Own(compute, **parts), enters)
    check_partition(vector, chain)
    check_same(net, vector, chain, enters)
    return chain


def test_a_value_that_is_needed_later_keeps_layers_together():
    chain = own_chain(lambda net, x: net.three(x + net.two(net.one(x))), **three())
    assert [layer.ranges for layer in chain.layers] == [((0, 40),), ((40, 60),)]


def test_functions_and_constants():
    def compute(net, x):
        x = dropout(net.one(x).tanh(), 0.5, net.training) * net.scale
        return net.two(x) + net.scale.sum()

    torch.manual_seed(0)
    net = Own(compute, one=nn.Linear(4, 4), two=nn.Linear(4, 4))
    net.scale = nn.Parameter(torch.ones(4))
    net.register_buffer("unused", torch.zeros(2))
    enters = torch.randn(3, 4)
    net, vector, chain = cut(net, enters)
    check_partition(vector, chain)
    check_same(net, vector, chain, enters)
    assert len(chain) == 1
    assert "shares `scale`" in chain.notice


def test_what_works_in_place_is_not_parted_from_what_it_works_on():
    def compute(net, x):
        x = net.one(x)
        x += 1
        return net.two(torch.relu_(net.three(x)))

    assert len(own_chain(compute, **three())) == 3

    def added(net, x):
        x = net.one(x)
        return net.three(x.add_(net.two(x + 1)))

    assert len(own_chain(added, **three())) == 2


def test_the_same_module_twice_is_one_layer():
    chain = own_chain(lambda net, x: net.three(net.one(net.two(net.one(x)))), **three())
    assert len(chain) == 2
    assert chain.layers[1].ranges == ((40, 60),)
    assert "shares `one." in chain.notice


def test_numbers_that_no_layer_uses_join_the_last():
    chain = own_chain(lambda net, x: net.three(net.one(x)), **three())
    assert [layer.ranges for layer in chain.layers] == [((0, 20),), ((20, 60),)]


def test_scales_belong_to_what_comes_before_them():
    chain = own_chain(
        lambda net, x: net.two(net.norm(net.one(net.first(x)))),
        first=nn.BatchNorm1d(4),
        norm=nn.LayerNorm(4),
        **three(),
    )
    assert len(chain) == 2
    assert chain.layers[0].ranges[-1] == (76, 84), "running mean and variance"


def test_frozen_weights_belong_to_the_layer_that_uses_them():
    parts = three()
    parts["two"].requires_grad_(False)
    chain = own_chain(lambda net, x: net.three(net.two(net.one(x))), **parts)
    assert [layer.ranges for layer in chain.layers] == [((0, 20), (40, 60)), ((20, 40),)]


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if x.sum() > 0 else self.two(x)


def test_what_cannot_be_followed_stays_one_piece():
    parts = three() | {"inner": Undecided()}
    chain = own_chain(lambda net, x: net.three(net.inner(net.one(x))), **parts)
    assert len(chain) == 3
    assert "inside of Undecided cannot be followed" in chain.notice
    torch.manual_seed(0)
    _, _, whole = cut(Undecided(), torch.randn(3, 4))
    assert len(whole) == 1
    assert whole.layers[0].ranges == ((0, 40),)
    assert "cannot be followed" in whole.notice


def test_a_net_that_throws_dice_itself_is_one_layer():
    chain = own_chain(lambda net, x: net.two(net.one(x) if torch.rand(1) < 0.5 else x), **three())
    assert len(chain) == 1
    assert "draws random numbers" in chain.notice


class Remembering(nn.Module):
    """Keeps what it saw: as attributes, in a list, or in a buffer."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.seen, self.all, self.inner = where, torch.zeros(4), [], nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.where == "attribute":
            self.seen = 0.9 * self.seen + x.detach().mean(0)
        elif self.where == "list":
            self.all.append(x.detach())
        else:
            self.mean.mul_(0.5).add_(x.detach().mean(0))
        return self.inner(x) + self.seen


@pytest.mark.parametrize("where", ["attribute", "list", "buffer"])
def test_what_a_net_remembers_is_left_alone(where):
    torch.manual_seed(0)
    enters = torch.randn(3, 4)
    net = nn.Sequential(nn.Linear(4, 4), Remembering(where), nn.Linear(4, 4))
    net, _, chain = cut(net, enters)
    remembering = net[1]
    assert len(chain) == 3
    assert ("it remembers" in chain.notice) == (where != "buffer")
    assert not remembering.all
    assert torch.equal(remembering.seen, torch.zeros(4))
    assert not remembering.mean.any()
    for compute in (net, chain.run):
        compute(enters)
    seen = {"attribute": remembering.seen, "list": remembering.all[-1:] or None, "buffer": remembering.mean}[
        where
    ]
    assert seen is not None
    assert where == "list" or seen.any()
    assert len(remembering.all) == (2 if where == "list" else 0)


def test_a_value_that_is_no_tensor_ends_no_layer():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4)
            self.out = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            found, _ = self.lstm(x)
            return self.out(found)

    torch.manual_seed(0)
    enters = torch.randn(3, 2, 4)
    net, vector, chain = cut(Pair(), enters)
    check_same(net, vector, chain, enters)
    assert len(chain) == 2
    assert isinstance(chain.pieces[0](enters), Tensor)


def test_a_stand_in_is_the_net_in_all_else():
    net = nn.Sequential(nn.Linear(4, 3))
    net.context = 64
    standin = Standin(net, lambda x: x + 1)
    assert standin.context == 64
    assert standin.training
    assert torch.equal(standin(torch.zeros(2)), torch.ones(2))
    assert len(list(standin.parameters())) == 2
    with pytest.raises(AttributeError):
        standin.nothing  # noqa: B018


def test_two_tensors_do_not_enter():
    assert entering(lambda net, batch: net(*batch).sum(), nn.Bilinear(2, 2, 2), (torch.ones(2),) * 2) is None
    assert entering(lambda net, batch: net.weight.sum(), nn.Linear(2, 2), None) is None
