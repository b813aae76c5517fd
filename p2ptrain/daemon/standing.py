"""Who belongs to the swarm: own and others' certificates, kept fresh, and whom the root turned away."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from aiohttp import web

from p2ptrain.core.errors import Offence, P2PTrainError
from p2ptrain.core.types import PeerId, Seconds
from p2ptrain.daemon.issuing import Issuing
from p2ptrain.daemon.logs import logger
from p2ptrain.daemon.rejections import BY_ROOT, REVOKED, Rejections
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.net.channel.gate import JOIN_PATH
from p2ptrain.net.members.admission import Admission
from p2ptrain.net.members.join import WELCOME_BYTES_MAX, Reception
from p2ptrain.net.members.renewal import LOOK_EVERY_S, RenewalDesk, Renewer, ask_for_renewal
from p2ptrain.net.members.spreading import Spreading
from p2ptrain.net.members.state import StateKeeper
from p2ptrain.net.reach.ask import ask
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.authority import is_due
from p2ptrain.net.trust.certificates import Clock, Membership, Role, read_chain, wall_clock
from p2ptrain.net.trust.identity import Identity

CLAIM_EVERY_S: Seconds = 60.0
"""How often an issuer that the founder has not appointed yet asks for that (guess)."""


class Standing:
    """Keeps memberships valid while the daemon runs.

    Args:
        folder: of the swarm.
        identity: this node.
        certificates: the other members' certificates as their contacts carry them.
        renewed: told of this node's new membership, after it was saved.
        turned_away: told of every peer that the root revokes while this node runs.
        offended: told which rule a peer broke.
        refused: says whether a peer was turned away.
        clock: certificates expire by it.
    """

    def __init__(
        self,
        folder: SwarmFolder,
        identity: Identity,
        certificates: Callable[[], Iterable[tuple[PeerId, bytes]]],
        renewed: Callable[[Membership], None],
        turned_away: Callable[[PeerId], None],
        offended: Callable[[PeerId, Offence, str], None],
        refused: Callable[[PeerId], bool],
        clock: Clock = wall_clock,
    ) -> None:
        self._transport: Transport
        self._reception: Reception
        self._folder = folder
        self._identity = identity
        self._me = identity.peer
        self._claim = folder.claim()
        self._certificates = certificates
        self._renewed = renewed
        self._clock = clock
        own = folder.membership()
        self._renewer = Renewer(own, self._issuers, self._ask, self._keep, logger.info, clock)
        self._turned_away = turned_away
        self._keeper = StateKeeper(own.root_key, folder.state(), self._save_state, self._state_changed)
        self._known = self._keeper.revoked
        self._spreading = Spreading(self._keeper, offended)
        self._issuing = Issuing(folder, identity, lambda: self._keeper.state, self._slots, refused, clock)
        self._issuing.decided = self.reload
        self._desk = RenewalDesk(self.admission)
        self._news = asyncio.Event()
        self._rejections = Rejections()

    @property
    def admission(self) -> Admission | None:
        """Who admits members here; None: nobody does."""
        return self._issuing.admission

    def routes(self) -> list[web.RouteDef]:
        """What members may ask of this node."""
        return [*self._desk.routes(), *self._spreading.routes()]

    def attach(self, transport: Transport, reception: Reception) -> None:
        """Say how members are reached, and where strangers ask; before anything else happens."""
        self._transport = self._spreading.line = transport
        self._reception = reception

    async def run(self) -> None:
        """Keep certificates and state fresh, for ever."""
        if self._keeper.revokes(self._me):
            self._lament()
        await asyncio.gather(self._keep_fresh(), self._spreading.run())

    async def close(self) -> None:
        """Ask nobody any more."""
        await self._spreading.close()

    # -- the swarm's state ---------------------------------------------------------------------------

    def revokes(self, peer: PeerId) -> bool:
        """Say whether the root turned a peer away."""
        return self._keeper.revokes(peer)

    def greet(self, peer: PeerId) -> None:
        """Compare what is known with a peer that was just connected."""
        self._rejections.welcomed()
        self._spreading.greet(peer)
        if self._claim is not None and peer in self._founders():
            self._news.set()
        if is_due(self._renewer.membership.leaf, self._clock()) and peer in self._issuers():
            self._news.set()  # perhaps it is on for a few minutes only

    def parted(self, peer: PeerId, reason: str) -> None:
        """A connection ended, or a dial failed."""
        self._rejections.parted(peer, reason)

    @property
    def trouble(self) -> str:
        """Why nobody talks to this node, if that is so; empty: it is welcome, as far as is known."""
        if self._keeper.revokes(self._me):
            return BY_ROOT
        return "" if self._transport.connected else self._rejections.words

    def reload(self) -> str:
        """Take what a command of the owner wrote, and tell everyone; return it in words."""
        if self._keeper.take(self._folder.state()):
            self._spreading.tell_all()
        return self._keeper.describe()

    def _save_state(self, raw: bytes) -> None:
        try:
            self._folder.save_state(raw)
        except OSError as error:  # it counts nevertheless, and others will send it again
            logger.error("the state of the swarm could not be saved: %s", error.strerror)

    def _state_changed(self) -> None:
        logger.info("%s", self._keeper.describe())
        revoked = self._keeper.revoked
        for peer in self._turned_out(revoked - self._known):
            self._transport.hangup(peer, REVOKED)
            self._turned_away(peer)
        if self._me in revoked - self._known:
            self._lament()
        self._known = revoked
        self._issuing.refresh()
        self._desk.admission = self._reception.admission = self.admission
        self._transport.admit_strangers(self.admission is not None)
        self._news.set()

    def _turned_out(self, revoked: frozenset[PeerId]) -> Iterator[PeerId]:
        """Who goes: the revoked, and those whose certificates they issued."""
        yield from revoked - {self._me}
        for peer, chain in list(self._certificates()):
            if peer not in revoked and read_chain(chain).issuer in revoked:
                yield peer

    def _slots(self) -> Iterator[int]:
        yield self._renewer.membership.member.slot
        yield from (read_chain(chain).slot for _, chain in self._certificates())

    def _lament(self) -> None:
        logger.warning("this computer was revoked: no member talks to it; ask whoever runs the swarm")

    # -- certificates --------------------------------------------------------------------------------

    async def _keep_fresh(self) -> None:
        while True:
            try:
                self._issuing.keep_fresh()
                await self._show_claim()
                delay_s = await self._renewer.step()
            except (OSError, P2PTrainError) as error:  # of our own files
                logger.error("certificates could not be renewed: %s", error)
                delay_s = LOOK_EVERY_S
            delay_s = delay_s if self._claim is None else min(delay_s, CLAIM_EVERY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._news.wait()
            self._news.clear()

    def _issuers(self) -> Iterator[PeerId]:
        """Whom to ask: this node if it may, then the issuers that are connected, then the others."""
        if self.admission is not None:
            yield self._me
        issuers = [peer for peer, chain in self._certificates() if self._may_issue(peer, chain)]
        up = set(self._transport.connected)
        yield from sorted(issuers, key=lambda peer: (peer not in up, peer))

    def _founders(self) -> list[PeerId]:
        """Issuers that no state names: the founder is, who makes others issuers by the root key."""
        return [peer for peer in self._issuers() if peer not in self._keeper.state.delegates]

    async def _show_claim(self) -> None:
        """Show the founder the invite by which this node may admit others: a deputy let it in."""
        if self._claim is None:
            return
        if self.admission is not None:
            self._folder.save_claim(None)
            self._claim = None
            return
        for founder in self._founders():
            request = self._claim.request(self._identity, founder)
            with suppress(P2PTrainError):
                await ask(
                    self._transport, "POST", founder, JOIN_PATH, data=request, bytes_max=WELCOME_BYTES_MAX
                )

    def _may_issue(self, peer: PeerId, chain: bytes) -> bool:
        may = read_chain(chain).role is Role.ISSUER or peer in self._keeper.state.delegates
        return may and peer != self._me

    async def _ask(self, issuer: PeerId) -> Membership:
        if issuer != self._me:
            return await ask_for_renewal(self._transport, issuer)
        assert self.admission is not None
        return self.admission.renew(self._renewer.membership.member)

    def _keep(self, membership: Membership) -> None:
        self._folder.save_membership(membership)
        self._transport.renew(membership)
        self._renewed(membership)
