"""The trainer process, `python -m p2ptrain.learn.worker`: the daemon speaks to it over stdin and stdout."""

import os
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import torch

from p2ptrain.core.errors import P2PTrainError, WeightsError
from p2ptrain.core.types import BlobId
from p2ptrain.learn import wire
from p2ptrain.learn.blobs import FolderBlobs
from p2ptrain.learn.checkpoint import FolderCheckpoints
from p2ptrain.learn.device import describe
from p2ptrain.learn.engine import Engine

SLICE_S = 0.03
"""Commands wait for training at most this long and a step. Guess: shorter than people notice."""


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
    """Trains in slices, carries out commands between them, and writes files in a second thread."""

    def __init__(self, setup: wire.Setup, pipes: Pipes) -> None:
        self._pipes = pipes
        self._chooses_threads = setup.threads == 0
        self._items: SimpleQueue[wire.Command | Future[wire.Outcome]] = SimpleQueue()
        self._files = ThreadPoolExecutor(1, "files")
        self._engine = Engine(
            setup, FolderBlobs(Path(setup.blob_folder)), FolderCheckpoints(Path(setup.checkpoint_folder))
        )

    def run(self) -> None:
        """Work until `Quit`, or until the daemon is gone."""
        engine = self._engine
        if self._chooses_threads and engine.device.type == "cpu":
            engine.choose_threads()
        for notice in [*engine.notices, f"training on {describe(engine.device)}"]:
            self._pipes.send(wire.Notice(notice))
        self._pipes.send(engine.ready())
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            if engine.is_training and self._items.empty():
                trained = engine.advance(seconds=SLICE_S)
                if trained is not None:
                    self._pipes.send(trained)
                continue
            item = self._items.get()
            if isinstance(item, wire.Quit):
                return self._finish_writing()
            self._handle(item)

    def _read(self) -> None:
        try:
            while (body := self._pipes.read()) is not None:
                self._items.put(wire.decode_command(body))
        finally:
            self._items.put(wire.Quit())

    def _handle(self, item: "wire.Learning | wire.Accept | Future[wire.Outcome]") -> None:
        if isinstance(item, Future):
            return self._pipes.send(item.result())
        if isinstance(item, wire.Accept):
            return self._pipes.send(self._accept(item.blob))
        outcome = self._engine.begin(item)
        if callable(outcome):
            self._files.submit(outcome).add_done_callback(self._items.put)
        elif outcome is not None:
            self._pipes.send(outcome)

    def _accept(self, blob: BlobId) -> wire.Answer:
        try:
            self._engine.accept(blob)
        except WeightsError as error:
            return wire.Refused(blob, error.message)
        return wire.Accepted(blob)

    def _finish_writing(self) -> None:
        """Let files that are being written become whole, and say so."""
        self._files.shutdown()
        while not self._items.empty():
            item = self._items.get()
            if isinstance(item, Future):
                self._pipes.send(item.result())


def main() -> int:
    """Run a trainer for the daemon at the other end of stdin and stdout; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: the daemon decides
        signal.signal(number, signal.SIG_IGN)
    pipes = _take_pipes()
    body = pipes.read()
    if body is None:
        return 0
    try:
        Worker(wire.decode_setup(body), pipes).run()
    except P2PTrainError as error:
        pipes.send(wire.Crashed(error.message, error.hint))
        return 1
    except Exception as error:
        pipes.send(_crashed(error))
        raise
    return 0


def _take_pipes() -> Pipes:
    """Keep the pipes to ourselves: what a task prints goes to stderr, and it reads nothing."""
    reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Pipes(reading, writing)


def _crashed(error: Exception) -> wire.Crashed:
    """Say in a sentence what happened to a task."""
    lines = str(error).strip().splitlines()
    detail = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        return wire.Crashed(
            f"out of memory ({detail})", "use smaller batches, a smaller model or another device"
        )
    if isinstance(error, OSError):
        return wire.Crashed(f"the trainer cannot use a file or folder ({detail})")
    return wire.Crashed(f"the task failed ({detail})", "the trainer's log has the details")


if __name__ == "__main__":
    sys.exit(main())
