"""A process that trains along on one more device: `python -m p2ptrain.learn.training.helper`.

It does what the trainer process says through its standard input, and ends when that is closed: whatever
happens to the trainer, no helper stays behind.
"""

import os
import signal
import sys
import threading
from queue import SimpleQueue
from typing import BinaryIO

import torch
from msgspec.structs import replace

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.learn import wire
from p2ptrain.learn.parts import parts_of_task
from p2ptrain.learn.process.pipes import take_pipes
from p2ptrain.learn.training.memory import bound
from p2ptrain.learn.training.parallel import Member, Order, Place, Step, Sync, decode_order, decode_place
from p2ptrain.learn.training.trainer import Trainer


class Helper:
    """One more device.

    Args:
        orders: where the trainer process speaks.
        ready: told when the data are loaded.
    """

    def __init__(self, place: Place, orders: BinaryIO, ready: BinaryIO) -> None:
        self._orders, self._queue = orders, SimpleQueue[Order]()
        threading.Thread(target=self._read, daemon=True).start()
        parts = parts_of_task(replace(place.setup, device=place.device))
        assert isinstance(parts.trainer, Trainer)
        self._trainer, self._examples = parts.trainer, parts.splits.training
        self._randomness = parts.randomness
        bound(parts.device, place.setup.memory_gb)
        if place.setup.compile:
            self._trainer.net.compile()
        ready.write(b"+")
        ready.flush()
        self._member = Member(place.rank, place.size, parts.device, place.backend, place.meeting)
        self._trainer.group = self._member

    def run(self) -> None:
        """Work until the process ends."""
        with self._randomness.borrowed():
            while True:
                order = self._queue.get()
                if isinstance(order, Sync):
                    self._sync(order)
                else:
                    self._step(order)

    def _read(self) -> None:
        """Hand orders on; whoever waits for others who are gone is ended by this."""
        while (body := wire.read_body(self._orders)) is not None:
            self._queue.put(decode_order(body))
        os._exit(0)

    def _sync(self, order: Sync) -> None:
        tensors = {
            name: self._member.spread(torch.empty(shape, dtype=getattr(torch, kind)))
            for name, kind, shape in order.tensors
        }
        self._trainer.restore(tensors, order.numbers)

    def _step(self, order: Step) -> None:
        trainer = self._trainer
        trainer.step, trainer.lr_scale = order.step, order.lr_scale
        trainer.manner.bf16, trainer.manner.channels_last = order.bf16, order.channels_last
        self._examples.turn_to(order.round)
        trainer.take_step()


def main() -> int:
    """Help the process at the other end of stdin; return the exit code if it cannot be done."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group: the daemon decides
        signal.signal(number, signal.SIG_IGN)
    orders, ready = take_pipes()
    body = wire.read_body(orders)
    if body is None:
        return 0
    try:
        Helper(decode_place(body), orders, ready).run()
    except P2PTrainError as error:
        sys.stderr.write(f"helper: {error.message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
