"""Who coordinates, and what a node does when it is the one."""

from p2ptrain.core.arrivals import Arrivals
from p2ptrain.core.effects import Effect, Send, SetTimer
from p2ptrain.core.inputs import TimerFired
from p2ptrain.core.lease import Lease
from p2ptrain.core.strategy import Context, Event, Told
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.strategies.allreduce.coordinator import Coordinator
from p2ptrain.strategies.allreduce.inspection import Inspection
from p2ptrain.strategies.allreduce.words import Call, Ready, Ring

TIMER = "coordinate"
TICK_S = 0.5
"""A coordinator looks so often whether the time is over (guess)."""

LEAST_S = 2.0
"""Those that come a little later are waited for so long at least; messages may be late by that (guess)."""


class Leader:
    """The part of a member that may be the coordinator.

    Args:
        ring_max, quorum: of `Coordinator`.
        wait_s: how long a round takes, before that is known.
        examples: of `Inspection`.

    times: how long rounds take; the member adds its own.
    lease: who coordinates.
    inspection: the member may use it too.
    trains: whether this node takes part in rings itself.
    """

    def __init__(self, ring_max: int, quorum: float, wait_s: Seconds, examples: int) -> None:
        self.times = Arrivals(LEAST_S, wait_s)
        self.lease = Lease()
        self.inspection = Inspection(examples)
        self.trains = True
        self._coordinator = Coordinator(ring_max, quorum, LEAST_S, self.times)
        self._ticks = self._looks = False
        self._own: Ring | None = None

    def handle(self, ctx: Context, event: Event) -> list[Effect] | None:
        """Answer what has to do with it, None for all else; then see `take_own`."""
        seen = self.inspection.handle(ctx, event)
        if seen is not None:
            return [*seen, *self._coordinate(ctx)]
        match event:
            case Told(sender=sender, message=Ready() as ready):
                return self.on_ready(ctx, sender, ready)
            case Told(sender=sender, message=Call() as call):
                if ctx.trusts(sender):
                    self.lease.renew(ctx, sender, call.term)
                return []
            case TimerFired(key=key) if key == TIMER:
                self._ticks = False
                return self._coordinate(ctx)
            case _:
                return None

    def take_own(self) -> Ring | None:
        """Return the ring that this node put itself into, once."""
        own, self._own = self._own, None
        return own

    def on_ready(self, ctx: Context, sender: PeerId, ready: Ready) -> list[Effect]:
        """Somebody turns to this node as the coordinator, or this node itself does."""
        lease = self.lease
        if sender != ctx.me and not ctx.trusts(sender):
            return []
        if ready.term > lease.term:
            lease.renew(ctx, ctx.me, ready.term)
        if lease.holder is None:
            lease.watch(ctx, 0.0)
        if lease.holder != ctx.me:
            return []
        return [*self._coordinator.take(ctx, sender, ready, lease.term), *self._coordinate(ctx)]

    def _coordinate(self, ctx: Context) -> list[Effect]:
        """Form rings if it is time, and if one went wrong, after a look at what was given to it."""
        coordinator, term = self._coordinator, self.lease.term
        if self.lease.holder != ctx.me or ctx.paused:
            coordinator.clear()
        if not coordinator.is_asked:
            self._looks = False
            return []
        tick: list[Effect] = [] if self._ticks else [SetTimer(TIMER, TICK_S)]
        self._ticks = True
        still = self._still(ctx)
        tick += coordinator.call(ctx, still, term)
        if not coordinator.is_due(ctx, still):
            return tick
        if not self._looks and (evidence := coordinator.evidence()):
            self._looks = True
            return [*tick, *self.inspection.begin(ctx, evidence)]
        if not self.inspection.is_over:
            return tick
        self._looks = False
        return [*tick, *self._send(ctx, coordinator.form(ctx, still, term))]

    def _send(self, ctx: Context, rings: list[Ring]) -> list[Effect]:
        self._own = next((ring for ring in rings if ctx.me in ring.group), None)
        return [Send(peer, ring) for ring in rings for peer in ring.group if peer != ctx.me]

    def _still(self, ctx: Context) -> list[PeerId]:
        """Return who takes steps, as far as is known."""
        steps = ctx.manifest.steps
        still = [ctx.me] if self.trains else []
        for peer in filter(ctx.trusts, ctx.partners()):
            entry = ctx.ledger.of(peer)
            report = entry.report.message if entry else None
            if report is None or not (report.finished or 0 < steps <= report.step):
                still.append(peer)
        return still
