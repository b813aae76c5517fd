"""`task new`: the beginning of a package with a task of one's own."""

import keyword
import re
from pathlib import Path

import click

from p2ptrain.cli.output import say
from p2ptrain.core.errors import ConfigError

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{project}"
version = "0.1.0"
description = "Two spirals: in which of them does a point lie?"
dependencies = ["p2ptrain"]

[project.entry-points."p2ptrain.tasks"]
{project} = "{module}:task"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""

MODULE = '''\
"""Two spirals: in which of them does a point lie?"""

from dataclasses import dataclass
import torch
from torch import nn
from torch.utils.data import TensorDataset
from p2ptrain import Task

@dataclass(frozen=True)
class Config:
    """width: of the hidden layer."""
    width: int = 128
    lr: float = 0.1
    batch_size: int = 32

def model(cfg):
    return nn.Sequential(nn.Linear(2, cfg.width), nn.ReLU(), nn.Linear(cfg.width, 2))

def data(cfg, split):  # torch's generator is seeded for this: every peer gets the same
    spiral, turn = torch.arange(2000) % 2, 1 + 9 * torch.rand(2000)
    angle = turn + torch.pi * spiral
    return TensorDataset(torch.stack([angle.cos() * turn, angle.sin() * turn], 1) / 5, spiral)

def loss(net, batch):
    scores, spiral = net(batch[0]), batch[1]
    losses = nn.functional.cross_entropy(scores, spiral, reduction="none")
    return losses, {{"accuracy": scores.argmax(1) == spiral}}

task = Task("{project}", version="1", model=model, data=data, loss=loss, config=Config)
'''


@click.command("new", epilog="\b\nExample:\n  p2ptrain task new ./my-net")
@click.argument("path")
def new(path: str) -> None:
    """Write a small package with a task of your own into a new folder PATH."""
    folder = Path(path).expanduser()
    project, module = names(folder.resolve().name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already, and is not empty", "name a new folder")
    filled = {"project": project, "module": module}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pyproject.toml").write_text(PROJECT.format(**filled), encoding="utf-8")
        (folder / f"{module}.py").write_text(MODULE.format(**filled), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from None
    say(f"wrote {folder / 'pyproject.toml'} and {folder / module}.py; next:")
    click.echo(f"  cd {folder}")
    click.echo(f"  p2ptrain task check {module}:task            # what is wrong, what it costs")
    click.echo(f"  p2ptrain task run {module}:task --for 30s    # train it alone")
    click.echo(f"  p2ptrain start --task {module}:task          # and with others: p2ptrain invite")
    click.echo(f"  pip install -e .                             # then its name is {project}, in any folder")


def names(folder: str) -> tuple[str, str]:
    """Return the names of project and module that a folder of this name gives.

    Raises:
        ConfigError: none can be made of it.
    """
    module = re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise ConfigError(f"`{folder}` cannot be the name of a module", "begin with a letter: my-net")
    return module.replace("_", "-"), module
