"""This node seen from outside: where others reach it, and which members help where they cannot."""

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable
from functools import partial

from p2ptrain.core.messages import Contact
from p2ptrain.core.types import PeerId
from p2ptrain.daemon.addresses import given_addresses
from p2ptrain.daemon.config import Network
from p2ptrain.daemon.contacts import ContactBook
from p2ptrain.daemon.reachability import Reachability
from p2ptrain.net.addresses import VIA, is_public, parse_address
from p2ptrain.net.reach.dial_back import Outcome, proven
from p2ptrain.net.router.portmap import PortMapper, PortState
from p2ptrain.net.transport import Transport
from p2ptrain.net.trust.identity import Identity

SECRET_DOMAIN = b"p2ptrain-port-mapping-v1\0"

HELPERS_MAX = 8
"""Members that are thought of as relays at a time: two are needed (guess)."""


class Outside:
    """Runs beside a transport.

    Args:
        config: what the owner wants.
        identity: this node.
        port: TCP, that is listened on.
        transport: asks, and waits at relays.
        contacts: what members say of themselves.
        changed: told the addresses to give to others, each time they change.
    """

    def __init__(
        self,
        config: Network,
        identity: Identity,
        port: int,
        transport: Transport,
        contacts: ContactBook,
        changed: Callable[[tuple[str, ...]], None],
    ) -> None:
        self._port = port
        self._transport = transport
        self._contacts = contacts
        self._is_only_here = bool(config.listen) and ipaddress.ip_address(config.listen).is_loopback
        self._nobody_said = True
        secret = hashlib.sha256(identity.sign(SECRET_DOMAIN)).digest()
        asks_router = config.map_port and not self._is_only_here
        self._reachability = Reachability(
            partial(given_addresses, config, port),
            changed,
            self._prove,
            moved=transport.address_changed,
            mappers=[
                partial(PortMapper, config.listen, secret, version=version)
                for version in (4, 6)
                if asks_router
            ],
        )
        meeting = transport.rendezvous
        meeting.changed = self._reachability.waits_at
        meeting.own = self._dialable
        meeting.candidates = self._relays

    @property
    def words(self) -> str:
        """Whether others reach this node, as a sentence."""
        if self._is_only_here:
            return "only this computer reaches this node: `listen` under [network]"
        return self._reachability.words

    @property
    def router(self) -> str:
        """How the router stands to this node, as a sentence."""
        return "" if self._is_only_here else self._reachability.router.words

    @property
    def port_state(self) -> PortState:
        """The same with the address that it opened, and what the owner can do."""
        return self._reachability.router

    def start(self) -> None:
        """Begin to find out."""
        if not self._is_only_here:
            self._reachability.start(self._port)

    def greet(self) -> None:
        """Somebody was connected, who may be asked, and may be a relay."""
        self._transport.rendezvous.reservations.look()
        if self._nobody_said:
            self._reachability.doubt()

    async def close(self) -> None:
        """End, and give back what the router opened."""
        await self._reachability.close()

    def _dialable(self) -> list[str]:
        """Where somebody who is asked to dial this node will get through."""
        if not self._reachability.is_reachable:
            return []
        return [text for text in self._reachability.addresses if _is_public(text)]

    def _relays(self) -> list[PeerId]:
        """Who may pass calls on to this node; none is needed where it can be dialled, or soon may be."""
        if self._is_only_here or self._reachability.is_reachable:
            return []
        hopeful = self._nobody_said and any(map(_is_public, self._reachability.addresses))
        return [] if hopeful else self._helpers()

    def _helpers(self) -> list[PeerId]:
        """Members that everybody can dial: bootstraps first, those that are connected before others."""
        connected = dict.fromkeys(self._transport.connected)
        found = dict(self._contacts.some(_is_open, HELPERS_MAX))
        found |= {peer: one for peer in connected if (one := self._contacts.of(peer)) and _is_open(one)}
        return sorted(found, key=lambda peer: (peer not in connected, found[peer].trains))[:HELPERS_MAX]

    async def _prove(self, port: int) -> tuple[str, ...] | None:
        """Let two members dial this node: helpers first, since a neighbour sees another address."""
        peers = dict.fromkeys([*self._helpers(), *self._transport.connected])
        said = await self._transport.dial_back.ask_some(self._transport, peers, port)
        answers = [one for one in said if one.outcome is not Outcome.NO_ANSWER]
        self._nobody_said = not answers
        if not answers:
            return None
        found = tuple(str(address) for address in proven(answers) if is_public(address.host))
        asyncio.get_running_loop().call_soon(self._react, bool(found) and not self._reachability.is_reachable)
        return found

    def _react(self, is_news: bool) -> None:
        """It is known now whether relays are needed, and links through them."""
        self._transport.rendezvous.reservations.look()
        if is_news:
            self._transport.address_changed()


def _is_open(contact: Contact) -> bool:
    """Say whether others can dial a member, as it says: a bootstrap's network may be a private one."""
    if any(text.startswith(VIA) for text in contact.addresses):
        return False
    return not contact.trains or any(map(_is_public, contact.addresses))


def _is_public(text: str) -> bool:
    try:
        return is_public(parse_address(text).host)
    except ValueError:
        return False
