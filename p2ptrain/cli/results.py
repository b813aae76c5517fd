"""What training led to: evaluate, export, try."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from p2ptrain.cli.folders import find_swarm
from p2ptrain.cli.here import DATA, data_option, device_option, look_here, set_option, use_data
from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import (
    LINE_CHARS_MAX,
    human_seconds,
    json_option,
    number,
    percent,
    say,
    write_json,
)
from p2ptrain.cli.quantities import parse_settings
from p2ptrain.core.errors import ConfigError, P2PTrainError
from p2ptrain.core.text import clean

if TYPE_CHECKING:
    from p2ptrain.daemon.swarms import SwarmFolder
    from p2ptrain.learn.result import Result
    from p2ptrain.learn.wire import Setup

SHOWN_LINES_MAX = 200


def weights_options(command: Any) -> Any:
    """Add what names a net: a task, its settings, its weights."""
    for option in (
        click.option("--weights", metavar="FILE", help="Weights: safetensors, or a checkpoint of torch."),
        data_option,
        set_option,
        click.option("--task", metavar="TASK", help="Of this task instead of a swarm's."),
    ):
        command = option(command)
    return command


@click.command(
    epilog="\b\nExamples:\n  p2ptrain evaluate\n"
    "  p2ptrain evaluate --task cifar10 --set model=resnet20 --data DIR --weights FILE --json result.json"
)
@click.argument("swarm", required=False)
@weights_options
@click.option("--split", type=click.Choice(["test", "validation"]), default="test", show_default=True)
@device_option
@json_option
@home_option
@click.pass_obj
def evaluate(
    home: str | None,
    swarm: str | None,
    task: str | None,
    task_set: tuple[str, ...],
    data: str | None,
    weights: str | None,
    split: Literal["test", "validation"],
    device: str,
    json_file: str | None,
) -> None:
    """Measure weights: what SWARM trained here, or those of a file, on the data of the task."""
    use_data(data)
    result = _net(home, swarm, task, task_set, weights, device)
    measured = result.measure(split)
    answer = {
        "task": result.setup.task,
        "split": split,
        "loss": measured.loss,
        "error": measured.error,
        "accuracy": measured.accuracy,
        "examples": measured.examples,
        "parameters": result.parameters,
        "seconds": measured.seconds,
        "step": result.step,
    }
    if json_file is not None:
        write_json(answer, json_file)
        return
    click.echo(
        f"loss {number(measured.loss)} ± {measured.error:.2g}, accuracy {percent(measured.accuracy)} on "
        f"{measured.examples:,} {split} examples ({human_seconds(measured.seconds)}), "
        f"{result.parameters:,} parameters"
    )


@click.command(epilog="\b\nExamples:\n  p2ptrain export\n  p2ptrain export friends -o friends.safetensors")
@click.argument("swarm", required=False)
@click.option("-o", "out", metavar="FILE", default="model.safetensors", show_default=True, help="Where to.")
@data_option
@device_option
@home_option
@click.pass_obj
def export(home: str | None, swarm: str | None, out: str, data: str | None, device: str) -> None:
    """Write the weights that SWARM trained here as safetensors, and a card in JSON beside them.

    They are those of the last checkpoint: a daemon that runs saves one every 5 s to 5 min.
    """
    from p2ptrain.cli.card import save_with_card

    use_data(data)
    folder = find_swarm(home, swarm)
    result, manifest = _trained(home, folder, device), folder.manifest()
    measured, why = None, ""
    try:
        measured = result.measure()
    except P2PTrainError as error:
        why = error.message
        say(f"the weights are not measured: {why}")
    more = {"swarm": manifest.name, "strategy": manifest.strategy, "members": 1 + len(folder.contacts())}
    samples = _samples(folder, result.step or 0)
    say(save_with_card(result, Path(out), measured, **more, samples=samples, unmeasured=why))
    accuracy = percent(measured.accuracy) if measured else "not measured"
    click.echo(f"{out}: step {result.step:,}, test accuracy {accuracy}")


@click.command(
    "try",
    epilog="\b\nExamples:\n  p2ptrain try shoe.jpg\n"
    "  p2ptrain try --task fashion --weights model.safetensors shoe.jpg",
)
@click.argument("words", nargs=-1, metavar="[SWARM] [PROMPT]")
@weights_options
@device_option
@home_option
@click.pass_obj
def try_(
    home: str | None,
    words: tuple[str, ...],
    task: str | None,
    task_set: tuple[str, ...],
    data: str | None,
    weights: str | None,
    device: str,
) -> None:
    """See what the net can do: it is given PROMPT, which is a picture's file or the beginning of a text."""
    use_data(data)
    swarm, prompt = _split(home, list(words)) if task is None else (None, " ".join(words))
    result = _net(home, swarm, task, task_set, weights, device)
    shown = result.sample(prompt)
    for line in str(shown).splitlines()[:SHOWN_LINES_MAX]:
        click.echo(clean(line, LINE_CHARS_MAX))


