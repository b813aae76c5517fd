"""Durations, shares and rates as people write them on a command line."""

import re
from typing import Any

import click

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


class DurationType(click.ParamType[float]):
    """`90s`, `15m`, `3h`, `7d`, `80ms`, `1h30m`: seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        parts = re.findall(r"([\d.]+)\s*(ms|min|[smhd])", value.lower())
        if "".join(a + b for a, b in parts) != value.lower().replace(" ", ""):
            self.fail(f"`{value}` is no duration; write 90s, 15m, 3h or 7d", param, ctx)
        return sum(float(count) * _SECONDS[unit] for count, unit in parts)


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
        found = re.fullmatch(r"([\d.]+)\s*([kmg]?)(b|bit)?(/s)?", value.strip().lower())
        if found is None:
            self.fail(f"`{value}` is no rate; write 2MB or 5Mbit", param, ctx)
        rate = float(found[1]) * _BYTES[found[2]]
        return rate / 8 if found[3] == "bit" else rate


DURATION = DurationType()
SHARE = ShareType()
RATE = RateType()


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
            settings[name.strip()] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            settings[name.strip()] = text
    return settings
