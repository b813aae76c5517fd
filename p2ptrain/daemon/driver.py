"""The only caller of `Node.handle`: feeds inputs, carries out effects, never awaits between the two."""

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from p2ptrain.core import inputs
from p2ptrain.core.effects import (
    Checkpoint,
    Dial,
    Drop,
    Effect,
    Fetch,
    Halt,
    Hangup,
    Note,
    Reduce,
    Remember,
    Send,
    SetTimer,
    Sign,
    Stage,
)
from p2ptrain.core.envelope import Opener, Sealer
from p2ptrain.core.errors import Offence, P2PTrainError, RemoteProtocolError
from p2ptrain.core.inputs import Input
from p2ptrain.core.messages import Contact
from p2ptrain.core.node import Node
from p2ptrain.core.types import PeerId, Seconds, short
from p2ptrain.daemon.clock import now
from p2ptrain.daemon.reducing import forget_rings, reduce
from p2ptrain.daemon.staging import Answer, stage
from p2ptrain.learn.wire import Command, Export, Import
from p2ptrain.net.blobs.fetch import fetch_from_any
from p2ptrain.net.blobs.liars import Liars
from p2ptrain.net.transport import Transport


class TrainerPort(Protocol):
    """What the driver needs of a trainer."""

    def send(self, command: Command) -> None:
        """Hand a command over."""
        ...

    async def accept(self, blob: Any) -> str:
        """Have fetched weights checked; raises P2PTrainError when nobody can."""
        ...

    async def move(self, command: Export | Import) -> int:
        """Have numbers written to a file or read from one; raises P2PTrainError when that cannot be."""
        ...

    def begin_stage(self, effect: Stage, put: Callable[[Answer | None], None]) -> bool:
        """Have a part in a line begin, see `Stager`."""
        ...


class Recorder(Protocol):
    """Writes down what happened."""

    def record(self, at: Seconds, event: Input, effects: list[Effect]) -> None:
        """Take one input and its effects."""
        ...


