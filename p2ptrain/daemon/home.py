"""Where everything lies on disk.

identity.pem      who this node is
config.toml       the owner's settings; never written by the daemon
control.json      how to reach the daemon that runs; gone when none does
daemon.lock       held by the daemon that runs
daemon.log        what it said, and daemon.log.1 ...
swarms/<id>/      one folder a swarm, see `swarms.py`
"""

import os
from pathlib import Path

import platformdirs

from p2ptrain.core.errors import ConfigError

VARIABLE = "P2PTRAIN_HOME"


class Home:
    """The folder of one node. Every daemon has its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = path / "identity.pem"
        self.config = path / "config.toml"
        self.control = path / "control.json"
        self.lock = path / "daemon.lock"
        self.log = path / "daemon.log"
        self.swarms = path / "swarms"

    def prepare(self) -> None:
        """Make the folder, readable by its owner only.

        Raises:
            ConfigError: it cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.swarms.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the home folder {self.path} cannot be made: {error.strerror}", "choose another with --home"
            ) from None


def find_home(chosen: str | None) -> Home:
    """Return the home that was chosen, that of the environment, or the usual one of this system."""
    named = chosen or os.environ.get(VARIABLE)
    if named:
        return Home(Path(named).expanduser().resolve())
    return Home(Path(platformdirs.user_data_dir("p2ptrain", appauthor=False)))
