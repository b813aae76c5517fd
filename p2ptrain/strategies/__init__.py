"""One way of cooperating a file, or a folder. A new one here is a new strategy: nothing else has to know it.

Others come with packages that people install, and are named as tasks are: by an entry point of the group
`p2ptrain.strategies`, or by `package.module`, or `module:Strategy`. Code never travels.
"""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType

from p2ptrain.core.errors import ManifestError
from p2ptrain.core.manifest import Manifest, read_settings
from p2ptrain.core.messages import Message
from p2ptrain.core.strategy import Rules

ENTRY_POINTS = "p2ptrain.strategies"
PARTS = ("start", "handle", "memory", "activity")
"""What a `Strategy` does, see `core/strategy.py`."""


def names() -> list[str]:
    """The strategies that are built in."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def installed() -> dict[str, str]:
    """The names of strategies that other packages bring, and where they lie; nothing is imported."""
    from importlib.metadata import entry_points  # it takes sockets along: a node needs none

    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}


def known() -> list[str]:
    """The names of all strategies that are here."""
    return sorted(dict.fromkeys([*names(), *installed()]))


def check_known(reference: str) -> None:
    """Demand that a strategy of this name is here; a reference is believed until it is loaded.

    Raises:
        ManifestError: there is none.
    """
    if reference in names() or _is_place(reference) or reference in installed():
        return
    near = difflib.get_close_matches(reference, known(), n=1)
    others = f"known are: {', '.join(known())}; others come with a package that you install"
    raise ManifestError(
        f"there is no strategy `{reference}` here", f"did you mean `{near[0]}`?" if near else others
    )


def load(reference: str) -> Rules:
    """Return a strategy by the name of its file, by its entry point, or by where it lies.

    Raises:
        ManifestError: it is not here, cannot be imported, or is no strategy.
    """
    check_known(reference)
    if reference in names():
        module = importlib.import_module(f"{__name__}.{reference}")
    else:
        module = _import(reference, reference if _is_place(reference) else installed()[reference])
    for fault in _faults(module):
        raise ManifestError(
            f"the strategy `{reference}` {fault}", "see docs/OWN.md, or `p2ptrain strategy check`"
        )
    return Rules(reference, module.Config, module.MESSAGES, module.Strategy)


def settings(rules: Rules, manifest: Manifest) -> object:
    """Apply the manifest's differences to a strategy's defaults.

    Raises:
        ManifestError: an unknown setting or a wrong value.
    """
    return read_settings(rules.config, manifest.strategy_config, f"the strategy `{rules.name}`")


def _is_place(reference: str) -> bool:
    return ":" in reference or "." in reference


def _import(reference: str, place: str) -> ModuleType:
    try:
        found = pkgutil.resolve_name(place)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ManifestError(
            f"the strategy `{reference}` cannot be loaded: {error}", "install the package that brings it"
        ) from error
    # Of a class, the file that it is from is meant: config and messages are there.
    module = found if isinstance(found, ModuleType) else sys.modules.get(getattr(found, "__module__", ""))
    if module is None:
        raise ManifestError(f"`{reference}` is a {type(found).__name__}, not a strategy")
    return module


def _faults(module: ModuleType) -> Iterator[str]:
    """Say what a file lacks to be a strategy."""
    for name in ("Config", "MESSAGES", "Strategy"):
        if not hasattr(module, name):
            yield f"has no `{name}`"
    if not isinstance(getattr(module, "Config", type), type):
        yield "has a `Config` that is no class"
    messages = getattr(module, "MESSAGES", ())
    if not isinstance(messages, tuple) or not all(
        isinstance(one, type) and issubclass(one, Message) for one in messages
    ):
        yield "has `MESSAGES` that are no tuple of kinds of `Message`"
    for name in PARTS:
        if not callable(getattr(getattr(module, "Strategy", None), name, None)):
            yield f"has a `Strategy` without `{name}`"
