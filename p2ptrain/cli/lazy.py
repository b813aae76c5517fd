"""Groups of commands that are imported when they are called: `status` must answer at once."""

import difflib
import importlib
from typing import Any

import click

Places = dict[str, tuple[str, str]]
"""For each command its module in this folder, and its name there."""


class Lazy(click.Group):
    """A group whose commands live in modules that are imported on use.

    Args:
        places: in the order in which they are listed.
    """

    def __init__(self, *args: Any, places: Places, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(self._places)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in self._places:
            return None
        module, attribute = self._places[name]
        command: click.Command = getattr(importlib.import_module(f"p2ptrain.cli.{module}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or suggest the nearest."""
        if args and args[0] not in self._places and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self._places, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else f" `{ctx.command_path} --help` lists them."
            raise click.UsageError(f"There is no command `{args[0]}`.{hint}")
        return super().resolve_command(ctx, args)
