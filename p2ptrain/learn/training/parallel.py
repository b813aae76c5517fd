"""Several devices of one computer train one net: each takes its share of every batch.

The trainer process has the first device and the engine. For each other one it starts a helper (`helper.py`)
with the same net and the same data, and tells it through a pipe what to do. Their gradients are added up, so
that all take the same steps of the optimiser. Whatever changes the weights between steps changes them here:
they are sent, with all that the optimiser remembers, before the next step. Batch norm sees each device's
share alone, and only the first device's statistics are kept. Data are loaded by each process.
"""

import atexit
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import torch
import torch.distributed as dist
from msgspec import Struct
from torch import Tensor

from p2ptrain.learn.training.optimizer import Number
from p2ptrain.learn.wire import HEAD_BYTES, Setup

if TYPE_CHECKING:
    from p2ptrain.learn.training.trainer import Trainer

START_S = 300.0
"""A helper loads torch and the data in that time. Guess."""

SILENCE_S = 180.0
"""Who is so late with a step is given up: the first one may include compiling. Guess."""

GONE_S = 1.0
"""A process that broke off has ended after this. Guess."""


# -- what is said through the pipe -----------------------------------------------------------------


class Place(Struct, frozen=True):
    """A helper's first frame: who it is, among how many, and where they meet."""

    setup: Setup
    rank: int
    size: int
    device: str
    backend: str
    meeting: str


class Sync(Struct, frozen=True, tag=True):
    """All tensors of the trainer's state follow in this order: name, type and shape of each."""

    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    numbers: dict[str, Number]


class Step(Struct, frozen=True, tag=True):
    """Take that step; round: of the data."""

    step: int
    lr_scale: float
    round: int
    bf16: bool
    channels_last: bool


Order = Sync | Step

decode_place = msgspec.msgpack.Decoder(Place).decode
decode_order: Callable[[bytes], Order] = msgspec.msgpack.Decoder(Sync | Step).decode


def send(stream: BinaryIO, value: Place | Order) -> None:
    """Write a frame, as those of `wire.py`."""
    body = msgspec.msgpack.encode(value)
    stream.write(len(body).to_bytes(HEAD_BYTES, "big") + body)
    stream.flush()


# -- together --------------------------------------------------------------------------------------


class Group:
    """The devices that share a batch. This one is for a device alone: there is nothing to do.

    Attributes:
        salt: tells this device's randomness from the others'.
    """

    salt: tuple[int, ...] = ()

    @property
    def is_alone(self) -> bool:
        """Whether nobody else takes part."""
        return True

    def begin(self, trainer: "Trainer") -> None:
        """Have the others begin the step that the trainer begins."""

    def share(self, places: Tensor) -> Tensor:
        """Return this device's share of a batch; maybe nothing."""
        return places

    def reduce(self, gradient: Tensor, loss: Tensor) -> bool:
        """Add up what all devices found; False: somebody is gone, and the batch has to be shared again."""
        return True


class Member(Group):
    """One of several devices.

    Raises:
        RuntimeError: they do not meet in time.
    """

    def __init__(self, rank: int, size: int, device: torch.device, backend: str, meeting: str) -> None:
        self._rank, self._size, self._device = rank, size, device
        self.salt = (rank,) if rank else ()
        self._is_nccl = backend == "nccl"
        _stay_inside()
        dist.init_process_group(
            backend,
            init_method=Path(meeting).as_uri(),
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=SILENCE_S),
        )
        # Who is through first removes the meeting place: the others must have read it.
        self._wait(dist.all_reduce(torch.zeros(1, device=device), async_op=True))

    @property
    def is_alone(self) -> bool:
        """Whether nobody else takes part."""
        return self._size == 1

    def share(self, places: Tensor) -> Tensor:
        """Return this device's share of a batch."""
        return places.tensor_split(self._size)[self._rank]

    def reduce(self, gradient: Tensor, loss: Tensor) -> bool:
        """Add up.

        Raises:
            RuntimeError: somebody is gone.
        """
        for tensor in (gradient, loss):
            self._wait(dist.all_reduce(tensor, async_op=True))
        return True

    def spread(self, tensor: Tensor) -> Tensor:
        """Return the first device's tensor of that shape, on this device.

        Raises:
            RuntimeError: somebody is gone.
        """
        tensor = tensor.to(self._device)
        self._wait(dist.broadcast(tensor, 0, async_op=True))
        return tensor

    def _wait(self, work: Any) -> None:
        """Wait until all did their part. NCCL itself would wait for the dead, on the GPU."""
        ends = time.monotonic() + SILENCE_S
        while self._is_nccl and not work.is_completed():
            if time.monotonic() > ends or not self._all_here():
                raise RuntimeError("no answer")
        work.wait()

    def _all_here(self) -> bool:
        return True


