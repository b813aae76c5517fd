"""Several real daemons on this computer: own homes, own processes, loopback sockets."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from p2ptrain.control.api import Status
from p2ptrain.control.client import Client
from p2ptrain.core.errors import ControlError, P2PTrainError

COMMAND_S = 30.0
START_S = 30.0
STOP_S = 15.0
LOOK_EVERY_S = 0.1

CONFIG = """\
[network]
listen = "127.0.0.1"
lan = false
[training]
device = "cpu"
threads = 1
"""


class Member:
    """One daemon and its home. `config`: the owner's settings, as TOML."""

    def __init__(self, home: Path, config: str = CONFIG) -> None:
        self.home = home
        self.name = home.name
        self.status: Status | None = None
        self.began = time.monotonic()
        self.seconds: float | None = None
        self.curve: list[tuple[int, float]] = []
        self.lost_bytes = (0, 0)
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir()
        (home / "config.toml").write_text(config)

    # -- commands ----------------------------------------------------------------------------------

    def command(self, *words: str) -> str:
        """Run one command line in this home.

        Raises:
            P2PTrainError: it failed.
        """
        line = [sys.executable, "-m", "p2ptrain", "--home", str(self.home), *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode:
            raise P2PTrainError(f"`p2ptrain {' '.join(words)[:60]}` failed: {done.stderr.strip()}")
        return done.stdout

    def start(self, *words: str) -> None:
        """Start the daemon, by another command than `start` if one is given, and wait until it answers."""
        with (self.home / "start.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "p2ptrain", "--home", str(self.home), *(words or ("start",))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                break
            if self.look() and self.status is not None and self.status.pid == self._process.pid:
                self.name = self.status.name
                return
            time.sleep(LOOK_EVERY_S)
        said = (self.home / "start.log").read_text(errors="replace").strip()
        raise P2PTrainError(f"the daemon in {self.home} did not start: {said[-500:]}")

    def invite(self) -> str:
        """Make an invite."""
        made: dict[str, object] = msgspec.json.decode(self.command("invite", "--json"))
        return str(made["invite"])

    def kill(self) -> None:
        """Pull the plug: SIGKILL, no goodbye."""
        assert self._process is not None
        self.look()
        if self.status is not None:
            self.lost_bytes = self.bytes
        self._process.kill()
        self._process.wait()
        self.status = None

    def stop(self) -> None:
        """End the daemon whatever state it is in, and all that it started."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
            process.wait()

    # -- looking -----------------------------------------------------------------------------------

    def look(self) -> bool:
        """Ask how things are; say whether there was an answer."""
        try:
            self.status = Client(self.home / "control.json").status()
        except ControlError:
            return False
        node = self.status.node
        if node.accuracy is not None and (not self.curve or node.step > self.curve[-1][0]):
            self.curve.append((node.step, node.accuracy))
        if self.finished and self.seconds is None:
            self.seconds = time.monotonic() - self.began
        return True

    @property
    def step(self) -> int:
        """Steps taken so far; a checkpoint may know of some that were not reported yet."""
        return max(self.status.node.step, self.status.node.saved_step) if self.status else 0

    @property
    def finished(self) -> bool:
        """Whether the result is measured."""
        node = self.status.node if self.status else None
        return node is not None and node.state == "finished" and node.test_loss is not None

    @property
    def bytes(self) -> tuple[int, int]:
        """Bytes sent and received over all lives of the daemon."""
        status = self.status
        sent, received = (status.bytes_sent, status.bytes_received) if status else (0, 0)
        return self.lost_bytes[0] + sent, self.lost_bytes[1] + received


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Clean up after SIGTERM too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
