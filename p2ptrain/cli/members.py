"""Who is let go, and who may let others in: swarm revoke|delegate. They work where the root key is."""

from typing import TYPE_CHECKING

import click

from p2ptrain.cli.folders import find_swarm, tell_daemon
from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import say
from p2ptrain.core.errors import ConfigError

if TYPE_CHECKING:
    from p2ptrain.core.types import PeerId
    from p2ptrain.daemon.swarms import SwarmFolder


@click.command(
    epilog="\b\nExamples:\n  p2ptrain swarm revoke k3f7q2xw\n  p2ptrain swarm revoke k3f7q2xw --undo"
)
@click.argument("peer")
@click.option("--swarm", "name", metavar="NAME", help="Of which swarm.  [default: the one joined last]")
@click.option("--undo", is_flag=True, help="Let it be a member again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
@click.pass_obj
def revoke(home: str | None, peer: str, name: str | None, undo: bool, yes: bool) -> None:
    """Turn the member PEER away for good: the beginning of its id is enough.

    No member connects to it any more, and its certificate is not renewed.
    """
    from p2ptrain.core.types import peer_text, short
    from p2ptrain.daemon.home import find_home
    from p2ptrain.net.trust.identity import Identity

    place = find_home(home)
    folder = find_swarm(home, name)
    folder.need_root("do this on the computer that did")
    found = find_member(folder, peer)
    if found == Identity.load(place.identity).peer:
        raise ConfigError("this computer made the swarm: it cannot be revoked", "`p2ptrain swarm leave`")
    if not yes and not undo:
        click.confirm(f"Turn {peer_text(found)} away from {folder.title}?", abort=True, err=True)
    folder.decide(lambda state: state.readmit(found) if undo else state.revoke(found))
    say(f"{short(found)} {'is a member again' if undo else 'was revoked'}")
    tell_daemon(place, folder)


@click.command(epilog="\b\nExample:\n  p2ptrain swarm delegate k3f7q2xw")
@click.argument("peer")
@click.option("--swarm", "name", metavar="NAME", help="Of which swarm.  [default: the one joined last]")
@home_option
@click.pass_obj
def delegate(home: str | None, peer: str, name: str | None) -> None:
    """Let the member PEER admit and renew others too: the beginning of its id is enough.

    It can do so for 90 days at a time, while this computer is off. `swarm revoke` ends it.
    """
    from p2ptrain.core.types import short
    from p2ptrain.daemon.home import find_home
    from p2ptrain.net.trust.certificates import wall_clock
    from p2ptrain.net.trust.identity import Identity

    place = find_home(home)
    folder = find_swarm(home, name)
    root = folder.need_root("do this on the computer that did")
    found = find_member(folder, peer)
    if found == Identity.load(place.identity).peer:
        raise ConfigError("this computer made the swarm: it may admit others anyway")
    certificate = root.delegate(found, wall_clock())
    folder.decide(lambda state: state.delegate(certificate))
    say(f"{short(found)} may admit and renew members; invites made from now on name it too")
    tell_daemon(place, folder)


def find_member(folder: "SwarmFolder", text: str) -> "PeerId":
    """Return the peer whose id begins like that, among all that this computer ever heard of.

    Raises:
        ConfigError: there is none, or more than one.
    """
    from p2ptrain.core.envelope import sender_of
    from p2ptrain.core.types import peer_from_text, peer_text, short
    from p2ptrain.net.members.state import read_state

    admission = folder.admission()
    known = set(admission.book.members) if admission else set()
    known |= {peer_text(sender_of(raw)) for raw in folder.contacts()}
    known |= {peer_text(peer) for peer in read_state(folder.membership().root_key, folder.state()).revoked}
    found = sorted(one for one in known if text and one.startswith(text.lower()))
    if len(found) == 1:
        return peer_from_text(found[0])
    if found:
        shown = ", ".join(one[:12] for one in found[:8])
        raise ConfigError(f"more than one member's id begins with `{text}`: {shown}", "give more letters")
    try:
        return peer_from_text(text.lower())
    except ValueError:
        others = ", ".join(sorted(short(peer_from_text(one)) for one in known)[:16])
        raise ConfigError(f"no member's id begins with `{text}`", f"known are: {others}") from None
