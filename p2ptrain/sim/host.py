"""One simulated computer: a node, its trainer, and the hands that carry out its effects."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from p2ptrain.core import inputs
from p2ptrain.core.effects import (
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
from p2ptrain.core.envelope import Opener, Sealer, Verified, remember
from p2ptrain.core.errors import Offence, RemoteProtocolError
from p2ptrain.core.inputs import Input
from p2ptrain.core.membership import Members
from p2ptrain.core.messages import Message, Report
from p2ptrain.core.node import Node, Setup
from p2ptrain.core.types import BlobId, PeerId, Seconds
from p2ptrain.sim import liar
from p2ptrain.sim.keys import SWARM, SimSigner, SimVerifier
from p2ptrain.sim.trainer import Learner, SimTrainer

if TYPE_CHECKING:
    from p2ptrain.sim.world import World

ASK_INTRODUCER_S = 5.0

START_S = 0.0
"""A trainer is ready at once: its start belongs to the daemon, not to the protocol."""


class Host:
    """A computer that may crash and come back."""

    __slots__ = (
        "_contacts",
        "_feeding",
        "_inbox",
        "_members",
        "_offset",
        "_opener",
        "_sealer",
        "_timers",
        "alive",
        "blobs",
        "boot",
        "bytes_received",
        "bytes_sent",
        "downloads",
        "effects",
        "frames_received",
        "learner",
        "lies",
        "messages_sent",
        "node",
        "note_counts",
        "notes",
        "number",
        "peer",
        "setup",
        "step_s",
        "trainer",
        "world",
    )

    def __init__(
        self, world: "World", number: int, setup: Setup, members: Members, learner: Learner, step_s: Seconds
    ) -> None:
        self.world = world
        self.number = number
        self.peer = setup.me
        self.alive = False
        self.lies = False
        self.boot = 0
        self.blobs: dict[BlobId, None] = {}
        self.notes: list[tuple[Seconds, Note]] = []
        self.note_counts: dict[str, int] = {}
        self.bytes_sent = self.bytes_received = self.messages_sent = self.frames_received = 0
        self.downloads = 0
        self.node: Node
        self.effects: list[Effect] = []
        """Of the input handled last: what the checks look at."""
        self.setup = setup
        self._members = members
        self.learner = learner
        self.step_s = step_s
        self._offset: Seconds = 0.0
        self._timers: dict[str, int] = {}
        self._contacts: dict[PeerId, Verified[Message]] = {}
        self._inbox: deque[Input] = deque()
        self._feeding = False
        self._sealer: Sealer
        self._opener: Opener
        self.trainer: SimTrainer

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot: a new node, the learner from its checkpoint, what is remembered of others."""
        world = self.world
        self.boot += 1
        self.alive = True
        self._timers = {}
        self._inbox.clear()
        setup = self.setup
        self.node = Node(setup, self._members)
        self._sealer = Sealer(SimSigner(self.peer), SWARM, world.codec, self.boot)
        self._opener = Opener(SimVerifier(), SWARM, world.codec, world.opened)
        ready = self.learner.ready()
        self.trainer = SimTrainer(self.learner, ready, self.step_s, self.answer, self._wake)
        self.feed(inputs.Started(tuple(self._contacts.values()), tuple(self.blobs)))
        self._look_for_others(self.boot)
        self.answer(START_S, ready)

    def _look_for_others(self, boot: int) -> None:
        """Ask the introducer until somebody is known, as with an invite."""
        introducer = self.world.introducer
        if self.alive and boot == self.boot and introducer not in (None, self.peer) and not self._contacts:
            self.connect(introducer)
            self.world.after(ASK_INTRODUCER_S, self._look_for_others, boot)

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        self.alive = False
        self.world.on_crash(self)

    # -- inputs ------------------------------------------------------------------------------------

    def feed(self, event: Input) -> None:
        """Hand an input to the node and carry out what it wants; inputs that follow at once queue up."""
        if not self.alive:
            return
        if isinstance(event, inputs.TrainerLost):
            self.world.stages.stop(self, "its trainer died")
        if self._feeding:
            self._inbox.append(event)
            return
        self._feeding = True
        self._handle(event)
        while self._inbox:
            self._handle(self._inbox.popleft())
        self._feeding = False

    def _handle(self, event: Input) -> None:
        world = self.world
        if world.clocks_jump:
            self._offset += world.clock_jump()
        effects = self.effects = self.node.handle(world.now + self._offset, event)
        for effect in map(partial(liar.twist, self), effects) if self.lies else effects:
            HANDS.get(type(effect), Host.learn)(self, effect)
        for observer in world.observers:
            observer(self, world.now)

    def on_frame(self, source: PeerId, frame: Verified[Message] | bytes) -> None:
        """A message arrived, or bytes that nobody sealed."""
        if not self.alive:
            return
        self.frames_received += 1
        opener = self._opener
        try:
            if isinstance(frame, bytes):
                self.bytes_received += len(frame)
                message = opener.receive(frame, source)
            else:
                self.bytes_received += len(frame.raw)
                message = opener.admit(frame, source)
        except RemoteProtocolError as error:
            self.feed(inputs.Offended(source, error.offence, error.detail))
            return
        if message is not None:
            self.feed(inputs.Received(source, message))

    def on_unreachable(self, boot: int, peer: PeerId) -> None:
        """A message could not be handed over."""
        if self.alive and boot == self.boot and not self.world.reaches(self.peer, peer):
            self.feed(inputs.PeerDown(peer, "no connection"))

    def _later(self, boot: int, event: Input) -> None:
        if self.alive and boot == self.boot:
            self.feed(event)

    def answer(self, delay: Seconds, event: Input) -> None:
        """Hand in what an effect led to, after a while."""
        if isinstance(event, inputs.Published):
            self.blobs[event.blob] = None
        if delay == 0.0 and self._feeding:
            self._inbox.append(event)
        else:
            self.world.after(delay, self._later, self.boot, event)

    def _wake(self, delay: Seconds, job: int) -> None:
        self.world.after(delay, self._on_wake, self.boot, job)

    def _on_wake(self, boot: int, job: int) -> None:
        if self.alive and boot == self.boot:
            self.trainer.on_wake(self.world.now, job)

    # -- effects -----------------------------------------------------------------------------------

    def _send(self, effect: Send) -> None:
        self.world.send(self, effect.to, self._sealer.seal(effect.message))

    def _set_timer(self, effect: SetTimer) -> None:
        number = self._timers[effect.key] = self._timers.get(effect.key, 0) + 1
        self.world.after(effect.after_s, self._on_timer, self.boot, effect.key, number)

    def _sign(self, effect: Sign) -> None:
        sealed = self._sealer.seal(effect.statement)
        if isinstance(effect.statement, Report) and not self.lies:
            remember(self.world.opened, sealed)  # nobody has to decode what was sealed here
        self._inbox.append(inputs.Signed(sealed))

    def _drop(self, effect: Drop) -> None:
        self.blobs.pop(effect.blob, None)

    def _remember(self, effect: Remember) -> None:
        self._contacts[effect.peer] = self._opener.open_statement(effect.raw)

    def _hang_up(self, effect: Hangup) -> None:
        self.world.hang_up(self, effect.peer)

    def learn(self, effect: Effect) -> None:
        """Hand an effect to the trainer."""
        self.trainer.perform(self.world.now, effect)

    def _stage(self, effect: Stage) -> None:
        self.world.stages.ask(self, effect)

    def _reduce(self, effect: Reduce) -> None:
        self.world.rings.ask(self, effect)

    def _halt(self, effect: Halt) -> None:
        self.world.stages.stop(self, "stopped by its owner")
        self.learn(effect)

    def _on_timer(self, boot: int, key: str, number: int) -> None:
        if self.alive and boot == self.boot and self._timers.get(key) == number:
            self.feed(inputs.TimerFired(key))

    def _note(self, note: Note) -> None:
        self.note_counts[note.event] = self.note_counts.get(note.event, 0) + 1
        if len(self.notes) < 10_000:
            self.notes.append((self.world.now, note))

    def _dial(self, effect: Dial) -> None:
        self.connect(effect.peer)

    def connect(self, peer: PeerId) -> None:
        """Try to reach another host; both learn of it."""
        self.world.connect(self, peer)

    def feed_later(self, delay: Seconds, event: Input) -> None:
        """Hand an input to the node after a while, unless the computer starts anew before."""
        self.world.after(delay, self._later, self.boot, event)

    def _fetch(self, effect: Fetch) -> None:
        world = self.world
        duration, source = world.transfer(self, effect.blob, effect.size_bytes, effect.sources)
        if source is None or duration > effect.timeout_s:
            failed = inputs.FetchFailed(effect.blob, "nobody gave it")
            world.after(min(duration, effect.timeout_s), self._later, self.boot, failed)
        else:
            world.after(duration, self._on_arrived, self.boot, effect, source)

    def _on_arrived(self, boot: int, effect: Fetch, source: PeerId) -> None:
        if not self.alive or boot != self.boot:
            return
        self.downloads += 1
        blob, author = effect.blob, effect.sources[0]
        refusal = self.learner.accept(blob, self.world.hosts[source].learner)
        if refusal:
            self.feed(inputs.Offended(author, Offence.BAD_WEIGHTS, refusal))
            self.feed(inputs.FetchFailed(blob, refusal, author))
            return
        self.blobs[blob] = None
        self.feed(inputs.Fetched(blob, source))


HANDS: dict[type[Effect], Callable[[Host, Any], None]] = {
    Send: Host._send,
    SetTimer: Host._set_timer,
    Note: Host._note,
    Sign: Host._sign,
    Fetch: Host._fetch,
    Dial: Host._dial,
    Drop: Host._drop,
    Remember: Host._remember,
    Hangup: Host._hang_up,
    Stage: Host._stage,
    Reduce: Host._reduce,
    Halt: Host._halt,
}
"""Whatever is not here goes to the trainer."""
