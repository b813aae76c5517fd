"""What several commands need: the swarm that is meant, and the daemon that works in it."""

from typing import TYPE_CHECKING

from p2ptrain.cli.output import say
from p2ptrain.core.errors import ControlError

if TYPE_CHECKING:
    from p2ptrain.daemon.home import Home
    from p2ptrain.daemon.swarms import SwarmFolder


def find_swarm(home: str | None, name: str | None) -> "SwarmFolder":
    """Return the swarm of that name; without a name the one joined last.

    Raises:
        ConfigError: see `Swarms.find`.
    """
    from p2ptrain.daemon.home import find_home
    from p2ptrain.daemon.swarms import Swarms

    return Swarms(find_home(home).swarms).find(name)


def is_running(home: "Home") -> bool:
    """Say whether a daemon answers."""
    from p2ptrain.control.client import Client

    try:
        Client(home.control).status()
    except ControlError:
        return False
    return True


def tell_daemon(home: "Home", folder: "SwarmFolder") -> None:
    """Let the daemon pass on what was just decided; without one others hear of it later.

    Raises:
        ControlError: it runs, but is of an older version or stuck.
    """
    from p2ptrain.control.client import Client

    try:
        client = Client(home.control)
        running = client.status().swarm.id
    except ControlError:
        running = ""
    if running != folder.swarm.hex():
        say(f"the others hear of it when it runs here: `p2ptrain start {folder.path.name[:8]}`")
        return
    client.reload()
    say("the members that are on hear of it now, the others when they come back")
