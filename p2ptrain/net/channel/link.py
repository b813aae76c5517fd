"""One WebSocket to one peer: a bounded outbox, a reader that starves nobody, and an orderly end."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from p2ptrain.core import limits
from p2ptrain.core.errors import Offence, RemoteProtocolError
from p2ptrain.core.text import clean
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.channel.rates import TokenBucket
from p2ptrain.net.channel.sockets import cut, extra
from p2ptrain.net.channel.traffic import TrafficBook
from p2ptrain.net.ways import Path

FRAMES_PER_S = 200
"""Several times what the largest swarm sends to one neighbour; checking them all takes 1.3 % of a core."""

FRAMES_BURST = 2 * limits.OUTBOX_FRAMES_MAX
"""A peer that was cut off may send its whole outbox at once."""

FRAMES_AT_ONCE = 16
"""After so many, everybody else gets a turn: about 1 ms of signatures."""

CLOSE_S: Seconds = 1.0
"""How long the other side may take to end in order."""

SIMULTANEOUS_S: Seconds = 10.0
"""A dial that began before this connection stood has succeeded or failed after that time."""

REASON_CHARS_MAX = 100
"""A close frame holds 123 bytes."""

REPLACED = "replaced by a newer connection"
"""Told to the older of two connections of one peer, if the peer cannot have made both at once."""

_FRAMES = frozenset({WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG})

WebSocket = web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool]


class Ending(IntEnum):
    """WebSocket close codes that p2ptrain uses."""

    DONE = WSCloseCode.OK
    LEAVING = WSCloseCode.GOING_AWAY
    OFFENCE = WSCloseCode.POLICY_VIOLATION
    SUPERSEDED = 4000


class Link:
    """A connection to a member, as long as it lasts.

    Args:
        peer: the other end.
        socket: the open WebSocket.
        dialler: which of the two dialled.
        path: how it runs; None: it ended already.
        since: loop time.
        traffic: counts.

    ending: why it is being closed from here; None: it is not.
    """

    def __init__(
        self,
        peer: PeerId,
        socket: WebSocket,
        dialler: PeerId,
        path: Path | None,
        since: Seconds,
        traffic: TrafficBook,
    ) -> None:
        self.peer = peer
        self.dialler = dialler
        self.path = path
        self.since = since
        self.ending: str | None = None
        self._socket = socket
        self._raw = extra(socket, "socket")
        self._traffic = traffic
        self._outbox: deque[bytes] = deque()
        self._awake = asyncio.Event()
        self._close_code = Ending.DONE
        self._rate = TokenBucket(FRAMES_PER_S, FRAMES_BURST)

    @property
    def is_relayed(self) -> bool:
        """Whether another member passes everything on."""
        return self.path is not None and self.path.is_relayed

    def send(self, frame: bytes) -> None:
        """Put a frame into the outbox; the oldest gives way when it is full."""
        if len(self._outbox) >= limits.OUTBOX_FRAMES_MAX:
            self._outbox.popleft()
            self._traffic.add("dropped", self.peer, 1)
        self._outbox.append(frame)
        self._awake.set()

    def take_over(self, older: "Link") -> None:
        """Send what another connection to the same peer had not sent yet."""
        while older._outbox:
            self.send(older._outbox.popleft())

    def close(self, reason: str, code: Ending = Ending.DONE) -> None:
        """Begin to end: what is in the outbox still goes out, and `run` returns soon."""
        if self.ending is None:
            self.ending = reason
            self._close_code = code
            self._awake.set()
            # A peer that reads nothing must not keep it open.
            asyncio.get_running_loop().call_later(2 * CLOSE_S, self._cut)

    async def run(self, received: Callable[[bytes], None]) -> str:
        """Move frames both ways until the connection ends.

        Returns:
            Why it ended, for people.

        Raises:
            RemoteProtocolError: the peer broke a rule, which ended it.
        """
        writer = asyncio.create_task(self._write())
        try:
            return await self._read(received)
        except RemoteProtocolError as error:
            self.close(error.offence, Ending.OFFENCE)
            raise
        finally:
            self.close("the connection is gone")
            await asyncio.wait({writer}, timeout=CLOSE_S)
            writer.cancel()
            await asyncio.wait({writer})
            self._cut()

    async def _read(self, received: Callable[[bytes], None]) -> str:
        loop = asyncio.get_running_loop()
        count = 0
        while True:
            message = await self._socket.receive()
            if message.type in _FRAMES and not self._rate.take(loop.time()):
                raise RemoteProtocolError(Offence.FLOODING, f"more than {FRAMES_PER_S} frames a second")
            match message.type:
                case WSMsgType.BINARY:
                    received(message.data)
                case WSMsgType.PING:
                    await self._pong(message.data)
                case WSMsgType.PONG:
                    pass
                case WSMsgType.CLOSE:
                    return (
                        self.ending
                        or f"the peer closed the connection: {clean(message.extra or '', REASON_CHARS_MAX)}"
                    )
                case WSMsgType.CLOSING | WSMsgType.CLOSED:
                    return self.ending or "the connection was lost"
                case WSMsgType.ERROR:
                    return self.ending or _lost(message.data)
                case _:
                    raise RemoteProtocolError(Offence.MALFORMED, "text instead of bytes")
            count += 1
            if count % FRAMES_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _write(self) -> None:
        """Empty the outbox, and close the connection when that is asked."""
        try:
            while self._outbox or self.ending is None:
                if not self._outbox:
                    self._awake.clear()
                    await self._awake.wait()
                    continue
                frame = self._outbox.popleft()
                await self._socket.send_bytes(frame)
                self._traffic.add("messages_up", self.peer, len(frame))
            reason = (self.ending or "").encode("ascii", "replace")[:REASON_CHARS_MAX]
            await self._socket.close(code=self._close_code, message=reason)
        except ConnectionError:
            self.close("the connection was lost")

    def _cut(self) -> None:
        if self._raw:
            cut(self._raw)

    async def _pong(self, data: bytes) -> None:
        try:
            await self._socket.pong(data)
        except ConnectionError:
            self.close("the connection was lost")


def are_simultaneous(new: Link, old: Link) -> bool:
    """Say whether both ends dialled before they heard of each other; else the old connection is lost."""
    return new.dialler != old.dialler and new.since - old.since < SIMULTANEOUS_S


def is_better(new: Link, old: Link) -> bool:
    """Decide which of two connections stays, one without a relay if there is one: both ends decide alike."""
    return (new.is_relayed, new.dialler) < (old.is_relayed, old.dialler)


def _lost(error: object) -> str:
    """Tell a rule that aiohttp enforces for us from an accident."""
    if isinstance(error, aiohttp.WebSocketError):
        if error.code == WSCloseCode.MESSAGE_TOO_BIG:
            raise RemoteProtocolError(Offence.OVERSIZED, f"more than {limits.FRAME_BYTES_MAX} bytes")
        raise RemoteProtocolError(Offence.MALFORMED, "not a WebSocket frame")
    if isinstance(error, TimeoutError):
        return "the peer stopped answering"
    return "the connection was lost"
