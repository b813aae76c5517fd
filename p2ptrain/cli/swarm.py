"""Swarms and who is in them: swarm create|list|show|leave|delegate|revoke, join, peers."""

import secrets
from typing import TYPE_CHECKING, Any

import click

from p2ptrain.cli.division import division, division_options
from p2ptrain.cli.folders import find_swarm
from p2ptrain.cli.here import look_here
from p2ptrain.cli.main import home_option
from p2ptrain.cli.members import delegate, revoke
from p2ptrain.cli.nearby import admit, join_nearby, requests, visible
from p2ptrain.cli.output import (
    LINE_CHARS_MAX,
    human_bytes,
    human_seconds,
    json_option,
    number,
    percent,
    say,
    table,
    write_json,
)
from p2ptrain.cli.quantities import NATURAL, POSITIVE, make_manifest, parse_settings
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.text import clean

if TYPE_CHECKING:
    from p2ptrain.daemon.swarms import SwarmFolder


@click.group()
def swarm() -> None:
    """Make, list, show or leave swarms; let members go."""


for command in (delegate, revoke, visible, requests, admit):
    swarm.add_command(command)


@swarm.command(
    "create",
    epilog="\b\nExample:\n  p2ptrain swarm create --task digits --strategy restart --name friends",
)
@click.option("--task", default="fashion", show_default=True, help="What to train.")
@click.option("--strategy", default="gossip", show_default=True, help="How to cooperate.")
@click.option("--name", help="What people call it.  [default: the task]")
@click.option("--set", "task_set", multiple=True, metavar="NAME=VALUE", help="A setting of the task.")
@click.option("--strategy-set", multiple=True, metavar="NAME=VALUE", help="A setting of the strategy.")
@click.option("--spread-set", multiple=True, metavar="NAME=VALUE", help="A setting of how reports travel.")
@click.option("--steps", type=NATURAL, default=0, help="Steps that each peer contributes; 0: no end.")
@click.option("--target-loss", type=float, help="Stop when someone reaches it.")
@click.option("--parts", type=POSITIVE, default=1, help="Parts of the training data, one a peer.")
@division_options
@click.option("--codec", type=click.Choice(["f32", "bf16", "int8"]), default="f32", show_default=True)
@click.option("--seed", type=NATURAL, help="Of the common start.  [default: random]")
@click.option("--visible", is_flag=True, help="Strangers on the local network see it and may ask to join.")
@home_option
@click.pass_obj
def create(home: str | None, /, task: str, strategy: str, name: str | None, **options: Any) -> None:
    """Found a swarm; this computer admits its members."""
    from p2ptrain.cli.foreground import new_seed, own_identity
    from p2ptrain.daemon.home import find_home
    from p2ptrain.daemon.journal import setup_of
    from p2ptrain.daemon.swarms import Swarms
    from p2ptrain.learn.task import check_known, find

    place = find_home(home)
    identity = own_identity(place)
    look_here(task)
    check_known(task)
    look_here(strategy)
    manifest = make_manifest(
        name=clean(name or task.rpartition(":")[2]),
        task=task,
        task_config=parse_settings(options["task_set"]),
        strategy=strategy,
        strategy_config=parse_settings(options["strategy_set"]),
        spread_config=parse_settings(options["spread_set"]),
        seed=options["seed"] if options["seed"] is not None else secrets.randbits(32),
        parts=options["parts"],
        **division(options),
        steps=options["steps"],
        target_loss=options["target_loss"],
        codec=options["codec"],
    )
    setup_of(manifest, identity.peer, 0, None)
    if manifest.task_config or ":" in task:  # only torch itself can tell: that takes a second
        find(task).configure(manifest.task_config)
    folder = Swarms(place.swarms).create(manifest, identity, new_seed())
    folder.show(options["visible"])
    say(f"made the swarm `{manifest.name}` ({folder.swarm.hex()[:8]}): {task} by {strategy}")
    say("next: `p2ptrain start`, and `p2ptrain invite` for others")


@swarm.command("list", epilog="\b\nExample:\n  p2ptrain swarm list")
@json_option
@home_option
@click.pass_obj
def list_(home: str | None, json_file: str | None) -> None:
    """List the swarms of this computer."""
    facts = []
    for folder in _swarms(home):
        try:
            facts.append(_facts(folder))
        except ConfigError as error:
            say(f"error: {error.message}\n  fix: {error.hint}")
    if json_file is not None:
        write_json({"swarms": facts}, json_file)
    elif not facts:
        say("none; `p2ptrain start` makes one, or join by invite")
    else:
        head = ["NAME", "ID", "TASK", "STRATEGY", "ROLE"]
        rows = [[f["name"], f["id"][:8], f["task"], f["strategy"], f["role"]] for f in facts]
        click.echo(table([head, *rows]))


