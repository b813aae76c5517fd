"""`advise`: which strategy fits, from what training costs here and what the lines carry."""

import math
from typing import TYPE_CHECKING, Any

import click

from p2ptrain.cli.here import data_option, device_option, look_here, set_option, use_data
from p2ptrain.cli.output import human_bytes, human_seconds, json_option, percent, say, table, write_json
from p2ptrain.cli.quantities import DURATION, RATE, parse_settings

if TYPE_CHECKING:
    from p2ptrain.cli.advice import Advice
    from p2ptrain.learn.expense import Expense

MEASURE_S = 3.0
NOTHING_S = 1e-6
"""Long enough for one step."""

UP, DOWN = 20e6 / 8, 100e6 / 8
"""Of a usual home line (guess)."""


@click.command(
    epilog="\b\nExamples:\n  p2ptrain advise fashion --peers 6\n"
    "  p2ptrain advise digits --set width=200 --peers 4 --up 1Gbit --down 1Gbit --latency 1ms"
)
@click.argument("task")
@set_option
@click.option("--peers", type=click.IntRange(2, 10_000), default=4, show_default=True, help="Who take part.")
@click.option("--up", type=RATE, default=UP, help="Of each line.  [default: 20Mbit]")
@click.option("--down", type=RATE, default=DOWN, help="Of each line.  [default: 100Mbit]")
@click.option("--latency", type=DURATION, default=0.03, help="One way.  [default: 30ms]")
@click.option("--session", type=DURATION, help="So long a member stays.  [default: for ever]")
@click.option("--uneven", is_flag=True, help="The members' data differ in kind.")
@click.option("--unsure", is_flag=True, help="Nobody knows a good learning rate, or bad minima are feared.")
@click.option("--codec", type=click.Choice(["f32", "bf16", "int8"]), default="f32", show_default=True)
@click.option("--step-time", type=DURATION, help="Of one optimiser step.  [default: measured here]")
@data_option
@device_option
@json_option
def advise(task: str, json_file: str | None, **options: Any) -> None:
    """Say which strategies fit TASK and some computers like this one, and why."""
    from p2ptrain.cli.advice import Facts
    from p2ptrain.cli.advice import advise as judge
    from p2ptrain.core.costs import Situation

    look_here(task)
    use_data(options["data"])
    expense = _measure(task, options)
    step_s = options["step_time"] or expense.step_s
    now = Situation(
        weights_bytes=expense.weights_bytes,
        peers=options["peers"],
        up=options["up"],
        down=options["down"],
        latency_s=options["latency"],
        step_s=step_s,
    )
    facts = Facts(
        now=now,
        layers=expense.layers,
        activation_bytes=expense.activation_bytes,
        fits=expense.fits,
        uneven=options["uneven"],
        unsure=options["unsure"],
        session_s=options["session"] or math.inf,
    )
    found = judge(facts)
    if json_file is not None:
        write_json({"measured": expense, "advice": [_plain(one) for one in found]}, json_file)
    if json_file != "-":
        click.echo(_show(task, expense, step_s, found, options))


def _measure(task: str, options: dict[str, Any]) -> "Expense":
    from p2ptrain.learn.expense import measure
    from p2ptrain.learn.wire import Setup

    setup = Setup(
        task=task,
        task_config=parse_settings(options["task_set"]),
        codec=options["codec"],
        device=options["device"],
    )
    if options["step_time"] is None:
        say(f"training {task} here for {MEASURE_S:.0f} s")
    return measure(setup, MEASURE_S if options["step_time"] is None else NOTHING_S)


def _show(
    task: str, expense: "Expense", step_s: float, found: "list[Advice]", options: dict[str, Any]
) -> str:
    rows = [
        [
            one.strategy,
            one.fit.name.lower(),
            f"{one.speed:.1f}",
            percent(one.busy),
            _seconds(one.round_s),
            human_bytes(one.sent_per_hour),
        ]
        for one in found
    ]
    best = found[0]
    words = [f"--strategy-set {name}={value}" for name, value in best.settings.items()]
    return "\n".join(
        [
            f"{task}: {expense.parameters:,} parameters in {len(expense.layers)} layers, "
            f"{human_bytes(expense.weights_bytes)} of weights, {_seconds(step_s)} a step on {expense.device}",
            "",
            table([["STRATEGY", "FITS", "SPEED", "BUSY", "ROUND", "SENT/H"], *rows], right="  rrrr"),
            "",
            *(f"{one.strategy}: {one.why}" for one in found),
            "",
            "SPEED: steps of all, as a multiple of one computer. From a model of lines: real ones differ.",
            "begin: " + " ".join(["p2ptrain swarm create --task", task, "--strategy", best.strategy, *words]),
        ]
    )


def _seconds(seconds: float) -> str:
    return human_seconds(seconds) if seconds >= 10 else f"{seconds:.3g} s"


def _plain(one: "Advice") -> dict[str, Any]:
    import msgspec

    return {**msgspec.structs.asdict(one), "fit": one.fit.name.lower()}
