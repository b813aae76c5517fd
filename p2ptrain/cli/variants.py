"""Settings with several values: every combination of them is a variant."""

from itertools import product
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from p2ptrain.cli.quantities import parse_settings

if TYPE_CHECKING:
    from p2ptrain.core.manifest import Settings

VARIANTS_MAX = 100
"""More do not fit into a picture. Guess."""

TUNED = "tuned"
"""As the value of `lr`: the task's own, or with another optimizer than the task's, what suits that one."""


class Variant(Struct, frozen=True):
    """One combination.

    label: the value of the first setting that has several. panel: those of the others.
    """

    label: str
    panel: str
    settings: "Settings"


def combine(pairs: tuple[str, ...]) -> tuple[str, list[Variant]]:
    """Read `name=value` and `name=value,value`; return the name of the labels, and every combination.

    Raises:
        BadParameter: a pair without `=`, a value or a name twice, or too many combinations.
    """
    values = _read(pairs)
    several = [name for name, texts in values.items() if len(texts) > 1]
    first = (several or list(values) or [""])[0]
    panels = several[1:]
    names = [*panels, *(name for name in values if name not in panels)]
    variants = []
    for texts in product(*(values[name] for name in names)):
        chosen = dict(zip(names, texts, strict=True))
        panel = ", ".join(f"{name}={chosen[name]}" for name in panels)
        variants.append(Variant(chosen.get(first, "as it is"), panel, _settings(chosen)))
    if len(variants) > VARIANTS_MAX:
        raise click.BadParameter(f"{len(variants)} combinations are more than {VARIANTS_MAX}")
    return first or "settings", variants


def _read(pairs: tuple[str, ...]) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name:
            raise click.BadParameter(f"`{pair}` is not name=value or name=value,value")
        if name in values:
            raise click.BadParameter(f"`{name}` stands there twice; write {name}=value,value")
        values[name] = [value.strip() for value in text.split(",")]
        if len(set(values[name])) < len(values[name]):
            raise click.BadParameter(f"`{pair}` has a value twice")
    return values


def _settings(chosen: dict[str, str]) -> dict[str, Any]:
    pairs = [f"{name}={value}" for name, value in chosen.items() if (name, value) != ("lr", TUNED)]
    return parse_settings(tuple(pairs))
