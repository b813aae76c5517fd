"""A node that helps others to find and reach each other, and does not train: bootstrap."""

from typing import TYPE_CHECKING

import click

from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import say
from p2ptrain.core.errors import ControlError

if TYPE_CHECKING:
    from p2ptrain.daemon.home import Home
    from p2ptrain.daemon.swarms import SwarmFolder


@click.command(
    epilog="\b\nExamples:\n  p2ptrain bootstrap p2pt1aaaa… --port 7070 -d\n  p2ptrain bootstrap\n\n"
    "An invite made with `p2ptrain invite --role issuer` lets it admit new members too."
)
@click.argument("invite", nargs=-1)
@click.option("--swarm", metavar="NAME", help="Which swarm, without INVITE.  [default: the one joined last]")
@click.option("--listen", metavar="ADDRESS", help="An IP address of this computer.  [default: all]")
@click.option("--port", type=click.IntRange(1024, 65535), help="TCP.  [default: one chosen once and kept]")
@click.option("--address", metavar="ADDRESS", help="That others dial, if this computer does not know it.")
@click.option("-d", "--detach", is_flag=True, help="Go on in the background.")
@home_option
@click.pass_obj
def bootstrap(
    home: str | None,
    invite: tuple[str, ...],
    swarm: str | None,
    listen: str | None,
    port: int | None,
    address: str | None,
    detach: bool,
) -> None:
    """Help a swarm without training: admit, introduce and relay, on a computer that is always on.

    INVITE makes this computer a member first. It needs neither the swarm's task nor a GPU.
    """
    from p2ptrain.control.client import Client
    from p2ptrain.daemon.home import find_home

    if invite and swarm is not None:
        raise click.UsageError("INVITE says which swarm; leave --swarm out.")
    place = find_home(home)
    place.prepare()
    try:
        running = Client(place.control).status()
    except ControlError:
        pass
    else:
        again = "" if running.node.state == "serving" else "; `p2ptrain stop` ends it first"
        say(f"already running (pid {running.pid}, {running.node.state}){again}")
        return
    folder = _folder(place, " ".join(invite), swarm)
    say(_powers(folder))
    if detach:
        from p2ptrain.cli.run import detach_as

        words = ["bootstrap", "--swarm", folder.swarm.hex()[:16]]
        words += ["--listen", listen] if listen else []
        words += ["--port", str(port)] if port else []
        words += ["--address", address] if address else []
        detach_as(place, words)
        return
    from p2ptrain.cli.foreground import serve_here

    given = {"listen": listen, "port": port, "address": address}
    serve_here(place, folder, {name: value for name, value in given.items() if value is not None})


def _folder(place: "Home", invite: str, swarm: str | None) -> "SwarmFolder":
    """Return the swarm that is meant; join it by the invite, unless that was done before.

    A service is started with the same invite each time, whether or not an issuer is on then.
    """
    from p2ptrain.cli.folders import find_swarm
    from p2ptrain.cli.foreground import own_identity
    from p2ptrain.cli.joining import ask_to_join, keep
    from p2ptrain.daemon.swarms import Swarms
    from p2ptrain.net.members.invite import decode_invite
    from p2ptrain.net.trust.certificates import wall_clock

    identity = own_identity(place)
    if not invite:
        return find_swarm(str(place.path), swarm)
    parsed = decode_invite(invite)
    for folder in Swarms(place.swarms).all():
        is_meant = folder.path.name == parsed.swarm.hex()[:16]
        if is_meant and folder.membership().member.expires > wall_clock():
            return folder
    return keep(place, ask_to_join(parsed, identity, confirm=False), parsed)


def _powers(folder: "SwarmFolder") -> str:
    from p2ptrain.core.types import short
    from p2ptrain.net.members.state import read_state
    from p2ptrain.net.trust.certificates import Role

    membership = folder.membership()
    member, delegates = membership.member, read_state(membership.root_key, folder.state()).delegates
    if member.role is Role.ISSUER or member.peer in delegates:
        return f"this computer admits, introduces and relays for `{folder.manifest().name}`"
    return (
        f"this computer introduces and relays for `{folder.manifest().name}`; it admits nobody: "
        f"`p2ptrain swarm delegate {short(member.peer)}` lets it, on the computer that made the swarm"
    )
