"""Guided steps: some layers only, by losses of their own, pulled towards other weights, shifted."""

import sys
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from p2ptrain.core.effects import (
    Adopt,
    Checkpoint,
    Combine,
    Evaluate,
    Fresh,
    Guide,
    OptimizerState,
    Publish,
    Train,
)
from p2ptrain.core.inputs import LearnFailed, Trained
from p2ptrain.core.types import OWN, BlobId, Ref, Slot
from p2ptrain.learn.losses import classification
from p2ptrain.learn.training.blocks import HEADS_MAX
from p2ptrain.learn.weights import pieces
from p2ptrain.learn.weights.checkpoint import MemoryCheckpoints
from tests.learn.conftest import TASKS

A, B = Slot(Ref("a")), Slot(Ref("b"))
NOWHERE = BlobId(Ref("0" * 64))


@dataclass(frozen=True)
class Config:
    """With all that must not move what rests."""

    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.1
    clip: float = 1.0
    batch_size: int = 16
    accumulate: int = 1
    optimizer: str = "momentum"


def deep(cfg):
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1)),
        *(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        *(nn.Flatten(), nn.Linear(24, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)),
    )


def pictures(cfg, split):
    numbers = torch.randn(240 if split == "train" else 60, 1, 4, 4)
    return TensorDataset(
        numbers, (numbers[:, 0, :2].sum((1, 2)) > 0).long() + (numbers[:, 0, 3, 3] > 1).long()
    )


def adam(net, cfg):
    return torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.1)


def whole_loss(net, batch):
    return cross_entropy(net(batch[0]), batch[1])


DEEP = replace(TASKS["plain"], name="deep", model=deep, data=pictures, config=Config)


