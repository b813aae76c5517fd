"""Joining on the local network without an invite: join, swarm visible|requests|admit."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import click

from p2ptrain.cli.folders import find_swarm
from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import human_seconds, json_option, say, table, write_json
from p2ptrain.core.errors import ConfigError, UnreachableError

if TYPE_CHECKING:
    from p2ptrain.daemon.home import Home
    from p2ptrain.net.lan.open_swarm import OpenSwarm
    from p2ptrain.net.members.join import Welcome
    from p2ptrain.net.trust.identity import Identity

BY_INVITE = "ask for an invite: `p2ptrain invite` makes one on the computer that made the swarm"


@click.command(epilog="\b\nExamples:\n  p2ptrain swarm visible\n  p2ptrain swarm visible friends --off")
@click.argument("name", required=False)
@click.option("--off", is_flag=True, help="Show it no more.")
@home_option
@click.pass_obj
def visible(home: str | None, name: str | None, off: bool) -> None:
    """Show the swarm NAME to everyone on the local network, so that they can ask to join.

    Strangers there then read its name and task. Without this only members find each other.
    """
    from p2ptrain.daemon.config import load_config
    from p2ptrain.daemon.home import find_home

    folder = find_swarm(home, name)
    if folder.issuer() is None:
        raise ConfigError(
            f"this computer admits nobody to `{folder.manifest().name}`", "do this on the one that made it"
        )
    place = find_home(home)
    folder.show(not off)
    if not off and not load_config(place.config).network.lan:
        say(f"it stays hidden as long as {place.config} says `lan = false` under [network]")
    if off:
        say(f"`{folder.manifest().name}` is shown no more")
    else:
        say(f"`{folder.manifest().name}` is shown while p2ptrain runs here; others run: p2ptrain join")
        say("who asks appears in `p2ptrain swarm requests`")


@click.command(epilog="\b\nExample:\n  p2ptrain swarm requests")
@json_option
@home_option
@click.pass_obj
def requests(home: str | None, json_file: str | None) -> None:
    """List who asks to join now, with the code that each of them sees."""
    from p2ptrain.control.client import Client
    from p2ptrain.daemon.home import find_home

    answer = Client(find_home(home).control).requests()
    if json_file is not None:
        write_json(answer, json_file)
    elif answer.requests:
        rows = [[one.code, one.name, one.address, human_seconds(one.waiting_s)] for one in answer.requests]
        click.echo(table([["CODE", "NAME", "ADDRESS", "WAITS"], *rows]))
        say("compare the code with the other screen; then: p2ptrain swarm admit CODE")
    else:
        say("nobody asks" if answer.visible else "nobody can ask: `p2ptrain swarm visible` shows the swarm")


@click.command(epilog="\b\nExample:\n  p2ptrain swarm admit 123 456")
@click.argument("code", nargs=-1, required=True)
@home_option
@click.pass_obj
def admit(home: str | None, code: tuple[str, ...]) -> None:
    """Make a member of whoever shows CODE on its screen."""
    from p2ptrain.control.client import Client
    from p2ptrain.daemon.home import find_home

    say(Client(find_home(home).control).admit(" ".join(code)).message)


def join_nearby(home: "Home", identity: "Identity", *, ask: bool) -> "Welcome":
    """Find swarms on the local network, let the person choose one, and ask to be admitted.

    Args:
        home: whose settings say where to look.
        identity: who asks.
        ask: let the person choose; without, there must be exactly one.

    Raises:
        P2PTrainError: nothing was found, or the answer was no.
    """
    from p2ptrain.daemon.config import load_config
    from p2ptrain.daemon.nearby import interfaces_of
    from p2ptrain.net.addresses import is_dialable
    from p2ptrain.net.lan.open_swarm import search
    from p2ptrain.net.members.knock import knock

    say("looking for swarms on the local network …")
    here = interfaces_of(load_config(home.config).network)
    if not here:
        raise UnreachableError("this computer is in no local network", BY_INVITE)
    found = [one for one in asyncio.run(search(here)) if one.peer != identity.peer]
    if not found:
        raise UnreachableError(
            "no swarm is shown on the local network",
            "`p2ptrain swarm visible` shows it, where it was made and p2ptrain runs; or join by invite",
        )
    chosen = _choose(found, ask)
    say(f"asking to join `{chosen.name}`; others see your IP address, a nickname, your training results")
    allow = partial(is_dialable, loopback=False)
    welcome = knock(chosen.peer, chosen.addresses, chosen.swarm, identity, _show_code, allow)
    return asyncio.run(welcome)


def _choose(found: "list[OpenSwarm]", ask: bool) -> "OpenSwarm":
    from p2ptrain.daemon.words import nickname

    rows = [
        [str(number), one.name, one.task, nickname(one.peer), one.addresses[0].host]
        for number, one in enumerate(found, 1)
    ]
    click.echo(table([["", "SWARM", "TASK", "ADMITTED BY", "ADDRESS"], *rows]), err=True)
    if ask:
        number = click.prompt("Which", type=click.IntRange(1, len(found)), default=1, err=True)
    elif len(found) > 1:
        raise ConfigError(
            "more than one swarm is shown", "run it without --yes, and choose; or join by invite"
        )
    else:
        number = 1
    return found[number - 1]


def _show_code(code: str) -> None:
    say(f"\n  your code is  {code}\n")
    say("on the other computer the same code must appear: p2ptrain swarm requests")
    say(f"its owner then runs: p2ptrain swarm admit {code}   (waiting; Ctrl+C gives up)")
