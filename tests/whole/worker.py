"""The trainer process of a simulated computer: the real pipes' bytes, virtual time, eight floats for a model.

The daemon's `Trainer` starts it, speaks `learn/wire.py` to it, and sees it die, unchanged. Weights and
checkpoints are real files; a blob is the eight floats and as many more bytes as a small model would have.
"""

import asyncio
import math
import os
import struct
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.effects import Checkpoint, Effect, Publish
from p2ptrain.core.inputs import Input, LearnFailed, Published, Saved, TrainerReady
from p2ptrain.core.types import BlobId, Ref, Seconds
from p2ptrain.learn import wire
from p2ptrain.sim.toy import BATCH, SAVING_S, SIZE, ToyLearner, Vector
from p2ptrain.sim.trainer import SimTrainer
from tests.whole.loop import HERE, Process

START_S = 2.0
"""Python and torch take that long (measured for the real worker, within a factor of two)."""

BLOB_BYTES = 24_000
_FLOATS = struct.Struct(f">{SIZE}d")
_FILLER = Random(7).randbytes(BLOB_BYTES - _FLOATS.size)

Saving = tuple[Vector, int, float, bytes]


class _Blobs:
    """The weights that lie in a folder, as a learner looks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, blob: BlobId) -> Vector:
        return _FLOATS.unpack_from((self.folder / blob).read_bytes())

    def get(self, blob: BlobId) -> Vector | None:
        path = self.folder / blob
        return self[blob] if len(blob) == 64 and path.exists() else None

    def put(self, vector: Vector) -> BlobId:
        data = _FLOATS.pack(*vector) + _FILLER
        blob = hash_blob(data)
        path = self.folder / f".{blob}.new"
        path.write_bytes(data)
        path.replace(self.folder / blob)
        return blob


class _Learner(ToyLearner):
    """Keeps weights and checkpoint in files."""

    __slots__ = ("_checkpoint", "_files")

    def __init__(self, setup: wire.Setup) -> None:
        self._files = _Blobs(Path(setup.blob_folder))
        self._checkpoint = Path(setup.checkpoint_folder) / "toy"
        super().__init__(setup.seed, setup.peer_seed, self._files)  # type: ignore[arg-type]
        if self._checkpoint.exists():
            self._saved = msgspec.msgpack.decode(self._checkpoint.read_bytes(), type=Saving)

    def ready(self) -> TrainerReady:
        ready = super().ready()
        return TrainerReady(ready.step, ready.step * BATCH, SIZE, BLOB_BYTES, ready.memory)

    def refusal(self, blob: BlobId) -> str:
        vector = self._files.get(blob)
        return "it is gone" if vector is None else "" if all(map(math.isfinite, vector)) else "not finite"

    def perform(self, effect: Effect) -> Input | None:
        if isinstance(effect, Publish):
            vector = self._find(Ref(effect.ref))
            if vector is None:
                return LearnFailed(effect.tag, "no such weights")
            return Published(effect.tag, self._files.put(vector), BLOB_BYTES)
        answer = super().perform(effect)
        if isinstance(effect, Checkpoint):
            new = self._checkpoint.with_name("toy.new")
            new.write_bytes(msgspec.msgpack.encode(self._saved))
            new.replace(self._checkpoint)
            assert isinstance(answer, Saved)
            return Saved(answer.step, SAVING_S)
        return answer


class _Pipe(asyncio.WriteTransport, asyncio.ReadTransport):
    """One end of a pipe, as the daemon sees it."""

    def __init__(self, worker: "Worker") -> None:
        super().__init__()
        self._worker = worker

    def write(self, data: Any) -> None:
        self._worker.hear(bytes(data))

    def is_closing(self) -> bool:
        return self._worker.get_returncode() is not None

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Worker(asyncio.SubprocessTransport):
    """A child of the process that asked for it."""

    def __init__(self, protocol: Any, step_s: Seconds, pid: int) -> None:
        super().__init__()
        parent = HERE.get()
        assert parent is not None
        self.process = Process(parent.host, parent.rng)
        parent.children.append(self)
        self._parent = parent
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._pid = pid
        self._code: int | None = None
        self._heard = b""
        self._step_s = step_s
        self._learner: _Learner | None = None
        self._trainer: SimTrainer | None = None
        self._early: list[Any] = []
        self._pipes = [_Pipe(self) for _ in range(3)]
        self._exited: list[asyncio.Future[int]] = []
        protocol.connection_made(self)

    # -- as a child process ------------------------------------------------------------------------

    def get_pid(self) -> int:
        return self._pid

    def get_returncode(self) -> int | None:
        return self._code

    def get_pipe_transport(self, fd: int) -> Any:
        return self._pipes[fd]

    def kill(self) -> None:
        self.end(-9)

    terminate = kill

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return self._code is not None

    async def _wait(self) -> int:
        if self._code is None:
            self._exited.append(self._loop.create_future())
            return await self._exited[-1]
        return self._code

    def end(self, code: int) -> None:
        """Be gone."""
        if self._code is not None:
            return
        self._code = code
        self.process.alive = False
        self._loop.call_soon(self._notice)

    def _notice(self) -> None:
        for fd in (1, 2):
            self._protocol.pipe_connection_lost(fd, None)
        self._protocol.process_exited()
        for future in self._exited:
            if not future.done():
                future.set_result(self._code or 0)

    # -- as a trainer ------------------------------------------------------------------------------

    def hear(self, data: bytes) -> None:
        """Take frames in."""
        self._heard += data
        while self._code is None and len(self._heard) >= wire.HEAD_BYTES:
            end = wire.HEAD_BYTES + wire.body_bytes(self._heard[: wire.HEAD_BYTES])
            if len(self._heard) < end:
                return
            body, self._heard = self._heard[wire.HEAD_BYTES : end], self._heard[end:]
            if self._learner is None:
                self._learner = _Learner(wire.decode_setup(body))
                self._loop.call_later(START_S, self._begin)
            else:
                self._loop.call_soon(self._obey, wire.decode_command(body))

    def _begin(self) -> None:
        if self._code is not None:
            return
        assert self._learner is not None
        ready = self._learner.ready()
        self._trainer = SimTrainer(self._learner, ready, self._step_s, self._answer, self._wake)
        self._say(ready)
        for command in self._early:
            self._obey(command)

    def _obey(self, command: Any) -> None:
        assert self._learner is not None
        if self._code is not None:
            return
        if self._trainer is None:
            self._early.append(command)
            return
        match command:
            case wire.Accept():
                reason = self._learner.refusal(command.blob)
                self._say(wire.Refused(command.blob, reason) if reason else wire.Accepted(command.blob))
            case wire.Quit():
                self.end(0)
            case _:
                self._trainer.perform(self._loop.time(), command)

    def _answer(self, delay: Seconds, event: Input) -> None:
        self._loop.call_later(delay, self._say, event)

    def _wake(self, delay: Seconds, job: int) -> None:
        self._loop.call_later(delay, self._on_wake, job)

    def _on_wake(self, job: int) -> None:
        if self._code is None and self._trainer is not None:
            self._trainer.on_wake(self._loop.time(), job)

    def _say(self, answer: Any) -> None:
        if self._code is None:
            if isinstance(answer, Published):
                os.utime(self._learner._files.folder / answer.blob, (self._loop.time(),) * 2)  # type: ignore[union-attr]
            self._protocol.pipe_data_received(1, wire.frame(answer))
