"""A peer that wants to be called here, as the relay sees it."""

import asyncio

import msgspec
from aiohttp import WSMsgType, web

from p2ptrain.core.errors import RemoteProtocolError
from p2ptrain.core.types import PeerId
from p2ptrain.net.channel.rates import TokenBucket
from p2ptrain.net.relay.calls import CALL_S, Ask, Call, Reply, decode

REPLIES_PER_S = 16.0
REPLIES_BURST = 64
"""More than it can be called: many callers each have `relay.CALLS_PER_S` (guess)."""


class Guest:
    """Passes calls on to a peer, as long as its WebSocket lasts."""

    def __init__(self, websocket: web.WebSocketResponse[bool]) -> None:
        self.websocket = websocket
        self._number = 0
        self._calls: dict[int, asyncio.Future[Reply]] = {}
        self._rate = TokenBucket(REPLIES_PER_S, REPLIES_BURST)

    async def call(self, caller: PeerId, ask: Ask) -> Reply:
        """Pass a call on, and wait for what is said to it.

        Raises:
            OSError: nothing is, within `CALL_S`.
        """
        number = self._number = self._number + 1
        reply = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(CALL_S):
                await self.websocket.send_bytes(msgspec.msgpack.encode(Call(number, caller, ask)))
                said: Reply = await reply
                return said
        finally:
            del self._calls[number]

    async def run(self) -> None:
        """Take replies until the end, which a broken rule is too."""
        loop = asyncio.get_running_loop()
        try:
            while (message := await self.websocket.receive()).type is WSMsgType.BINARY:
                if not self._rate.take(loop.time()):
                    return
                reply = decode(message.data, Reply)
                waiting = self._calls.get(reply.number)
                if waiting and not waiting.done():
                    waiting.set_result(reply)
        except RemoteProtocolError:
            return
        finally:
            for waiting in self._calls.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionError("it left"))
