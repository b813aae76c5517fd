"""Renewal of certificates: a member that still is one asks an issuer for a fresh certificate.

POST /v1/renew     on issuers: no body -> an encoded `Membership`, or 403 and one word of `Refusal`

Mutual TLS has proved who asks, and that its certificate is still good: no invite is needed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime

from aiohttp import web

from p2ptrain.core import limits
from p2ptrain.core.errors import ConfigError, Offence, P2PTrainError, RefusedError, RemoteProtocolError
from p2ptrain.core.types import PeerId, Seconds, short
from p2ptrain.net.channel.gate import leaf_of, peer_of
from p2ptrain.net.channel.rates import Buckets
from p2ptrain.net.members.admission import Admission, JoinRefusedError, Refusal
from p2ptrain.net.reach.ask import Asker, ask
from p2ptrain.net.trust.authority import renewal_due
from p2ptrain.net.trust.certificates import (
    Clock,
    Membership,
    check_member,
    decode_membership,
    read_leaf,
    wall_clock,
)

RENEW_PATH = "/v1/renew"
MEMBERSHIP_BYTES_MAX = 16 * 1024
"""Three certificates of 0.5 KiB each (research: net 2.3), and room."""

RENEWALS_PER_S = 1 / 60
RENEWALS_BURST = 4
"""A member needs one in twenty days; a lost answer is asked for again (guess)."""

LOOK_EVERY_S: Seconds = 3600.0
"""Computers sleep: a wait of days would end days too late (guess)."""

RETRY_FIRST_S: Seconds = 30.0
RETRY_MAX_S: Seconds = 3600.0
"""Ten days are left when the first try fails: one an hour hurts nobody (guess)."""


class RenewalDesk:
    """Answers members that ask for a fresh certificate.

    Args:
        admission: signs; None: this node is no issuer, now.
    """

    def __init__(self, admission: Admission | None) -> None:
        self.admission = admission
        self._rates = Buckets(RENEWALS_PER_S, RENEWALS_BURST, limits.PEERS_MAX)

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return [web.post(RENEW_PATH, self.answer)]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Certify the same peer, role and slot once more."""
        if self.admission is None:
            raise web.HTTPNotFound
        try:
            if not self._rates.take(peer_of(request), asyncio.get_running_loop().time()):
                raise JoinRefusedError(Refusal.BUSY)
            membership = self.admission.renew(read_leaf(leaf_of(request)))
        except JoinRefusedError as error:
            return web.Response(status=403, text=error.refusal)
        return web.Response(body=membership.encode())


async def ask_for_renewal(asker: Asker, issuer: PeerId) -> Membership:
    """Ask one issuer for a fresh certificate; whether the answer is any good is another question.

    Raises:
        RefusedError: it said no.
        UnreachableError: there was no answer.
        RemoteProtocolError: the answer breaks a rule.
    """
    status, body = await ask(asker, "POST", issuer, RENEW_PATH, bytes_max=MEMBERSHIP_BYTES_MAX)
    if status == 200:
        try:
            return decode_membership(body)
        except ConfigError:
            raise RemoteProtocolError(Offence.MALFORMED, "its answer cannot be read") from None
    if status == 403:
        raise RefusedError(f"it refused: {_word(body)}")
    raise RefusedError("it does not renew certificates")


class Renewer:
    """Keeps this node a member: looks often, asks when a third of the time is left, and backs off.

    Args:
        membership: as it is now.
        issuers: peers that may be asked now, the likeliest first.
        ask: asks one of them; raises P2PTrainError.
        keep: makes a new membership last and shows it from now on.
        tell: says one sentence to the owner.
        clock: certificates expire by it.

    membership: the newest.
    """

    def __init__(
        self,
        membership: Membership,
        issuers: Callable[[], Iterable[PeerId]],
        ask: Callable[[PeerId], Awaitable[Membership]],
        keep: Callable[[Membership], None],
        tell: Callable[[str], None],
        clock: Clock = wall_clock,
    ) -> None:
        self.membership = membership
        self._issuers = issuers
        self._ask = ask
        self._keep = keep
        self._tell = tell
        self._clock = clock
        self._failures = 0

    async def step(self) -> Seconds:
        """Renew if it is time; return after how many seconds to look again."""
        now = self._clock()
        due = renewal_due(self.membership.leaf)
        if now < due:
            return min(LOOK_EVERY_S, max(1.0, (due - now).total_seconds()))
        failures = []
        for issuer in self._issuers():
            try:
                fresh = await self._ask(issuer)
                self._check(fresh)
            except P2PTrainError as error:
                failures.append(f"{short(issuer)}: {error.message}")
                continue
            self._keep(fresh)
            self.membership = fresh
            self._failures = 0
            self._tell(f"the certificate was renewed: it is good until {fresh.member.expires:%Y-%m-%d}")
            return LOOK_EVERY_S
        self._failures += 1
        self._tell(_complaint(self.membership.member.expires, now, failures))
        return min(RETRY_MAX_S, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10))

    def _check(self, fresh: Membership) -> None:
        """Demand a chain of this swarm for this node, in its old place, that lasts longer.

        Raises:
            RemoteProtocolError: it is something else.
        """
        old = self.membership.member
        new = check_member(self.membership.root, fresh.chain, self._clock())
        if fresh.root != self.membership.root or (new.peer, new.slot) != (old.peer, old.slot):
            raise RemoteProtocolError(Offence.FOREIGN, "its certificate is for somebody else")
        if new.expires <= old.expires:
            raise RemoteProtocolError(Offence.FOREIGN, "its certificate would not last longer")


def _complaint(expires: datetime, now: datetime, failures: list[str]) -> str:
    why = "; ".join(failures) or "no issuer is known to be on"
    if now >= expires:
        return f"the certificate expired on {expires:%Y-%m-%d}: join again by an invite ({why})"
    return f"the certificate ends on {expires:%Y-%m-%d %H:%M} UTC and could not be renewed yet ({why})"


def _word(body: bytes) -> str:
    """Return an issuer's reason in our words."""
    try:
        return Refusal(body.decode()).value
    except ValueError:
        return "for a reason that this version does not know"
