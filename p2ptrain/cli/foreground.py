"""Runs the daemon in this terminal."""

import asyncio
import secrets
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from p2ptrain.cli.here import look_here, warn_if_missing
from p2ptrain.cli.output import say
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.manifest import Manifest
from p2ptrain.daemon.config import Config, check_network, load_config
from p2ptrain.daemon.daemon import AlreadyRunningError, Daemon, Work, only_one
from p2ptrain.daemon.home import Home
from p2ptrain.daemon.logs import close_log, open_log
from p2ptrain.daemon.swarms import SwarmFolder, Swarms
from p2ptrain.learn.task import check_known, refuse_attached
from p2ptrain.net.trust.identity import Identity

DEFAULT_TASK = "fashion"


def own_identity(home: Home) -> Identity:
    """Read who this node is, or decide it now."""
    home.prepare()
    if not home.identity.exists():
        Identity.create().save(home.identity)
    return Identity.load(home.identity)


def new_seed() -> int:
    """Draw a seed for randomness that is this node's own."""
    return secrets.randbits(48)


def run_here(home: Home, swarm: str | None, *, paused: bool, task: str | None) -> None:
    """Train until stopped."""
    identity = own_identity(home)
    config = load_config(home.config)

    def choose() -> SwarmFolder:
        folder = _choose(home, swarm, identity, task)
        warn_if_missing(folder.manifest().task)
        return folder

    _stay(home, config, choose, Work.PAUSED if paused else Work.TRAIN)


def serve_here(home: Home, folder: SwarmFolder, given: dict[str, Any]) -> None:
    """Admit, introduce and relay until stopped.

    Args:
        home: of this node.
        folder: of the swarm.
        given: settings of the network in the place of those in the file.

    Raises:
        ConfigError: one of them is wrong.
    """
    config = load_config(home.config)
    network = replace(config.network, **given)
    try:
        check_network(network)
    except ValueError as error:
        raise ConfigError(f"a setting is wrong: {error}", "`p2ptrain bootstrap --help`") from None
    _stay(home, replace(config, network=network), lambda: folder, Work.SERVE)


def _stay(home: Home, config: Config, choose: Callable[[], SwarmFolder], work: Work) -> None:
    try:
        with only_one(home):
            folder = choose()
            look_here(folder.manifest().strategy)
            open_log(home.log, console=True)
            try:
                asyncio.run(_run(home, folder, config, work))
            finally:
                close_log()
    except AlreadyRunningError:
        say("already running; nothing to do")


async def _run(home: Home, folder: SwarmFolder, config: Config, work: Work) -> None:
    started_by = "terminal" if sys.stdin is not None and sys.stdin.isatty() else "program"
    await Daemon(home, folder, config, work, started_by).run()


def _choose(home: Home, swarm: str | None, identity: Identity, task: str | None) -> SwarmFolder:
    swarms = Swarms(home.swarms)
    if swarms.all() or swarm is not None:
        folder = swarms.find(swarm)
        if task not in (None, folder.manifest().task):
            raise ConfigError(
                f"the swarm `{folder.manifest().name}` trains {folder.manifest().task}, not {task}",
                f"`p2ptrain swarm create --task {task}` makes another swarm",
            )
        refuse_attached(folder.manifest().task)
        return folder
    chosen = task or DEFAULT_TASK
    check_known(chosen)
    manifest = Manifest(name=f"my-{chosen}"[:40], task=chosen, seed=datetime.now().microsecond)
    folder = swarms.create(manifest, identity, new_seed())
    say(f"no swarm yet: made a personal one, `{manifest.name}`, that trains the task `{chosen}`")
    say("training alone; `p2ptrain invite` makes an invite for others")
    return folder
