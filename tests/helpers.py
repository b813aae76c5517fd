"""What the tests of the core share: peers by number, what they say, and a node on the table."""

from collections.abc import Callable, Iterable
from functools import cache
from random import Random
from typing import Any

from msgspec import Struct

from p2ptrain.core import inputs
from p2ptrain.core.codec import Codec
from p2ptrain.core.effects import Effect
from p2ptrain.core.envelope import Opener, Sealer, Verified
from p2ptrain.core.inputs import Input
from p2ptrain.core.ledger import Stated
from p2ptrain.core.manifest import Manifest, Settings
from p2ptrain.core.membership import Members
from p2ptrain.core.messages import Contact, Message, News, Offer, Report
from p2ptrain.core.node import Node, Setup
from p2ptrain.core.spread import SpreadConfig
from p2ptrain.core.strategy import Context, Event, Rules, Strategy
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.sim.keys import SWARM, SimSigner, SimVerifier
from p2ptrain.strategies import load, settings

READY = inputs.TrainerReady(step=0, samples=0, parameters=8, blob_bytes=64)


def peer(number: int) -> PeerId:
    """Name a peer so that a smaller number is a smaller id."""
    return PeerId(number.to_bytes(32, "big"))


def blob(number: int) -> BlobId:
    """Name weights."""
    return BlobId(Ref(f"{number:064x}"))


def offer(loss: float, number: int | None = None) -> Offer:
    """Offer weights of that loss."""
    return Offer(blob(round(abs(loss) * 1e6) if number is None else number), 64, loss)


codec = cache(Codec)


class Author:
    """A peer that signs, as a simulated one does."""

    def __init__(self, number: int, *, boot: int = 1, private: tuple[type[Message], ...] = ()) -> None:
        self.peer = peer(number)
        self._codec = codec(private)
        self._sealer = Sealer(SimSigner(self.peer), SWARM, self._codec, boot)

    def says(self, message: Message) -> Verified[Any]:
        """Sign a message."""
        return self._sealer.seal(message)

    def reports(self, loss: float, *, step: int = 0, finished: bool = False) -> Stated:
        """State a loss and offer the weights that have it."""
        return self.says(Report(step, 32 * step, loss, None, offer(loss), finished))

    def news(
        self, *reports: Stated, held: tuple[bool, ...] = (), reply: bool = False, hops: int = 0
    ) -> inputs.Received:
        """Bring reports to somebody."""
        carried = tuple(report.raw for report in reports)
        return self.sends(News(carried, held or (True,) * len(carried), reply, hops))

    def sends(self, message: Message) -> inputs.Received:
        """Bring a message to somebody, through the border."""
        opened = Opener(SimVerifier(), SWARM, self._codec).receive(self.says(message).raw, self.peer)
        assert opened is not None
        return inputs.Received(self.peer, opened)

    def contact(self, *addresses: str, name: str = "", trains: bool = True) -> Verified[Any]:
        """Introduce oneself."""
        return self.says(Contact(b"member", addresses, name, trains=trains))


class NoConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """No settings."""


Answer = Callable[[Context, Event], list[Effect]]


class Scripted:
    """A strategy that does what a test wrote down, and remembers what it saw."""

    def __init__(
        self, start: Iterable[Effect] = (), answer: Answer | None = None, keeps: bytes = b""
    ) -> None:
        self.seen: list[Event] = []
        self.resumed_from: bytes | None = None
        self._start = list(start)
        self._answer = answer
        self._keeps = keeps

    def start(self, ctx: Context, ready: inputs.TrainerReady) -> list[Effect]:
        self.resumed_from = ready.memory
        return self._start

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        self.seen.append(event)
        return self._answer(ctx, event) if self._answer else []

    def memory(self) -> bytes:
        return self._keeps

    def activity(self) -> str:
        return "as written"


class Table:
    """A node, what its strategy does, and a clock moved by hand."""

    def __init__(
        self,
        *strategies: Strategy,
        me: int = 1,
        others: Iterable[int] = (2, 3),
        spread: SpreadConfig | None = None,
        contact: Contact | None = None,
        steps: int = 0,
        target: float | None = None,
        strategy: str = "",
        messages: tuple[type[Message], ...] = (),
        config: Settings | None = None,
    ) -> None:
        waiting = list(strategies or [Scripted()])
        manifest = Manifest(
            name="t",
            task="toy",
            strategy=strategy or "scripted",
            strategy_config=config or {},
            steps=steps,
            target_loss=target,
        )
        scripted = Rules(
            "scripted", NoConfig, messages, lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]
        )
        rules = load(strategy) if strategy else scripted
        setup = Setup(
            me=peer(me),
            manifest=manifest,
            rules=rules,
            settings=settings(rules, manifest),
            seed=7,
            contact=contact,
            spread=spread or SpreadConfig(),
        )
        self.now = 0.0
        self.node = Node(setup, Members(map(peer, others)))
        self._signer = Author(me, private=rules.messages)

    def feed(self, *events: Input, at: float | None = None) -> list[Effect]:
        """Hand inputs over and return all effects."""
        self.now = self.now if at is None else at
        return [effect for event in events for effect in self.node.handle(self.now, event)]

    def signed(self, message: Message) -> inputs.Signed:
        """Sign for the node, as its driver does."""
        return inputs.Signed(self._signer.says(message))


def only(kind: type, effects: Iterable[Effect]) -> list[Any]:
    """Keep the effects of one kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def notes(effects: Iterable[Effect]) -> list[str]:
    """Name the notes among effects."""
    return [effect.event for effect in effects if type(effect).__name__ == "Note"]


def rng(seed: int = 0) -> Random:
    """Give randomness that is the same every time."""
    return Random(seed)
