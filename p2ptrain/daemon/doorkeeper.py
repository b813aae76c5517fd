"""Who asks to join without an invite, and whom the owner lets in."""

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import web

from p2ptrain.control.api import Done, JoinRequest, Requests
from p2ptrain.core import limits
from p2ptrain.core.errors import ControlError, P2PTrainError
from p2ptrain.core.types import PeerId, peer_text
from p2ptrain.daemon.logs import logger
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.daemon.words import nickname
from p2ptrain.net.members.admission import Admission, JoinRefusedError, Refusal
from p2ptrain.net.members.join import Welcome
from p2ptrain.net.members.visitors import Visitor, Visitors
from p2ptrain.net.trust.certificates import Role


class Doorkeeper:
    """Asks the owner about strangers.

    Args:
        here: this node.
        folder: of the swarm.
        admission: who admits members here now; None: nobody does.
        refused: says whether a peer was turned away.
        introductions: the signed contacts that a new member is told, likeliest first.
    """

    def __init__(
        self,
        here: PeerId,
        folder: SwarmFolder,
        admission: Callable[[], Admission | None],
        refused: Callable[[PeerId], bool],
        introductions: Callable[[], Sequence[bytes]],
    ) -> None:
        self._folder = folder
        self._admission = admission
        self._refused = refused
        self._introductions = introductions
        self._visitors = Visitors(here, self._welcome, self.is_open, self._asked)

    def routes(self) -> list[web.RouteDef]:
        """Return what the HTTP server needs."""
        return self._visitors.routes()

    def is_open(self) -> bool:
        """Say whether the swarm is shown to strangers, and they can be admitted here."""
        return self._folder.visible and self._admission() is not None

    def requests(self) -> Requests:
        """Show who asks."""
        now = asyncio.get_running_loop().time()
        asking = tuple(
            JoinRequest(one.code, peer_text(one.peer), nickname(one.peer), one.address, now - one.since)
            for one in self._visitors.waiting
        )
        return Requests(self.is_open(), asking)

    def admit(self, code: str) -> Done:
        """Make a member of whoever shows that code.

        Raises:
            ControlError: nobody does.
        """
        visitor = self._visitors.admit(code)
        if visitor is None:
            raise ControlError(
                f"nobody who asks shows the code `{code[:20]}`", "`p2ptrain swarm requests` lists who asks"
            )
        logger.info("admitted %s, who asked from %s", nickname(visitor.peer), visitor.address)
        return Done(f"admitted {nickname(visitor.peer)}")

    def _asked(self, visitor: Visitor) -> None:
        logger.info(
            "%s asks to join from %s with the code %s: `p2ptrain swarm admit %s`",
            nickname(visitor.peer),
            visitor.address,
            visitor.code,
            visitor.code,
        )

    def _welcome(self, peer: PeerId) -> Welcome:
        admission = self._admission()
        if admission is None or self._refused(peer):
            raise JoinRefusedError(Refusal.REVOKED)
        record = self._folder.record()
        contacts = tuple(self._introductions())[: limits.CONTACTS_PER_MESSAGE_MAX]
        try:
            membership = admission.enroll(peer, Role.MEMBER)
        except P2PTrainError as error:
            logger.warning("%s could not be admitted: %s", nickname(peer), error.message)
            raise
        return Welcome(membership, record.manifest, record.manifest_signature, contacts)