class Driver:
    """Connects a node with the world. It is the `Events` of the transport.

    Args:
        remember: keeps a peer's signed contact for the next start.
        note: tells the owner.

    saving: a checkpoint was asked for, and has not been answered.
    greet: told of every peer that was connected,
    parted: and of every connection that ended or could not be made, and why.
    """

    def __init__(
        self,
        node: Node,
        sealer: Sealer,
        opener: Opener,
        journal: Recorder,
        blobs: Path,
        remember: Callable[[PeerId, bytes], None],
        note: Callable[[Note], None],
    ) -> None:
        self.node = node
        self.transport: Transport
        self.trainer: TrainerPort
        self.saving = False
        self.greet: Callable[[PeerId], None] = lambda _: None
        self.parted: Callable[[PeerId, str], None] = lambda *_: None
        self._sealer = sealer
        self._opener = opener
        self._journal = journal
        self._blobs = blobs
        forget_rings(blobs)
        self._remember = remember
        self._note = note
        self._inbox: deque[Input] = deque()
        self._feeding = False
        self._closed = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: dict[PeerId, Seconds] = {}
        self._liars = Liars()
        self._halts = 0
        self._waiting: dict[type[Input], asyncio.Future[None]] = {}
        self._hands: dict[type[Effect], Callable[[Any], None]] = {
            Send: self._send,
            Sign: self._sign,
            Dial: self._dial,
            Hangup: self._hang_up,
            Fetch: self._fetch,
            Reduce: self._reduce,
            Stage: self._stage,
            Halt: self._halt,
            Drop: self._drop,
            Remember: self._keep_contact,
            SetTimer: self._set_timer,
            Note: self._note,
        }

    # -- inputs ------------------------------------------------------------------------------------

    def feed(self, event: Input) -> None:
        """Hand an input to the node and carry out what it wants; what follows at once queues up."""
        self._inbox.append(event)
        if self._feeding or self._closed:
            return
        self._feeding = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                self.saving = self.saving and not _ends_saving(event)
                at = now()
                effects = self.node.handle(at, event)
                self._journal.record(at, event, effects)
                for effect in effects:
                    self._hands.get(type(effect), self._learn)(effect)
                waiting = self._waiting.pop(type(event), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
        finally:
            self._feeding = False

    def received(self, peer: PeerId, frame: bytes) -> None:
        """Open a frame: the one place where a peer's fault is caught."""
        try:
            message = self._opener.receive(frame, peer)
        except RemoteProtocolError as error:
            self.feed(inputs.Offended(peer, error.offence, error.detail))
            return
        if message is not None:
            self.feed(inputs.Received(peer, message))

    def peer_up(self, peer: PeerId) -> None:
        """A connection stands."""
        self.feed(inputs.PeerUp(peer))
        self.greet(peer)

    def peer_down(self, peer: PeerId, reason: str) -> None:
        """A connection ended, or a dial failed."""
        self.feed(inputs.PeerDown(peer, reason))
        self.parted(peer, reason)

    def offended(self, peer: PeerId, offence: Offence, detail: str) -> None:
        """The transport caught a peer."""
        self.feed(inputs.Offended(peer, offence, detail))

    def introduce(self, contact: Contact) -> None:
        """Say something new of this node: sign it, and tell everyone connected."""
        self.feed(inputs.Signed(self._sealer.seal(contact)))

    def refuses(self, peer: PeerId) -> bool:
        """Say whether a peer is turned away now: asked in every handshake."""
        until = self._refused.get(peer)
        if until is None:
            return False
        if now() < until:
            return True
        del self._refused[peer]
        return False

    async def wait_for(self, kind: type[Input], timeout_s: Seconds) -> bool:
        """Wait until an input of that kind was handled; say whether it came in time."""
        future = self._waiting[kind] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Carry nothing out any more."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- effects -----------------------------------------------------------------------------------

    def _send(self, effect: Send) -> None:
        self.transport.send(effect.to, self._sealer.seal(effect.message).raw)

    def _sign(self, effect: Sign) -> None:
        self._inbox.append(inputs.Signed(self._sealer.seal(effect.statement)))

    def _dial(self, effect: Dial) -> None:
        self._start(self._connect(effect))

    async def _connect(self, effect: Dial) -> None:
        await self.transport.dial(effect.peer, effect.addresses)

    def _hang_up(self, effect: Hangup) -> None:
        if effect.refuse_s > 0:
            self._refused[effect.peer] = now() + effect.refuse_s
        self.transport.hangup(effect.peer, effect.reason)

    def _fetch(self, effect: Fetch) -> None:
        self._start(self._bring(effect))

    async def _bring(self, effect: Fetch) -> None:
        """Fetch, have the trainer check, and only then tell the node."""
        file = self._blobs / effect.blob

        def lied(liar: PeerId, error: RemoteProtocolError) -> None:
            self._liars.add(effect.blob, liar)
            self.offended(liar, error.offence, error.detail)

        try:
            source = await fetch_from_any(
                self.transport,
                self._liars.without(effect.blob, effect.sources),
                effect.blob,
                effect.size_bytes,
                self._blobs,
                effect.timeout_s,
                lied,
            )
            refusal = await self.trainer.accept(effect.blob)
        except P2PTrainError as error:
            file.unlink(missing_ok=True)  # nobody has checked it
            self.feed(inputs.FetchFailed(effect.blob, error.message))
            return
        if refusal and not file.exists():
            # An older `Drop` of the same blob reached the trainer late: nobody's fault.
            self.feed(inputs.FetchFailed(effect.blob, refusal))
        elif refusal:
            file.unlink(missing_ok=True)
            author = effect.sources[0]  # whoever passed them on could not know
            self.offended(author, Offence.BAD_WEIGHTS, refusal)
            self.feed(inputs.FetchFailed(effect.blob, refusal, author))
        else:
            self.feed(inputs.Fetched(effect.blob, source))

    def _reduce(self, effect: Reduce) -> None:
        self._start(reduce(effect, self.transport.flows, self.trainer, self._blobs, self.feed))

    def _stage(self, effect: Stage) -> None:
        halts = self._halts
        flows, trainer = self.transport.flows, self.trainer
        self._start(stage(effect, flows, trainer, self.feed, lambda: self._halts != halts))

    def _halt(self, effect: Halt) -> None:
        self._halts += 1
        self._learn(effect)

    def _keep_contact(self, effect: Remember) -> None:
        contact = self._opener.open_statement(effect.raw).message
        if isinstance(contact, Contact):
            self.transport.learn(effect.peer, contact.addresses)
        self._remember(effect.peer, effect.raw)

    def _drop(self, effect: Drop) -> None:
        self.trainer.send(effect)
        (self._blobs / effect.blob).unlink(missing_ok=True)

    def _set_timer(self, effect: SetTimer) -> None:
        old = self._timers.pop(effect.key, None)
        if old is not None:
            old.cancel()
        loop = asyncio.get_running_loop()
        self._timers[effect.key] = loop.call_later(effect.after_s, self._on_timer, effect.key)

    def _on_timer(self, key: str) -> None:
        self._timers.pop(key, None)
        self.feed(inputs.TimerFired(key))

    def _learn(self, effect: Any) -> None:
        self.saving = self.saving or isinstance(effect, Checkpoint)
        self.trainer.send(effect)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ends_saving(event: Input) -> bool:
    failed = isinstance(event, inputs.LearnFailed) and event.tag == "checkpoint"
    return failed or isinstance(event, inputs.Saved | inputs.TrainerLost)


def describe(note: Note) -> str:
    """Write a note as one line of the log."""
    fields = " ".join(f"{name}={_plain(value)}" for name, value in note.fields.items())
    return f"{note.event} {fields}".rstrip()


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return short(PeerId(value))
    text = str(value)
    return repr(text) if " " in text else text
