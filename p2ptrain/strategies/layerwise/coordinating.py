"""The coordinator of a term: it finds the newest weights, then lets rounds follow each other.

It says whom to tell what; the strategy sends it. Source: ALGORITHMS 2.3.
"""

from collections.abc import Callable

from msgspec import Struct

from p2ptrain.core.blocks import Block
from p2ptrain.core.effects import Effect
from p2ptrain.core.inputs import Layer
from p2ptrain.core.joining import Part
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import BlobId, PeerId, Seconds
from p2ptrain.strategies.layerwise.roster import Roster
from p2ptrain.strategies.layerwise.rounds import Order, Rounds, Stage
from p2ptrain.strategies.layerwise.succession import Newest, Succession

ANSWER_S = 2.0
"""Answers to a new coordinator are waited for so long (guess)."""

LEFT_MAX = 2**31
"""Steps left where a swarm has no last step, or nothing is known."""


class Plan(Struct, frozen=True):
    """Settings of a swarm's rounds: see `Roster`, `Joining` and `Rounds`.

    local: whether layers lower a loss of their own.
    """

    local: bool
    group: int
    turns: int
    steps: int
    least_s: Seconds
    most_s: Seconds
    examples: int
    tolerance: float
    quorum: float
    replicas: int


class Delivery(Struct, frozen=True):
    """A part, from which base it began, how long it took, and the steps that its author has left."""

    number: int
    base: BlobId
    part: Part
    seconds: Seconds
    left: int


