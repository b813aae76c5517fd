"""How reports travel: steps 2 to 4 of the distributed restart method, the same under every strategy.

At intervals a node sends the best report that it knows, its own, and others in turn, in a large swarm one,
to the next address of the law. Who knows better answers. An improvement is passed on at once. Who hears
nothing speaks more often.
Source: ALGORITHMS 1.3 and 2.1; measured in docs/LOG.md.
"""

from random import Random
from typing import Annotated, Literal

from msgspec import Meta, Struct

from p2ptrain.core import law, limits
from p2ptrain.core.effects import Effect, Send, SetTimer
from p2ptrain.core.envelope import Verified
from p2ptrain.core.ledger import Ledger, Stated
from p2ptrain.core.membership import Membership
from p2ptrain.core.messages import News
from p2ptrain.core.types import BlobId, PeerId, Seconds

TIMER = "spread"

OTHERS_MAX = limits.REPORTS_PER_NEWS_MAX
"""Turns in one message, besides the best and the own, which have their turns too."""

OTHERS_BY_MEMBERS = 256
"""Others in a message, times members. Up to 16 members everything is told each time: so everybody's news is
everywhere in 15 s, and not in 40 s as with 6, or in 5 min as with one (measured, LOG.md). From 256 on there
is one."""


class SpreadConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How often and to whom.

    period_s: time between two sendings while others are heard, 250 to 500 bytes each in a
        large swarm, up to 4 KB in one of 16 (measured, LOG.md).
    silence_periods: so long without news counts as silence (measured, LOG.md).
    rate_max: a node sends at most that often in a period, however silent or new (ALGORITHMS 5).
    forward_hops: an improvement is passed on at once, so often (measured, LOG.md).
    law: whom a node addresses next: `expo`, see core/law.py; for comparison `expo_sync` (everyone at the
        same turn), `shuffle` (a round robin in an order by lot) and `uniform` (by chance).
    reply: whether who knows better answers.
    adaptive: whether who hears nothing speaks more often.
    """

    period_s: Annotated[float, Meta(ge=0.01)] = 1.75
    silence_periods: Annotated[float, Meta(gt=0)] = 2.0
    rate_max: Annotated[int, Meta(ge=1)] = 4
    forward_hops: Annotated[int, Meta(ge=0, le=16)] = 16
    law: Literal["expo", "expo_sync", "shuffle", "uniform"] = "expo"
    reply: bool = True
    adaptive: bool = True


class Spread:
    """Sends and takes in news."""

    __slots__ = (
        "_burst",
        "_config",
        "_deck",
        "_gain",
        "_heard",
        "_ledger",
        "_me",
        "_membership",
        "_refilled",
        "_rng",
        "_tokens",
        "_turn",
    )

    def __init__(
        self, config: SpreadConfig, me: PeerId, rng: Random, ledger: Ledger, membership: Membership
    ) -> None:
        self._config = config
        self._me = me
        self._rng = rng
        self._ledger = ledger
        self._membership = membership
        self._turn = rng.randrange(1 << 16)
        self._deck = law.Deck()
        self._heard = 0.0
        self._burst = self._tokens = float(config.rate_max)
        self._gain = config.rate_max / config.period_s
        self._refilled = 0.0

    def start(self, now: Seconds) -> list[Effect]:
        """Begin, at a random moment so that nodes started together do not speak together."""
        self._heard = self._refilled = now
        return [SetTimer(TIMER, self._rng.random() * self._config.period_s)]

    def on_timer(self, now: Seconds, held: dict[BlobId, None]) -> list[Effect]:
        """Speak, and set the time of the next word by how long nothing was heard."""
        jitter = 0.9 + 0.2 * self._rng.random() if self._config.law != "expo_sync" else 1.0
        wait_s = self._config.period_s / self._rate(now) * jitter
        return [*self._speak(now, held, self._config.forward_hops), SetTimer(TIMER, wait_s)]

    def on_news(
        self, now: Seconds, via: PeerId, news: Verified[News], held: dict[BlobId, None]
    ) -> tuple[Stated | None, list[Effect]]:
        """Take news in; return the best report if it improved, and an answer or a forwarding."""
        self._heard = now
        ledger = self._ledger
        before, reply = ledger.best_rank, self._config.reply and not news.message.reply
        for statement in self._membership.trusted(news.carried, now):
            ledger.learn(statement, now)
        best = ledger.best()
        if best is None:
            return None, []
        if ledger.best_rank < before:
            if news.message.hops > 0 and best.sender != self._me:
                return best, self._speak(now, held, news.message.hops - 1)
            return best, []
        if reply and best not in news.carried:
            return None, [Send(via, self._news(held, reply=True, hops=0))]
        return None, []

    def pass_on(self, now: Seconds, held: dict[BlobId, None]) -> list[Effect]:
        """The own report became the best of all that are known: tell it at once."""
        return self._speak(now, held, self._config.forward_hops)

    def announce(self, now: Seconds, peers: list[PeerId], held: dict[BlobId, None]) -> list[Effect]:
        """Tell several peers at once, for something that cannot wait."""
        news = self._news(held, reply=True, hops=self._config.forward_hops)
        return [Send(peer, news) for peer in peers] if news.carried else []

    def _rate(self, now: Seconds) -> float:
        silent = (now - self._heard) / (self._config.silence_periods * self._config.period_s)
        if silent <= 1 or not self._config.adaptive:
            return 1.0
        return float(min(self._config.rate_max, 2 ** min(int(silent), 16)))

    def _speak(self, now: Seconds, held: dict[BlobId, None], hops: int) -> list[Effect]:
        if not self._may_speak(now):
            return []
        peer = self._next_address(now)
        news = self._news(held, reply=False, hops=hops)
        return [Send(peer, news)] if peer is not None and news.carried else []

    def _may_speak(self, now: Seconds) -> bool:
        """A token bucket: at most `rate_max` words a period, whatever happens."""
        if now > self._refilled:
            self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._gain)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _next_address(self, now: Seconds) -> PeerId | None:
        self._turn = int(now / self._config.period_s) if self._config.law == "expo_sync" else self._turn + 1
        probing = self._turn % law.PROBE_EVERY == 0
        membership = self._membership
        neighbours = membership.neighbours
        if neighbours is not None:
            return neighbours[self._turn % len(neighbours)] if neighbours else None

        def usable(peer: PeerId) -> bool:
            return membership.reachable(peer, now) or (probing and membership.allowed(peer, now))

        members = membership.members
        if self._config.law == "shuffle":
            return self._deck.draw(members, self._me, self._rng, usable)
        if self._config.law == "uniform":
            return law.uniform(members, self._me, self._rng, usable)
        return law.expo(members, self._me, self._turn, usable)

    def _news(self, held: dict[BlobId, None], *, reply: bool, hops: int) -> News:
        others = max(1, min(OTHERS_MAX, OTHERS_BY_MEMBERS // len(self._membership.members)))
        told = self._ledger.telling(self._me, others)
        offers = [report.message.offer for report in told.values()]
        here = [offer is not None and offer.blob in held for offer in offers]
        return News(tuple(told), tuple(here), reply, hops)
