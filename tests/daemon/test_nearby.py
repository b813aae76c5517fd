"""Two computers in one house: asking to join without an invite, and finding each other afterwards."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import PATIENCE_S, Home, Outcome, until

needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="makes network namespaces: needs Linux, root and the command `ip` (iproute2)",
)
CONFIG = '[training]\ndevice = "cpu"\nthreads = 1\n'


class House:
    """A computer of its own, as a network namespace, with a home in it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.home = folder
        folder.mkdir()
        (folder / "config.toml").write_text(CONFIG)
        self.asking: subprocess.Popen[str] | None = None

    def line(self, *words: str) -> list[str]:
        inside = ["ip", "netns", "exec", self.name]
        return [*inside, sys.executable, "-m", "p2ptrain", "--home", str(self.home), *words]

    def call(self, *words: str) -> Outcome:
        done = subprocess.run(
            self.line(*words), capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def status(self) -> Any:
        return self.call("status", "--json").json

    def requests(self) -> Any:
        return self.call("swarm", "requests", "--json").json["requests"]

    def join(self) -> subprocess.Popen[str]:
        self.asking = subprocess.Popen(self.line("join", "--yes"), stderr=subprocess.PIPE, text=True)
        return self.asking

    def end(self) -> None:
        if self.asking is not None:
            self.asking.kill()
            self.asking.communicate()
        self.call("stop", "--now")
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


@pytest.fixture
def houses(tmp_path: Path) -> Iterator[tuple[House, House]]:
    first, second = (House(f"p2pd-{os.getpid()}-{n}", tmp_path / f"house{n}") for n in (1, 2))

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for house in (first, second):
            ip("netns", "add", house.name)
        ip(
            "-n",
            first.name,
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            second.name,
        )
        for last, house in enumerate((first, second), 1):
            ip("-n", house.name, "address", "add", f"10.77.0.{last}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", house.name, "link", "set", link, "up")
        yield first, second
    finally:
        for house in (first, second):
            house.end()


@needs_root
def test_asking_to_join_and_finding_each_other_at_new_addresses(houses: tuple[House, House]) -> None:
    owner, guest = houses
    assert owner.call("swarm", "create", "--task", "digits", "--name", "friends").code == 0
    assert owner.call("start", "--detach", "--paused").code == 0
    said = guest.call("join", "--yes")
    assert said.code == 6
    assert "no swarm is shown" in said.err
    assert "nobody can ask" in owner.call("swarm", "requests").err

    assert owner.call("swarm", "visible").code == 0
    until(lambda: "shown to everyone on eth0" in owner.status()["lan"], "it is not shown")
    asking = guest.join()
    answer = until(owner.requests, "nobody asks")
    code = answer[0]["code"]
    assert answer[0]["address"] == "10.77.0.2"
    assert "nobody who asks shows the code" in owner.call("swarm", "admit", "not", "it").err
    assert owner.call("swarm", "admit", *code.split()).code == 0
    _, shown = asking.communicate(timeout=PATIENCE_S)
    assert asking.returncode == 0, shown
    assert re.search(r"your code is  (\d{3} \d{3})", shown)[1] == code  # type: ignore[index]
    assert "joined `friends`" in shown

    assert owner.call("swarm", "visible", "--off").code == 0
    for last, house in enumerate(houses, 1):
        for words in (("flush", "dev", "eth0"), ("add", f"10.88.0.{last}/24", "dev", "eth0")):
            subprocess.run(["ip", "-n", house.name, "address", *words], check=True)
    assert guest.call("start", "--detach", "--paused").code == 0
    until(
        lambda: [peer["connected"] for peer in owner.status()["node"]["peers"]] == [True], "they do not meet"
    )
    until(lambda: owner.status()["lan"] == "announced on eth0; members found there: 1", "it does not say so")


def test_only_who_admits_can_show_a_swarm(homes: MakeHome) -> None:
    home = homes()
    home.found(task="digits")
    (home.folder.path / "issuer").unlink()
    said = home.call("swarm", "visible")
    assert said.code == 2
    assert "admits nobody" in said.err


def test_a_swarm_may_be_shown_from_the_beginning_and_no_more(homes: MakeHome) -> None:
    home = homes()
    home.found("--visible", task="digits")
    assert home.folder.visible
    assert "it stays hidden" in home.call("swarm", "visible").err
    assert home.call("swarm", "visible", "--off").code == 0
    assert not home.folder.visible


def test_a_daemon_for_this_computer_only_does_not_search(homes: MakeHome) -> None:
    home = homes()
    home.found()
    home.start()
    assert "lan = false" in home.now().lan
    assert said_by(home, "requests") == "nobody can ask: `p2ptrain swarm visible` shows the swarm\n"
    assert "in no local network" in home.call("join").err


def said_by(home: Home, *words: str) -> str:
    return home.call("swarm", *words).err
