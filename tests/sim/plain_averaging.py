"""Plain averaging in pairs, blindly: what other strategies are compared with. It keeps no rule of safety.

After each round a peer and its next partner of the law both go to the middle between their weights.
"""

import math
from enum import StrEnum

from msgspec import Struct

from p2ptrain.core import law
from p2ptrain.core.effects import Combine, Effect, Evaluate, Finish, Fresh, Publish, Send
from p2ptrain.core.inputs import Evaluated, Fetched, Published, Trained, TrainerReady
from p2ptrain.core.messages import BlobBytes, BlobName, Message, Offer
from p2ptrain.core.progress import Progress
from p2ptrain.core.strategy import Context, Event, Told
from p2ptrain.core.types import OWN, BlobId, PeerId


class Start(StrEnum):
    """Where peers begin."""

    COMMON = "common"
    OWN = "own"


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings.

    round_steps: optimiser steps between two exchanges.
    lr_spread: peers draw their learning rate factor from exp(U(-lr_spread, lr_spread)).
    start: `common` to all, or each its `own`.
    """

    round_steps: int = 50
    lr_spread: float = 0.0
    start: Start = Start.COMMON


class Swap(Message, frozen=True):
    """My weights. answers: whose name is that of the receiver's; empty: these are the first."""

    blob: BlobName
    size_bytes: BlobBytes
    answers: str = ""


MESSAGES: tuple[type[Message], ...] = (Swap,)


class Strategy:
    """One peer."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._own = Progress()
        self._turn = 0
        self._asked: dict[str, tuple[PeerId, BlobId | None]] = {}
        self._mine: dict[BlobId, BlobId] = {}

    def start(self, ctx: Context, ready: TrainerReady) -> list[Effect]:
        self._own.take(ready)
        self._turn = ctx.rng.randrange(64)
        spread = self._config.lr_spread
        scale = math.exp(ctx.rng.uniform(-spread, spread))
        seed = ctx.rng.getrandbits(32) if self._config.start is Start.OWN else ctx.manifest.seed
        return [Fresh(seed, scale), self._own.train(ctx, self._config.round_steps)]

    def memory(self) -> bytes:
        return b""

    def activity(self) -> str:
        return "averaging"

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        match event:
            case Trained():
                self._own.take(event)
                return self._next_round(ctx)
            case Published():
                return self._on_published(ctx, event)
            case Told(sender=sender, message=Swap() as swap):
                return self._on_swap(ctx, sender, swap)
            case Fetched(blob=blob) if blob in self._mine:
                terms = ((1.0, OWN), (0.5, blob), (-0.5, self._mine.pop(blob)))
                return [Combine("mix", OWN, terms)]
            case Evaluated():
                return [Finish("all steps done")]
        return []

    def _next_round(self, ctx: Context) -> list[Effect]:
        if self._own.is_done(ctx):
            return [Evaluate("own", (OWN,))]
        self._turn += 1
        partner = law.expo(ctx.membership.members, ctx.me, self._turn, ctx.is_partner)
        train = self._own.train(ctx, self._config.round_steps)
        if partner is None:
            return [train]
        tag = f"swap:{self._turn}"
        self._asked[tag] = (partner, None)
        return [Publish(tag), train]

    def _on_published(self, ctx: Context, event: Published) -> list[Effect]:
        partner, theirs = self._asked.pop(event.tag)
        answer = Send(partner, Swap(event.blob, event.size_bytes, theirs or ""))
        if theirs is None:
            return [answer]
        self._mine[theirs] = event.blob
        return [answer, ctx.fetch(partner, Offer(theirs, event.size_bytes, 0.0))]

    def _on_swap(self, ctx: Context, sender: PeerId, swap: Swap) -> list[Effect]:
        if self._own.is_done(ctx):
            return []
        if swap.answers:
            self._mine[swap.blob] = BlobId(swap.answers)  # type: ignore[arg-type]
            return [ctx.fetch(sender, Offer(swap.blob, swap.size_bytes, 0.0))]
        tag = f"answer:{swap.blob}"
        self._asked[tag] = (sender, swap.blob)
        return [Publish(tag)]
