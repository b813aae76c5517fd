"""This node's right to admit and renew members: by a key of its own, or its identity if the root lets it."""

from collections.abc import Callable, Iterable
from operator import methodcaller

from p2ptrain.core.errors import ConfigError
from p2ptrain.core.types import PeerId, peer_from_text, short
from p2ptrain.daemon.logs import logger
from p2ptrain.daemon.swarms import SwarmFolder
from p2ptrain.net.members.admission import Admission, AdmissionBook
from p2ptrain.net.members.state import SwarmState
from p2ptrain.net.trust.authority import Issuer, Root, is_due
from p2ptrain.net.trust.certificates import Clock, Role
from p2ptrain.net.trust.identity import Identity


class Issuing:
    """Keeps that right up to date. Where the root key is, it renews it, for others too.

    Args:
        folder: of the swarm.
        identity: this node.
        state: what the root says now.
        slots: those of the members that are known.
        refused: says whether a peer was turned away.
        clock: certificates expire by it.

    admission: None: this node admits nobody, now.
    decided: told when this node, holding the root key, wrote a new state into the folder.
    """

    def __init__(
        self,
        folder: SwarmFolder,
        identity: Identity,
        state: Callable[[], SwarmState],
        slots: Callable[[], Iterable[int]],
        refused: Callable[[PeerId], bool],
        clock: Clock,
    ) -> None:
        self.admission: Admission | None = None
        self.decided: Callable[[], object] = lambda: None
        self._folder = folder
        self._identity = identity
        self._state = state
        self._slots = slots
        self._refused = refused
        self._clock = clock
        self._own = folder.issuer()
        self._warned = False
        self.refresh()

    def refresh(self) -> None:
        """Follow what the root says."""
        issuer = self._own or self._delegated()
        if issuer is None:
            self.admission = None
        elif self.admission is None:
            self.admission = self._folder.admission(
                self._refused, self._is_withdrawn, self._slots, issuer, self._promote
            )
        else:
            self.admission.issuer = issuer

    def keep_fresh(self) -> None:
        """Renew what is due: only the computer that holds the root key can."""
        root = self._folder.root()
        if root is None:
            self._warn()
            return
        if self._own is not None and is_due(self._own.certificate, self._clock()):
            self._own = root.appoint(self._clock())
            self._folder.save_issuer(self._own)
            self.refresh()
            logger.info("the right to admit members was renewed until %s", f"{self._own.expires:%Y-%m-%d}")
        due = [peer for peer, one in self._state().delegates.items() if is_due(one, self._clock())]
        self._delegate(root, due)

    def _promote(self, book: AdmissionBook) -> None:
        """Let those issue whom an invite admitted for that."""
        root = self._folder.root()
        if root is None:
            return
        state = self._state()
        named = {peer_from_text(name) for name, entry in book.members.items() if entry.role is Role.ISSUER}
        self._delegate(root, named - {self._identity.peer} - state.delegates.keys() - state.revoked)

    def _delegate(self, root: Root, peers: Iterable[PeerId]) -> None:
        for peer in sorted(peers):
            grant = methodcaller("delegate", root.delegate(peer, self._clock()))
            try:
                self._folder.decide(grant, self._clock)
            except ConfigError as error:
                logger.warning("%s cannot admit members: %s", short(peer), error.message)
                continue
            logger.info("%s may admit and renew members", short(peer))
            self.decided()

    def _delegated(self) -> Issuer | None:
        certificate = self._state().delegates.get(self._identity.peer)
        if certificate is None:
            return None
        return Issuer.delegated(self._identity, certificate, self._folder.membership().root)

    def _is_withdrawn(self, invite: bytes) -> bool:
        return invite in self._state().invites

    def _warn(self) -> None:
        admission = self.admission
        if admission and not self._warned and is_due(admission.issuer.certificate, self._clock()):
            self._warned = True
            logger.warning(
                "this computer may admit members until %s only: start p2ptrain where the root key is",
                f"{admission.issuer.expires:%Y-%m-%d}",
            )
