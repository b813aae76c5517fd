"""Computers made of network namespaces, and what runs in them."""

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 30.0
CLONE_NEWNET = 0x40000000


def _command(*words: str, given: str = "") -> str:
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


@contextlib.contextmanager
def _inside(namespace: str) -> Iterator[None]:
    """Let this thread, and no other, see a namespace's network; sockets that it makes stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as outside, open(f"/run/netns/{namespace}") as inside:
        assert libc.setns(inside.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(outside.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


class Computer:
    """A network namespace, and what runs in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[asyncio.subprocess.Process] = []
        _command("ip", "netns", "add", name)
        self.now("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")  # else addresses wait for a second
        self.ip("link set lo up")

    def ip(self, *lines: str) -> None:
        """Carry out commands of `ip`."""
        _command("ip", "-n", self.name, "-batch", "-", given="\n".join(lines))

    def nft(self, rules: str) -> str:
        """Carry out commands of `nft`."""
        return self.now("nft", "-f", "-", given=rules)

    def now(self, *command: str, given: str = "") -> str:
        """Run a short command, and wait for it without letting anything else go on."""
        return _command("ip", "netns", "exec", self.name, *command, given=given)

    def forward(self) -> None:
        """Pass on what is for others."""
        self.now("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    async def start(self, *command: str) -> asyncio.subprocess.Process:
        """Run a command that goes on, with pipes in, out and for errors; the lab's end ends it."""
        words = ("ip", "netns", "exec", self.name, *command)
        process = await asyncio.create_subprocess_exec(*words, stdin=-1, stdout=-1, stderr=-1)
        self._processes.append(process)
        return process

    async def run(self, *command: str, given: str = "", timeout_s: float = PATIENCE_S) -> str:
        """Run a command to its end and return what it printed; it must succeed."""
        process = await self.start(*command)
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(given.encode())
        assert process.returncode == 0, f"{' '.join(command)} in {self.name}: {err.decode()}"
        return out.decode()

    async def call(self, work: Coroutine[Any, Any, T], timeout_s: float = PATIENCE_S) -> T:
        """Run a coroutine here, on a thread and an event loop of its own; cancelled, it is cancelled too.

        What it uses of asyncio must have been made inside it.
        """
        running: list[Callable[[], object]] = []
        started = threading.Event()

        async def bounded() -> T:
            task, inner = asyncio.current_task(), asyncio.get_running_loop()
            assert task is not None
            running.append(lambda: inner.call_soon_threadsafe(task.cancel))
            started.set()
            async with asyncio.timeout(timeout_s):
                return await work

        def thread() -> T:
            with _inside(self.name):
                return asyncio.run(bounded())

        with futures.ThreadPoolExecutor(1, self.name) as pool:
            done = asyncio.wrap_future(pool.submit(thread))
            try:
                return await asyncio.shield(done)
            except asyncio.CancelledError:
                started.wait(PATIENCE_S)
                for cancel in running:
                    with contextlib.suppress(RuntimeError):  # it has just ended
                        cancel()
                await asyncio.wait([done])
                raise

    def socket(
        self, port: int = 0, *, address: str = "", type_: int = socket.SOCK_STREAM, ipv6: bool = False
    ) -> socket.socket:
        """Make a non-blocking socket of this computer, for any event loop.

        Args:
            port: TCP or UDP port that it is bound to, and shares with other sockets.
            address: that it is bound to; empty: all.
            type_: SOCK_STREAM or SOCK_DGRAM.
            ipv6: for IPv6, else for IPv4.
        """
        with _inside(self.name):
            made = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, type_)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((address, port))
        return made

    async def end(self) -> None:
        """End what runs here, and the namespace."""
        _remove(self.name)
        for process in self._processes:
            await process.communicate()


def _remove(namespace: str) -> None:
    """End every process in one of our namespaces, and the namespace."""
    pids = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in pids.stdout.split():
        if int(pid) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)
    subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


def remove_left_behind(prefix: str) -> None:
    """Clear up after test processes that were killed; names go on with the process's id."""
    for line in _command("ip", "netns", "list").splitlines():
        name = line.split()[0]
        pid = name.removeprefix(f"{prefix}-").partition("-")[0]
        if name.startswith(f"{prefix}-") and not Path(f"/proc/{pid}").exists():
            _remove(name)
