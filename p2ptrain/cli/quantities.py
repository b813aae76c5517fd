"""Durations, shares, rates and settings as people write them on a command line."""

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from p2ptrain.core.manifest import Manifest

DURATION_MAX_S = 10 * 365.25 * 86400
_AMOUNT = r"(\d+(?:\.\d+)?|\.\d+)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


class DurationType(click.ParamType[float]):
    """`90s`, `15m`, `3h`, `7d`, `80ms`, `1h30m`: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        parts = re.findall(rf"{_AMOUNT}\s*(ms|min|[smhd])", value.lower())
        if not parts or "".join(a + b for a, b in parts) != value.lower().replace(" ", ""):
            self.fail(f"`{value}` is no duration; write 90s, 15m, 3h or 7d", param, ctx)
        seconds = sum(float(count) * _SECONDS[unit] for count, unit in parts)
        if seconds > DURATION_MAX_S:
            self.fail(f"`{value}` is more than ten years", param, ctx)
        return seconds


class ShareType(click.ParamType[float]):
    """`30%` or `0.3`: a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"`{value}` is no share; write 30% or 0.3", param, ctx)
        return share


class RateType(click.ParamType[float]):
    """`2MB` or `5Mbit`, with or without `/s`: bytes per second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return bytes per second."""
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(rf"{_AMOUNT}\s*([kmg]?)(b|bit)?(/s)?", value.strip().lower())
        if found is None:
            self.fail(f"`{value}` is no rate; write 2MB or 5Mbit", param, ctx)
        rate = float(found[1]) * _BYTES[found[2]]
        return rate / 8 if found[3] == "bit" else rate


DURATION = DurationType()
SHARE = ShareType()
RATE = RateType()
NATURAL = click.IntRange(0)
POSITIVE = click.IntRange(1)


def parse_settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read `name=value` pairs; values are JSON where they can be, words otherwise.

    Raises:
        BadParameter: a pair without `=`.
    """
    import msgspec

    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"`{pair}` is not name=value")
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            value = text
        settings[name.strip()] = text if isinstance(value, list | dict) else value
    return settings


def make_manifest(**values: Any) -> "Manifest":
    """Build a manifest that every member will be able to read.

    Raises:
        ConfigError: a value is outside its bounds.
        ManifestError: two values contradict each other.
    """
    import msgspec

    from p2ptrain.core.errors import ConfigError
    from p2ptrain.core.manifest import Manifest

    try:
        manifest = msgspec.convert(values, Manifest)
        manifest.encode()
    except (msgspec.ValidationError, OverflowError) as error:
        raise ConfigError(f"there can be no such swarm: {error}") from None
    manifest.check()
    return manifest