class Coordinator:
    """One peer in its terms.

    Args:
        layers: of the net.
        mine: says how many steps this peer has left, now.

    Attributes:
        rounds: under way; None: this peer does not coordinate, or does not know from where yet.
        cannot_write: this peer can never coordinate.
    """

    def __init__(self, plan: Plan, layers: tuple[Layer, ...], mine: Callable[[Context], int]) -> None:
        self.rounds: Rounds | None = None
        self.cannot_write = False
        self._plan, self._layers, self._mine = plan, layers, mine
        self._roster = Roster(
            layers,
            group=plan.group,
            lead=1 / 3 if plan.local else 0.0,
            turns=plan.turns,
            steps=plan.steps,
            least_s=plan.least_s,
            most_s=plan.most_s,
        )
        self._succession: Succession | None = None
        self._terms = 0
        self._left: dict[PeerId, int] = {}
        self._enders: dict[PeerId, None] = {}

    @property
    def is_active(self) -> bool:
        """Whether this peer coordinates."""
        return self.rounds is not None or self._succession is not None

    @property
    def asked(self) -> list[PeerId]:
        """Who is to say what is newest."""
        return self._succession.missing if self._succession else []

    def open(self, ctx: Context, known: Newest | None, number: int, others: list[PeerId]) -> list[Effect]:
        """Begin a term, if there is anybody to work with."""
        if self.is_active or self.cannot_write or not others or not self._workers(ctx):
            return []
        self._terms += 1
        self._enders = {}
        self._succession = Succession(
            f"newest:{self._terms}",
            known,
            number,
            others,
            ctx.now + ANSWER_S,
            examples=self._plan.examples,
            tolerance=self._plan.tolerance,
        )
        return self._succession.go_on(ctx)

    def close(self) -> None:
        """Somebody else coordinates."""
        self.rounds = self._succession = None

    def take_orders(self) -> list[Order]:
        """Return what is to be sent."""
        orders = self.rounds.orders if self.rounds else []
        if self.rounds:
            self.rounds.orders = []
        return orders

    # -- what happens ------------------------------------------------------------------------------

    def hear(self, ctx: Context, peer: PeerId, left: int, newest: Newest | None) -> list[Effect]:
        """A peer is free, and says what it knows."""
        self._left[peer] = left
        if self._succession is not None:
            self._succession.hear(peer, newest)
            return self._go_on(ctx, self._succession.go_on(ctx))
        if self.rounds is not None and left == 0:
            self.rounds.tell(peer)
        elif self.rounds is not None:
            self.rounds.give(ctx, peer, left)
        return self._go_on(ctx, [])

    def take(self, ctx: Context, delivery: Delivery) -> list[Effect]:
        """A peer brings a part."""
        part, rounds, peer = delivery.part, self.rounds, delivery.part.author
        self._left[peer] = delivery.left
        if delivery.left == 0:
            self._enders[peer] = None
        if rounds is None:
            return []
        if not self._is_current(rounds, delivery):
            self._roster.clock(peer, part.steps, delivery.seconds)
            if delivery.number >= rounds.newest.number - 1:
                self._roster.forgive(peer)
            rounds.give(ctx, peer, delivery.left)
            return []
        if self._roster.has(peer):
            rounds.orders.append(Order(peer, rounds.newest, part.block, part.steps))
            return []
        return self._go_on(ctx, rounds.take(ctx, part, delivery.seconds))

    def tick(self, ctx: Context) -> list[Effect]:
        """Time passed."""
        effects = self._succession.go_on(ctx) if self._succession else []
        return self._go_on(ctx, [*effects, *(self.rounds.tick(ctx) if self.rounds else [])])

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Take in what was fetched, measured or written."""
        effects = self._succession.handle(ctx, event) if self._succession else []
        return self._go_on(ctx, [*effects, *(self.rounds.handle(ctx, event) if self.rounds else [])])

    # -- what follows ------------------------------------------------------------------------------

    def _is_current(self, rounds: Rounds, delivery: Delivery) -> bool:
        return (delivery.number, delivery.base) == (rounds.newest.number, rounds.newest.offer.blob)

    def _go_on(self, ctx: Context, effects: list[Effect]) -> list[Effect]:
        effects = [*effects]
        if self._succession is not None and self._succession.has_failed:
            self.cannot_write = True
            self.close()
        if self._succession is not None and self._succession.found is not None:
            effects += self._begin_term(ctx, self._succession.found)
        rounds = self.rounds
        if rounds is not None and rounds.is_lost:
            self.cannot_write = rounds.cannot_write
            self.close()
        elif rounds is not None and rounds.stage is Stage.OVER:
            effects += self._begin_round(ctx, rounds)
        return effects

    def _begin_term(self, ctx: Context, newest: Newest) -> list[Effect]:
        self._succession = None
        plan = self._plan
        rounds = self.rounds = Rounds(
            f"round:{self._terms}",
            self._layers,
            self._roster,
            newest,
            search=not plan.local,
            examples=plan.examples,
            tolerance=plan.tolerance,
            quorum=plan.quorum,
            replicas=plan.replicas,
        )
        return self._begin_round(ctx, rounds)

    def _begin_round(self, ctx: Context, rounds: Rounds) -> list[Effect]:
        left, ended = self._workers(ctx), list(self._enders)
        if not left and not ended:
            return []
        self._enders = {}
        return rounds.begin(ctx, left, ended)

    def _workers(self, ctx: Context) -> dict[PeerId, int]:
        found = {}
        for peer in sorted([ctx.me, *filter(ctx.trusts, ctx.partners())]):
            left = self._mine(ctx) if peer == ctx.me else self._left_of(ctx, peer)
            if left > 0:
                found[peer] = left
        return found

    def _left_of(self, ctx: Context, peer: PeerId) -> int:
        entry = ctx.ledger.of(peer)
        if entry is not None and entry.report.message.finished:
            return 0
        if peer in self._left:
            return self._left[peer]
        taken = entry.report.message.step if entry else 0
        return max(0, ctx.manifest.steps - taken) if ctx.manifest.steps else LEFT_MAX


def is_block(block: Block, layers: tuple[Layer, ...]) -> bool:
    """Say whether a peer's numbers are layers of this net."""
    return 0 <= block[0] < block[1] <= len(layers)
