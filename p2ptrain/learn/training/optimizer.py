"""The optimiser by name or of the task, made fast for small nets, and its state as tensors and numbers."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn, optim

from p2ptrain.core.errors import ManifestError
from p2ptrain.learn import recipe as recipes
from p2ptrain.learn.recipe import Recipe
from p2ptrain.learn.task import Task
from p2ptrain.learn.weights.vector import Vector

ADAMW_DECAY = 0.01
"""As in torch and in Loshchilov 2019: without any, AdamW is Adam."""

MOMENTUM = 0.9
"""Where nothing says otherwise: as in `recipe.Recipe`."""

_ELEMENTWISE = frozenset(
    {
        optim.SGD,
        optim.Adam,
        optim.AdamW,
        optim.NAdam,
        optim.RAdam,
        optim.Adamax,
        optim.Adagrad,
        optim.Adadelta,
        optim.RMSprop,
        optim.Rprop,
    }
)
"""These treat every number alone, so many tensors may be given to them as one."""

Number = bool | int | float | None


def build(
    task: Task, cfg: Any, net: nn.Module, vector: Vector, borders: Collection[int] = ()
) -> optim.Optimizer:
    """Return the task's optimiser, or the one that its settings name, with a fresh state.

    An elementwise one works on stretches of the flat vector instead of single tensors: the result
    is the same, and for 20 narrow layers Adam takes 74 instead of 646 us (measured, one CPU thread).
    No stretch goes beyond any of the `borders`.
    """
    if task.optimizer is not None:
        optimizer = task.optimizer(net, cfg)
    else:
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        optimizer = _named(recipes.of(task, cfg), trained)
    if type(optimizer) not in _ELEMENTWISE:
        return optimizer
    groups = [
        group | {"params": _stretches(group["params"], vector, borders)} for group in optimizer.param_groups
    ]
    remade: optim.Optimizer = type(optimizer)(groups)  # type: ignore[call-arg]  # all have defaults
    return remade


def _named(recipe: Recipe, trained: list[nn.Parameter]) -> optim.Optimizer:
    """Return a recipe's optimizer. What a recipe does not say is as in torch."""
    lr, decay, momentum = recipe.rate, recipe.weight_decay, recipe.momentum
    match recipe.optimizer:
        case "sgd":
            return optim.SGD(trained, lr=lr, weight_decay=decay)
        case "nesterov":
            return optim.SGD(trained, lr=lr, momentum=momentum, nesterov=True, weight_decay=decay)
        case "rmsprop":
            return optim.RMSprop(trained, lr=lr, weight_decay=decay)
        case "adam":
            return optim.Adam(trained, lr=lr, weight_decay=decay)
        case "adagrad":
            return optim.Adagrad(trained, lr=lr, weight_decay=decay)
        case "nadam":
            return optim.NAdam(trained, lr=lr, weight_decay=decay)
        case "adamw":
            return optim.AdamW(trained, lr=lr, weight_decay=decay or ADAMW_DECAY)
        case _:
            return optim.SGD(trained, lr=lr, momentum=momentum, weight_decay=decay)


def rates(optimizer: optim.Optimizer) -> list[float]:
    """Return the learning rates that it has now, one a group."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def take_step(optimizer: optim.Optimizer, rates: list[float], rate: float) -> None:
    """Take a step with these learning rates, multiplied by `rate`."""
    for group, base in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = base * rate
    optimizer.step()


def alike(optimizer: optim.Optimizer, module: nn.Module, lr: float) -> optim.Optimizer:
    """Return an optimiser of the same kind, as it treats its first group, for another module's parameters.

    One that cannot be made like this is replaced by SGD with momentum.
    """
    parameters = list(module.parameters())
    settings = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    try:
        return type(optimizer)([settings | {"params": parameters, "lr": lr}])  # type: ignore[call-arg]
    except (TypeError, ValueError):  # it takes more than parameters, or not any
        return optim.SGD(parameters, lr=lr, momentum=MOMENTUM)


def _stretches(
    parameters: list[nn.Parameter], vector: Vector, borders: Collection[int]
) -> list[nn.Parameter]:
    """Return as few parameters as cover the same numbers of the vector."""
    spans: list[tuple[int, int]] = []
    for begin, count in sorted((int(p.storage_offset()), p.numel()) for p in parameters):
        joins = spans and spans[-1][1] == begin and begin not in borders
        first = spans.pop()[0] if joins else begin
        spans.append((first, begin + count))
    stretches = []
    for begin, end in spans:
        stretch = nn.Parameter(vector.flat[begin:end])
        stretch.grad = vector.gradient[begin:end]
        stretches.append(stretch)
    return stretches


def state(optimizer: optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Number]]:
    """Return copies of all that the optimiser remembers: tensors, and plain numbers.

    Raises:
        ManifestError: it remembers something else, so it cannot be saved.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Number] = {}
    for index, remembered in optimizer.state_dict()["state"].items():
        for name, value in remembered.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{name}"] = value.detach().clone()
            elif isinstance(value, Number):
                numbers[f"{index}/{name}"] = value
            else:
                raise ManifestError(
                    f"{type(optimizer).__name__} keeps a {type(value).__name__}, which cannot be saved",
                    "use an optimiser whose state is tensors and numbers",
                )
    return tensors, numbers


def restore(optimizer: optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Number]) -> None:
    """Give an optimiser built alike the state that `state` returned."""
    remembered: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *numbers.items()]:
        index, _, name = key.partition("/")
        own = value.clone() if isinstance(value, Tensor) else value
        remembered.setdefault(int(index), {})[name] = own
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": remembered, "param_groups": groups})
    if type(optimizer) in _ELEMENTWISE:
        _keep_counts(optimizer, remembered)


def _keep_counts(optimizer: optim.Optimizer, remembered: dict[int, dict[str, Any]]) -> None:
    """Leave single numbers on the CPU, where torch's optimisers make them: reading one waits for a GPU."""
    parameters = [(group, one) for group in optimizer.param_groups for one in group["params"]]
    for index, (group, parameter) in enumerate(parameters):
        if not (group.get("capturable") or group.get("fused")):
            values = remembered.get(index, {})
            counts = {name: v for name, v in values.items() if isinstance(v, Tensor) and v.ndim == 0}
            optimizer.state[parameter].update(counts)
