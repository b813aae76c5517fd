"""Carries out `Stage`: bytes between the trainer and the neighbours in a line, each one flow there, one back.

What they mean is the trainers' affair. All that is looked at here is who is silent: a daemon that lives shows
it twice a second, however long its trainer computes.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Protocol

from p2ptrain.core.effects import Stage
from p2ptrain.core.errors import P2PTrainError, RemoteProtocolError
from p2ptrain.core.inputs import Input, LearnFailed, Staged
from p2ptrain.core.types import Seconds, short
from p2ptrain.learn.wire import Came, Cut, Goes, Side
from p2ptrain.net.flows.flows import Flows
from p2ptrain.net.flows.frames import AbortedError
from p2ptrain.net.flows.reader import Reader
from p2ptrain.net.flows.writer import Writer

NAME = re.compile("[0-9a-f]{32}")
"""Of a line: it names flows."""

THERE = {Side.BEFORE: "back", Side.AFTER: "on"}
"""Ends the name of the flow to a neighbour, and is what that one reads."""

STALLED_S: Seconds = 60.0
"""A line in which nothing moves for so long, or for ten times the silence that is borne, is over (guess)."""

Answer = Goes | Staged | LearnFailed


class Stager(Protocol):
    """What is needed of a trainer."""

    def begin_stage(self, effect: Stage, put: Callable[[Answer | None], None]) -> bool:
        """Have a part begin; what comes of it is put, None if the trainer died; say no if there is none."""
        ...

    def send(self, command: Came | Cut) -> None:
        """Hand a command over."""
        ...


async def stage(
    effect: Stage,
    flows: Flows,
    trainer: Stager,
    feed: Callable[[Input], None],
    is_halted: Callable[[], bool] = lambda: False,
) -> None:
    """Carry it out, and feed the answer. is_halted: asked before the trainer is."""
    if not NAME.fullmatch(effect.name):
        return feed(LearnFailed(effect.tag, "that is no name of a line"))
    try:
        async with AsyncExitStack() as stack:
            await _Line(effect, flows, trainer, feed).run(stack, is_halted)
    except P2PTrainError as error:
        feed(LearnFailed(effect.tag, error.message))


class _Line:
    """One part, as its daemon sees it."""

    def __init__(self, effect: Stage, flows: Flows, trainer: Stager, feed: Callable[[Input], None]) -> None:
        self._effect, self._flows, self._trainer, self._feed = effect, flows, trainer, feed
        peers = {Side.BEFORE: effect.before, Side.AFTER: effect.after}
        self._peers = {side: peer for side, peer in peers.items() if peer is not None}
        self._writers: dict[Side, Writer] = {}
        self._answers: asyncio.Queue[Answer | None] = asyncio.Queue()

    async def run(self, stack: AsyncExitStack, is_halted: Callable[[], bool]) -> None:
        """Meet the neighbours, then carry bytes until the part is over."""
        readers = await self._meet(stack)
        reason = "stopped by its owner" if is_halted() else ""
        if not reason and not self._trainer.begin_stage(self._effect, self._answers.put_nowait):
            reason = "there is no trainer"
        if reason:
            self._abort(reason)
            raise P2PTrainError(reason)
        listening = [asyncio.create_task(self._listen(side, reader)) for side, reader in readers.items()]
        try:
            answer = await self._carry()
        except asyncio.CancelledError:
            self._abort("it stops")
            raise
        finally:
            for task in listening:
                task.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
        if answer is not None:
            self._feed(answer)

    # -- meeting -----------------------------------------------------------------------------------

    async def _meet(self, stack: AsyncExitStack) -> dict[Side, Reader]:
        """Wait until all neighbours are there."""
        effect, readers = self._effect, dict[Side, Reader]()
        for side, peer in self._peers.items():
            name = f"line-{effect.name}-{THERE[side]}"
            self._writers[side] = self._flows.offer(name, peer, effect.meet_s + effect.silence_s)
        try:
            for side, peer in self._peers.items():
                other = Side.AFTER if side is Side.BEFORE else Side.BEFORE
                name = f"line-{effect.name}-{THERE[other]}"
                reader = self._flows.read(peer, name, max(effect.meet_s, effect.silence_s))
                readers[side] = await stack.enter_async_context(reader)
                await reader.open()
                reader.silence_s = effect.silence_s
        except P2PTrainError as error:
            self._abort("the line did not come together")
            raise P2PTrainError(f"the line did not come together: {error.message}") from None
        except asyncio.CancelledError:
            self._abort("it stops")
            raise
        return readers

    def _abort(self, reason: str) -> None:
        for writer in self._writers.values():
            writer.abort(reason)

    # -- both ways ---------------------------------------------------------------------------------

    async def _carry(self) -> Staged | LearnFailed | None:
        """Pass on what the trainer says, until it says that the part is over."""
        while True:
            match await self._answer():
                case Goes(side=side, data=data):
                    if side in self._writers:
                        with suppress(P2PTrainError):  # whoever reads it is gone: listening tells
                            await self._writers[side].write(data)
                case Staged(reason="") as staged:
                    await self._end()
                    return staged
                case Staged() | LearnFailed() as answer:
                    self._abort("the line ended")
                    return answer
                case None:
                    self._abort("its trainer died")
                    return None

    async def _answer(self) -> Answer | None:
        """Wait for the trainer; a line in which nothing moves, though everybody lives, is over."""
        most = max(STALLED_S, 10 * self._effect.silence_s)
        for _ in range(2):
            with suppress(TimeoutError):
                async with asyncio.timeout(most):
                    return await self._answers.get()
            for side in Side:
                self._trainer.send(Cut(self._effect.tag, side, "nothing moves in the line", False))
        self._abort("its trainer does not answer")
        raise P2PTrainError("the trainer does not answer")

    async def _end(self) -> None:
        """Let the neighbours have all that was said."""
        ends = [writer.end() for writer in self._writers.values()]
        await asyncio.gather(*ends, return_exceptions=True)

    async def _listen(self, side: Side, reader: Reader) -> None:
        """Hand over what a neighbour says."""
        tag, peer = self._effect.tag, self._peers[side]
        try:
            while data := await reader.some():
                self._trainer.send(Came(tag, side, data))
            await asyncio.sleep(self._effect.silence_s)
            reason, is_at_fault = f"{short(peer)} ended too early", True
        except AbortedError as error:
            reason, is_at_fault = f"{short(peer)}: {error.message}", False
        except RemoteProtocolError as error:
            reason, is_at_fault = f"{short(peer)} broke the rules: {error.detail}", True
        except P2PTrainError as error:
            reason, is_at_fault = error.message, True
        self._trainer.send(Cut(tag, side, reason, is_at_fault))