class Sentences(nn.Module):
    """Three layers for the places of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.inner, self.scores = nn.Embedding(5, 6), nn.Linear(6, 6), nn.Linear(6, 5)

    def forward(self, tokens):
        return self.scores(self.inner(self.tokens(tokens)).tanh())


def sentences(cfg, split):
    tokens = torch.randint(0, 5, (120, 7))
    return TensorDataset(tokens[:, :-1], (tokens[:, :-1] + 1) % 5)


def tokens_loss(net, batch):
    scores = net(batch[0])
    assert net.inner.out_features == 6, "what stands in for a net has all that the net has"
    return cross_entropy(scores.flatten(0, 1), batch[1].flatten())


@pytest.fixture(autouse=True)
def more_toys(toys):
    module = sys.modules["toys"]
    module.deep = DEEP
    module.adam = replace(DEEP, optimizer=adam)
    module.whole = replace(DEEP, loss=whole_loss)
    module.text = replace(DEEP, model=lambda cfg: Sentences(), data=sentences, loss=tokens_loss)
    module.two = replace(DEEP, loss=lambda net, batch: classification(lambda x: net(x) + net(x), batch))


def weights(engine):
    return engine._trainer.vector.flat.clone()


def marks(engine, first, last):
    inside = torch.zeros(engine._trainer.vector.spec.count, dtype=torch.bool)
    for layer in engine.ready().layers[first:last]:
        for begin, end in layer.ranges:
            inside[begin:end] = True
    return inside


def train(engine, steps, guide=None):
    answer = engine.perform(Train(steps, guide=guide))
    assert isinstance(answer, Trained), answer
    return answer


def test_ready_names_the_layers(engine):
    ready = engine("toys:deep").ready()
    assert len(ready.layers) == 4
    assert ready.numbers == sum(end - begin for layer in ready.layers for begin, end in layer.ranges)
    assert ready.numbers == ready.parameters + 2 * (4 + 6 + 8)


# -- some layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["toys:deep", "toys:adam"])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("span", [(0, 1), (1, 2), (1, 3), (3, 4)])
def test_what_is_not_trained_stays_bit_by_bit(engine, task, local, span):
    """Momentum, weight decay and batch norm move the layers, and nothing else."""
    one = engine(task)
    train(one, 10)
    before, inside = weights(one), marks(one, *span)
    assert train(one, 5, Guide(span, local)).step == 15
    after = weights(one)
    assert torch.equal(after[~inside], before[~inside])
    assert (after[inside] != before[inside]).float().mean() > 0.95
    train(one, 5)
    assert (weights(one) != after).float().mean() > 0.95, "all are trained again"


@pytest.mark.parametrize("task", ["toys:deep", "toys:whole"])
def test_all_layers_at_once_are_one_step_of_plain_descent(engine, task):
    """L3 of ALGORITHMS 2.3: each on a peer of its own, from a common start, then joined."""
    plain = {"optimizer": "sgd", "clip": 0.0}
    together = engine(task, task_config=plain)
    count = len(together.ready().layers)
    train(together, 1)
    joined = engine(task, task_config=plain)
    start = weights(joined)
    for at in range(count):
        peer = engine(task, task_config=plain)
        train(peer, 1, Guide((at, at + 1)))
        blob = peer.perform(Publish("p", ranges=peer.ready().layers[at].ranges)).blob
        joined._blobs.take(blob, peer._blobs)
        joined.accept(blob)
        joined.perform(Combine("c", OWN, ((1.0, blob),), ranges=joined.ready().layers[at].ranges))
    assert not torch.allclose(start, weights(joined))
    torch.testing.assert_close(weights(joined), weights(together), rtol=0, atol=1e-6)


def test_gradients_of_resting_weights_are_not_computed(engine):
    one = engine("toys:deep")
    one.guide(Guide((2, 3)))
    trainer = one._trainer
    trainer.vector.gradient.fill_(torch.nan)
    with one._randomness.borrowed():
        trainer.take_step()
    trained = marks(one, 2, 3)[: trainer.vector.spec.trainable]
    assert not trainer.vector.gradient[~trained].any()
    assert trainer.vector.gradient[trained].any()
    assert all(parameter.requires_grad for parameter in trainer.net.parameters())


def test_a_loss_of_a_resting_layer_ends_where_the_last_trained_one_ends(engine):
    one = engine("toys:deep")
    assert len(one._trainer.chain.pieces) == 4
    called = []
    for at, module in enumerate(one._trainer.net):
        module.register_forward_hook(lambda *_, at=at: called.append(at))
    train(one, 1, Guide((1, 2), local=True))
    assert called == list(range(8)), "up to where the linear layer begins"


@pytest.mark.parametrize(
    ("task", "spans"), [("toys:deep", [(0, 1), (1, 2), (0, 3)]), ("toys:text", [(0, 1), (1, 2)])]
)
def test_layers_learn_by_heads_of_their_own(engine, task, spans):
    one = engine(task, task_config={"weight_decay": 0.0})
    for span in spans:
        first = train(one, 3, Guide(span, local=True)).loss
        train(one, 80, Guide(span, local=True))
        assert train(one, 15, Guide(span, local=True)).loss < 0.8 * first


@pytest.mark.parametrize(("local", "share"), [(True, 0.7), (False, 0.5)])
def test_layers_trained_apart_make_a_net(engine, local, share):
    """LW-L and LW-J: each layer at once, joined, 8 times 10 steps; all at once get to 0.35 of the loss."""
    one = engine("toys:deep", task_config={"weight_decay": 0.0})
    before = one.perform(Evaluate("e", (OWN,))).losses[0]
    layers = one.ready().layers
    peers = [engine("toys:deep", task_config={"weight_decay": 0.0}) for _ in layers]
    for _ in range(8):
        for at, peer in enumerate(peers):
            train(peer, 10, Guide((at, at + 1), local=local))
        joined = weights(peers[0])
        for at, peer in enumerate(peers):
            pieces.put(joined, layers[at].ranges, pieces.take(weights(peer), layers[at].ranges))
        for peer in peers:
            peer._trainer.vector.flat.copy_(joined)
    assert peers[0].perform(Evaluate("e", (OWN,))).losses[0] < share * before


def test_the_last_layers_need_no_head(engine):
    one, other = engine("toys:deep"), engine("toys:deep")
    train(one, 5, Guide((2, 4), local=True))
    train(other, 5, Guide((2, 4)))
    assert torch.equal(weights(one), weights(other))
    assert not one._trainer.blocks._heads


def test_batches_in_pieces(engine):
    one, other = (engine("toys:text", task_config={"accumulate": count}) for count in (1, 3))
    for each in (one, other):
        train(each, 5, Guide((0, 2), local=True))
    torch.testing.assert_close(weights(one), weights(other))


def test_layers_in_half_precision_and_another_layout(engine):
    one = engine("toys:deep")
    one._trainer.manner.bf16 = one._trainer.manner.channels_last = True
    before, inside = weights(one), marks(one, 1, 2)
    train(one, 3, Guide((1, 2), local=True))
    assert torch.equal(weights(one)[~inside], before[~inside])
    assert not torch.equal(weights(one)[inside], before[inside])


def test_heads_are_bounded(engine):
    one = engine("toys:deep")
    for number in range(HEADS_MAX + 3):
        one._trainer.blocks._heads[(0, 100 + number)] = one._trainer.blocks.head((0, 1))
        train(one, 1, Guide((0, 1), local=True))
    assert len(one._trainer.blocks._heads) == HEADS_MAX


@pytest.mark.parametrize("guide", [Guide((0, 9)), Guide((2, 2)), Guide((-1, 2)), Guide((1, 0))])
def test_layers_that_are_not_there(engine, guide):
    one = engine("toys:deep")
    answer = one.perform(Train(3, guide=guide))
    assert isinstance(answer, LearnFailed)
    assert answer.tag == "train"
    assert "the net has 4" in answer.reason


def test_a_net_that_gives_something_else_has_no_local_losses(engine):
    module = sys.modules["toys"]
    module.maps = replace(
        DEEP,
        model=lambda cfg: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)),
        loss=lambda net, batch: net(batch[0]).square().mean(),
    )
    one = engine("toys:maps")
    answer = one.perform(Train(3, guide=Guide((0, 1), local=True)))
    assert isinstance(answer, LearnFailed)
    assert "cannot have a loss of their own" in answer.reason
    train(one, 3, Guide((0, 1)))


# -- towards other weights -------------------------------------------------------------------------


def test_a_pull_is_part_of_the_gradient(engine):
    """FedProx: pull * (own - towards), before the gradient is clipped."""
    plain = {"optimizer": "sgd", "weight_decay": 0.0, "clip": 0.0}
    usual, pulled = engine("toys:deep", task_config=plain), engine("toys:deep", task_config=plain)
    for one in (usual, pulled):
        one.perform(Combine("c", A, ((1.0, OWN),)))
        train(one, 10)
    start, here = pulled._refs.get(A).clone(), weights(pulled)
    train(usual, 1)
    train(pulled, 1, Guide(towards=A, pull=2.0))
    rate = pulled._trainer._optimizer.param_groups[0]["lr"]
    expected = (weights(usual) - rate * 2.0 * (here - start))[: usual.ready().parameters]
    torch.testing.assert_close(weights(pulled)[: len(expected)], expected)


def test_a_strong_pull_holds_the_weights(engine):
    free, held = engine("toys:deep"), engine("toys:deep")
    start = weights(free)
    for one, guide in ((free, None), (held, Guide(towards=A, pull=5.0))):
        one.perform(Combine("c", A, ((1.0, OWN),)))
        train(one, 60, guide)
    moved = [float((weights(one) - start)[: one.ready().parameters].norm()) for one in (free, held)]
    assert moved[1] < 0.5 * moved[0]


def test_a_pull_leaves_resting_layers_alone(engine):
    one = engine("toys:deep")
    one.perform(Combine("c", A, ((0.0, OWN),)))
    before, inside = weights(one), marks(one, 1, 2)
    train(one, 3, Guide((1, 2), towards=A, pull=1.0, shift=A))
    assert torch.equal(weights(one)[~inside], before[~inside])
    gradient = one._trainer.vector.gradient
    assert not gradient[~inside[: len(gradient)]].any(), "nor does clipping count what they are pulled by"


def test_what_is_pulled_towards_stays_where_it_was_named(engine):
    """Own weights are those at the beginning; a slot may be filled anew meanwhile."""
    one, other = engine("toys:deep"), engine("toys:deep")
    one.perform(Combine("c", A, ((1.0, OWN),)))
    one.begin(Train(6, guide=Guide(towards=A, pull=1.0)))
    one.advance(2)
    one.perform(Combine("c", A, ((0.0, OWN),)))
    one.advance()
    train(other, 6, Guide(towards=OWN, pull=1.0))
    assert torch.equal(weights(one), weights(other))


def test_a_shift_is_added_after_each_step(engine):
    one, other = engine("toys:deep"), engine("toys:deep")
    trained = one.ready().parameters
    for each in (one, other):
        train(each, 3)
        each.perform(Combine("c", A, ((0.001, OWN),)))
    shift = one._refs.get(A)[:trained]
    train(one, 1, Guide(shift=A))
    train(other, 1)
    assert torch.equal(weights(one)[:trained], weights(other)[:trained] + shift)
    assert torch.equal(weights(one)[trained:], weights(other)[trained:]), "statistics are not shifted"
    train(one, 1)
    other._trainer.vector.flat[:trained].add_(shift)
    train(other, 1)
    assert torch.equal(weights(one), weights(other)), "only of the steps that were asked for"


# -- all of them -----------------------------------------------------------------------------------

GUIDES = [
    Guide((0, 2)),
    Guide((1, 2), local=True),
    Guide(towards=A, pull=0.5, shift=B),
    Guide((1, 3), towards=A, pull=0.5),
]


@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("task", ["toys:deep", "toys:adam"])
def test_slices_change_nothing(engine, task, guide):
    whole, sliced, again = (engine(task, steps=90) for _ in range(3))
    for one in (whole, sliced, again):
        train(one, 5)
        one.perform(Combine("c", A, ((1.0, OWN),)))
        one.perform(Combine("c", B, ((0.001, OWN),)))
    trained = train(whole, 20, guide)
    sliced.begin(Train(20, guide=guide))
    for steps in (1, 7, 0, 2):
        assert sliced.advance(steps) is None
        torch.randn(3)
        sliced.perform(Evaluate("x", (OWN,)))
    assert sliced.advance().loss == trained.loss
    for steps in (3, 1, 16):  # as the simulator cuts it
        train(again, steps, guide)
    assert torch.equal(weights(whole), weights(sliced))
    assert torch.equal(weights(whole), weights(again))


@pytest.mark.parametrize("guide", GUIDES)
def test_a_checkpoint_has_all_that_steps_depend_on(engine, guide):
    checkpoints = MemoryCheckpoints()
    one = engine("toys:adam", checkpoints=checkpoints)
    train(one, 2)
    one.perform(Combine("c", A, ((1.0, OWN),)))
    one.perform(Combine("c", B, ((0.001, OWN),)))
    train(one, 7, guide)
    one.perform(Checkpoint(b""))
    resumed = engine("toys:adam", checkpoints=checkpoints)
    for each in (one, resumed):
        train(each, 5, guide)
        train(each, 2)
    assert torch.equal(weights(one), weights(resumed))


def test_momentum_of_a_layer_survives_rounds_and_other_groups(engine):
    one, fresh = engine("toys:deep"), engine("toys:deep")
    train(one, 10, Guide((0, 2)))
    train(one, 3, Guide((3, 4)))
    before = weights(one)
    fresh._trainer.vector.flat.copy_(before)
    fresh._trainer.step = one._trainer.step
    for each in (one, fresh):
        train(each, 1, Guide((1, 2)))
    assert not torch.equal(weights(one), weights(fresh))
    one._trainer.vector.flat.copy_(before)
    one.perform(Adopt("a", OWN, OptimizerState.RESET))
    one._trainer.step -= 1
    train(one, 1, Guide((1, 2)))
    assert torch.equal(weights(one), weights(fresh)), "and is forgotten where the strategy says so"


def test_a_fresh_start_forgets_heads(engine):
    one, other = engine("toys:deep"), engine("toys:deep")
    train(one, 10, Guide((0, 1), local=True))
    for each in (one, other):
        each.perform(Fresh(3))
        each._trainer.step = 0
        train(each, 4, Guide((0, 1), local=True))
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("guide", [Guide(towards=NOWHERE, pull=1.0), Guide(shift=B)])
def test_a_guide_whose_weights_are_gone_ends_training(engine, guide):
    one = engine("toys:deep")
    one.begin(Train(5))
    answer = one.begin(Train(5, guide=guide))
    assert isinstance(answer, LearnFailed)
    assert answer.tag == "train"
    assert not one.is_training
    assert train(one, 5).step == 5


def test_an_optimizer_that_is_not_elementwise_moves_these_layers_only(engine, monkeypatch):
    class Own(torch.optim.SGD):
        """Needs the shapes, and more than parameters."""

        def __init__(self, parameters, size, **settings) -> None:
            super().__init__(parameters, lr=0.01 * size, **settings)

    module = sys.modules["toys"]
    module.own = replace(
        DEEP, optimizer=lambda net, cfg: Own(net.parameters(), 2, momentum=0.9, weight_decay=0.1)
    )
    one = engine("toys:own")
    train(one, 5)
    for local in (False, True):
        before, inside = weights(one), marks(one, 1, 2)
        train(one, 5, Guide((1, 2), local))
        assert torch.equal(weights(one)[~inside], before[~inside])
        assert (weights(one)[inside] != before[inside]).float().mean() > 0.95
    before = weights(one)
    train(one, 1)
    assert (weights(one) != before).float().mean() > 0.95


def test_a_compiled_net_takes_guided_steps_the_plain_way(engine):
    one, other = engine("toys:deep"), engine("toys:deep")

    def compiled(*args):
        raise AssertionError

    one._trainer.net._compiled_call_impl = compiled
    for each in (one, other):
        train(each, 3, Guide((1, 2)))
    assert torch.equal(weights(one), weights(other))
    assert one._trainer.net._compiled_call_impl is compiled


def test_several_devices_refuse(engine):
    one = engine("toys:deep")

    class Two(type(one._trainer.group)):
        is_alone = False

    one._trainer.group = Two()
    answer = one.perform(Train(3, guide=Guide(towards=OWN, pull=1.0)))
    assert isinstance(answer, LearnFailed)
    assert "several devices" in answer.reason
    train(one, 3)
