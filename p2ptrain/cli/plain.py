"""A plain PyTorch loop, as a good engineer writes it: what training with p2ptrain is compared with.

`python -m p2ptrain.cli.plain` reads `Work` and answers `Built`; then it trains for each number of seconds
that it reads, and answers `Stretch`. One value a line, as JSON.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from p2ptrain.core.manifest import Settings
from p2ptrain.core.types import Seconds

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LR, MOMENTUM = 0.01, 0.9
TRIAL_STEPS = 3
PEAK_SIZE = {"cpu": 1024, "cuda": 8192}
"""Square matrices of that size are multiplied as fast as a device can (measured)."""

PEAK_S: Seconds = 1.0


class Work(Struct, frozen=True, kw_only=True):
    """What to train. part: of `parts`, of the training data. precision: `f32` or `bf16`."""

    task: str
    task_config: Settings
    device: str
    precision: str
    threads: int
    niceness: int
    part: int
    parts: int


class Built(Struct, frozen=True):
    """What stands ready.

    layout: of pictures in memory: what was faster.
    flops: floating-point operations that one example takes forwards and backwards, a multiply-add counts 2.
    peak: operations a second of multiplying matrices here, in this precision.
    step_s: of a step.
    """

    device: str
    layout: str
    parameters: int
    flops: float
    peak: float
    step_s: Seconds


class Stretch(Struct, frozen=True):
    """What was done, in seconds of the clock and of processors."""

    samples: int
    seconds: Seconds
    cpu: Seconds


class Loop:
    """A net, its data on the device, and steps."""

    def __init__(self, work: Work) -> None:
        import torch

        from p2ptrain.learn import device
        from p2ptrain.learn.task import find

        torch.set_num_threads(work.threads)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.manual_seed(work.part)
        self._task = find(work.task)
        self._cfg = self._task.configure(work.task_config)
        self.device = device.choose(work.device)
        self.net: nn.Module = self._task.model(self._cfg).to(self.device)
        self._optimizer = torch.optim.SGD(self.net.parameters(), lr=LR, momentum=MOMENTUM)
        self._autocast: Callable[[], AbstractContextManager[Any]] = lambda: torch.autocast(
            self.device.type, torch.bfloat16, enabled=work.precision == "bf16"
        )
        self.dtype = torch.bfloat16 if work.precision == "bf16" else torch.float32
        tensors: list[Tensor] = list(self._task.data(self._cfg, "train").tensors)  # type: ignore[attr-defined]
        self._tensors = [tensor[work.part :: work.parts].to(self.device) for tensor in tensors]
        self.batch_size: int = self._cfg.batch_size
        self._batches = self._order()
        self._format = torch.contiguous_format

    def step(self) -> None:
        """Train on one batch."""
        places = next(self._batches)
        batch = tuple(tensor[places] for tensor in self._tensors)
        inputs, truth = self._task.prepared(self._cfg, batch, True)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self._format)
        self._optimizer.zero_grad()
        with self._autocast():
            loss = self._task.loss(self.net, (inputs, truth))
        loss = loss[0] if isinstance(loss, tuple) else loss
        loss.mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _order(self) -> "Iterator[Tensor]":
        import torch

        while True:
            order = torch.randperm(len(self._tensors[0]), device=self.device)
            for begin in range(0, len(order) - self.batch_size + 1, self.batch_size):
                yield order[begin : begin + self.batch_size]

    def run(self, seconds: Seconds) -> Stretch:
        """Train for so long, to the end of a step."""
        began, cpu, steps = time.perf_counter(), time.process_time(), 0
        while steps == 0 or time.perf_counter() - began < seconds:
            self.step()
            steps += 1
        self.wait()
        took = time.perf_counter() - began
        return Stretch(steps * self.batch_size, took, time.process_time() - cpu)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def choose_layout(self) -> tuple[Seconds, str]:
        """Take the layout of pictures that is faster; return the time of a step and its name."""
        import torch

        layouts = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
        times = []
        for name, layout in layouts.items():
            self._lay_out(layout)
            self.step()
            self.wait()
            times.append((min(self._seconds() for _ in range(TRIAL_STEPS)), name))
        self._lay_out(layouts[min(times)[1]])
        return min(times)

    def _lay_out(self, layout: "torch.memory_format") -> None:
        self._format = layout
        for parameter in self.net.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)
                parameter.grad = None

    def _seconds(self) -> Seconds:
        began = time.perf_counter()
        self.step()
        self.wait()
        return time.perf_counter() - began

    def flops(self) -> float:
        """Count the operations of one example."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.step()
        return float(counter.get_total_flops()) / self.batch_size

    def peak(self) -> float:
        """Measure how many operations a second this device does at its best."""
        import torch

        size = PEAK_SIZE.get(self.device.type, PEAK_SIZE["cpu"])
        matrix = torch.randn(size, size, device=self.device, dtype=self.dtype)
        shortest, ends = float("inf"), time.perf_counter() + PEAK_S
        while time.perf_counter() < ends:
            began = time.perf_counter()
            matrix @ matrix
            self.wait()
            shortest = min(shortest, time.perf_counter() - began)
        return float(2 * size**3 / shortest)


def main() -> None:
    """Obey until the pipe ends."""
    work = msgspec.json.decode(sys.stdin.buffer.readline(), type=Work)
    _be_nice(work.niceness)
    loop = Loop(work)
    step_s, layout = loop.choose_layout()
    count = sum(parameter.numel() for parameter in loop.net.parameters())
    _tell(Built(str(loop.device), layout, count, loop.flops(), loop.peak(), step_s))
    for line in sys.stdin.buffer:
        _tell(loop.run(float(line)))


def _be_nice(niceness: int) -> None:
    """Yield to other programs exactly as a trainer does."""
    import psutil

    if sys.platform != "win32":
        psutil.Process().nice(niceness)


def _tell(value: Struct) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
