"""`task compare`: what settings of a task lead to, trained alone from one start on the same data."""

from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct
from msgspec.structs import replace

from p2ptrain.cli.here import data_option, device_option, look_here, use_data
from p2ptrain.cli.output import json_option, number, percent, say, table, write_json
from p2ptrain.cli.quantities import NATURAL, POSITIVE
from p2ptrain.cli.variants import Variant, combine

if TYPE_CHECKING:
    from p2ptrain.cli.charts import Line, Panel
    from p2ptrain.learn.study import Result

SEVEN = "sgd,momentum,nesterov,adagrad,rmsprop,adam,nadam"

EPILOG = f"""\b
Examples:
  p2ptrain task compare digits --set optimizer=sgd,adam --steps 200
  p2ptrain task compare fashion --set optimizer={SEVEN} --set lr=1e-3,tuned --plot seven.png
"""


class Summary(Struct, frozen=True, kw_only=True):
    """One variant over its seeds: means, and the runs they are of."""

    label: str
    panel: str
    lr: float | None
    test_accuracy: float
    train_accuracy: float
    test_loss: float
    train_loss: float
    samples_per_s: float
    runs: "list[Result]"


class Comparison(Struct, frozen=True):
    """The answer for programs. name: the setting that the labels are values of."""

    task: str
    name: str
    variants: list[Summary]


@click.command(epilog=EPILOG)
@click.argument("task")
@click.option("--set", "pairs", multiple=True, metavar="NAME=V,V", help="A setting and its values; repeat.")
@click.option("--steps", type=POSITIVE, help="Of the optimizer, in place of epochs.")
@click.option("--epochs", type=POSITIVE, default=5, show_default=True, help="Times through the data.")
@click.option("--seeds", type=POSITIVE, default=1, show_default=True, help="Starts and orders of the data.")
@data_option
@device_option
@click.option("--threads", type=NATURAL, default=0, help="CPU threads.  [default: what is fastest]")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw curves and table.")
@json_option
def compare(
    task: str, pairs: tuple[str, ...], data: str | None, plot: Path | None, json_file: str | None, **how: Any
) -> None:
    """Train TASK with each combination of settings, alone, and show what each reaches.

    `lr=tuned` means the rate that suits each optimizer: with one rate for all, the one that it suits wins.
    """
    from p2ptrain.cli import charts

    look_here(task)
    use_data(data)
    name, variants = combine(pairs)
    if plot is not None:
        charts.check(plot)
    done = Comparison(task, name, _train(task, variants, **how))
    if json_file is not None:
        write_json(done, json_file)
    if plot is not None:
        charts.draw(plot, _title(done), *_pictured(done))
        say(f"{plot} shows it")
    if json_file != "-":
        click.echo(_table(done))


def _train(
    task: str, variants: list[Variant], steps: int | None, epochs: int, seeds: int, **where: Any
) -> list[Summary]:
    """Train every variant with every seed, after all have been checked; what is the same, only once."""
    from p2ptrain.learn import study
    from p2ptrain.learn.wire import Setup

    known: dict[Any, Result] = {}

    def run(variant: Variant, seed: int) -> "Result":
        rate = study.check(task, variant.settings)
        same = variant.settings if rate is None else variant.settings | {"lr": rate}
        key = (seed, *sorted(same.items()))
        if key not in known:
            setup = Setup(task=task, task_config=variant.settings, seed=seed, steps=steps or 0, **where)
            known[key] = study.train(setup, epochs)
        return replace(known[key], settings=variant.settings)

    for variant in variants:
        study.check(task, variant.settings)
    done: list[Summary] = []
    for count, variant in enumerate(variants, 1):
        try:
            done.append(_summary(variant, [run(variant, seed) for seed in range(seeds)]))
        except KeyboardInterrupt:
            if not done:
                raise
            say(f"interrupted: {len(done)} of {len(variants)} were trained")
            break
        what = " ".join(part for part in (variant.label, variant.panel) if part)
        say(f"{count} of {len(variants)}: {what}: {_reached(done[-1])}")
    return done


def _summary(variant: Variant, runs: "list[Result]") -> Summary:
    return Summary(
        label=variant.label,
        panel=variant.panel,
        lr=runs[0].lr,
        test_accuracy=mean(run.test_accuracy for run in runs),
        train_accuracy=mean(run.train_accuracy for run in runs),
        test_loss=mean(run.test_loss for run in runs),
        train_loss=mean(run.train_loss for run in runs),
        samples_per_s=mean(run.samples_per_s for run in runs),
        runs=runs,
    )


def _reached(summary: Summary) -> str:
    """Write the result on the test: the accuracy where there is one, and how far seeds differ."""
    accuracies = [run.test_accuracy for run in summary.runs]
    if summary.test_accuracy != summary.test_accuracy:
        return f"loss {number(summary.test_loss)}"
    spread = f" ± {100 * stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    return f"{percent(summary.test_accuracy)}{spread}"


HEAD = ["RATE", "TEST", "TRAIN", "LOSS TEST", "LOSS TRAIN", "SAMPLES/S"]
"""Accuracies on the test and on training examples, and the losses on them."""


def _row(summary: Summary) -> list[str]:
    return [
        number(summary.lr),
        _reached(summary),
        percent(summary.train_accuracy),
        number(summary.test_loss),
        number(summary.train_loss),
        f"{summary.samples_per_s:.0f}",
    ]


def _table(done: Comparison) -> str:
    rows = [[summary.label, summary.panel, *_row(summary)] for summary in done.variants]
    head = [done.name.upper(), "WITH", *HEAD]
    if not any(summary.panel for summary in done.variants):
        head, rows = [head[0], *head[2:]], [[row[0], *row[2:]] for row in rows]
    return table([head, *rows], right=" " * (len(head) - len(HEAD)) + "r" * len(HEAD))


def _title(done: Comparison) -> str:
    runs = done.variants[0].runs
    others = (run.settings.items() for summary in done.variants for run in summary.runs)
    common = [f"{name}={value}" for name, value in set(runs[0].settings.items()).intersection(*others)]
    seeds = f", mean and range of {len(runs)} seeds" if len(runs) > 1 else ""
    return f"{' '.join([done.task, *sorted(common)])}: {done.name}, {runs[0].steps} steps{seeds}"


def _pictured(done: Comparison) -> "tuple[list[str], list[Panel]]":
    """Return the names of the charts, and a panel for each combination of the other settings."""
    from p2ptrain.cli.charts import Panel

    has_accuracy = any(summary.test_accuracy == summary.test_accuracy for summary in done.variants)
    first = "accuracy" if has_accuracy else "loss"
    charts = {f"{first} on the test": f"test_{first}", "loss in training": "loss"}
    head = [done.name, *(word.lower() for word in HEAD)]
    titles = dict.fromkeys(summary.panel for summary in done.variants)
    return list(charts), [Panel(title, head, _lines(done, title, list(charts.values()))) for title in titles]


def _lines(done: Comparison, title: str, fields: list[str]) -> "list[Line]":
    from p2ptrain.cli.charts import Line

    return [
        Line(summary.label, [_points(summary.runs, field) for field in fields], _row(summary))
        for summary in done.variants
        if summary.panel == title
    ]


def _points(runs: "list[Result]", field: str) -> list[tuple[int, float, float, float]]:
    """Return step, lowest, mean and highest over the seeds."""
    points = []
    for places in zip(*(run.curve for run in runs), strict=True):
        values = [getattr(place, field) for place in places]
        points.append((places[0].step, min(values), mean(values), max(values)))
    return points
