"""Invites: invite, invite list, invite revoke."""

import secrets
import shutil
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import click

from p2ptrain.cli.folders import find_swarm, is_running, tell_daemon
from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import json_option, say, table, write_json
from p2ptrain.cli.quantities import DURATION
from p2ptrain.core.errors import ControlError

if TYPE_CHECKING:
    from p2ptrain.core.types import PeerId
    from p2ptrain.daemon.home import Home
    from p2ptrain.daemon.swarms import SwarmFolder
    from p2ptrain.net.members.invite import Invite

HELP = ("-h", "--help")


class MakesByDefault(click.Group):
    """A group whose first command need not be named: `p2ptrain invite friends` makes one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command's name where it was left out."""
        if not args or (args[0] not in self.commands and args[0] not in HELP):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=MakesByDefault,
    epilog="\b\nExamples:\n  p2ptrain invite\n  p2ptrain invite --expires 2d --uses 5 --qr\n"
    "  p2ptrain invite list\n\nWithout a command: `make`; see `p2ptrain invite make --help`.",
)
def invite() -> None:
    """Make an invite for others; list or withdraw those that were made."""


@invite.command(
    epilog="\b\nExamples:\n  p2ptrain invite\n  p2ptrain invite --expires 2d --uses 5\n"
    "  p2ptrain invite make friends --qr"
)
@click.argument("name", required=False)
@click.option("--expires", type=DURATION, default="7d", show_default=True, help="How long it admits.")
@click.option("--uses", type=click.IntRange(1, 65535), default=20, show_default=True, help="Computers.")
@click.option(
    "--role",
    type=click.Choice(["member", "issuer"]),
    default="member",
    show_default=True,
    help="What they may do; an issuer admits others too.",
)
@click.option("--qr", is_flag=True, help="Draw it as a QR code too.")
@json_option
@home_option
@click.pass_obj
def make(
    home: str | None,
    name: str | None,
    expires: float,
    uses: int,
    role: str,
    qr: bool,
    json_file: str | None,
) -> None:
    """Make an invite for the swarm NAME, or for the one joined last."""
    from p2ptrain.daemon.addresses import is_only_here
    from p2ptrain.daemon.home import find_home
    from p2ptrain.net.trust.certificates import Role

    place = find_home(home)
    made, addresses = _make(place, find_swarm(home, name), timedelta(seconds=expires), uses, role)
    until = made.expires_at
    if json_file is not None:
        answer = {"invite": made.encode(), "expires": f"{until:%Y-%m-%dT%H:%M:%SZ}", "uses": uses}
        write_json({**answer, "addresses": list(addresses), "id": made.id}, json_file)
        return
    click.echo(made.encode())
    if qr:
        _show_qr(made.encode())
    say(f"admits {uses} computer(s) until {until:%Y-%m-%d %H:%M} UTC; they run: p2ptrain join INVITE --start")
    if made.role is Role.ISSUER:
        say("or, on a computer that is always on and need not train: p2ptrain bootstrap INVITE")
    if is_only_here(addresses):
        say("this computer has no network: the invite works on this computer only")
    elif not any(ip_address(door.host).is_global for door in made.doors):
        say("it works on this network: of nobody who admits an address is known that the internet reaches")
    if not is_running(place) and len({door.peer for door in made.doors}) == 1:
        say("nobody can join while p2ptrain is not running here: `p2ptrain start`")


def _make(
    place: "Home", folder: "SwarmFolder", life: timedelta, uses: int, role: str
) -> "tuple[Invite, tuple[str, ...]]":
    from p2ptrain.daemon.invites import Invites, doors
    from p2ptrain.net.members.invite import SEED_BYTES, create_invite
    from p2ptrain.net.trust.certificates import Role, wall_clock
    from p2ptrain.net.trust.identity import Identity

    root = folder.need_root("ask whoever did for an invite")
    peer = Identity.load(place.identity).peer
    addresses, absent = _whereabouts(place, folder)
    now = wall_clock()
    seed = secrets.token_bytes(SEED_BYTES)
    made = create_invite(root, seed, now + life, uses, Role(role), doors(folder, peer, addresses, absent))
    Invites(folder).remember(made, now)
    return made, addresses


def _whereabouts(place: "Home", folder: "SwarmFolder") -> "tuple[tuple[str, ...], list[PeerId]]":
    """Return where this computer can be reached and who cannot: the running daemon knows best."""
    from p2ptrain.control.client import Client
    from p2ptrain.core.types import peer_from_text
    from p2ptrain.daemon.addresses import given_addresses
    from p2ptrain.daemon.config import load_config

    try:
        status = Client(place.control).status()
    except ControlError:
        status = None
    if status is not None and status.swarm.id == folder.swarm.hex():
        away = [one.peer for one in status.node.peers if one.trouble and not one.connected]
        return status.addresses, [peer_from_text(peer) for peer in away]
    config = load_config(place.config).network
    return given_addresses(config, config.port or folder.record().port), []


def _show_qr(text: str) -> None:
    from p2ptrain.cli.qr import draw_qr, width

    drawn = draw_qr(text.upper())
    click.echo(drawn, color=True)
    if shutil.get_terminal_size().columns < width(drawn):
        say(f"make the window {width(drawn)} letters wide, or the code cannot be read")


@invite.command("list", epilog="\b\nExample:\n  p2ptrain invite list --json")
@click.argument("name", required=False)
@json_option
@home_option
@click.pass_obj
def list_(home: str | None, name: str | None, json_file: str | None) -> None:
    """List the invites made here for the swarm NAME, or for the one joined last."""
    from p2ptrain.daemon.invites import Invites
    from p2ptrain.net.trust.certificates import wall_clock

    invites = Invites(find_swarm(home, name)).listed(wall_clock())
    if json_file is not None:
        write_json({"invites": invites}, json_file)
        return
    if not invites:
        say("none; `p2ptrain invite` makes one")
        return
    rows = [["ID", "STATE", "USED", "LEFT", "EXPIRES"]]
    rows += [[i.id, i.state, f"{i.used} of {i.uses}", str(i.left), i.expires] for i in invites]
    click.echo(table(rows, right="  rr"))


@invite.command(epilog="\b\nExample:\n  p2ptrain invite revoke k3f7q2xw")
@click.argument("id_", metavar="ID")
@click.option("--swarm", "name", metavar="NAME", help="Of which swarm.  [default: the one joined last]")
@home_option
@click.pass_obj
def revoke(home: str | None, id_: str, name: str | None) -> None:
    """Withdraw the invite ID, which may also be its whole text; whom it admitted stays."""
    from p2ptrain.daemon.home import find_home
    from p2ptrain.daemon.invites import Invites

    folder = find_swarm(home, name)
    say(f"the invite {Invites(folder).revoke(id_)} admits nobody any more")
    tell_daemon(find_home(home), folder)