@swarm.command("show", epilog="\b\nExample:\n  p2ptrain swarm show friends")
@click.argument("name", required=False)
@json_option
@home_option
@click.pass_obj
def show(home: str | None, name: str | None, json_file: str | None) -> None:
    """Show one swarm: what all members agreed on."""
    facts = _facts(find_swarm(home, name))
    if json_file is not None:
        write_json(facts, json_file)
        return
    for key, value in facts.items():
        click.echo(f"{key:<16} {clean(str(value), LINE_CHARS_MAX)}")


@swarm.command("leave", epilog="\b\nExample:\n  p2ptrain swarm leave friends --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
@click.pass_obj
def leave(home: str | None, name: str, yes: bool) -> None:
    """Leave a swarm and forget its keys, weights and checkpoints."""
    from p2ptrain.daemon.daemon import only_one
    from p2ptrain.daemon.home import find_home

    folder = find_swarm(home, name)
    called = folder.title
    with only_one(find_home(home)):
        if (folder.path / "root").exists():
            say(f"this computer made `{called}`: without it nobody can be admitted any more")
        if not yes:
            click.confirm(f"Leave `{called}` and delete {folder.path}?", abort=True, err=True)
        folder.delete()
    say(f"left `{called}`")


@click.command(epilog="\b\nExamples:\n  p2ptrain join p2pt1aaaa… --start\n  p2ptrain join")
@click.argument("invite", nargs=-1)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--start", "start_now", is_flag=True, help="Begin to train at once.")
@home_option
@click.pass_context
def join(ctx: click.Context, invite: tuple[str, ...], yes: bool, start_now: bool) -> None:
    """Join a swarm by INVITE. Without one, ask a swarm on the local network.

    Nothing that comes from the network is run as a program.
    """
    from p2ptrain import strategies
    from p2ptrain.cli.foreground import own_identity
    from p2ptrain.cli.joining import ask_to_join, keep
    from p2ptrain.core.manifest import decode_manifest
    from p2ptrain.daemon.home import find_home
    from p2ptrain.learn.task import check_known
    from p2ptrain.net.members.invite import decode_invite

    place = find_home(ctx.obj)
    parsed = decode_invite(" ".join(invite)) if invite else None
    if parsed is None:
        welcome = join_nearby(place, own_identity(place), ask=not yes)
    else:
        welcome = ask_to_join(parsed, own_identity(place), confirm=not yes)
    manifest = decode_manifest(welcome.manifest)
    check_known(manifest.task)
    strategies.check_known(manifest.strategy)
    folder = keep(place, welcome, parsed)
    if start_now:
        from p2ptrain.cli.run import start

        ctx.invoke(start, swarm=folder.swarm.hex(), detach=False, paused=False, task=None)
    else:
        say("next: `p2ptrain start`")


@click.command(epilog="\b\nExample:\n  p2ptrain peers --json")
@json_option
@home_option
@click.pass_obj
def peers(home: str | None, json_file: str | None) -> None:
    """List the members of the swarm as the running daemon knows them."""
    from p2ptrain.control.client import Client
    from p2ptrain.daemon.home import find_home

    status = Client(find_home(home).control).status()
    if json_file is not None:
        write_json(
            {"schema": status.schema, "peers": status.node.peers, "traffic": status.traffic}, json_file
        )
        return
    if not status.node.peers:
        say("only you so far; `p2ptrain invite` lets others in")
        return
    traffic = {entry.peer: entry for entry in status.traffic}
    rows = [["", "PEER", "NAME", "PATH", "STEP", "LOSS", "ACCURACY", "↑", "↓", "HEARD", "TROUBLE"]]
    for peer in status.node.peers:
        seen = traffic[peer.peer]
        rows.append(
            [
                "●" if peer.connected else "✖",
                peer.short,
                peer.name,
                seen.path or "—",
                "bootstrap" if not peer.trains else "—" if peer.step is None else str(peer.step),
                number(peer.loss),
                percent(peer.accuracy),
                human_bytes(seen.bytes_sent),
                human_bytes(seen.bytes_received),
                "—" if peer.age_s is None else human_seconds(peer.age_s),
                peer.trouble,
            ]
        )
    click.echo(table(rows, right="    rrrrrr"))


def _swarms(home: str | None) -> "list[SwarmFolder]":
    from p2ptrain.daemon.home import find_home
    from p2ptrain.daemon.swarms import Swarms

    return Swarms(find_home(home).swarms).all()


def _facts(folder: "SwarmFolder") -> dict[str, Any]:
    import msgspec

    from p2ptrain.core.types import peer_text
    from p2ptrain.net.members.state import read_state

    manifest, membership = folder.manifest(), folder.membership()
    state = read_state(membership.root_key, folder.state())
    return {
        "id": membership.swarm.hex(),
        **msgspec.structs.asdict(manifest),
        "role": str(membership.member.role),
        "slot": membership.member.slot,
        "certificate_expires": f"{membership.member.expires:%Y-%m-%d}",
        "state": state.version,
        "revoked": sorted(peer_text(peer) for peer in state.revoked),
        "delegates": sorted(peer_text(peer) for peer in state.delegates),
        "folder": str(folder.path),
    }
