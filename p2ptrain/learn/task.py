"""What a task is, and how one is found by name. Free of torch until a task is loaded."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from p2ptrain.core.errors import ManifestError
from p2ptrain.core.manifest import Settings, read_settings
from p2ptrain.learn.process.greeting import TASK as ATTACHED

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.utils.data import Dataset

    Loss = Tensor | tuple[Tensor, dict[str, Tensor]]

ENTRY_POINTS = "p2ptrain.tasks"


@dataclass(frozen=True)
class Task:
    """A model, its data and its loss.

    Randomness in any of these comes from torch's global generator: it is seeded for each step, so
    that a run can be repeated and resumed exactly.

    Attributes:
        name: what manifests call it.
        version: peers with another version do not train together.
        model: `model(cfg)` builds the net. Parameters and persistent float buffers are float32.
        data: `data(cfg, split)` with split "train" or "test" gives a map-style dataset. The train
            data must be the same on every peer: each takes a part of it, and holds some of that out.
        loss: `loss(net, batch)` gives a loss, or (loss, metrics). The loss is one number for the
            batch, or better one an example: then its standard error is exact. The metric
            "accuracy", of either form too, is shown to people.
        config: a frozen dataclass of bool, int, float and str; its values travel in the manifest.
            Known to the trainer: the settings of `learn/recipe.py`, which it may inherit.
        optimizer: `optimizer(net, cfg)`; by default the one that the config names, with its `lr`,
            `momentum` and `weight_decay`; else SGD with momentum.
        evaluate: like `loss`, used in its place where weights are only measured.
        sample: `sample(net, cfg, prompt)` shows people what the net can do.
        collate: makes a batch from a list of examples; by default torch's `default_collate`.
        prepare: `prepare(cfg, batch, training)` makes of a batch on the device what `loss` takes: bytes
            to numbers, and in training chance changes of pictures or smooth labels.
    """

    name: str
    version: str
    model: "Callable[[Any], nn.Module]"
    data: "Callable[[Any, str], Dataset[Any]]"
    loss: "Callable[[nn.Module, Any], Loss]"
    config: type
    optimizer: "Callable[[nn.Module, Any], Optimizer] | None" = None
    evaluate: "Callable[[nn.Module, Any], Loss] | None" = None
    sample: "Callable[[nn.Module, Any, str], Any] | None" = None
    collate: Callable[[list[Any]], Any] | None = None
    prepare: Callable[[Any, Any, bool], Any] | None = None

    def prepared(self, cfg: Any, batch: Any, training: bool) -> Any:
        """Return what `loss` and `evaluate` take."""
        return batch if self.prepare is None else self.prepare(cfg, batch, training)

    def configure(self, settings: Settings) -> Any:
        """Build the config from a manifest's differences.

        The task's learning rate is for the task's optimizer: another one that is named without a rate
        has the one that suits it.

        Raises:
            ManifestError: an unknown setting or one of the wrong type.
        """
        cfg = read_settings(self.config, settings, f"the task {self.name}")
        usual = {field.name: field.default for field in fields(cfg)} if is_dataclass(cfg) else {}
        is_other = settings.get("optimizer", usual.get("optimizer")) != usual.get("optimizer")
        if is_other and self.optimizer is None and "lr" in usual and "lr" not in settings:
            cfg = replace(cfg, lr=0.0)
        if type(cfg).__hash__ is None:
            raise ManifestError(
                f"the config of the task {self.name} can change", "declare it with @dataclass(frozen=True)"
            )
        return cfg


def known() -> list[str]:
    """Return the names of the tasks that are here, built in or installed, without importing them."""
    return sorted({*_built_in(), *_installed()})


def check_known(reference: str) -> None:
    """Demand that a task of this name is here; a reference is believed until it is loaded.

    Raises:
        ManifestError: there is none.
    """
    refuse_attached(reference)
    if ":" not in reference and reference not in known():
        raise ManifestError(f"there is no task `{reference}` here", _suggest(reference))


def find(reference: str) -> Task:
    """Return a task by its name, or by `package.module:attribute`.

    Raises:
        ManifestError: there is no such task here, or it cannot be imported.
    """
    refuse_attached(reference)
    try:
        if ":" in reference:
            found = pkgutil.resolve_name(reference)
        elif reference in _built_in():
            found = importlib.import_module(f"p2ptrain.tasks.{reference}").task
        elif (entry := _installed().get(reference)) is not None:
            found = entry.load()
        else:
            raise ManifestError(f"there is no task `{reference}` here", _suggest(reference))
    except (ImportError, AttributeError, ValueError) as error:
        raise ManifestError(
            f"the task `{reference}` cannot be loaded: {error}", "install the package that brings it"
        ) from error
    if not isinstance(found, Task):
        raise ManifestError(f"`{reference}` is a {type(found).__name__}, not a task")
    return found


def refuse_attached(reference: str) -> None:
    """Demand a task: some swarms have none, see docs/OWN.md.

    Raises:
        ManifestError: it is the name of such a swarm.
    """
    if reference.startswith(ATTACHED):
        raise ManifestError(
            f"the members of the swarm `{reference.removeprefix(ATTACHED)}` train in scripts of their own",
            "take part from yours: `p2ptrain.attach(net, invite=…)`, see docs/OWN.md",
        )


def _built_in() -> list[str]:
    package = importlib.import_module("p2ptrain.tasks")
    return [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _suggest(reference: str) -> str:
    near = difflib.get_close_matches(reference, known(), n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"known are: {', '.join(known())}; others come with a package that you install"
