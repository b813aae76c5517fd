"""The trainer process: started, spoken to, and started again when it dies."""

import asyncio
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import psutil

from p2ptrain.core.effects import Stage
from p2ptrain.core.errors import LocalProtocolError, P2PTrainError
from p2ptrain.core.inputs import Input, LearnFailed, Staged, TrainerLost
from p2ptrain.core.limits import GIB, MIB
from p2ptrain.core.manifest import Manifest
from p2ptrain.core.types import BlobId, Seconds
from p2ptrain.daemon.config import Training
from p2ptrain.daemon.staging import Answer
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.learn import wire

RETRY_FIRST_S: Seconds = 1.0
RETRY_MAX_S: Seconds = 60.0
HEALTHY_S: Seconds = 60.0
"""A trainer that lived that long was no failed start."""

QUIT_S: Seconds = 10.0
"""So long it may take to finish a file; then it is killed."""

LINE_BYTES_MAX = 4096
"""Of a longer line its end is kept."""

LAST_WORDS = 20
"""Lines of its error output that are kept."""

MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 * MIB), "MALLOC_TRIM_THRESHOLD_": str(16 * GIB)}
"""Have glibc keep what tensors leave behind: else it is given back and fetched again, full of zeros, at every
step, which takes a tenth of the time of ResNet-20 (measured, LOG.md). All versions take 32 MiB."""

NICENESS = 5
"""Training yields to the owner's programs and to the daemon, which must answer peers in time."""


