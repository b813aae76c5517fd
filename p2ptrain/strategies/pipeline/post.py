"""Who coordinates the lines, as one member knows it, and the member's own work when that is itself."""

import math
from collections.abc import Callable

from p2ptrain.core.effects import Accuse, Effect, Send
from p2ptrain.core.errors import Offence
from p2ptrain.core.lease import Lease
from p2ptrain.core.messages import Message, Natural, Offer
from p2ptrain.core.strategy import Context, Event
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.strategies.pipeline.foreman import Foreman, Ready, Round
from p2ptrain.strategies.pipeline.lineup import PeerName

PATIENCE_S = 15.0
"""A coordinator that answers nothing for so long is replaced: of 15 questions half get lost (guess)."""


BROKEN = (3.0, 1.0)
"""Weights whose loss is above so many times the own best, plus the second, are a lie (ALGORITHMS 5)."""

BAD = (2.0, 0.1)
"""Those above this are no beginning (guess)."""

NEW = (1.1, 0.02)
"""Nor are those above this for who has not trained yet: all start from the same point (guess)."""


def is_bearable(now: float, best: float, limit: tuple[float, float]) -> bool:
    """Say whether a loss is finite, and not too far above the best, if that is known."""
    most = limit[0] * abs(best) + limit[1] if math.isfinite(best) else math.inf
    return math.isfinite(now) and now <= most


class Elsewhere(Message, frozen=True):
    """Another coordinates, in that term."""

    term: Natural
    holder: PeerName


class Post:
    """One member's view.

    Args:
        make: builds the coordinator, from now and a term.

    Attributes:
        plan: the newest round that is known.
        foreman: while this node coordinates.
        can_write: whether it could: weights can be written here.
        answered: whether somebody who coordinates spoke since this member has been free.
    """

    def __init__(self, make: Callable[[Seconds, int], Foreman]) -> None:
        self.plan: Round | None = None
        self.foreman: Foreman | None = None
        self.can_write = True
        self.answered = False
        self._make = make
        self._lease = Lease()

    @property
    def holder(self) -> PeerId | None:
        """Who coordinates."""
        return self._lease.holder

    def is_calm(self, now: Seconds, for_s: Seconds) -> bool:
        """Say whether the coordinator answered, and not long ago."""
        return self.answered and now - self._lease.heard < for_s

    def be_patient(self, now: Seconds) -> None:
        """This member was busy: nobody had a reason to speak."""
        self._lease.heard, self.answered = max(self._lease.heard, now), False

    def rest(self) -> None:
        """The owner wants the computer for other things: another will coordinate."""
        self.foreman = None

    # -- what this member says ---------------------------------------------------------------------

    def watch(self, ctx: Context, ready: Ready) -> list[Effect]:
        """Begin or end to coordinate, if that is due."""
        if not self._lease.watch(ctx, PATIENCE_S, lambda peer: peer != ctx.me or self.can_write):
            self.foreman = None
        elif self.foreman is None:
            self.foreman = self._make(ctx.now, self._lease.term)
            effects = self.foreman.take_up(ctx, self.plan) if self.plan is not None else self._ask(ctx, ready)
            return [*effects, *self._look(self.foreman.hear(ctx, ctx.me, ready))]
        return []

    def _ask(self, ctx: Context, ready: Ready) -> list[Effect]:
        """Nothing is known here: whoever has a coordinator of a later term says so."""
        partners = filter(ctx.trusts, ctx.partners())
        return [Send(peer, ready.of(self._lease.term)) for peer in partners]

    def say(self, ctx: Context, ready: Ready) -> list[Effect]:
        """Tell whoever coordinates that this member is free."""
        if self.foreman is not None:
            return self._look(self.foreman.hear(ctx, ctx.me, ready))
        ready, holder = ready.of(self._lease.term), self._lease.holder
        return [Send(holder, ready)] if holder is not None and holder != ctx.me else []

    def refuse(self, ctx: Context, now: float, best: float, kept: Offer | None) -> list[Effect]:
        """No good weights come from this coordinator; if it is this node, it goes back to the own best."""
        if self.foreman is not None:
            self.foreman.go_back(ctx, kept)
            return []
        self._lease.heard = -math.inf
        holder = self._lease.holder
        if holder is None or is_bearable(now, best, BROKEN):
            return []
        detail = f"gave out weights of loss {now:.4g}; the best here have {best:.4g}"
        return [Accuse(holder, Offence.FALSE_CLAIM, detail)]

    # -- what comes --------------------------------------------------------------------------------

    def handle(self, ctx: Context, event: Event) -> list[Effect]:
        """Take in an answer to what was asked for as the coordinator."""
        return [] if self.foreman is None else self._look(self.foreman.handle(ctx, event))

    def go_on(self, ctx: Context) -> list[Effect]:
        """Some time has passed."""
        return [] if self.foreman is None else self._look(self.foreman.go_on(ctx))

    def on_round(self, ctx: Context, sender: PeerId, plan: Round) -> None:
        """A coordinator speaks: the highest term counts."""
        if not ctx.trusts(sender) or not self._lease.renew(ctx, sender, plan.term):
            return
        self.foreman, self.answered = None, True
        if self.plan is None or (plan.term, plan.round) > (self.plan.term, self.plan.round):
            self.plan = plan

    def on_ready(self, ctx: Context, sender: PeerId, ready: Ready, own: Ready) -> list[Effect]:
        """A member takes this node for the coordinator; from a later term it may know better."""
        if not ctx.trusts(sender) or self._lease.holder is None:
            return []
        if ready.term > self._lease.term and self._lease.renew(ctx, ctx.me, ready.term):
            self.foreman = None
        effects = self.watch(ctx, own)
        if self.foreman is not None:
            return [*effects, *self._look(self.foreman.hear(ctx, sender, ready))]
        holder = self._lease.holder
        if holder == sender or ready.term >= self._lease.term:
            return effects
        return [*effects, Send(sender, Elsewhere(self._lease.term, holder))]

    def on_elsewhere(self, ctx: Context, sender: PeerId, elsewhere: Elsewhere) -> bool:
        """Say whether another coordinates than was thought."""
        holder, term = elsewhere.holder, elsewhere.term
        knows = ctx.trusts(sender) and ctx.trusts(holder) and ctx.is_partner(holder)
        if not knows or term <= self._lease.term or not self._lease.renew(ctx, holder, term):
            return False
        self.foreman = None
        return True

    def _look(self, effects: list[Effect]) -> list[Effect]:
        """See what the coordinator in this node decided."""
        if self.foreman is not None:
            self.plan = self.foreman.plan or self.plan
            if self.foreman.cannot:
                self.foreman, self.can_write = None, False
        return effects
