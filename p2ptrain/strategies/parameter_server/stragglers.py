"""Who still takes steps and is worth waiting for: at the end, the faster ones wait for the slower."""

from p2ptrain.core.strategy import Context
from p2ptrain.core.types import PeerId, Seconds

GAPS = 3.0
"""Who did nothing for so many times as long as it ever did between two reports has stopped (guess)."""


class Stragglers:
    """How far others are, as their reports say."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[PeerId, tuple[int, Seconds, Seconds]] = {}  # step, since when, longest time for one

    def look(self, ctx: Context) -> None:
        """Note how far others are now."""
        known: dict[PeerId, tuple[int, Seconds, Seconds]] = {}
        for peer in ctx.partners():
            entry = ctx.ledger.of(peer)
            step = entry.report.message.step if entry is not None else 0
            before, since, gap = self._known.get(peer, (step, ctx.now, 0.0))
            known[peer] = (step, ctx.now, max(gap, ctx.now - since)) if step > before else (step, since, gap)
        self._known = known

    def training(self, ctx: Context) -> list[PeerId]:
        """Who has steps left, of those that are trusted and can be reached."""
        return [peer for peer in ctx.partners() if ctx.trusts(peer) and not _is_done(ctx, peer)]

    def moving(self, ctx: Context, patience_s: Seconds) -> bool:
        """Say whether one of them came further lately: within that time, or three of its usual ones."""
        self.look(ctx)
        for peer in self.training(ctx):
            _, since, gap = self._known[peer]
            if ctx.now - since <= max(patience_s, GAPS * gap):
                return True
        return False


def _is_done(ctx: Context, peer: PeerId) -> bool:
    entry = ctx.ledger.of(peer)
    if entry is None:
        return False
    report = entry.report.message
    return report.finished or 0 < ctx.manifest.steps <= report.step
