"""A trainer without torch: does what the environment variable ACT says, over the pipes of a real one."""

import os
import signal
import sys
from threading import Event

from p2ptrain.core.inputs import TrainerReady
from p2ptrain.learn import wire

READY = wire.frame(TrainerReady(step=7, samples=70, parameters=8, blob_bytes=64))


def say(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def hear() -> wire.Command | None:
    body = wire.read_body(sys.stdin.buffer)
    return wire.decode_command(body) if body else None


def main(act: str) -> int:
    assert wire.decode_setup(wire.read_body(sys.stdin.buffer) or b"")
    if act == "explains":
        say(wire.frame(wire.Crashed("out of memory", "use smaller batches")))
        return 1
    if act == "cries":
        sys.stderr.write("first line\nValueError: the last line\n\n")
        return 3
    if act == "draws":
        for percent in range(3000):
            sys.stderr.write(f"\r{percent} of 3000 {'=' * 90}")
        sys.stderr.write("\ndone\n")
    if act == "raves":
        say(b"\xff" * 64)
    say(READY)
    while (command := hear()) is not None:
        if isinstance(command, wire.Quit):
            return 0 if act != "clings" else Event().wait(60) or 1
        if isinstance(command, wire.Accept) and act == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(command, wire.Accept):
            good = command.blob.startswith("0")
            say(wire.frame(wire.Accepted(command.blob) if good else wire.Refused(command.blob, "not finite")))
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ["ACT"]))