def _split(home: str | None, words: list[str]) -> tuple[str | None, str]:
    """Tell a swarm's name from a prompt: the first word, if a swarm is called that."""
    from p2ptrain.daemon.home import find_home
    from p2ptrain.daemon.swarms import Swarms

    named = bool(words) and any(one.is_called(words[0]) for one in Swarms(find_home(home).swarms).all())
    return (words[0], " ".join(words[1:])) if named else (None, " ".join(words))


def _net(
    home: str | None,
    swarm: str | None,
    task: str | None,
    task_set: tuple[str, ...],
    weights: str | None,
    device: str,
) -> "Result":
    """Build the net that was named, with its weights."""
    from p2ptrain.learn.result import build
    from p2ptrain.learn.wire import Setup

    if task is not None and swarm is not None:
        raise ConfigError(f"both a swarm, `{swarm}`, and a task were named", "name one of them")
    if task is None:
        if task_set:
            raise ConfigError("the settings of a swarm's task cannot be changed", "name a task: `--task`")
        folder = find_swarm(home, swarm)
        if weights is None:
            return _trained(home, folder, device)
        result = build(_setup(home, folder, device))
    else:
        look_here(task)
        result = build(Setup(task=task, task_config=parse_settings(task_set), device=device))
    if weights is None:
        say("no --weights: this is the net before any training")
    else:
        result.load_file(Path(weights).expanduser())
    return result


def _trained(home: str | None, folder: "SwarmFolder", device: str) -> "Result":
    from p2ptrain.learn.result import build

    result = build(_setup(home, folder, device))
    result.load_checkpoint(folder.checkpoint)
    return result


def _samples(folder: "SwarmFolder", step: int) -> int | None:
    """Return how many examples this computer trained on in so many steps; None: its history is gone."""
    from p2ptrain.daemon.history import read

    try:
        last = max(read(folder.path), key=lambda point: point.step)
    except (ConfigError, ValueError):
        return None
    return round(last.samples * step / last.step) if last.step else None


def _setup(home: str | None, folder: "SwarmFolder", device: str) -> "Setup":
    """Tell what the trainer of that swarm is told; the data is looked for where the settings say, too."""
    from msgspec.structs import replace

    from p2ptrain.daemon.config import load_config
    from p2ptrain.daemon.home import find_home
    from p2ptrain.daemon.trainer import trainer_setup
    from p2ptrain.learn.process.greeting import TASK

    manifest = folder.manifest()
    if manifest.task.startswith(TASK):
        raise ConfigError(
            f"`{manifest.name}` is trained by a loop of your own, and only that has its net",
            "save it there: torch.save(net.state_dict(), …)",
        )
    look_here(manifest.task)
    training = load_config(find_home(home).config).training
    if training.data:
        os.environ[DATA] = os.pathsep.join(filter(None, (os.environ.get(DATA), training.data)))
    return replace(trainer_setup(manifest, training, folder), device=device)