class Leader(Member):
    """The trainer's own device, and the helpers of the others.

    Args:
        helpers: processes that are ready to meet.
        devices: of the helpers, for people.
        say: takes what the owner should read.
    """

    def __init__(
        self,
        place: Place,
        device: torch.device,
        helpers: "list[subprocess.Popen[bytes]]",
        devices: list[str],
        say: Callable[[str], None],
    ) -> None:
        self._helpers, self._devices, self._say = helpers, devices, say
        super().__init__(0, place.size, device, place.backend, place.meeting)

    def begin(self, trainer: "Trainer") -> None:
        """Have the others begin a step, with the weights of now."""
        if self._size == 1:
            return
        try:
            if trainer.is_touched:
                self._sync(trainer)
            manner = trainer.manner
            self._tell(Step(trainer.step, trainer.lr_scale, trainer.round, manner.bf16, manner.channels_last))
        except (RuntimeError, OSError) as error:
            self._go_on_alone(error)

    def reduce(self, gradient: Tensor, loss: Tensor) -> bool:
        """Add up what all devices found; False: somebody is gone."""
        if self._size == 1:
            return True
        try:
            return super().reduce(gradient, loss)
        except RuntimeError as error:
            self._go_on_alone(error)
            return False

    def close(self) -> None:
        """Let the helpers go."""
        self._size = 1
        for helper in self._helpers:
            _end(helper)
        if dist.is_initialized():
            with contextlib.suppress(Exception):  # whatever it is: nobody is there any more
                _leave(self._is_nccl)

    def _sync(self, trainer: "Trainer") -> None:
        tensors, numbers = trainer.state()
        kinds = tuple(
            (name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in tensors.items()
        )
        self._tell(Sync(kinds, numbers))
        for tensor in tensors.values():
            self.spread(tensor)

    def _tell(self, order: Order) -> None:
        for helper in self._helpers:
            assert helper.stdin is not None
            send(helper.stdin, order)  # type: ignore[arg-type]

    def _all_here(self) -> bool:
        return all(helper.poll() is None for helper in self._helpers)

    def _go_on_alone(self, error: Exception) -> None:
        reasons = []
        for helper, device in zip(self._helpers, self._devices, strict=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                reasons.append(f"the helper for {device} ended with {helper.wait(GONE_S)}")
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._say(f"training goes on with {self._device} alone: {'; '.join(reasons) or lines[0][:200]}")
        self.close()


class Helpers:
    """Processes for all devices but the first. They load their data while the trainer loads its own.

    Args:
        devices: at least two.
        say: takes what the owner should read.
    """

    def __init__(self, setup: Setup, devices: list[torch.device], say: Callable[[str], None]) -> None:
        self._devices, self._say = devices, say
        self._folder = Path(tempfile.mkdtemp(prefix="p2ptrain-"))
        on_gpus = all(device.type == "cuda" for device in devices)
        backend = "nccl" if on_gpus and dist.is_nccl_available() else "gloo"
        meeting = str(self._folder / "meeting")
        self._places = [
            Place(setup, rank, len(devices), str(device), backend, meeting)
            for rank, device in enumerate(devices)
        ]
        self._processes = [_start(place) for place in self._places[1:]]
        atexit.register(self._end)

    def meet(self) -> Group:
        """Wait for the helpers; without them, the first device works alone and the owner is told why."""
        ready: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        for process, place in zip(self._processes, self._places[1:], strict=True):
            threading.Thread(target=_await, args=(process, place.device, ready), daemon=True).start()
        try:
            for _ in self._processes:
                device, answer = ready.get(timeout=START_S)
                if not answer:
                    raise RuntimeError(f"the helper for {device} did not start; the trainer's log has more")
            leader = Leader(
                self._places[0],
                self._devices[0],
                self._processes,
                [place.device for place in self._places[1:]],
                self._say,
            )
        except (RuntimeError, OSError, Empty) as error:
            reason = str(error) or "the helpers did not start in time"
            self._say(f"training on {self._devices[0]} alone: {reason.splitlines()[0][:200]}")
            self._end()
            return Group()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        atexit.register(leader.close)
        self._say(f"together with {', '.join(place.device for place in self._places[1:])}")
        return leader

    def _end(self) -> None:
        for process in self._processes:
            _end(process)


def _start(place: Place) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "p2ptrain.learn.training.helper"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it ended at once: that is noticed when it is waited for
        send(process.stdin, place)  # type: ignore[arg-type]
    return process


def _await(process: "subprocess.Popen[bytes]", device: str, ready: "SimpleQueue[tuple[str, bytes]]") -> None:
    assert process.stdout is not None
    ready.put((device, process.stdout.read(1)))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a helper: it ends itself when its pipe closes, unless it is stuck."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    try:
        process.wait(GONE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _stay_inside() -> None:
    """Talk on this computer only, and let a failure be an error instead of the end of the process."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")


def _leave(is_nccl: bool) -> None:
    if is_nccl:
        dist.distributed_c10d._abort_process_group()
    else:
        dist.destroy_process_group()
