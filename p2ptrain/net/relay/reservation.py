"""Waits at relays to be called, for as long as this node may be out of reach."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from random import Random

import aiohttp
import msgspec
from aiohttp import WSMsgType
from msgspec import Struct

from p2ptrain.core.errors import P2PTrainError, RemoteProtocolError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.net.channel.background import Background
from p2ptrain.net.channel.rates import TokenBucket
from p2ptrain.net.relay.calls import CALL_BYTES_MAX, RELAY_PATH, Call, Reply, decode
from p2ptrain.net.relay.legs import Line

RELAYS_MAX = 2
"""One may stop at any time."""

LOOK_EVERY_S: Seconds = 5.0
"""For relays that became known, and for whether any is needed (guess)."""

RETRY_S: Seconds = 5.0
RETRY_MAX_S: Seconds = 300.0
"""After a failure; doubled after each further one, each time up to a quarter more or less (guess)."""

HEARTBEAT_S: Seconds = 25.0
"""As often as the relay: each side notices for itself that the other is gone."""

CALLS_PER_S = 8.0
CALLS_BURST = 64
"""From one relay; each caller has bounds of its own, see `called`."""

RelaysChanged = Callable[[tuple[PeerId, ...]], None]


class _Trouble(Struct):
    """A relay that failed. until: not asked before that; delay_s: how long that was."""

    until: Seconds
    delay_s: Seconds


class Reservations:
    """Keeps this node's places at relays.

    Args:
        line: reaches relays.
        answer: says what this node does about a call that a relay passed on.
        candidates: members that may be relays, the best first; none: this node needs no relay.
        changed: told at which relays this node waits, each time that changes.
        rng: spreads the retries of many nodes.
    """

    def __init__(
        self,
        line: Line,
        answer: Callable[[PeerId, Call], Awaitable[Reply]],
        candidates: Callable[[], Sequence[PeerId]],
        changed: RelaysChanged,
        rng: Random,
    ) -> None:
        self._line = line
        self._answer = answer
        self._candidates = candidates
        self._changed = changed
        self._rng = rng
        self._tasks: dict[PeerId, asyncio.Task[None]] = {}
        self._held: dict[PeerId, None] = {}
        self._troubles: dict[PeerId, _Trouble] = {}
        self._awake = asyncio.Event()
        self._background = Background()

    @property
    def relays(self) -> tuple[PeerId, ...]:
        """Where this node waits now."""
        return tuple(self._held)

    def look(self) -> None:
        """Look for relays now: more are known, or none is needed any more."""
        self._awake.set()

    async def run(self) -> None:
        """Keep the places, for ever."""
        while True:
            self._seek()
            self._awake.clear()
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._awake.wait()
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Leave all relays."""
        await self._background.cancel()

    def _seek(self) -> None:
        now, candidates = asyncio.get_running_loop().time(), self._candidates()
        self._troubles = {peer: one for peer, one in self._troubles.items() if peer in candidates}
        if not candidates:
            for task in self._tasks.values():
                task.cancel()
        for relay in candidates:
            trouble = self._troubles.get(relay)
            if len(self._tasks) >= RELAYS_MAX:
                return
            if relay not in self._tasks and (trouble is None or trouble.until <= now):
                task = self._tasks[relay] = self._background.start(self._wait_at(relay))
                task.add_done_callback(partial(self._left, relay))

    async def _wait_at(self, relay: PeerId) -> None:
        line = self._line.websocket(relay, RELAY_PATH, CALL_BYTES_MAX, HEARTBEAT_S)
        answers = Background()
        try:
            async with line as websocket:
                self._held[relay] = None
                self._troubles.pop(relay, None)
                self._changed(self.relays)
                await self._serve(relay, websocket, answers)
        except (OSError, aiohttp.ClientError, P2PTrainError):
            pass  # the relay is gone, is full or breaks rules: another one, or this one later
        finally:
            await answers.cancel()

    def _left(self, relay: PeerId, _: asyncio.Task[None]) -> None:
        del self._tasks[relay]
        if relay in self._held:
            del self._held[relay]
            self._changed(self.relays)
        before = self._troubles.get(relay)
        delay_s = min(2 * before.delay_s, RETRY_MAX_S) if before else RETRY_S
        until = asyncio.get_running_loop().time() + delay_s * self._rng.uniform(0.75, 1.25)
        self._troubles[relay] = _Trouble(until, delay_s)
        self.look()

    async def _serve(
        self, relay: PeerId, websocket: aiohttp.ClientWebSocketResponse[bool], answers: Background
    ) -> None:
        rate, loop = TokenBucket(CALLS_PER_S, CALLS_BURST), asyncio.get_running_loop()

        async def answer(call: Call) -> None:
            reply = await self._answer(relay, call)
            with contextlib.suppress(OSError):  # the relay is gone
                await websocket.send_bytes(msgspec.msgpack.encode(reply))

        while (message := await websocket.receive()).type is WSMsgType.BINARY:
            if not rate.take(loop.time()):
                return
            try:
                call = decode(message.data, Call)
            except RemoteProtocolError:
                return
            answers.start(answer(call))
