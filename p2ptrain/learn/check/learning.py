"""Does it learn: the loss, its gradient, the optimiser."""

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from p2ptrain.learn.check.bench import Bench, TaskError, layers, own_code, shapes, some
from p2ptrain.learn.layers import Chain
from p2ptrain.learn.randomness import mix
from p2ptrain.learn.standin import entering
from p2ptrain.learn.training import optimizer as optimizers
from p2ptrain.learn.weights.vector import Vector

BATCHES = 4
"""A parameter without a gradient in all of these is not trained."""

OVERFIT_STEPS = 200
OVERFIT_S = 10.0
OVERFIT_STEPS_MIN = 10
FALL, ENOUGH = 0.2, 0.5
"""One batch is learnt by heart if its loss falls by the first share; at the second nothing more is tried.
Guesses: a working net halves it."""

WILD = 10.0
"""A loss that rose by so many times itself, or is NaN, tells that steps are too long. Guess."""

ONE_LAYER = "`layerwise` and `pipeline` cannot use it"
SEQUENCE = "only these two need layers: write the net as a sequence of modules, without `if` about numbers"

NOISE = 5
"""Steps over which losses are averaged before they are compared: dropout and the like."""


def check_loss(bench: Bench) -> str:
    """Put a batch through net and loss."""
    batch = bench.batch()
    net = bench.net
    net.train()
    bench.randomness.reseed(0)
    loss, metrics = take(bench, net, batch, bench.batch_size, bench.task.loss, "loss")
    if not torch.isfinite(loss).all():
        raise TaskError(
            f"the loss is {float(loss.detach().mean())} at the start, before any training",
            "look for log(0), 0/0 and inputs that are not scaled",
        )
    if not loss.requires_grad:
        raise TaskError(
            "the loss has no gradient: it does not hang on the parameters",
            "no .item(), .detach(), .data, argmax or torch.no_grad() on the way from the net to the loss",
        )
    if loss.ndim == 0:
        bench.notes.append(
            (
                "the loss is one number a batch, so how sure a measurement is can only be estimated",
                "return one number an example: reduction='none'",
            )
        )
    kind = "one number an example" if loss.ndim else "one number a batch"
    accuracy = "with accuracy" if "accuracy" in metrics else "without accuracy"
    return f"{float(loss.detach().mean()):.4g} at the start; {kind}, {accuracy}"


