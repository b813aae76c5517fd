"""What commands need that run somebody's task on this computer: where its code and its data lie."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import click

from p2ptrain.cli.output import say
from p2ptrain.core.errors import ConfigError

DATA = "P2PTRAIN_DATA"


def look_here(reference: str) -> None:
    """Let `package.module:attribute` be found from the folder where the command runs, as `python -m` does."""
    if ":" in reference and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def warn_if_missing(reference: str) -> None:
    """Say before a trainer starts that it will not find its task."""
    from p2ptrain.learn.process.greeting import TASK

    if ":" not in reference or reference.startswith(TASK):
        return
    look_here(reference)
    top = reference.partition(":")[0].partition(".")[0]
    try:
        found = importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        say(f"the module `{top}` of the task `{reference}` is neither installed nor in {os.getcwd()}")
        say("  fix: install the package that brings it, or start where it lies")


def use_data(folder: str | None) -> None:
    """Let tasks look for their data in this folder first.

    Raises:
        ConfigError: there is no such folder.
    """
    if folder is None:
        return
    if not Path(folder).expanduser().is_dir():
        raise ConfigError(f"there is no folder {folder}", "--data names the folder that holds the data")
    before = os.environ.get(DATA)
    os.environ[DATA] = folder if not before else folder + os.pathsep + before


def data_option(command: Any) -> Any:
    """Add `--data DIR`."""
    return click.option("--data", metavar="DIR", help="Folder with the data (also: P2PTRAIN_DATA).")(command)


def set_option(command: Any) -> Any:
    """Add `--set NAME=VALUE`."""
    return click.option(
        "--set", "task_set", multiple=True, metavar="NAME=VALUE", help="A setting of the task."
    )(command)


def device_option(command: Any) -> Any:
    """Add `--device NAME`."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="auto, cpu, mps, cuda or cuda:<number>.",
    )(command)
