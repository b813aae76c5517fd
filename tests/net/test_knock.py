"""Joining without an invite: the same code on both screens, and nobody in without the owner's yes."""

import asyncio
from typing import Any

import msgspec
import pytest

from p2ptrain.core.errors import RefusedError, RemoteProtocolError, UnreachableError
from p2ptrain.core.types import SwarmId
from p2ptrain.net.addresses import Address, AddressBook
from p2ptrain.net.channel.gate import KNOCK_PATH
from p2ptrain.net.lan.interfaces import Interface
from p2ptrain.net.lan.open_swarm import OpenSwarm, Visible, search
from p2ptrain.net.members import knock as knock_module
from p2ptrain.net.members import visitors
from p2ptrain.net.members.admission import JoinRefusedError, Refusal
from p2ptrain.net.members.join import Welcome
from p2ptrain.net.members.knock import Greeting, Hello, Knock, code_of, commit, knock, statement
from p2ptrain.net.members.visitors import HELLOS_BURST, Visitors
from p2ptrain.net.reach.connector import PeerConnector
from p2ptrain.net.reach.dialling import open_session
from p2ptrain.net.trust import tls
from p2ptrain.net.trust.certificates import Role, host_name
from p2ptrain.net.trust.identity import Identity


class House:
    """An issuer that strangers may ask, and one stranger."""

    def __init__(self, reception: Any) -> None:
        self.reception = reception
        self.open = True
        self.refusal: Refusal | None = None
        self.codes: list[str] = []
        self.asked: list[str] = []
        self.guest = Identity.create()
        self.here = reception.identity.peer
        self.visitors = Visitors(
            self.here, self._welcome, lambda: self.open, lambda visitor: self.asked.append(visitor.code)
        )

    def _welcome(self, peer: Any) -> Welcome:
        if self.refusal:
            raise JoinRefusedError(self.refusal)
        membership = self.reception.admission.enroll(peer, Role.MEMBER)
        manifest = self.reception.manifest
        return Welcome(membership, manifest, self.reception.swarm.root.sign_manifest(manifest))

    async def build(self) -> None:
        membership = self.reception.admission.enroll(self.here, Role.ISSUER)
        reception = knock_reception(self.reception)
        self.node = await self.reception.swarm.node(
            self.reception.identity, membership, reception=reception, routes=self.visitors.routes()
        )
        self.address = Address("127.0.0.1", self.node.transport.port)

    def knock(self, swarm: SwarmId | None = None) -> asyncio.Task[Welcome]:
        here = swarm or self.reception.swarm.root.swarm
        allow = lambda _: True  # noqa: E731
        asking = knock(self.here, [self.address], here, self.guest, self.codes.append, allow)
        return asyncio.create_task(asking)

    async def post(self, question: object) -> tuple[int, bytes]:
        book = AddressBook(lambda _: True)
        book.learn(self.here, [str(self.address)])
        data = question if isinstance(question, bytes) else msgspec.msgpack.encode(question)
        async with (
            open_session(PeerConnector(book, tls.joining_context())) as session,
            session.post(f"https://{host_name(self.here)}{KNOCK_PATH}", data=data) as answer,
        ):
            return answer.status, await answer.read()

    async def greet(self, nonce: bytes) -> Greeting:
        status, body = await self.post(Hello(self.guest.peer, commit(self.guest.peer, nonce)))
        assert status == 200
        return msgspec.msgpack.decode(body, type=Greeting)

    def signed(self, greeting: Greeting, nonce: bytes) -> Knock:
        stated = statement(self.here, self.guest.peer, nonce, greeting.nonce)
        return Knock(greeting.ticket, nonce, self.guest.sign(stated))


def knock_reception(reception: Any) -> Any:
    from p2ptrain.net.members import join

    signature = reception.swarm.root.sign_manifest(reception.manifest)
    return join.Reception(
        reception.admission, reception.identity.peer, reception.manifest, signature, lambda: []
    )


