"""One way of cooperating a file. A new file here is a new strategy: nothing else has to know it."""

import importlib
import pkgutil

from p2ptrain.core.errors import ManifestError
from p2ptrain.core.manifest import Manifest, read_settings
from p2ptrain.core.strategy import Rules


def names() -> list[str]:
    """The strategies that are here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Rules:
    """Return a strategy by the name of its file.

    Raises:
        ManifestError: there is none of that name.
    """
    if name not in names():
        raise ManifestError(f"there is no strategy `{name}`", f"known are: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return Rules(name, module.Config, module.MESSAGES, module.Strategy)


def settings(rules: Rules, manifest: Manifest) -> object:
    """Apply the manifest's differences to a strategy's defaults.

    Raises:
        ManifestError: an unknown setting or a wrong value.
    """
    return read_settings(rules.config, manifest.strategy_config, f"the strategy `{rules.name}`")
