"""Two computers, made of network namespaces, find each other on the networks that they share."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

MEMBER = Path(__file__).with_name("lan_member.py")
PATIENCE_S = 15.0

needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="makes network namespaces: needs Linux, root and the command `ip` (iproute2)",
)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Computer:
    """A network namespace, and one member that may run in it."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self._process: asyncio.subprocess.Process | None = None
        self.told: list[dict[str, Any]] = []

    def ip(self, *words: str) -> None:
        ip("-n", self.name, *words)

    async def start(self, *words: str) -> None:
        command = ["ip", "netns", "exec", self.name, sys.executable, str(MEMBER)]
        self._process = await asyncio.create_subprocess_exec(
            *command, str(self.number), str(5000 + self.number), *words, stdin=-1, stdout=-1
        )

    async def until(self, condition: Callable[["Computer"], object]) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                line = await self._process.stdout.readline()
                assert line, f"{self.name} ended: {self.told}"
                self.told.append(json.loads(line))

    async def stop(self) -> None:
        """End it in order, and see that it did."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await self._process.communicate(b"")
        assert self._process.returncode == 0
        self.told += map(json.loads, out.splitlines())

    @property
    def found(self) -> list[str]:
        return next((one["addresses"] for one in reversed(self.told) if "found" in one), [])

    @property
    def state(self) -> str:
        return next((one["state"] for one in reversed(self.told) if "state" in one), "")

    async def end(self) -> None:
        """Leave nothing behind, whatever became of the test."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.communicate()
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)


@pytest.fixture
async def computers() -> AsyncIterator[tuple[Computer, Computer]]:
    """Two computers with a cable between them, each with all that computers have besides."""
    first, second = (Computer(f"p2pt-{os.getpid()}-{number}", number) for number in (1, 2))
    try:
        for computer in (first, second):
            ip("netns", "add", computer.name)
        first.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second.name)
        first.ip("link", "add", "port1", "type", "veth", "peer", "name", "eth1", "netns", second.name)
        first.ip("link", "add", "br0", "type", "bridge")
        first.ip("link", "set", "port1", "up", "master", "br0")
        second.ip("link", "set", "eth1", "up")
        for computer in (first, second):
            last = computer.number
            second_lan = "br0" if computer is first else "eth1"
            computer.ip("link", "add", "docker0", "type", "bridge")
            for name, end in (("container", "inside"), ("away", "beyond"), ("eth9", "eth8")):
                computer.ip("link", "add", name, "type", "veth", "peer", "name", end)
                computer.ip("link", "set", end, "up")
            computer.ip("link", "set", "container", "up", "master", "docker0")
            computer.ip("link", "set", "away", "multicast", "off")
            for name, address in (
                ("eth0", f"10.77.0.{last}/24"),
                (second_lan, f"10.78.0.{last}/24"),
                ("docker0", "172.17.0.1/16"),
                ("away", f"10.80.0.{last}/24"),
                ("eth9", f"10.79.0.{last}/24"),
            ):
                computer.ip("address", "add", address, "dev", name)
                if name != "eth9":
                    computer.ip("link", "set", name, "up")
            computer.ip("link", "set", "lo", "up")
        yield first, second
    finally:
        for computer in (first, second):
            await computer.end()


@needs_root
async def test_two_computers_find_each_other_on_every_network_that_they_share(computers):
    first, second = computers
    for computer in computers:
        await computer.start()
    await first.until(lambda one: sorted(one.found) == ["10.77.0.2:5002", "10.78.0.2:5002"])
    await second.until(lambda one: sorted(one.found) == ["10.77.0.1:5001", "10.78.0.1:5001"])
    assert first.state == "announced on br0, eth0"
    assert second.state == "announced on eth0, eth1"


@needs_root
async def test_two_computers_find_each_other_when_the_network_comes_late_and_changes(computers):
    first, second = computers
    for name in ("eth0", "eth1"):
        second.ip("link", "set", name, "down")
    await first.start()
    await second.start()
    await second.until(lambda one: one.state == "no local network")
    second.ip("link", "set", "eth1", "up")
    await second.until(lambda one: one.found)
    await first.until(lambda one: one.found)
    assert first.found == ["10.78.0.2:5002"]
    assert second.found == ["10.78.0.1:5001"]
    second.ip("link", "del", "eth1")
    await second.until(lambda one: one.state == "no local network")
    second.ip("link", "set", "eth0", "up")
    await second.until(lambda one: one.found == ["10.77.0.1:5001"])


@needs_root
async def test_a_computer_whose_port_is_taken_says_so_once(computers):
    first, _ = computers
    await first.start("taken")
    await first.until(lambda one: one.state)
    assert "another program keeps UDP port 5353" in first.state
    await asyncio.sleep(0.3)  # it tries again
    await first.stop()
    assert sum("state" in one for one in first.told) == 1


@needs_root
async def test_two_computers_that_have_only_ipv6(computers):
    first, second = computers
    for computer, names in ((first, ("eth0", "br0")), (second, ("eth0", "eth1"))):
        for name in names:
            computer.ip("-4", "address", "flush", "dev", name)
        computer.ip("address", "add", f"fd77::{computer.number}/64", "dev", "eth0", "nodad")
        await computer.start()
    await first.until(lambda one: one.found)
    await second.until(lambda one: one.found)
    assert first.found == ["[fd77::2]:5002"]
    assert second.found == ["[fd77::1]:5001"]