def take(
    bench: Bench, net: nn.Module, batch: Any, count: int, measure: Any, name: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Measure a batch of `count` examples; return loss and metrics.

    Raises:
        TaskError: it cannot be done, or the answer has another form than a trainer can use.
    """
    with layers(net) as where:
        form = shapes(batch)
        with own_code(
            lambda: f"{where() or f'`{name}`'} cannot take a batch of the shapes {form}",
            "make model, data and loss fit together",
        ):
            result = measure(net, batch)
    loss, metrics = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(loss, Tensor) or not isinstance(metrics, dict):
        what = type(result).__name__
        raise TaskError(f"`{name}` gives a {what}", "return the loss as a tensor, or (loss, {name: tensor})")
    if not loss.is_floating_point():
        raise TaskError(f"`{name}` gives {loss.dtype}", "return a tensor of floats")
    if loss.ndim and len(loss) != count:
        raise TaskError(
            f"`{name}` gives {len(loss)} numbers for {count} examples",
            "return one number an example, or one for the batch",
        )
    accuracy = metrics.get("accuracy", torch.zeros(()))
    if not isinstance(accuracy, Tensor) or (accuracy.ndim and len(accuracy) != count):
        form = shapes(accuracy)
        raise TaskError(
            f"the metric `accuracy` of `{name}` is {form}",
            "return a tensor: whether each example is right, or the share",
        )
    return loss, metrics


def check_layers(bench: Bench) -> str:
    """Cut the net into layers, as strategies need it that give these to different peers."""
    net = bench.build(mix("start", 0)).to(bench.device).train()
    batch = bench.batch()
    enters = entering(bench.task.loss, net, batch)
    if enters is None:
        bench.notes.append((f"the loss gives the net something else than one tensor: {ONE_LAYER}", SEQUENCE))
        bench.figures["layers"] = 1
        return "one"
    chain = Chain(net, Vector(net).spec, enters)
    with own_code("the net cannot be computed layer by layer"):
        results = []
        for compute in (net, chain.run):
            bench.randomness.reseed(0)
            results.append(compute(enters))
    if not torch.equal(*results):
        bench.notes.append((f"layer by layer, the net gives other numbers: {ONE_LAYER}", SEQUENCE))
    elif chain.notice:
        bench.notes.append((chain.notice, SEQUENCE))
    bench.figures["layers"] = len(chain)
    return f"{len(chain)}: as many peers could share the net at most"


def check_gradient(bench: Bench) -> str:
    """Follow the gradient back to the parameters, over some batches."""
    net = bench.build(mix("start", 0)).to(bench.device).train()
    trained = {name: value for name, value in net.named_parameters() if value.requires_grad}
    for number in range(BATCHES):
        loss = bench.mean_loss(net, bench.batch(number))
        with own_code("the gradient cannot be computed"):
            loss.backward()  # type: ignore[no-untyped-call]
    without = [name for name, value in trained.items() if value.grad is None]
    if without:
        raise TaskError(
            f"these parameters never get a gradient: {some(without)}",
            "use them in the forward pass, leave them out, or set requires_grad=False",
        )
    wild = [
        name for name, value in trained.items() if value.grad is not None and not value.grad.isfinite().all()
    ]
    if wild:
        raise TaskError(
            f"the loss is finite, its gradient is not: {some(wild)}",
            "look for sqrt(0), log(0), 0/0 and torch.where over them",
        )
    if not any(float(value.grad.abs().max()) > 0 for value in trained.values() if value.grad is not None):
        raise TaskError(
            "the gradient is zero everywhere", "look for rounding, sign(), argmax or layers that are dead"
        )
    return f"reaches all {len(trained)} tensors"


def check_optimizer(bench: Bench) -> str:
    """Take a step, and look at what the optimiser remembers."""
    net = bench.build(mix("start", 0)).to(bench.device).train()
    vector = Vector(net)
    with own_code("the optimiser cannot be built"):
        optimizer = optimizers.build(bench.task, bench.cfg, net, vector)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TaskError(f"`optimizer` gives a {type(optimizer).__name__}, not a torch.optim.Optimizer")
    before = vector.flat.clone()
    bench.mean_loss(net, bench.batch()).backward()  # type: ignore[no-untyped-call]
    with own_code("the optimiser cannot take a step", "use one whose step() needs no arguments"):
        optimizer.step()
    if torch.equal(before[: vector.spec.trainable], vector.flat[: vector.spec.trainable]):
        raise TaskError(
            "a step of the optimiser changes nothing",
            "look at its learning rate, and whether it was given the net's parameters",
        )
    with own_code("what the optimiser remembers cannot be saved"):
        tensors, _ = optimizers.state(optimizer)
    return f"{type(optimizer).__name__}, remembers {sum(t.nbytes for t in tensors.values()) / 1e6:.3g} MB"


def check_learning(bench: Bench) -> str:
    """Learn one batch by heart: with the task's own optimiser, else with another, to say where it fails."""
    own, steps = _overfit(bench, own=True)
    if _falls(own):
        return f"one batch by heart: loss {own[0]:.4g} → {own[-1]:.4g} in {steps} steps"
    shown = f"{own[0]:.4g} → {own[-1]:.4g} in {steps} steps"
    other, _ = _overfit(bench, own=False)
    if not _falls(other):
        raise TaskError(
            f"the net cannot learn even one batch by heart: its loss goes {shown}",
            "look at the sign of the loss, at the labels, and whether the net sees its inputs",
        )
    if not own[1] - own[0] <= WILD * abs(own[0]):
        raise TaskError(f"training diverges: the loss of one batch goes {shown}", "lower the learning rate")
    raise TaskError(
        f"the loss of one batch hardly falls ({shown}), but Adam with a rate of 0.001 learns it",
        "choose another learning rate or optimiser",
    )


def _falls(losses: tuple[float, float]) -> bool:
    return losses[0] - losses[1] >= FALL * abs(losses[0])


def _overfit(bench: Bench, own: bool) -> tuple[tuple[float, float], int]:
    """Train on one batch; return its loss before and after, and the steps."""
    net = bench.build(mix("start", 0)).to(bench.device).train()
    vector = Vector(net)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    if own:
        optimizer = optimizers.build(bench.task, bench.cfg, net, vector)
    batch = bench.batch()
    losses: list[float] = []
    began = time.perf_counter()
    while len(losses) < OVERFIT_STEPS:
        bench.randomness.reseed(len(losses))
        vector.gradient.zero_()
        with own_code(f"a step of training fails after {len(losses)} others"):
            loss = bench.mean_loss(net, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        vector.settle()
        losses.append(float(loss.detach()))
        enough = len(losses) >= 2 * NOISE and losses[0] - max(losses[-NOISE:]) >= ENOUGH * abs(losses[0])
        late = time.perf_counter() - began > OVERFIT_S and len(losses) >= OVERFIT_STEPS_MIN
        if not math.isfinite(losses[-1]) or enough or late:
            break
    last = losses[-NOISE:]
    return (losses[0], sum(last) / len(last)), len(losses)