class Trainer:
    """Keeps one trainer process alive.

    Args:
        setup: what the process is told.
        feed: takes the answers that are inputs, and the news that it died.
        say: takes what the owner should read.
    """

    def __init__(self, setup: wire.Setup, feed: Callable[[Input], None], say: Callable[[str], None]) -> None:
        self._setup = setup
        self._feed = feed
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._accepting: dict[BlobId, asyncio.Future[str]] = {}
        self._moving: dict[str, asyncio.Future[int]] = {}
        self._staging: dict[str, Callable[[Answer | None], None]] = {}
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._quitting = False

    @property
    def pid(self) -> int | None:
        """The process, if one runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def send(self, command: wire.Command) -> None:
        """Hand a command over; without a process it is lost, as is everything that it was doing."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(wire.frame(command))

    async def accept(self, blob: BlobId) -> str:
        """Have fetched weights checked; return why they are refused, empty if they are good.

        Raises:
            P2PTrainError: nobody could check them, which says nothing about them.
        """
        if self.pid is None:
            raise P2PTrainError("there is no trainer to check them")
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._accepting[blob] = future
        self.send(wire.Accept(blob))
        return await future

    async def move(self, command: wire.Export | wire.Import) -> int:
        """Have numbers written to a file or read from one; return how many.

        Raises:
            P2PTrainError: it cannot be done.
        """
        if self.pid is None:
            raise P2PTrainError("there is no trainer")
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._moving[command.tag] = future
        self.send(command)
        return await future

    def begin_stage(self, effect: Stage, put: Callable[[Answer | None], None]) -> bool:
        """Have a part in a line begin; what comes of it is put, None if it died; no: there is none."""
        if self.pid is None:
            return False
        self._staging[effect.tag] = put
        self.send(effect)
        return True

    async def run(self) -> None:
        """Start the process, and again whenever it ends, until `quit`."""
        retry_s = RETRY_FIRST_S
        while not self._quitting:
            began = asyncio.get_running_loop().time()
            reason = await self._live()
            if self._quitting:
                return
            healthy = asyncio.get_running_loop().time() - began > HEALTHY_S
            retry_s = RETRY_FIRST_S if healthy else retry_s
            self._feed(TrainerLost(reason, retry_s))
            await asyncio.sleep(retry_s)
            retry_s = min(RETRY_MAX_S, 2 * retry_s)

    async def quit(self) -> None:
        """Let it finish what it writes, and end it."""
        self._quitting = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.send(wire.Quit())
        try:
            async with asyncio.timeout(QUIT_S):
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _live(self) -> str:
        """Run one process to its end; return why it ended."""
        self._last_words.clear()
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "p2ptrain.learn.process.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=MEMORY | os.environ,
        )
        _be_nice(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(wire.frame(self._setup))
        words = asyncio.create_task(self._listen(process.stderr))
        try:
            reason = await self._read(process.stdout)
            code = await process.wait()
            await words
        except asyncio.CancelledError:
            self.kill()
            await process.wait()
            raise
        finally:
            words.cancel()
            self._give_up("the trainer died while it did that")
        return reason or self._explain(code)

    async def _read(self, stream: asyncio.StreamReader) -> str:
        """Pass answers on until the pipe ends; return the process's own last word, if any."""
        try:
            while True:
                size = wire.body_bytes(await stream.readexactly(wire.HEAD_BYTES))
                answer = wire.decode_answer(await stream.readexactly(size))
                match answer:
                    case wire.Accepted(blob=blob):
                        self._settle(blob, "")
                    case wire.Refused(blob=blob, reason=reason):
                        self._settle(blob, reason)
                    case wire.Moved():
                        self._end_move(answer)
                    case wire.Goes(tag=tag) if tag in self._staging:
                        self._staging[tag](answer)
                    case Staged(tag=tag) | LearnFailed(tag=tag) if tag in self._staging:
                        self._staging.pop(tag)(answer)
                    case wire.Goes():
                        pass  # its part is over
                    case wire.Notice(text=text):
                        self._say(text)
                    case wire.Crashed():
                        return f"{answer.reason}; {answer.hint}" if answer.hint else answer.reason
                    case _:
                        self._feed(answer)
        except asyncio.IncompleteReadError:
            return ""
        except (LocalProtocolError, msgspec.DecodeError) as error:
            self.kill()
            return str(error)

    def _settle(self, blob: BlobId, reason: str) -> None:
        future = self._accepting.pop(blob, None)
        if future is not None and not future.done():
            future.set_result(reason)

    def _end_move(self, moved: wire.Moved) -> None:
        future = self._moving.pop(moved.tag, None)
        if future is None or future.done():
            return
        if moved.reason:
            future.set_exception(P2PTrainError(moved.reason))
        else:
            future.set_result(moved.numbers)

    def _give_up(self, reason: str) -> None:
        """Nobody answers what was asked."""
        waiting: list[asyncio.Future[Any]] = [*self._accepting.values(), *self._moving.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(P2PTrainError(reason))
        for put in self._staging.values():
            put(None)
        self._accepting.clear()
        self._moving.clear()
        self._staging.clear()

    async def _listen(self, stream: asyncio.StreamReader) -> None:
        """Pass on what it prints, by lines; of a progress bar only where it stood at the end."""
        rest = b""
        while data := await stream.read(LINE_BYTES_MAX):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line.rstrip().rpartition(b"\r")[2].decode(errors="replace")
                self._last_words.append(text)
                self._say(f"trainer: {text}")
            rest = rest[-LINE_BYTES_MAX:]

    def _explain(self, code: int) -> str:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        last = next((line for line in reversed(self._last_words) if line.strip()), "")
        return f"the trainer {how}" + (f": {last}" if last else "")


class NoTrainer:
    """In place of a `Trainer` where nothing is trained."""

    pid = None

    def send(self, command: wire.Command) -> None:
        """Ignore it."""

    async def accept(self, blob: BlobId) -> str:
        """Refuse to judge.

        Raises:
            P2PTrainError: always.
        """
        raise P2PTrainError("this computer does not train")

    async def move(self, command: wire.Export | wire.Import) -> int:
        """Refuse.

        Raises:
            P2PTrainError: always.
        """
        raise P2PTrainError("this computer does not train")

    def begin_stage(self, effect: Stage, put: Callable[[Answer | None], None]) -> bool:
        """Refuse."""
        return False

    async def run(self) -> None:
        """Do nothing, for ever."""
        await asyncio.Event().wait()

    async def quit(self) -> None:
        """There is nothing to finish."""

    def kill(self) -> None:
        """There is nothing to end."""


def trainer_setup(manifest: Manifest, config: Training, folder: SwarmFolder) -> wire.Setup:
    """Gather what a trainer of that swarm is told."""
    return wire.Setup(
        task=manifest.task,
        task_config=manifest.task_config,
        seed=manifest.seed,
        peer_seed=folder.record().seed,
        slot=folder.membership().member.slot,
        parts=manifest.parts,
        pool=manifest.pool,
        skew=manifest.skew,
        balance=manifest.balance,
        classes=manifest.classes,
        uneven=manifest.uneven,
        formation=manifest.formation,
        keep=manifest.keep,
        disjoint=manifest.disjoint,
        steps=manifest.steps,
        codec=manifest.codec,
        device=config.device,
        threads=config.threads,
        precision=config.precision,
        compile=config.compile,
        memory_gb=config.memory_gb,
        duty=config.duty,
        data=config.data,
        blob_folder=str(folder.blobs),
        checkpoint_folder=str(folder.checkpoint),
    )


def _be_nice(pid: int) -> None:
    with contextlib.suppress(psutil.Error, OSError):
        if sys.platform == "win32":
            psutil.Process(pid).nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        else:
            psutil.Process(pid).nice(NICENESS)
