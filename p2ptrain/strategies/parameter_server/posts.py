"""Who serves which shard: the coordinator names them, who knows better tells others, who is gone is replaced.

Nobody has to be heard at intervals: a coordinator is missed only when somebody needs it.
"""

from hashlib import sha256

from p2ptrain.core.lease import AHEAD_MAX, Lease
from p2ptrain.core.strategy import Context
from p2ptrain.core.types import PeerId, Seconds

PASSED_OVER_S = 60.0
"""So long a server that was given up is not named again, if there are others (guess)."""

COMPLAINT_S = 30.0
"""So long a complaint counts (guess)."""


class Posts:
    """What one node knows of it.

    lease: the coordinator, its term.
    number: counts what the coordinators named; with the term, the greater is the newer.
    servers: by shard; empty before any is known.
    unfit: this node cannot serve.

    Args:
        count: of shards.
    """

    __slots__ = ("_complaints", "_count", "_passed_over", "lease", "number", "servers", "unfit")

    def __init__(self, count: int) -> None:
        self.lease = Lease()
        self.number = 0
        self.servers: tuple[PeerId, ...] = ()
        self.unfit = False
        self._count = count
        self._passed_over: dict[PeerId, Seconds] = {}
        self._complaints: dict[tuple[int, PeerId], Seconds] = {}

    @property
    def state(self) -> tuple[int, int]:
        """Term and number of what is known here."""
        return self.lease.term, self.number

    def of(self, shard: int) -> PeerId | None:
        """Who serves a shard, as far as is known."""
        return self.servers[shard] if shard < len(self.servers) else None

    def usable(self, ctx: Context, peer: PeerId) -> bool:
        """Say whether a peer could serve now."""
        if peer == ctx.me:
            return not self.unfit and not ctx.paused
        entry = ctx.ledger.of(peer)
        finished = entry is not None and entry.report.message.finished
        return ctx.is_partner(peer) and ctx.trusts(peer) and not finished

    def is_served(self, ctx: Context, shard: int) -> bool:
        """Say whether somebody serves a shard who could."""
        server = self.of(shard)
        return server is not None and self.usable(ctx, server)

    def hear(
        self,
        ctx: Context,
        sender: PeerId,
        holder: PeerId,
        state: tuple[int, int],
        servers: tuple[PeerId, ...],
    ) -> bool:
        """Somebody says who serves; say whether that is news."""
        lease, (term, number) = self.lease, state
        before, heard = (lease.term, lease.holder), lease.heard
        fits = len(servers) == self._count and number <= self.number + AHEAD_MAX
        if not fits or not ctx.trusts(holder) or not lease.renew(ctx, holder, term):
            return False
        same = before == (lease.term, lease.holder)
        if same and sender != holder:
            lease.heard = heard  # that somebody repeats its words does not show that it lives
        if same and self.servers and number <= self.number:
            return False
        self.number, self.servers = number, servers
        return True

    def miss(self, ctx: Context) -> None:
        """Something is needed of the coordinator from now on: its silence counts."""
        self.lease.heard = max(self.lease.heard, ctx.now)

    def name(self, ctx: Context) -> bool:
        """As the coordinator, replace servers that are gone and spread the shards; say whether it changed."""
        candidates = [peer for peer in sorted([ctx.me, *ctx.partners()]) if self.usable(ctx, peer)]
        fresh = [peer for peer in candidates if self._passed_over.get(peer, 0.0) <= ctx.now]
        candidates = fresh or candidates or [ctx.me]
        chosen = [peer if peer in candidates else None for peer in self.servers or (None,) * self._count]
        load = {peer: chosen.count(peer) for peer in candidates}
        for shard, server in enumerate(chosen):
            if server is None:
                least = min(candidates, key=lambda peer: (load[peer], self._place(ctx, peer)))
                chosen[shard] = least
                load[least] += 1
        self._even_out(ctx, chosen, load)
        named = tuple(peer for peer in chosen if peer is not None)
        if named == self.servers:
            return False
        self.servers = named
        self.number += 1
        return True

    def _even_out(self, ctx: Context, chosen: list[PeerId | None], load: dict[PeerId, int]) -> None:
        """Give shards of who has two more than another to that one."""
        while True:
            least = min(load, key=lambda peer: (load[peer], self._place(ctx, peer)))
            most = max(load, key=lambda peer: (load[peer], self._place(ctx, peer)))
            if load[most] - load[least] < 2:
                return
            chosen[chosen.index(most)] = least
            load[most] -= 1
            load[least] += 1

    def pass_over(self, ctx: Context, server: PeerId) -> None:
        """A server is given up."""
        self._passed_over = {peer: until for peer, until in self._passed_over.items() if until > ctx.now}
        self._passed_over[server] = ctx.now + PASSED_OVER_S

    def complain(self, ctx: Context, sender: PeerId, shard: int, workers: int) -> None:
        """Somebody waits in vain for a shard: its server is given up if half of them do, or it says so."""
        server = self.of(shard)
        if server is None:
            return
        self._complaints = {key: at for key, at in self._complaints.items() if at > ctx.now - COMPLAINT_S}
        self._complaints[shard, sender] = ctx.now
        missing = sum(about == shard for about, _ in self._complaints)
        if sender == server or 2 * missing >= workers:
            self.pass_over(ctx, server)
            self._complaints = {key: at for key, at in self._complaints.items() if key[0] != shard}

    def _place(self, ctx: Context, peer: PeerId) -> bytes:
        return sha256(b"%d server " % ctx.manifest.seed + peer).digest()
