"""Swarms without computers: simulate, and replay of a real run."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2ptrain.cli.division import division, division_options
from p2ptrain.cli.here import look_here
from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import Exit, human_bytes, json_option, number, percent, say, write_json
from p2ptrain.cli.quantities import DURATION, NATURAL, POSITIVE, RATE, SHARE, make_manifest, parse_settings

if TYPE_CHECKING:
    from p2ptrain.sim.scenario import Scenario, Summary

TOY_FOR = "60s"
TOY_STEP_S = 0.2
TASK_STEP_S = 0.1
"""Virtual seconds of a step: an old laptop."""

TASK_STEPS = 500
ATTACKS = ["mixed", "flip", "claim", "nan", "scale", "shift", "zeros", "minus", "noise", "alie"]
CHECKED_PEERS = 200
"""Larger swarms are run for their figures, and the checks take a tenth of the time."""

EPILOG = """\b
Examples:
  p2ptrain simulate toy --peers 1000 --strategy restart --loss 20% --for 60s
  p2ptrain simulate digits --peers 8 --strategy gossip --churn 30% --seed 7
"""


@click.command(epilog=EPILOG)
@click.argument("task")
@click.option("--peers", type=click.IntRange(1, 10_000), default=8, show_default=True)
@click.option("--strategy", default="gossip", show_default=True, help="How to cooperate.")
@click.option("--for", "for_s", type=DURATION, help="Virtual time.  [default: until all have finished]")
@click.option("--steps", type=NATURAL, help="Steps of each peer; 0: no end.  [default: 500; 0 with --for]")
@click.option("--parts", type=POSITIVE, help="Parts of the training data.  [default: one a peer]")
@division_options
@click.option("--seed", type=NATURAL, help="Of everything.  [default: random]")
@click.option("--latency", type=DURATION, default=0.05, help="One way.  [default: 50ms]")
@click.option("--upload", type=RATE, default=0.0, help="Of each peer.  [default: unlimited]")
@click.option("--loss", type=SHARE, default=0.0, help="Share of messages and transfers that vanish.")
@click.option("--duplicate", type=SHARE, default=0.0, help="Share of messages that come twice.")
@click.option("--reorder", type=SHARE, default=0.0, help="Share of messages that are held back.")
@click.option("--churn", type=SHARE, default=0.0, help="Share of the time that each peer is off.")
@click.option("--session", type=DURATION, default=60.0, help="Mean time between crashes.  [default: 60s]")
@click.option("--partition", type=SHARE, default=0.0, help="Share of the time that the swarm is cut in two.")
@click.option("--slow", type=SHARE, default=0.0, help="Share of the peers that are ten times slower.")
@click.option("--liars", type=SHARE, default=0.0, help="Share of the peers that cheat.")
@click.option("--attack", type=click.Choice(ATTACKS), default="mixed", help="What liars do to their weights.")
@click.option("--clock-jumps", type=SHARE, default=0.0, help="Share of inputs at which a clock jumps.")
@click.option("--step-time", type=DURATION, help="Virtual time of a step.  [default: 100ms; toy 200ms]")
@click.option("--set", "task_set", multiple=True, metavar="NAME=VALUE", help="A setting of the task.")
@click.option("--strategy-set", multiple=True, metavar="NAME=VALUE", help="A setting of the strategy.")
@click.option("--spread-set", multiple=True, metavar="NAME=VALUE", help="A setting of how reports travel.")
@click.option("--target-loss", type=float, help="Stop when someone reaches it.")
@click.option("--codec", type=click.Choice(["f32", "bf16", "int8"]), default="f32", show_default=True)
@click.option("--alone/--no-alone", default=True, help="Train each peer alone too, for comparison.")
@click.option(
    "--checks/--no-checks",
    default=None,
    help="Check the invariants after each input.  [default: up to 200 peers]",
)
@json_option
def simulate(task: str, json_file: str | None, **options: Any) -> None:
    """Run a swarm that trains TASK (or `toy`) in virtual time, with faults. Same seed, same run."""
    from p2ptrain.sim.scenario import run

    seed = options["seed"] if options["seed"] is not None else secrets.randbits(32)
    say(f"seed {seed}")
    summary = run(_scenario(task, seed, options))
    if json_file is not None:
        write_json(summary, json_file)
    else:
        click.echo(_show(summary))


def _scenario(task: str, seed: int, options: dict[str, Any]) -> "Scenario":
    from p2ptrain.sim.faults import Faults
    from p2ptrain.sim.scenario import TOY, Scenario

    look_here(task)
    look_here(options["strategy"])
    toy = task == TOY
    for_s, steps = options["for_s"], options["steps"]
    if round(options["liars"] * options["peers"]) >= options["peers"]:
        raise click.BadParameter("somebody has to be honest", param_hint="--liars")
    if options["session"] <= 0:
        raise click.BadParameter("a computer is on for some time", param_hint="--session")
    if for_s is None and steps is None:
        for_s, steps = (DURATION.convert(TOY_FOR, None, None), 0) if toy else (0.0, TASK_STEPS)
    manifest = make_manifest(
        name=task.rpartition(":")[2][:40],
        task=task,
        task_config=parse_settings(options["task_set"]),
        strategy=options["strategy"],
        strategy_config=parse_settings(options["strategy_set"]),
        spread_config=parse_settings(options["spread_set"]),
        seed=seed,
        parts=options["parts"] or options["peers"],
        **division(options),
        steps=steps or 0,
        target_loss=options["target_loss"],
        codec=options["codec"],
    )
    faults = Faults(
        latency_s=options["latency"],
        upload=options["upload"],
        session_s=options["session"],
        attack=options["attack"],
        **{
            name: options[name]
            for name in ("loss", "duplicate", "reorder", "churn", "partition", "slow", "liars", "clock_jumps")
        },
    )
    return Scenario(
        manifest=manifest,
        peers=options["peers"],
        faults=faults,
        seed=seed,
        for_s=for_s or 0.0,
        step_s=options["step_time"] or (TOY_STEP_S if toy else TASK_STEP_S),
        alone=options["alone"],
        checks=options["checks"] if options["checks"] is not None else options["peers"] <= CHECKED_PEERS,
    )


def _show(summary: "Summary") -> str:
    speed = summary.virtual_s / summary.cpu_s if summary.cpu_s else float("inf")
    lines = [
        f"{summary.peers} peers by {summary.strategy}: {summary.virtual_s:.1f} virtual seconds "
        f"in {summary.cpu_s:.1f} CPU seconds ({speed:.0f} times real time)",
        f"  loss       {number(summary.loss)} on average, best {number(summary.best_loss)}"
        + (f"; alone {number(summary.alone_loss)}" if summary.alone_loss is not None else ""),
    ]
    if summary.accuracy is not None:
        alone = f"; alone {percent(summary.alone_accuracy)}" if summary.alone_accuracy is not None else ""
        lines.append(
            f"  accuracy   {percent(summary.accuracy)} on average, "
            f"worst {percent(summary.accuracy_worst)}{alone}"
        )
    if summary.balance is not None:
        lines.append(f"  balance    {summary.balance:.2f} of the classes in a part, 1: as in all data")
    if any(step.event != "result" for step in summary.lineage):
        from p2ptrain.sim.lineage import in_words

        lines.append(f"  lineage    {in_words(summary.lineage, summary.peers)}")
    lines += [
        f"  messages   {summary.messages_per_peer:.1f} a peer, {human_bytes(summary.bytes_per_peer)} sent",
        f"  informed   {percent(summary.informed_share)} know the best of 15 s before the end",
        f"  finished   {percent(summary.finished_share)} of the peers that were on at the end",
        "  notes      " + ", ".join(f"{name} {count}" for name, count in summary.notes.items()),
        f"  trace      {summary.trace_digest}",
    ]
    return "\n".join(lines)


@click.command(epilog="\b\nExample:\n  p2ptrain replay ~/.local/share/p2ptrain/swarms/*/journal")
@click.argument("journal", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@home_option
def replay(journal: Path, json_file: str | None) -> None:
    """Live the JOURNAL of a daemon's run again, and compare what the node decides."""
    from p2ptrain.daemon.journal import replay as live_again

    count, divergences = live_again(journal)
    if json_file is not None:
        write_json({"inputs": count, "divergences": divergences}, json_file)
    elif divergences:
        first = divergences[0]
        click.echo(
            f"{len(divergences)} of {count} inputs were answered differently; "
            f"the first is number {first.index}, {first.event} at {first.now:.3f} s"
        )
    else:
        click.echo(f"{count} inputs, every effect the same")
    if divergences:
        raise click.exceptions.Exit(Exit.FAILED)
