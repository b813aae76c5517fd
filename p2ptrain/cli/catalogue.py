"""What is known of tasks: of all of them without importing any, and of one in full."""

import ast
import dataclasses
import importlib.util
import inspect
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from p2ptrain.core.errors import ConfigError
from p2ptrain.learn.task import ENTRY_POINTS, known

if TYPE_CHECKING:
    from p2ptrain.learn.package import Package

BUILT_IN = "built in"
SHIPPED = "shipped"
OF_ITS_OWN = "its own"
NOTHING = "none"

_MEANING = re.compile(r"^(\w+(?:, \w+)*): (.*)$")


class Entry(Struct, frozen=True):
    """A task in the list.

    source: `built in`, or the package that brings it.
    needs: `shipped` with the package; `none`: it is made by chance; `here`; a download and its size; or files
        that only its owner can get.
    """

    name: str
    title: str
    source: str
    needs: str


class Setting(Struct, frozen=True):
    """A field of a task's config."""

    name: str
    type: str
    default: Any
    meaning: str


class Facts(Struct, frozen=True):
    """A task in full. `parameters`: with the default settings."""

    name: str
    version: str
    title: str
    source: str
    needs: str
    package: "Package"
    functions: tuple[str, ...]
    parameters: int
    settings: tuple[Setting, ...]


def catalogue() -> list[Entry]:
    """List all tasks that are here; their modules are read, not run."""
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    return [_entry(name, installed.get(name)) for name in known()]


def describe(reference: str) -> Facts:
    """Load a task and tell all of it.

    Raises:
        ManifestError: there is none of that name.
    """
    from p2ptrain.learn.package import package_of
    from p2ptrain.learn.task import find

    task = find(reference)
    listed = {entry.name: entry for entry in catalogue()}.get(reference)
    module = inspect.getmodule(task.data)
    title = listed.title if listed else _first_sentence(inspect.getdoc(module) or "")
    package = package_of(reference)
    net = task.model(task.configure({}))
    functions = ("optimizer", "evaluate", "sample", "collate", "prepare")
    return Facts(
        name=task.name,
        version=task.version,
        title=title,
        source=listed.source if listed else package.name,
        needs=listed.needs if listed else OF_ITS_OWN,
        package=package,
        functions=("model", "data", "loss", *(name for name in functions if getattr(task, name))),
        parameters=sum(value.numel() for value in net.parameters() if value.requires_grad),
        settings=_settings(task.config),
    )


def _entry(name: str, installed: EntryPoint | None) -> Entry:
    built_in = importlib.util.find_spec(f"p2ptrain.tasks.{name}")
    if built_in is not None and built_in.origin:
        tree = ast.parse(Path(built_in.origin).read_text(encoding="utf-8"))
        return Entry(name, _first_sentence(ast.get_docstring(tree) or ""), BUILT_IN, _needs(tree))
    assert installed is not None
    brought = installed.dist
    about = brought.metadata["Summary"] if brought and "Summary" in brought.metadata else ""
    return Entry(name, about or "", f"{brought.name} {brought.version}" if brought else "", OF_ITS_OWN)


def _needs(tree: ast.Module) -> str:
    """Say where the data of a built-in task comes from, by the data sets that its module names."""
    from p2ptrain.tasks.loaders.files import choose, folders
    from p2ptrain.tasks.loaders.known import SETS

    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    named = [SETS[name] for name in SETS if name in words]
    if not named or "p2ptrain.tasks" in words:
        return SHIPPED if "p2ptrain.tasks" in words else NOTHING
    dataset, name = named[0], next(name for name in SETS if name in words)
    try:
        for folder in folders(name):
            if any(all(choose(folder, file).is_file() for file in files) for files in dataset.layouts):
                return "here"
    except ConfigError:  # of the owner's variable: whoever needs the data says it
        pass
    megabytes = sum(download.size for download in dataset.downloads) / 1e6
    return f"download, {megabytes:.3g} MB" if dataset.downloads and not dataset.terms else "file of yours"


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\w)[.;](?:\s|$)", " ".join(text.split()), maxsplit=1)[0].removesuffix(".")


def _settings(config: type) -> tuple[Setting, ...]:
    meanings = _meanings(config)
    return tuple(
        Setting(
            field.name,
            field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type)),
            field.default if field.default is not dataclasses.MISSING else "",
            meanings.get(field.name, ""),
        )
        for field in dataclasses.fields(config)
    )


def _meanings(config: type) -> dict[str, str]:
    """Read `name: meaning` out of the docstrings of a config and of those that it inherits."""
    found: dict[str, str] = {}
    for kind in reversed(config.__mro__):
        current: tuple[str, ...] = ()
        for line in inspect.cleandoc(kind.__doc__ or "").splitlines():
            begins = _MEANING.match(line)
            if begins is not None:
                current = tuple(begins[1].split(", "))
                found |= dict.fromkeys(current, begins[2])
            elif line.startswith(" ") and current:
                found |= {name: f"{found[name]} {line.strip()}" for name in current}
            else:
                current = ()
    return found
