"""The side of a flow that offers: bytes wait here, a few, until the one peer that may read takes them."""

import asyncio
from collections import deque
from collections.abc import Callable

from p2ptrain.core.errors import LocalProtocolError
from p2ptrain.core.types import PeerId, Seconds, short
from p2ptrain.net.flows.frames import BUFFER_BYTES, END, HEAD, PIECE_BYTES, SilentError, abort_frame

Buffer = bytes | bytearray | memoryview


class Writer:
    """Bytes for one reader. Whoever made it ends it: with `end`, or with `abort`.

    Args:
        name, reader: of the flow.
        silence_s: a reader that takes nothing for so long is given up.
    """

    def __init__(self, name: str, reader: PeerId, silence_s: Seconds) -> None:
        self.name = name
        self.reader = reader
        self.silence_s = silence_s
        self._waiting: deque[bytes] = deque()
        self._going = b""
        self._behind = 0
        self._last = b""
        self._told = False
        self._gone = ""
        self._until_s: Seconds = 0.0
        self._lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to be said, or nobody to hear it."""
        late = 0 < self._until_s < asyncio.get_running_loop().time()
        return self._told or bool(self._gone) or late

    async def write(self, data: Buffer) -> None:
        """Say something; waits while the reader is behind by `BUFFER_BYTES`. The data are copied.

        Raises:
            SilentError: the reader is gone, or takes nothing.
        """
        if self._last:
            raise LocalProtocolError("a flow that has ended goes on")
        view = memoryview(data).cast("B")
        for at in range(0, len(view), PIECE_BYTES):
            piece = bytes(view[at : at + PIECE_BYTES])
            self._waiting.append(piece)
            self._behind += len(piece)
            self._changed.set()
            await self._until(lambda: self._behind <= BUFFER_BYTES)

    async def end(self) -> None:
        """Say that this was all, and wait until everything is on its way.

        Raises:
            SilentError: the reader is gone, or takes nothing.
        """
        if not self._last:
            self._last = HEAD.pack(END)
            self._changed.set()
        await self._until(lambda: self._told)

    def abort(self, reason: str) -> None:
        """End it at once, unless it has ended: the reader is told why, what still waited is lost.

        A reader that has not come yet has `silence_s` to hear it.
        """
        if not self.is_over:
            self._waiting.clear()
            self._last = abort_frame(reason)
            self._until_s = asyncio.get_running_loop().time() + self.silence_s
            self._changed.set()

    async def lost(self) -> None:
        """Wait until the reader is gone before the end: who has nothing to say would not notice."""
        await self._lost.wait()

    # -- for the server ----------------------------------------------------------------------------

    async def take(self, patience_s: Seconds) -> bytes:
        """Return what is said next, as a frame; empty: nothing so far."""
        if not self._waiting and not self._last:
            self._changed.clear()
            try:
                async with asyncio.timeout(patience_s):
                    await self._changed.wait()
            except TimeoutError:
                return b""
        if not self._waiting:
            return self._last
        self._going = self._waiting.popleft()
        return HEAD.pack(len(self._going)) + self._going

    def taken(self) -> None:
        """The reader has what `take` returned last."""
        self._told = not self._going
        self._behind -= len(self._going)
        self._going = b""
        self._taken.set()

    def progressed(self) -> None:
        """Some of what `take` returned has left."""
        self._taken.set()

    def lose(self, why: str) -> None:
        """The reader is gone."""
        self._gone = self._gone or why
        if not self._told:
            self._lost.set()
        self._waiting.clear()
        self._taken.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self._gone:
            self._taken.clear()
            try:
                async with asyncio.timeout(self.silence_s):
                    await self._taken.wait()
            except TimeoutError:
                self.lose("it takes nothing")
        if not condition():
            raise SilentError(f"{short(self.reader)} is no reader any more: {self._gone}")
