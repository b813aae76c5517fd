"""A coordinator's rounds of layers: work is given out, parts come back, are joined, and become the next base.

It says whom to tell what; the strategy sends it. Source: ALGORITHMS 2.3.
"""

from collections.abc import Iterable
from enum import Enum, auto
from typing import NamedTuple

from p2ptrain.core.blocks import Block
from p2ptrain.core.effects import Accuse, Effect, Note, Publish
from p2ptrain.core.errors import Offence
from p2ptrain.core.inputs import Evaluated, Fetched, FetchFailed, Layer, LearnFailed, Published
from p2ptrain.core.intake import Intake
from p2ptrain.core.joining import JOINT, Joining, Part, Verdict
from p2ptrain.core.messages import Offer
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import PeerId, short
from p2ptrain.strategies.layerwise.roster import Roster
from p2ptrain.strategies.layerwise.succession import Newest


class Order(NamedTuple):
    """What a peer is to be told: to train a block of a base for so many steps; 0: that this is the base."""

    to: PeerId
    newest: Newest
    block: Block
    steps: int


class Stage(Enum):
    """Where a round stands."""

    OVER = auto()
    WORK = auto()
    JUDGE = auto()
    WRITE = auto()


class Rounds:
    """One term's.

    Args:
        tag: begins the tags of what is asked of the trainer, and no other's.
        newest: the weights to begin with, their loss as measured here.
        search, examples, tolerance: see `Joining`.
        quorum: at the deadline this share of the layers must have come.
        replicas: so many parts of one block are joined; others stand in.

    Attributes:
        orders: to be sent; whoever sends them takes them out.
        is_lost: weights are gone, or cannot be written: somebody has to begin anew.
        cannot_write: that was it.
    """

    def __init__(
        self,
        tag: str,
        layers: tuple[Layer, ...],
        roster: Roster,
        newest: Newest,
        *,
        search: bool,
        examples: int,
        tolerance: float,
        quorum: float,
        replicas: int,
    ) -> None:
        self.orders: list[Order] = []
        self.stage = Stage.OVER
        self.newest = newest
        self.is_lost = self.cannot_write = False
        self._tag, self._layers, self._roster = tag, layers, roster
        self._search, self._examples, self._tolerance = search, examples, tolerance
        self._quorum, self._replicas = quorum, replicas
        self._begun = 0
        self._joining = self._join()
        self._intake: Intake[Part] = Intake()
        self._spare: list[Part] = []
        self._awaits: list[Part] = []

    def begin(self, ctx: Context, left: dict[PeerId, int], ended: Iterable[PeerId] = ()) -> list[Effect]:
        """Give work out, by the steps that everybody has left. Who has done it already says so.

        ended: who has no steps left and awaits the base.
        """
        self._begun += 1
        self._joining = self._join()
        self._intake.clear()
        self._spare, self._awaits = [], []
        effects = self._joining.begin()
        self._roster.begin(ctx.now, self.newest.number, list(left))
        self.orders += [Order(peer, self.newest, (0, 0), 0) for peer in ended]
        if not left:
            return effects
        self.stage = Stage.WORK
        for peer in left:
            self.give(ctx, peer, left[peer])
        return effects

    def give(self, ctx: Context, peer: PeerId, left: int) -> None:
        """Tell a peer what to do in this round, once more if it was told."""
        if self.stage is Stage.WORK and left > 0 and not self._roster.has(peer):
            block, steps = self._roster.give(peer, ctx.now, left)
            self.orders.append(Order(peer, self.newest, block, steps))

    def tell(self, peer: PeerId) -> None:
        """Tell a peer the base only."""
        self.orders.append(Order(peer, self.newest, (0, 0), 0))

    def take(self, ctx: Context, part: Part, seconds: float) -> list[Effect]:
        """A part of this base is offered; training it took so long."""
        if self.stage is not Stage.WORK or self._roster.has(part.author):
            return []
        self._roster.take(part.author, ctx.now, part.steps, seconds)
        if part.author == ctx.me:
            return [*self._joining.add(part), *self._look(ctx)]
        if sum(part.block[0] in range(*one.block) for one in self._awaits) >= self._replicas:
            self._spare.append(part)
            return self._look(ctx)
        self._awaits.append(part)
        return [*self._intake.add(ctx, part.author, part.offer, part), *self._look(ctx)]

    def tick(self, ctx: Context) -> list[Effect]:
        """Time passed."""
        return [*self._intake.go_on(ctx), *self._look(ctx)]

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Take in what was fetched, measured or written."""
        match event:
            case Fetched(blob=blob):
                wanted = self._intake.take(blob)
                if wanted is None:
                    return []
                joined = self._joining.add(wanted.what) if self.stage is Stage.WORK else []
                return [*joined, *self._intake.go_on(ctx), *self._look(ctx)]
            case FetchFailed(blob=blob):
                lost = self._intake.fail(ctx, blob)
                return [*self._stand_in(ctx, lost.what), *self._look(ctx)] if lost else []
            case Evaluated() | LearnFailed() if event.tag.startswith(f"{self._name}:"):
                return self._on_answer(event)
            case Published() if event.tag == self._name and self.stage is Stage.WRITE:
                return self._on_written(event)
            case LearnFailed() if event.tag == self._name:
                self.is_lost = self.cannot_write = True
                return []
            case _:
                return []

    @property
    def _name(self) -> str:
        return f"{self._tag}:{self._begun}"

    def _join(self) -> Joining:
        return Joining(
            self._name,
            self._layers,
            self.newest.offer,
            search=self._search,
            examples=self._examples,
            tolerance=self._tolerance,
        )

    def _stand_in(self, ctx: Context, lost: Part) -> list[Effect]:
        """A part does not come: take another of the same layers."""
        for part in self._spare:
            if part.block == lost.block:
                self._spare.remove(part)
                return self._intake.add(ctx, part.author, part.offer, part)
        return []

    def _look(self, ctx: Context) -> list[Effect]:
        """Join if all are back, or enough of them at the deadline, or any after twice as long."""
        if self.stage is not Stage.WORK:
            return []
        out = [
            peer for peer in self._roster.out if peer == ctx.me or (ctx.is_partner(peer) and ctx.trusts(peer))
        ]
        joining, left_s = self._joining, self._roster.wait_s(ctx.now)
        awaited = any(not self._roster.was_late(peer) for peer in out) or not self._intake.is_empty
        if awaited or (out and not joining.parts):
            enough = left_s <= 0 and joining.covered >= self._quorum
            if not enough and left_s > -self._roster.deadline_s:
                return []
        if not joining.parts:
            self.stage = Stage.OVER
            return [Note("round_empty", {"round": self.newest.number})]
        self.stage = Stage.JUDGE
        self._intake.clear()
        return joining.judge()

    def _on_answer(self, event: Evaluated | LearnFailed) -> list[Effect]:
        if self.stage is not Stage.JUDGE:
            return []
        effects = self._joining.answer(event)
        self.is_lost = self._joining.is_lost
        verdict = self._joining.verdict
        return effects if verdict is None else [*effects, *self._conclude(verdict)]

    def _conclude(self, verdict: Verdict) -> list[Effect]:
        fields = {
            "round": self.newest.number,
            "parts": len(self._joining.parts),
            "covered": self._joining.covered,
            "share": verdict.share,
            "before": self.newest.offer.loss,
            "loss": verdict.loss,
        }
        effects: list[Effect] = [Note("joined", fields)]
        for author, detail in verdict.false:
            effects.append(Accuse(author, Offence.FALSE_CLAIM, detail))
        if verdict.share == 0:
            self.stage = Stage.OVER
            self.newest = Newest(self.newest.number + 1, self.newest.offer)
            return [*effects, Note("join_refused", {"blamed": [short(peer) for peer, _ in verdict.false]})]
        self.stage = Stage.WRITE
        return [*effects, Publish(self._name, JOINT)]

    def _on_written(self, event: Published) -> list[Effect]:
        verdict = self._joining.verdict
        assert verdict is not None
        self.stage = Stage.OVER
        self.newest = Newest(self.newest.number + 1, Offer(event.blob, event.size_bytes, verdict.loss))
        return []
