"""Which members help a node that others cannot dial: in virtual time, with a written-down transport."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from p2ptrain.core.messages import Contact
from p2ptrain.core.types import PeerId
from p2ptrain.daemon.config import Network
from p2ptrain.daemon.outside import HELPERS_MAX, Outside
from p2ptrain.net.addresses import Address
from p2ptrain.net.reach.dial_back import Outcome, Seen
from p2ptrain.net.trust.identity import Identity
from tests.helpers import peer
from tests.net.virtual import run

PORT = 4001
LAN, PUBLIC = "192.168.1.2:4001", "5.5.5.5:4001"
ANNA, BERT, CARA, DORA = map(peer, range(1, 5))

OPEN = Contact(b"", (PUBLIC,))
HOME = Contact(b"", (LAN,))
CALLED = Contact(b"", (PUBLIC, "via:" + "a" * 52))
BOOTSTRAP = Contact(b"", ("10.1.0.1:7070",), trains=False)


class Stage:
    """A transport and a book of contacts: what was asked of them, and what they say.

    says: what each member says when it is asked to dial back.
    """

    def __init__(self, contacts: dict[PeerId, Contact], says: dict[PeerId, Seen] | None = None) -> None:
        self.contacts = contacts
        self.says = says or {}
        self.connected: list[PeerId] = []
        self.asked: list[list[PeerId]] = []
        self.looks = self.hurries = 0
        self.told: list[tuple[str, ...]] = []
        self.rendezvous = self.reservations = self.dial_back = self
        self.changed: Callable[..., None]
        self.own: Callable[[], list[str]]
        self.candidates: Callable[[], list[PeerId]]
        network = Network(listen="192.168.1.2", map_port=False)
        self.outside = Outside(network, Identity.create(), PORT, self, self, self.told.append)  # type: ignore[arg-type]

    # -- contacts ----------------------------------------------------------------------------------

    def of(self, peer: PeerId) -> Contact | None:
        return self.contacts.get(peer)

    def some(self, wanted: Callable[[Contact], bool], most: int) -> list[tuple[PeerId, Contact]]:
        return [(peer, one) for peer, one in self.contacts.items() if wanted(one)][:most]

    # -- transport ---------------------------------------------------------------------------------

    def look(self) -> None:
        self.looks += 1

    def address_changed(self) -> None:
        self.hurries += 1

    async def ask_some(self, _: Any, peers: Iterable[PeerId], port: int) -> list[Seen]:
        assert port == PORT
        asked = list(peers)[:2]
        self.asked.append(asked)
        return [self.says.get(one, Seen(one, Outcome.NO_ANSWER)) for one in asked]

    def live(self, seconds: float, meets: PeerId | None = None) -> None:
        """Let it find out for so long, and meet somebody at half time."""

        async def live() -> None:
            self.outside.start()
            await asyncio.sleep(seconds / 2)
            if meets is not None:
                self.connected = [meets]
                self.outside.greet()
            await asyncio.sleep(seconds / 2)
            await self.outside.close()

        run(live())


def reached(peer: PeerId, host: str = "5.5.5.5") -> Seen:
    return Seen(peer, Outcome.REACHED, Address(host, PORT), "9.9.9.9")


def test_a_bootstrap_is_the_first_relay_then_who_has_a_public_address_and_nobody_else() -> None:
    stage = Stage({ANNA: OPEN, BERT: HOME, CARA: CALLED, DORA: BOOTSTRAP})
    assert stage.candidates() == [DORA, ANNA]


def test_who_is_connected_comes_before_others() -> None:
    stage = Stage({ANNA: OPEN, BERT: OPEN, DORA: BOOTSTRAP})
    stage.connected = [BERT]
    assert stage.candidates() == [BERT, DORA, ANNA]


def test_of_many_the_connected_are_not_forgotten() -> None:
    stage = Stage({peer(number): OPEN for number in range(100)})
    stage.connected = [peer(99)]
    found = stage.candidates()
    assert found[0] == peer(99)
    assert len(found) == HELPERS_MAX


def test_who_is_reached_needs_no_relay_and_says_where_it_can_be_dialled() -> None:
    stage = Stage({ANNA: OPEN, DORA: BOOTSTRAP}, {ANNA: reached(ANNA), DORA: reached(DORA)})
    stage.live(5.0)
    assert stage.candidates() == []
    assert stage.own() == [PUBLIC]
    assert stage.told == [(PUBLIC, LAN)]
    assert stage.hurries == 1, "links through relays are tried without"
    assert stage.outside.words == f"members reach this node at {PUBLIC}"


def test_who_is_not_reached_keeps_its_relays_and_asks_nobody_to_dial() -> None:
    silent = Seen(ANNA, Outcome.SILENT, Address("5.5.5.5", PORT))
    stage = Stage({ANNA: OPEN}, {ANNA: silent})
    stage.live(5.0)
    assert (stage.candidates(), stage.own(), stage.told, stage.hurries) == ([ANNA], [], [], 0)
    stage.changed((ANNA,))


def test_a_neighbour_that_gets_through_proves_nothing() -> None:
    stage = Stage({BERT: HOME}, {BERT: reached(BERT, "192.168.1.2")})
    stage.connected = [BERT]
    stage.live(5.0)
    assert stage.asked[0] == [BERT]
    assert (stage.own(), stage.told) == ([], [])


def test_those_who_see_this_computer_from_outside_are_asked_first() -> None:
    stage = Stage({BERT: HOME, CARA: CALLED, ANNA: OPEN, DORA: BOOTSTRAP})
    stage.connected = [BERT, CARA]
    stage.live(1.5)
    assert stage.asked[0] == [DORA, ANNA]


def test_whoever_comes_first_is_asked_at_once() -> None:
    """The first look is at the start, when nobody is there yet; the next would be after 10 s."""
    stage = Stage({}, {BERT: reached(BERT)})
    stage.live(5.0, meets=BERT)
    assert stage.asked[:2] == [[], [BERT]]
    assert stage.looks > 0, "it may be a relay too"


def test_on_loopback_nobody_is_asked_for_anything() -> None:
    stage = Stage({ANNA: BOOTSTRAP})
    outside = Outside(Network(listen="127.0.0.1"), Identity.create(), PORT, stage, stage, stage.told.append)  # type: ignore[arg-type]
    outside.start()
    assert stage.candidates() == []
    assert outside.words.startswith("only this computer")
    assert outside.router == ""
