"""`history`: what a daemon measured over time, for people, for tables and for programs."""

import csv
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from p2ptrain.cli.folders import find_swarm
from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import human_bytes, json_option, number, percent, table, write_json

if TYPE_CHECKING:
    from p2ptrain.daemon.descent import Turn
    from p2ptrain.daemon.history import Point

ROWS = 20
"""People see that many moments, evenly chosen."""


@click.command(epilog="\b\nExamples:\n  p2ptrain history\n  p2ptrain history --csv | head")
@click.argument("swarm", required=False)
@click.option("--csv", "as_csv", is_flag=True, help="Write all points as comma-separated values.")
@json_option
@home_option
@click.pass_obj
def history(home: str | None, swarm: str | None, as_csv: bool, json_file: str | None) -> None:
    """Show how training in SWARM, or in the one joined last, went on: losses, bytes, peers, descent."""
    from p2ptrain.daemon.history import Point, read, read_turns

    folder = find_swarm(home, swarm)
    points, turns = read(folder.path), read_turns(folder.path)
    if json_file is not None:
        write_json({"swarm": folder.swarm.hex(), "points": points, "turns": turns}, json_file)
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(Point.__struct_fields__)
        writer.writerows(
            ["" if value is None else value for value in msgspec.structs.astuple(p)] for p in points
        )
    else:
        click.echo(show(points))
        if turns:
            click.echo(f"\nwhere the own weights come from\n{show_turns(turns[-ROWS:])}")


def show(points: "list[Point]") -> str:
    """Write some of the points for people; the last one is always among them."""
    last = len(points) - 1
    places = sorted({round(last * at / max(1, ROWS - 1)) for at in range(ROWS)}) if points else []
    head = ["TIME (UTC)", "STATE", "STEP", "TRAINING", "LOSS", "ACCURACY", "↑", "↓", "PEERS", "ROUNDS"]
    rows = [
        [
            f"{datetime.fromtimestamp(point.time, UTC):%Y-%m-%d %H:%M:%S}",
            point.state,
            str(point.step),
            number(point.train_loss),
            number(point.loss),
            percent(point.accuracy),
            human_bytes(point.bytes_sent),
            human_bytes(point.bytes_received),
            str(point.peers),
            str(point.rounds),
        ]
        for point in (points[place] for place in places)
    ]
    return table([head, *rows], right="  rrrrrrrr")


def show_turns(turns: "list[Turn]") -> str:
    """Write from whom the own weights descend."""
    rows = [
        [
            f"{datetime.fromtimestamp(turn.time, UTC):%Y-%m-%d %H:%M:%S}",
            str(turn.step),
            f"{turn.event} {turn.how}".rstrip(),
            turn.parents or "—",
            number(turn.loss),
        ]
        for turn in turns
    ]
    return table([["TIME (UTC)", "STEP", "WHAT", "FROM", "LOSS"], *rows], right=" r  r")
