"""The trainer process, `python -m p2ptrain.learn.process.worker`; the daemon speaks to it by two pipes."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

from p2ptrain.core.errors import P2PTrainError, WeightsError
from p2ptrain.core.types import BlobId
from p2ptrain.learn import wire
from p2ptrain.learn.device import describe
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.process.pipes import take_pipes
from p2ptrain.learn.process.strand import Strand
from p2ptrain.learn.training.memory import bound, is_exhausted
from p2ptrain.learn.training.pace import Pace
from p2ptrain.learn.weights.blobs import FolderBlobs
from p2ptrain.learn.weights.checkpoint import FolderCheckpoints
from p2ptrain.learn.weights.raw import move

DATA = "P2PTRAIN_DATA"
"""The variable that names folders of data sets, see `tasks/loaders/files.py`."""


class Pipes:
    """The two ends that lead to the daemon."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing

    def read(self) -> bytes | None:
        """Wait for a frame's body; None when the daemon is gone."""
        return wire.read_body(self._reading)

    def send(self, answer: wire.Answer) -> None:
        """Send an answer; if the daemon is gone, reading will notice."""
        try:
            self._writing.write(wire.frame(answer))
            self._writing.flush()
        except BrokenPipeError:
            pass


class Worker:
    """Trains in slices, carries out commands between them, and reads and writes files in other threads."""

    def __init__(self, setup: wire.Setup, pipes: Pipes) -> None:
        self._setup = setup
        self._pipes = pipes
        self._pace = Pace(setup.duty)
        self._items: SimpleQueue[wire.Command | Future[Any]] = SimpleQueue()
        self._files = ThreadPoolExecutor(1, "files")
        self._checks = ThreadPoolExecutor(1, "checks")
        self._strand: Strand | None = None
        self._engine = Engine(
            setup, FolderBlobs(Path(setup.blob_folder)), FolderCheckpoints(Path(setup.checkpoint_folder))
        )

    def run(self) -> None:
        """Work until `Quit`, or until the daemon is gone."""
        engine = self._engine
        engine.tune(self._setup)
        engine.notices.append(f"training on {describe(engine.device)}{engine.manner}")
        self._tell_notices()
        self._pipes.send(engine.ready())
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            item = self._next()
            began = time.perf_counter()
            if isinstance(item, wire.Quit):
                return self._finish_writing()
            if item is None:
                self._train()
            else:
                self._handle(item)
            self._pace.worked(time.perf_counter() - began)

    def _next(self) -> "wire.Command | Future[Any] | None":
        """Return what is to be handled now; None: training goes on. Rests as long as that is owed."""
        owed = self._pace.owed
        if not self._engine.is_training and not self._has_part():
            return self._items.get()
        if owed == 0 and self._items.empty():
            return None
        began = time.perf_counter()
        try:
            return self._items.get(timeout=owed)
        except Empty:
            return None
        finally:
            self._pace.rested(time.perf_counter() - began)

    def _has_part(self) -> bool:
        """Say whether a part in a line can go on."""
        part = self._engine.part
        return part is not None and part.has_work

    def _work_in_line(self) -> None:
        """Compute a micro-batch, and send what there is to be sent."""
        part = self._engine.part
        if part is None:
            self._strand = None
            return
        if self._strand is None or self._strand.part is not part:
            self._strand = Strand(part)
        part.work()
        for said in self._strand.give():
            self._pipes.send(said)
        if part.answer is not None:
            self._engine.part = self._strand = None

    def _train(self) -> None:
        if self._engine.part is not None:
            return self._work_in_line()
        trained = self._engine.advance(seconds=self._pace.slice_s)
        if self._pace.rests:
            self._engine.wait()
        self._tell_notices()
        if trained is not None:
            self._pipes.send(trained)

    def _tell_notices(self) -> None:
        notices = self._engine.notices
        while notices:
            self._pipes.send(wire.Notice(notices.pop(0)))

    def _read(self) -> None:
        try:
            while (body := self._pipes.read()) is not None:
                self._items.put(wire.decode_command(body))
        finally:
            self._items.put(wire.Quit())

    def _handle(self, item: "wire.Moving | wire.Flowing | wire.Learning | wire.Limits | Future[Any]") -> None:
        if isinstance(item, Future):
            return self._pipes.send(item.result())
        if isinstance(item, wire.Accept):
            return self._accept(item.blob)
        if isinstance(item, wire.Export | wire.Import):
            return self._pipes.send(move(self._engine, item))
        if isinstance(item, wire.Came | wire.Cut):
            if self._strand is not None:
                self._strand.take(item)
            return self._work_in_line()
        if isinstance(item, wire.Limits):
            self._pace.change(item.duty)
            return bound(self._engine.device, item.memory_gb)
        outcome = self._engine.begin(item)
        self._work_in_line()
        if callable(outcome):
            self._files.submit(outcome).add_done_callback(self._items.put)
        elif outcome is not None:
            self._pipes.send(outcome)

    def _accept(self, blob: BlobId) -> None:
        try:
            check = self._engine.begin_accept(blob)
        except WeightsError as error:
            return self._pipes.send(wire.Refused(blob, error.message))
        self._checks.submit(_judge, blob, check).add_done_callback(self._items.put)

    def _finish_writing(self) -> None:
        """Let files that are being written become whole, and say so."""
        self._checks.shutdown()
        self._files.shutdown()
        while not self._items.empty():
            item = self._items.get()
            if isinstance(item, Future):
                self._pipes.send(item.result())


def _judge(blob: BlobId, check: Callable[[], None]) -> wire.Answer:
    try:
        check()
    except WeightsError as error:
        return wire.Refused(blob, error.message)
    return wire.Accepted(blob)


def main() -> int:
    """Run a trainer for the daemon at the other end of stdin and stdout; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: the daemon decides
        signal.signal(number, signal.SIG_IGN)
    pipes = Pipes(*take_pipes())
    body = pipes.read()
    if body is None:
        return 0
    try:
        setup = wire.decode_setup(body)
        if setup.data:
            os.environ[DATA] = setup.data
        Worker(setup, pipes).run()
    except P2PTrainError as error:
        pipes.send(wire.Crashed(error.message, error.hint))
        return 1
    except Exception as error:
        pipes.send(_crashed(error))
        raise
    return 0


def _crashed(error: Exception) -> wire.Crashed:
    """Say in a sentence what happened to a task."""
    lines = str(error).strip().splitlines()
    detail = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    if is_exhausted(error):
        return wire.Crashed(
            f"out of memory ({detail})", "use smaller batches, a smaller model or another device"
        )
    if isinstance(error, OSError):
        return wire.Crashed(f"the trainer cannot use a file or folder ({detail})")
    return wire.Crashed(f"the task failed ({detail})", "the trainer's log has the details")


if __name__ == "__main__":
    sys.exit(main())
