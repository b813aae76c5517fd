"""Several real daemons train one network on this computer, one dies and comes back, and it is compared."""

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from p2ptrain.cli.fleet import terminated_like_interrupted
from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import human_bytes, json_option, percent, say, table, write_json
from p2ptrain.cli.quantities import parse_settings
from p2ptrain.core.errors import ConfigError, P2PTrainError
from p2ptrain.core.types import peer_from_text

if TYPE_CHECKING:
    from p2ptrain.cli.alone import Alone
    from p2ptrain.cli.fleet import Member

STEPS = {"fashion": 3000, "digits": 20_000}
STEPS_OTHERWISE = 1000
KILL_AT = 0.4
AWAY_S = 3.0
LOOK_EVERY_S = 0.5
SAY_EVERY_S = 2.0
PATIENCE_S = 600.0

SETTINGS: dict[str, tuple[str, ...]] = {"restart": ("explore=0", "compare_s=2", "lr_spread=1")}
"""For half a minute. `restart` shows what it is for: every peer tries a learning rate of its own."""

EPILOG = """\b
Examples:
  p2ptrain demo
  p2ptrain demo --peers 4 --strategy restart --json demo.json
"""


class Row(Struct, frozen=True):
    """One peer of the result."""

    name: str
    alone_accuracy: float | None
    swarm_accuracy: float | None
    alone_loss: float
    swarm_loss: float | None
    samples: int
    bytes_sent: int
    bytes_received: int
    seconds: float


class Result(Struct, frozen=True):
    """What a demo found. Accuracy on test data that nobody trained on; `alone`: same steps, no exchange.

    killed: empty if the run was over before there was a checkpoint to come back to.
    """

    task: str
    strategy: str
    steps: int
    peers: list[Row]
    seconds: float
    killed: str
    killed_at_step: int
    returned: bool
    resumed_from_step: int
    picture: str


@click.command(epilog=EPILOG)
@click.option("--peers", type=click.IntRange(2, 16), default=3, show_default=True)
@click.option("--strategy", default="gossip", show_default=True, help="How to cooperate.")
@click.option("--task", default="fashion", show_default=True, help="What to train.")
@click.option("--steps", type=int, help="Optimiser steps of each peer.  [default: about half a minute]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the common start and the data.")
@click.option("--set", "task_set", multiple=True, metavar="NAME=VALUE", help="A setting of the task.")
@click.option("--picture", default="p2ptrain-demo.svg", show_default=True, help="Where the curves go.")
@click.option("--keep", is_flag=True, help="Keep the daemons' homes for a look at their logs.")
@json_option
@home_option
def demo(picture: str, keep: bool, json_file: str | None, **options: Any) -> None:
    """Start real daemons here, train, kill one, let it return, and compare with each alone."""
    began = time.monotonic()
    parse_settings(options["task_set"])
    for file in (picture, json_file or "-"):
        if not Path(file).parent.is_dir():
            raise ConfigError(f"{file} cannot be written: its folder is not there")
    with terminated_like_interrupted(), _homes(keep) as folder, contextlib.ExitStack() as stack:
        members = _found_swarm(folder, stack, options)
        killed = members[-1]
        killed_at, resumed_from = _watch(members, killed)
        manifest, alone = _train_alone(members)
        rows = [_row(member, one) for member, one in zip(members, alone, strict=True)]
        Path(picture).write_text(_draw(manifest.task, members, alone))
    result = Result(
        task=manifest.task,
        strategy=manifest.strategy,
        steps=manifest.steps,
        peers=rows,
        seconds=time.monotonic() - began,
        killed=killed.name if killed_at else "",
        killed_at_step=killed_at,
        returned=bool(killed_at) and killed.finished,
        resumed_from_step=resumed_from,
        picture=picture,
    )
    if json_file is not None:
        write_json(result, json_file)
    if json_file != "-":
        click.echo(show(result))


# -- the swarm -------------------------------------------------------------------------------------


def _found_swarm(folder: Path, stack: contextlib.ExitStack, options: dict[str, Any]) -> "list[Member]":
    """Make a swarm on the first daemon, and let the others join by its invite."""
    from p2ptrain.cli.fleet import Member

    task, strategy, count = options["task"], options["strategy"], options["peers"]
    members = [Member(folder / f"peer{number}") for number in range(count)]
    for member in members:
        stack.callback(member.stop)
    words = ["--task", task, "--strategy", strategy, "--parts", str(count), "--seed", str(options["seed"])]
    words += ["--steps", str(options["steps"] or STEPS.get(task, STEPS_OTHERWISE)), "--name", "demo"]
    words += [word for pair in options["task_set"] for word in ("--set", pair)]
    words += ["--spread-set", "period_s=0.5"]
    words += [word for pair in SETTINGS.get(strategy, ()) for word in ("--strategy-set", pair)]
    first = members[0]
    first.command("swarm", "create", *words)
    first.start()
    say(f"{first.name} made a swarm that trains `{task}` by {strategy}")
    invite = first.invite()
    for member in members[1:]:
        member.command("join", invite, "--yes")
        member.start()
        say(f"{member.name} joined by invite {invite[:24]}…")
    return members


