"""The daemon of a person's own loop: a process that the loop starts, and the pipes to it. Free of torch."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from threading import Lock, Thread
from typing import BinaryIO, cast

import msgspec
from msgspec import Struct

from p2ptrain.core.errors import LocalProtocolError
from p2ptrain.core.types import Seconds
from p2ptrain.learn import wire
from p2ptrain.learn.process.greeting import Request, read_begun


class Gone(Struct, frozen=True):
    """The daemon has ended. reason: its last word, may be empty."""

    reason: str = ""


_incoming: msgspec.msgpack.Decoder[wire.Command | wire.Crashed]
_incoming = msgspec.msgpack.Decoder(wire.Command | wire.Crashed)


class Line:
    """One daemon, from its start to its end.

    begun: its first word.

    Raises:
        P2PTrainError: it cannot do what was asked for, and says why.
    """

    def __init__(self, request: Request) -> None:
        paths = [path for path in sys.path if path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "p2ptrain.daemon.attached"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},  # own strategies lie beside scripts
            start_new_session=True,  # Ctrl-C is for the loop, which ends it in order
        )
        self._writing = cast("BinaryIO", self._process.stdin)
        self._reading = cast("BinaryIO", self._process.stdout)
        self._listener: Thread | None = None
        self._lock = Lock()
        try:
            self.send(request)
            self.begun = read_begun(self._reading)
        except BaseException:
            self.end(0.0)
            raise

    def listen(self, put: Callable[[Struct], None]) -> None:
        """Hand over what comes from now on, from another thread; `Gone` is the last."""
        self._listener = Thread(target=self._read, args=(put,), daemon=True)
        self._listener.start()

    def send(self, value: Struct) -> None:
        """Send a frame, from any thread; if the daemon is gone, reading will notice."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._writing.write(wire.frame(value))
            self._writing.flush()

    def hang_up(self) -> None:
        """Let the daemon know that nothing comes any more."""
        with contextlib.suppress(OSError):
            self._writing.close()

    def end(self, wait_s: Seconds) -> None:
        """Wait for the process, and kill it after that long."""
        self.hang_up()
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._listener is None:
            self._reading.close()
        else:
            self._listener.join()  # it has read the end by now

    def _read(self, put: Callable[[Struct], None]) -> None:
        reason = ""
        try:
            while (body := wire.read_body(self._reading)) is not None:
                put(_incoming.decode(body))
        except (OSError, LocalProtocolError, msgspec.DecodeError) as error:
            reason = str(error)
        self._reading.close()
        put(Gone(reason))