@pytest.fixture
async def house(reception: Any, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(knock_module, "POLL_S", 0.02)
    house = House(reception)
    await house.build()
    return house


async def test_who_is_admitted_by_the_code_on_both_screens_is_a_member(house, until):
    asking = house.knock()
    await until(lambda: house.visitors.waiting)
    assert house.codes == house.asked == [house.visitors.waiting[0].code]
    assert len(house.codes[0]) == 7
    await asyncio.sleep(0.1)
    assert not asking.done()
    admitted = house.visitors.admit(house.codes[0].replace(" ", ""))
    assert admitted is not None
    assert admitted.peer == house.guest.peer
    welcome = await asking
    member = await house.reception.swarm.node(house.guest, welcome.membership)
    assert await member.dial(house.node)


async def test_another_code_admits_nobody(house, until):
    asking = house.knock()
    await until(lambda: house.visitors.waiting)
    wrong = f"{(int(house.codes[0].replace(' ', '')) + 1) % 10**6:06d}"
    for code in (wrong, "", "x", house.codes[0][:-1]):
        assert house.visitors.admit(code) is None
    await asyncio.sleep(0.1)
    assert not asking.done()
    asking.cancel()


async def test_two_with_one_code_are_both_not_admitted(house, until):
    asking = [house.knock(), house.knock()]
    await until(lambda: len(house.visitors.waiting) == 2)
    for visitor in house.visitors.waiting:
        visitor.code = "123 456"
    assert house.visitors.admit("123 456") is None
    for one in asking:
        one.cancel()


async def test_a_swarm_that_is_not_shown_answers_nobody(house):
    house.open = False
    with pytest.raises(RefusedError, match="shows its swarm no more"):
        await house.knock()
    assert (await house.post(b"x"))[0] == 404


async def test_who_may_not_be_a_member_is_told_no(house, until):
    house.refusal = Refusal.REVOKED
    asking = house.knock()
    await until(lambda: house.visitors.waiting)
    house.visitors.admit(house.codes[0])
    with pytest.raises(RefusedError, match="does not admit this one"):
        await asking


async def test_the_swarm_must_be_the_one_that_was_shown(house, until):
    asking = house.knock(SwarmId(bytes(32)))
    await until(lambda: house.visitors.waiting)
    house.visitors.admit(house.codes[0])
    with pytest.raises(RemoteProtocolError, match="not of the swarm that is meant"):
        await asking


async def test_nobody_there_is_a_sentence(house):
    house.address = Address("127.0.0.1", 9)
    with pytest.raises(UnreachableError, match="that computer does not answer"):
        await house.knock()


async def test_who_goes_away_is_forgotten(house, until, monkeypatch):
    asking = house.knock()
    await until(lambda: house.visitors.waiting)
    asking.cancel()
    monkeypatch.setattr(visitors, "FORGOTTEN_S", 0.05)
    await until(lambda: not house.visitors.waiting)
    assert house.visitors.admit(house.codes[0]) is None


async def test_the_random_number_was_chosen_before(house):
    """Who could choose it after the greeting could search for any code."""
    nonce, other = bytes(32), b"x" * 32
    greeting = await house.greet(nonce)
    assert (await house.post(house.signed(greeting, other)))[0] == 403
    assert (await house.post(house.signed(greeting, nonce)))[0] == 202


async def test_only_the_owner_of_a_key_can_ask_for_it(house):
    nonce = bytes(32)
    greeting = await house.greet(nonce)
    stated = statement(house.here, house.guest.peer, nonce, greeting.nonce)
    assert (await house.post(Knock(greeting.ticket, nonce, Identity.create().sign(stated))))[0] == 403
    assert (await house.post(Knock(bytes(16), nonce, house.guest.sign(stated))))[0] == 403
    assert house.visitors.waiting == []


async def test_rubbish_is_refused(house):
    for rubbish in (b"", b"\xc1", bytes(512), b"x" * 10_000, msgspec.msgpack.encode([0, b"a", b"b"])):
        assert (await house.post(rubbish))[0] == 400


async def test_who_asks_too_often_waits(house):
    for _ in range(HELLOS_BURST):
        await house.greet(bytes(32))
    with pytest.raises(RefusedError, match="too many ask"):
        await house.knock()


def test_codes_depend_on_both_keys_and_both_numbers():
    peers = [Identity.create().peer for _ in range(2)]
    base = (peers[0], peers[1], bytes(32), bytes(32))
    others = [
        statement(*(b"o" * 32 if at == place else part for place, part in enumerate(base)))  # type: ignore[arg-type]
        for at in range(4)
    ]
    codes = {code_of(stated) for stated in (statement(*base), *others)}
    assert len(codes) == 5  # less: once in 100,000


# -- which swarms are shown ------------------------------------------------------------------------

HERE = (Interface("lo", ("127.0.0.1",), ("127.0.0.0/8",)),)


async def test_only_swarms_that_are_shown_can_be_read():
    from zeroconf import ServiceInfo
    from zeroconf.asyncio import AsyncZeroconf

    from p2ptrain.net.lan.open_swarm import SERVICE
    from p2ptrain.net.lan.search import Lan

    swarm, hidden, peer = (Identity.create().peer for _ in range(3))
    options = {"interfaces": lambda: HERE, "look_every_s": 0.02}
    shown: list[Visible | None] = [Visible("Freunde \x1b[31m", "digits")]
    lans = [
        Lan(SwarmId(swarm), peer, 5001, print, lambda _: None, visible=lambda: shown[0], **options),  # type: ignore[arg-type]
        Lan(SwarmId(hidden), peer, 5002, print, lambda _: None, **options),  # type: ignore[arg-type]
    ]
    tasks = [asyncio.create_task(lan.run()) for lan in lans]
    async with AsyncZeroconf(interfaces=["127.0.0.1"]) as stranger:
        rubbish: list[Any] = [{}, {"k": b"short", "s": swarm}, {"k": peer, "s": b"\xff"}, b"\xff\0rubbish"]
        for number, properties in enumerate(rubbish):
            info = ServiceInfo(
                SERVICE,
                f"{number}.{SERVICE}",
                port=5003,
                properties=properties,
                server=f"x{number}.local.",
                parsed_addresses=["127.0.0.1"],
            )
            await stranger.async_register_service(info, cooperating_responders=True)
        found = [one for one in await search(HERE, 0.8) if one.peer == peer]
    assert found == [
        OpenSwarm("Freunde ·[31m", "digits", SwarmId(swarm), peer, (Address("127.0.0.1", 5001),))
    ]
    shown[0] = None
    await asyncio.sleep(0.6)
    assert [one for one in await search(HERE, 0.4) if one.peer == peer] == []
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
