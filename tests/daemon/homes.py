"""Whole daemons in the homes of the laboratory: commands in a home, and looks at its daemon."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from p2ptrain.control.api import Status
from p2ptrain.control.client import Client
from p2ptrain.core.errors import ControlError
from tests.net.nat_lab import Home

PATIENCE_S = 90.0
LOOK_EVERY_S = 0.1

CONFIG = """\
[network]
lan = false
[training]
device = "cpu"
threads = 1
"""


class Daemon:
    """A daemon in a home of the laboratory."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.folder = folder / home.name
        self.folder.mkdir()
        (self.folder / "config.toml").write_text(CONFIG)
        self._process: asyncio.subprocess.Process | None = None

    async def command(self, *words: str) -> str:
        """Run a command to its end and return what it printed; it must succeed."""
        return await self.home.run(*self._line(*words), timeout_s=PATIENCE_S)

    async def start(self, *words: str) -> None:
        """Begin a command that goes on; what it prints goes into a file."""
        into_file = 'exec "$@" >>"$0" 2>&1'
        output = str(self.folder / "start.log")
        self._process = await self.home.start("sh", "-c", into_file, output, *self._line(*words))

    async def stop(self) -> None:
        """End the daemon in order."""
        assert self._process is not None
        await self.command("stop")
        await self._process.wait()

    async def kill(self) -> None:
        """Pull the plug."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def status(self) -> Status | None:
        """Ask; None: there is no answer."""

        async def ask() -> Status | None:
            with contextlib.suppress(ControlError):
                return Client(self.folder / "control.json").status()
            return None

        return await self.home.call(ask())

    async def until(self, question: Callable[[Status], object], what: str) -> Status:
        """Wait until the status is as wanted, and return it."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            status = await self.status()
            if status is not None and question(status):
                return status
            assert time.monotonic() < ends, f"{self.home.name}: {what}\n{self.log}"
            await asyncio.sleep(LOOK_EVERY_S)

    @property
    def log(self) -> str:
        """What the daemon said."""
        return (self.folder / "start.log").read_text()

    def _line(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "p2ptrain", "--home", str(self.folder), *words)
