"""`task run`: train a task on this computer alone, and watch."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from p2ptrain.cli.here import data_option, device_option, look_here, set_option, use_data
from p2ptrain.cli.output import human_seconds, json_option, number, percent, say, write_json
from p2ptrain.cli.quantities import DURATION, NATURAL, POSITIVE, parse_settings

if TYPE_CHECKING:
    from p2ptrain.learn.alone import Look
    from p2ptrain.learn.result import Measured

SECONDS = 60.0
"""Unless something else was asked for."""

LINE_EVERY_S = 5.0
"""Where nobody looks at a terminal; then twice as long each time, up to a minute."""

LINE_S_MAX = 60.0


class Ran(Struct, frozen=True, kw_only=True):
    """What came out. test: None: it could not be measured. interrupted: by Ctrl-C."""

    task: str
    settings: dict[str, bool | int | float | str | None]
    seed: int
    device: str
    parameters: int
    steps: int
    samples: int
    seconds: float
    samples_per_s: float
    interrupted: bool
    train_loss: float | None
    test: "Measured | None"
    curve: list[tuple[int, float, float | None]]
    file: str


@click.command(
    "run",
    epilog="\b\nExamples:\n  p2ptrain task run fashion --for 30s\n"
    "  p2ptrain task run digits --set optimizer=adam --steps 2000 --save digits.safetensors",
)
@click.argument("name", metavar="TASK")
@set_option
@click.option("--steps", type=POSITIVE, help="Optimiser steps to take.")
@click.option("--for", "seconds", type=DURATION, help="Time to train.  [default: 1m without --steps]")
@data_option
@click.option("--seed", type=NATURAL, default=0, show_default=True, help="Of everything that is random.")
@device_option
@click.option("--save", metavar="FILE", help="Write the weights as safetensors, and a card beside them.")
@json_option
def run(
    name: str,
    task_set: tuple[str, ...],
    steps: int | None,
    seconds: float | None,
    data: str | None,
    seed: int,
    device: str,
    save: str | None,
    json_file: str | None,
) -> None:
    """Train TASK on this computer alone. Ctrl-C ends it with the result so far."""
    from p2ptrain.learn.alone import Alone
    from p2ptrain.learn.wire import Setup

    look_here(name)
    use_data(data)
    settings = parse_settings(task_set)
    told = Setup(task=name, task_config=settings, seed=seed, peer_seed=seed, steps=steps or 0, device=device)
    alone = Alone(told)
    for notice in alone.notices:
        say(notice)
    if steps is None and seconds is None:
        seconds = SECONDS
    until = f"{steps:,} steps" if steps else human_seconds(seconds or 0)
    shown = Shown(steps)
    with interrupts() as interrupted:
        say(f"training {name} on {alone.device} for {until}; Ctrl-C ends it sooner")
        for look in alone.train(seconds if seconds is not None else float("inf"), lambda: bool(interrupted)):
            shown.take(look)
        shown.end()
    result, last = alone.result(), shown.last
    ran = Ran(
        task=name,
        settings=settings,
        seed=seed,
        device=alone.device,
        parameters=result.parameters,
        steps=last.step if last else 0,
        samples=last.samples if last else 0,
        seconds=last.seconds if last else 0.0,
        samples_per_s=last.samples / last.seconds if last and last.seconds else 0.0,
        interrupted=bool(interrupted),
        train_loss=last.loss if last else None,
        test=result.measure(),
        curve=shown.curve,
        file=save or "",
    )
    if save is not None:
        from p2ptrain.cli.card import save_with_card

        say(save_with_card(result, Path(save), ran.test, samples=ran.samples))
    if json_file is not None:
        write_json(ran, json_file)
    else:
        click.echo(summary(ran))


def summary(ran: Ran) -> str:
    """Write the result for people."""
    lines = [
        f"{ran.task}: {ran.steps:,} steps, {ran.samples:,} samples in {human_seconds(ran.seconds)} "
        f"({ran.samples_per_s:,.0f} samples/s), {ran.parameters:,} parameters",
        f"  training  loss {number(ran.train_loss)}",
    ]
    if ran.test is not None:
        lines.append(
            f"  test      loss {number(ran.test.loss)} ± {ran.test.error:.2g}, accuracy "
            f"{percent(ran.test.accuracy)}, {ran.test.examples:,} examples"
        )
    return "\n".join(lines)


class Shown:
    """What people see while it runs: one line that changes on a terminal, else a line now and then."""

    def __init__(self, steps: int | None) -> None:
        self.last: Look | None = None
        self.curve: list[tuple[int, float, float | None]] = []
        self._steps = steps
        self._live = sys.stderr.isatty()
        self._next_s, self._every_s = LINE_EVERY_S, LINE_EVERY_S

    def take(self, look: "Look") -> None:
        """Show how it goes."""
        self.last = look
        if look.is_measured and look.held_out is not None:
            self.curve.append((look.step, *look.held_out))
        if self._live:
            click.echo(f"\r\x1b[2K{self._line(look)}", nl=False, err=True)
        elif look.seconds >= self._next_s:
            say(self._line(look))
            self._every_s = min(LINE_S_MAX, 2 * self._every_s)
            self._next_s = look.seconds + self._every_s

    def end(self) -> None:
        """Leave the line."""
        if self._live and self.last is not None:
            click.echo(err=True)

    def _line(self, look: "Look") -> str:
        of = f" of {self._steps:,}" if self._steps else ""
        loss, accuracy = look.held_out or (None, None)
        held_out = f"   held out: loss {number(loss)}, accuracy {percent(accuracy)}" if look.held_out else ""
        return (
            f"step {look.step:,}{of}   loss {number(look.loss)}{held_out}   "
            f"{look.samples_per_s:,.0f} samples/s   {human_seconds(look.seconds)}"
        )


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Collect the first Ctrl-C; the second one ends the program as always."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)
