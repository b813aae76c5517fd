"""Real daemons for tests: homes, commands in them, and patience instead of sleep."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar

import msgspec
import psutil

from p2ptrain.cli.fleet import Member
from p2ptrain.cli.main import main
from p2ptrain.control.api import Status
from p2ptrain.control.client import Client
from p2ptrain.core.errors import ControlError
from p2ptrain.daemon.swarms import SwarmFolder, Swarms

PACED = "paced:task"
"""See `paced.py`: 200 steps a second, and all the rest of the computer for others."""

PATIENCE_S = 60.0
"""Nothing here takes a tenth of that on an idle computer."""

LOOK_EVERY_S = 0.05
MARK = "P2PTRAIN_TEST_HOME"
"""Environment of every process that a test starts, handed on to what that starts: nothing is lost."""

T = TypeVar("T")


def until(question: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Ask until the answer is yes; return it."""
    ends = time.monotonic() + patience_s
    while not (answer := question()):
        assert time.monotonic() < ends, f"waited {patience_s:.0f} s: {what}"
        Event().wait(LOOK_EVERY_S)
    return answer


class Outcome(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


def p2ptrain(*words: object, stdin: str = "") -> Outcome:
    """Run a command line in this process: what it does not catch reaches the test."""
    argv, keyboard = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["p2ptrain", *map(str, words)], StringIO(stdin)
    out, err = StringIO(), StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        return Outcome(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv, sys.stdin = argv, keyboard
    raise AssertionError("main() returned")


def processes(mark: object) -> list[psutil.Process]:
    """Find what was started under a mark and still runs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(mark) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_all(mark: object) -> None:
    """Kill what was started under a mark, until nothing is left of it."""

    def kill() -> bool:
        left = processes(mark)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return not left

    until(kill, "killed processes live on")


class Home(Member):
    """A daemon as the demo has them, and what tests do to it besides."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.control = home / "control.json"

    # -- commands ----------------------------------------------------------------------------------

    def call(self, *words: object, stdin: str = "") -> Outcome:
        """Run a command of this home in the test's own process."""
        return p2ptrain("--home", self.home, *words, stdin=stdin)

    def command(self, *words: str) -> str:
        """Run a command of this home in a process; it must succeed."""
        with self._marked():
            return super().command(*words)

    def found(self, *words: str, task: str = PACED, seed: int = 1) -> None:
        """Make a swarm whose members hear of each other quickly."""
        create = ["swarm", "create", "--name", "test", "--task", task, "--seed", str(seed)]
        made = self.call(*create, "--spread-set", "period_s=0.5", *words)
        assert made.code == 0, made.err

    def invite(self, *words: str) -> str:
        """Make an invite."""
        return str(self.call("invite", "--json", *words).json["invite"])

    def join(self, invite: str) -> Outcome:
        """Join by an invite."""
        return self.call("join", invite, "--yes")

    # -- life --------------------------------------------------------------------------------------

    def start(self, *words: str) -> None:
        """Start the daemon, by another command than `start` if one is given, and wait until it answers."""
        with self._marked():
            super().start(*words)

    def trains(self) -> None:
        """Start the daemon and wait until it trains."""
        self.start()
        self.until(lambda status: status.node.state == "training", "it does not train")

    def until(
        self, question: Callable[[Status], object], what: str, patience_s: float = PATIENCE_S
    ) -> Status:
        """Wait until the status is as wanted, and return it."""
        until(lambda: self.look() and question(self._status), f"{self.name}: {what}", patience_s)
        return self._status

    def kill_trainer(self) -> None:
        """SIGKILL to the trainer, none to the daemon."""
        pid = self.now().trainer_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the daemon's end; return the exit code."""
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    def end(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        end_all(self.home)

    # -- looking -----------------------------------------------------------------------------------

    def now(self) -> Status:
        """Ask; there must be an answer."""
        self.status = Client(self.control).status()
        return self.status

    @property
    def processes(self) -> list[psutil.Process]:
        """The daemon, its trainer, and whatever else runs."""
        return processes(self.home)

    @property
    def log(self) -> str:
        """What the daemon said."""
        return (self.home / "daemon.log").read_text()

    @property
    def folder(self) -> SwarmFolder:
        """The files of its swarm."""
        return Swarms(self.home / "swarms").find(None)

    @property
    def _status(self) -> Status:
        assert self.status is not None
        return self.status

    @contextlib.contextmanager
    def _marked(self) -> Iterator[None]:
        os.environ[MARK] = str(self.home)
        try:
            yield
        finally:
            del os.environ[MARK]


def end_in_order(homes: Iterable[Home]) -> None:
    """End several daemons at once, as their owners do."""
    for home in homes:
        home.signal(signal.SIGTERM)
    assert [home.wait() for home in homes] == [0 for _ in homes]


# -- progress --------------------------------------------------------------------------------------

SAMPLE_EVERY_S = 0.1


@dataclass
class Pace:
    """How one daemon gets on. `crowded_s`: time in which the computer let others go first."""

    step: int = -1
    since: float = 0.0
    crowded_s: float = 0.0
    waits: dict[int, float] | None = None
    longest_s: float = 0.0
    longest_wall_s: float = 0.0


class Pulse(Thread):
    """Watches daemons ten times a second for their longest pause in progress.

    Time that a process spent in the queue for a processor is not counted: that the computer is busy
    with other tests is nothing that a daemon could do better.
    """

    def __init__(self, *members: Member) -> None:
        super().__init__(daemon=True)
        self._paces = {member: Pace() for member in members}
        self._over = Event()

    def __enter__(self) -> "Pulse":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def longest_s(self, member: Member) -> float:
        """Seconds without a step, but for those in which the computer was busy."""
        return self._paces[member].longest_s

    def longest_wall_s(self, member: Member) -> float:
        """Seconds without a step."""
        return self._paces[member].longest_wall_s

    def run(self) -> None:
        while not self._over.wait(SAMPLE_EVERY_S):
            for member, pace in self._paces.items():
                self._look(member, pace)

    def _look(self, member: Member, pace: Pace) -> None:
        try:
            status = Client(member.home / "control.json").status()
        except ControlError:
            step, waits, done = pace.step, None, False
        else:
            step, done = status.node.step, 0 < status.node.steps <= status.node.step
            waits = {pid: queued_s(pid) for pid in (status.pid, status.trainer_pid) if pid}
        now = time.monotonic()
        for pid, queued in (waits or {}).items():
            pace.crowded_s += queued - (pace.waits or {}).get(pid, queued)
        pace.waits = waits or pace.waits
        if pace.step >= 0:
            pace.longest_s = max(pace.longest_s, now - pace.since - pace.crowded_s)
            pace.longest_wall_s = max(pace.longest_wall_s, now - pace.since)
        if step != pace.step or done:
            pace.step, pace.since, pace.crowded_s = step, now, 0.0


def queued_s(pid: int) -> float:
    """Seconds that a process was ready to run and did not; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def free_port() -> int:
    """Return a port that nothing listened at just now."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])
