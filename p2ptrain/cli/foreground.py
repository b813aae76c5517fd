"""Runs the daemon in this terminal."""

import asyncio
import secrets
import sys
from datetime import datetime

from p2ptrain.cli.output import say
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.manifest import Manifest
from p2ptrain.daemon.config import load_config
from p2ptrain.daemon.daemon import AlreadyRunningError, Daemon, only_one
from p2ptrain.daemon.home import Home
from p2ptrain.daemon.logs import close_log, open_log
from p2ptrain.daemon.swarms import SwarmFolder, Swarms
from p2ptrain.learn.task import check_known
from p2ptrain.net.identity import Identity

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
    load_config(home.config)
    try:
        with only_one(home):
            folder = _choose(home, swarm, identity, task)
            open_log(home.log, console=True)
            started_by = "terminal" if sys.stdin is not None and sys.stdin.isatty() else "program"
            try:
                asyncio.run(_run(home, folder, paused, started_by))
            finally:
                close_log()
    except AlreadyRunningError:
        say("already running; nothing to do")


async def _run(home: Home, folder: SwarmFolder, paused: bool, started_by: str) -> None:
    await Daemon(home, folder, paused=paused, started_by=started_by).run()


def _choose(home: Home, swarm: str | None, identity: Identity, task: str | None) -> SwarmFolder:
    swarms = Swarms(home.swarms)
    if swarms.all() or swarm is not None:
        folder = swarms.find(swarm)
        if task not in (None, folder.manifest().task):
            raise ConfigError(
                f"the swarm `{folder.manifest().name}` trains {folder.manifest().task}, not {task}",
                f"`p2ptrain swarm create --task {task}` makes another swarm",
            )
        return folder
    chosen = task or DEFAULT_TASK
    check_known(chosen)
    manifest = Manifest(name=f"my-{chosen}"[:40], task=chosen, seed=datetime.now().microsecond)
    folder = swarms.create(manifest, identity, new_seed())
    say(f"no swarm yet: made a personal one, `{manifest.name}`, that trains the task `{chosen}`")
    say("training alone; `p2ptrain invite` makes an invite for others")
    return folder
