"""How commands speak: data to stdout, everything else to stderr, and exit codes that scripts rely on."""

import sys
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
import msgspec

from p2ptrain.core.errors import (
    ConfigError,
    ControlError,
    InviteError,
    ManifestError,
    P2PTrainError,
    RefusedError,
    UnreachableError,
)
from p2ptrain.core.text import clean

LINE_CHARS_MAX = 2000
"""Nobody reads longer lines."""


class Exit(IntEnum):
    """Exit codes; `p2ptrain --help` lists them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    REFUSED = 4
    UNHEALTHY = 5
    UNREACHABLE = 6
    INTERRUPTED = 130


def exit_code(error: P2PTrainError) -> Exit:
    """Return the code that an error ends a command with."""
    match error:
        case ControlError():
            return Exit.NOT_RUNNING
        case RefusedError() | InviteError():
            return Exit.REFUSED
        case UnreachableError():
            return Exit.UNREACHABLE
        case ConfigError() | ManifestError():
            return Exit.USAGE
        case _:
            return Exit.FAILED


def json_option(command: Any) -> Any:
    """Add `--json [FILE]`: the answer for programs, to stdout or into a file."""
    return click.option(
        "--json",
        "json_file",
        is_flag=False,
        flag_value="-",
        default=None,
        metavar="[FILE]",
        help="Write the answer as JSON, to stdout or into FILE.",
    )(command)


def write_json(value: Any, json_file: str) -> None:
    """Write an answer for programs.

    Raises:
        ConfigError: the file cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
    if json_file == "-":
        sys.stdout.write(data.decode())
        return
    try:
        Path(json_file).write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{json_file} cannot be written: {error.strerror}") from None


def say(text: str) -> None:
    """Tell a person something that is not the answer; part of it may be others' words."""
    click.echo("\n".join(clean(line, LINE_CHARS_MAX) for line in text.splitlines()), err=True)


def table(rows: list[list[str]], right: str = "") -> str:
    """Align columns; the first row is the head. `right` holds an `r` for each column that ends flush."""
    rows = [[clean(cell, LINE_CHARS_MAX) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right[index : index + 1] == "r" else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def human_bytes(count: float) -> str:
    """Write a number of bytes as people do."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Write a duration as people do: the two largest units."""
    whole = int(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    shown = [f"{value} {unit}" for value, unit in parts if value]
    return " ".join(shown[:2]) or "0 s"


def percent(share: float | None) -> str:
    """Write a share as percent, or a dash."""
    return "—" if share is None or share != share else f"{100 * share:.2f} %"


def number(value: float | None) -> str:
    """Write a number briefly, or a dash."""
    return "—" if value is None or value != value else f"{value:.4g}"