def _watch(members: "list[Member]", killed: "Member") -> tuple[int, int]:
    """Show progress until all have finished; kill one on the way and let it come back."""
    steps = members[0].status.node.steps if members[0].status else 0
    killed_at = resumed_from = 0
    returns_at: float | None = None
    said = 0.0
    ends = time.monotonic() + PATIENCE_S
    while not all(member.finished for member in members):
        now = time.monotonic()
        if now > ends:
            raise P2PTrainError("the demo did not finish in time", "run it with --keep and look at the logs")
        for member in members:
            member.look()
        saved = killed.status.node.saved_step if killed.status else 0
        if not killed_at and killed.step >= KILL_AT * steps and saved:
            killed_at = killed.step
            killed.kill()
            returns_at = now + AWAY_S
            _progress(f"killed {killed.name} at step {killed_at}: the others go on", last=True)
        if returns_at is not None and now >= returns_at:
            returns_at = None
            killed.start()
            resumed_from = _resumed_step(killed)
            _progress(f"{killed.name} is back and goes on from step {resumed_from}", last=True)
        if now - said >= (LOOK_EVERY_S if sys.stderr.isatty() else SAY_EVERY_S):
            said = now
            _progress("   ".join(_short(member, steps) for member in members))
        time.sleep(LOOK_EVERY_S)
    _progress("   ".join(_short(member, steps) for member in members), last=True)
    return killed_at, resumed_from


def _resumed_step(member: "Member") -> int:
    """Wait until its trainer is back, and return the step that it goes on from."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        if member.look() and member.status is not None and member.status.node.parameters:
            return member.status.node.saved_step
        time.sleep(LOOK_EVERY_S / 5)
    raise P2PTrainError(f"{member.name} did not come back")


def _short(member: "Member", steps: int) -> str:
    if member.status is None:
        return f"{member.name}: off"
    node = member.status.node
    return f"{member.name}: {node.state} {100 * node.step // max(steps, 1)} % {percent(node.accuracy)}"


def _progress(text: str, *, last: bool = False) -> None:
    """Keep one line of the terminal up to date; elsewhere, write lines."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        click.echo("\r" + text[:width].ljust(width), err=True, nl=last)
    else:
        say(text)


# -- the comparison --------------------------------------------------------------------------------


def _train_alone(members: "list[Member]") -> "tuple[Any, list[Alone]]":
    from p2ptrain.cli.alone import train_all
    from p2ptrain.daemon.home import Home
    from p2ptrain.daemon.swarms import Swarms

    statuses = [member.status for member in members if member.status is not None]
    for member in members:
        member.stop()
    say("now each of them alone: same steps, same data, no exchange")
    manifest = Swarms(Home(members[0].home).swarms).find(None).manifest()
    who = [(peer_from_text(status.peer), status.swarm.slot) for status in statuses]
    return manifest, train_all(manifest, who)


def _row(member: "Member", alone: "Alone") -> Row:
    assert member.status is not None
    node = member.status.node
    sent, received = member.bytes
    return Row(
        name=member.name,
        alone_accuracy=alone.accuracy,
        swarm_accuracy=node.test_accuracy,
        alone_loss=alone.loss,
        swarm_loss=node.test_loss,
        samples=node.samples,
        bytes_sent=sent,
        bytes_received=received,
        seconds=member.seconds or 0.0,
    )


def _draw(task: str, members: "list[Member]", alone: "list[Alone]") -> str:
    from p2ptrain.cli.curves import Curve, draw

    curves = []
    for group, (member, one) in enumerate(zip(members, alone, strict=True)):
        curves.append(Curve(f"{member.name}, swarm", tuple(member.curve), group))
        curves.append(Curve(f"{member.name}, alone", one.curve, group, dashed=True))
    return draw(f"{task}: accuracy on each peer's held-out examples", curves)


def show(result: Result) -> str:
    """Write a result for people."""
    head = ["PEER", "ALONE", "SWARM", "LOSS ALONE", "LOSS SWARM", "SAMPLES", "SENT", "RECEIVED", "TIME"]
    rows = [
        [
            row.name,
            percent(row.alone_accuracy),
            percent(row.swarm_accuracy),
            f"{row.alone_loss:.3f}",
            "—" if row.swarm_loss is None else f"{row.swarm_loss:.3f}",
            str(row.samples),
            human_bytes(row.bytes_sent),
            human_bytes(row.bytes_received),
            f"{row.seconds:.0f} s",
        ]
        for row in result.peers
    ]
    better = sum((row.swarm_accuracy or 0) > (row.alone_accuracy or 0) for row in result.peers)
    lines = [
        "",
        f"{result.task} by {result.strategy}, {result.steps} steps each; accuracy on unseen data:",
        table([head, *rows], right=" rrrrrrrr"),
        f"{better} of {len(rows)} peers got further together than alone with the same steps.",
        f"{result.killed} was killed at step {result.killed_at_step} and came back from its checkpoint at "
        f"step {result.resumed_from_step}."
        if result.killed
        else "nobody was killed: the run was too short for a first checkpoint.",
        f"curves: {result.picture}   all in all {result.seconds:.0f} s",
    ]
    return "\n".join(lines)


# -- order -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _homes(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="p2ptrain-demo-"))
    try:
        yield folder
    finally:
        if keep:
            say(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
