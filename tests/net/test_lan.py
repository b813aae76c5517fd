"""Members on one local network find each other, strangers learn nothing, and nothing there breaks a node."""

import asyncio
import getpass
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from zeroconf import RecordUpdate, ServiceInfo
from zeroconf.asyncio import AsyncZeroconf

from p2ptrain.core import limits
from p2ptrain.core.types import PeerId, SwarmId, peer_text
from p2ptrain.net.addresses import NEAR_MAX, Address, AddressBook, is_dialable
from p2ptrain.net.lan import search as lan_module
from p2ptrain.net.lan.interfaces import Interface, usable_interfaces
from p2ptrain.net.lan.record import AGE_MAX_S, TEXT_BYTES_MAX, LanSeal
from p2ptrain.net.lan.search import HINTS_BURST, SERVICE, Lan
from p2ptrain.net.trust.certificates import wall_clock

HERE = (Interface("lo", ("127.0.0.1",), ("127.0.0.0/8",)),)
GROUP = ("224.0.0.251", 5353)
ME, OTHER, THIRD = (PeerId(bytes([number]) * 32) for number in (1, 2, 3))
NOW = wall_clock()


def fresh_swarm() -> SwarmId:
    """Tests run side by side on one loopback network."""
    return SwarmId(os.urandom(32))


class Member:
    """A node's search, and what it told."""

    def __init__(self, swarm: SwarmId, peer: PeerId = ME, port: int = 5000, **options: Any) -> None:
        self.found: list[tuple[PeerId, list[str]]] = []
        self.said: list[str] = []
        options = {"interfaces": lambda: HERE, "look_every_s": 0.02, **options}
        self.lan = Lan(swarm, peer, port, self._on_found, self.said.append, **options)

    def _on_found(self, peer: PeerId, addresses: Sequence[Address]) -> None:
        self.found.append((peer, [str(address) for address in addresses]))


@asynccontextmanager
async def running(*lans: Lan) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(lan.run()) for lan in lans]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


# -- records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [[], ["192.168.1.7"], ["10.0.0.1", "fd00::7"], ["2001:db8::1"] * 8])
def test_members_read_what_a_member_sealed(hosts):
    seal = LanSeal(fresh_swarm())
    text = seal.seal(ME, 47777, hosts, NOW)
    assert len(text) <= TEXT_BYTES_MAX
    found = seal.open(text, NOW)
    assert found is not None
    assert found.peer == ME
    assert found.addresses == tuple(Address(host, 47777) for host in hosts)


def test_a_record_names_a_bounded_number_of_addresses():
    seal = LanSeal(fresh_swarm())
    found = seal.open(seal.seal(ME, 5000, [f"10.0.0.{last}" for last in range(50)], NOW), NOW)
    assert found is not None
    assert len(found.addresses) == limits.ADDRESSES_MAX


def test_strangers_can_neither_read_nor_tell_records_apart():
    swarm = fresh_swarm()
    first, second = (LanSeal(swarm).seal(ME, 47777, ["10.0.0.1"], NOW) for _ in range(2))
    assert LanSeal(fresh_swarm()).open(first, NOW) is None
    assert len(first) == len(second)
    same = sum(a == b for a, b in zip(first, second, strict=True))
    assert same <= len(b"\0s=") + 10  # equal bytes of 80 random ones: 11 or more once in 10^14


def test_a_record_is_good_for_hours_only():
    seal = LanSeal(fresh_swarm())
    text = seal.seal(ME, 5000, ["10.0.0.1"], NOW)
    for age_s, good in ((-AGE_MAX_S - 2, False), (-60, True), (AGE_MAX_S - 2, True), (AGE_MAX_S + 2, False)):
        assert (seal.open(text, NOW + timedelta(seconds=age_s)) is not None) is good


@pytest.mark.attack
def test_whatever_is_changed_in_a_record_makes_it_rubbish():
    seal, random = LanSeal(fresh_swarm()), Random(0)
    text = seal.seal(ME, 5000, ["10.0.0.1", "fd00::1"], NOW)
    for at in range(len(text)):
        changed = bytearray(text)
        changed[at] ^= 1 << random.randrange(8)
        assert seal.open(bytes(changed), NOW) is None
        assert seal.open(text[:at], NOW) is None
        assert seal.open(random.randbytes(at), NOW) is None
    assert seal.open(text + b"\0", NOW) is None
    assert seal.open(b"", NOW) is None


def test_a_members_rubbish_is_rubbish_too(monkeypatch):
    """Its seal is good, but what is inside is not."""
    seal = LanSeal(fresh_swarm())
    short_peer, low_port, no_host = [ME[1:], 0, 5000, []], [ME, 0, 80, []], [ME, 0, 5000, [b"12345"]]
    for content in (b"", b"\x90", short_peer, low_port, no_host, ["x"]):
        monkeypatch.setattr("msgspec.msgpack.encode", lambda _, sealed=content: sealed_bytes(sealed))
        assert seal.open(seal.seal(ME, 5000, [], NOW), NOW) is None


def sealed_bytes(content: Any) -> bytes:
    import msgspec

    return content if isinstance(content, bytes) else msgspec.msgpack.Encoder().encode(content)


# -- hints -----------------------------------------------------------------------------------------


def test_the_book_tries_hints_first_and_keeps_what_the_peer_said():
    book = AddressBook(is_dialable)
    book.learn(ME, ["203.0.113.9:5000", "192.168.1.7:5000"])
    book.hint(ME, [Address("192.168.1.7", 5000), Address("127.0.0.1", 5000)])
    assert [one.host for one in book.addresses_of(ME)] == ["192.168.1.7", "203.0.113.9"]
    book.hint(ME, [])
    assert [one.host for one in book.addresses_of(ME)] == ["203.0.113.9", "192.168.1.7"]


def test_the_book_of_hints_is_bounded():
    book = AddressBook(is_dialable)
    for number in range(2 * NEAR_MAX):
        book.hint(PeerId(number.to_bytes(32)), [Address("10.0.0.1", 5000 + number)])
    assert len(book._near) == NEAR_MAX


def update(text: bytes, name: str = f"x.{SERVICE}", ttl: int = 4500) -> RecordUpdate:
    from zeroconf._dns import DNSText

    return RecordUpdate(DNSText(name, 16, 1, ttl, text), None)


async def test_however_many_members_announce_a_bounded_number_is_tried():
    swarm = fresh_swarm()
    member, seal = Member(swarm), LanSeal(swarm)
    member.lan._here = HERE
    texts = [seal.seal(PeerId(n.to_bytes(32)), 5000, ["127.0.0.1"], NOW) for n in range(1000)]
    member.lan.async_update_records(None, 0.0, [update(text) for text in texts])  # type: ignore[arg-type]
    assert len(member.found) == HINTS_BURST
    assert member.lan.near <= NEAR_MAX


async def test_only_addresses_of_a_shared_network_count():
    """Others' containers and VPNs have addresses that mean something else here, or lead out."""
    swarm = fresh_swarm()
    member, seal = Member(swarm), LanSeal(swarm)
    member.lan._here = (Interface("eth0", ("192.168.1.2",), ("192.168.1.0/24", "fd00::/64")),)
    hosts = ["172.17.0.1", "203.0.113.9", "192.168.2.9", "192.168.1.9", "fd00::9", "fd00:0:0:1::9"]
    text = seal.seal(OTHER, 5000, hosts, NOW)
    away = seal.seal(THIRD, 5000, ["172.17.0.1"], NOW)
    member.lan.async_update_records(None, 0.0, [update(away), update(text), update(text)])  # type: ignore[arg-type]
    assert member.found == [(OTHER, ["192.168.1.9:5000", "[fd00::9]:5000"])]


async def test_who_leaves_is_forgotten():
    swarm = fresh_swarm()
    member, seal = Member(swarm), LanSeal(swarm)
    member.lan._here = HERE
    text = seal.seal(OTHER, 5000, ["127.0.0.1"], NOW)
    now = asyncio.get_running_loop().time() * 1000
    member.lan.async_update_records(None, now, [update(text)])  # type: ignore[arg-type]
    assert member.lan.near == 1
    member.lan.async_update_records(None, 1e15, [update(text, ttl=0)])  # type: ignore[arg-type]
    assert member.lan.near == 0


async def test_who_has_a_copy_of_the_own_key_is_noticed_and_an_own_record_of_earlier_is_not():
    swarm = fresh_swarm()
    member, seal = Member(swarm), LanSeal(swarm)
    for host in ("192.168.1.2", "192.168.1.3"):  # it moved
        member.lan._here = (Interface("eth0", (host,), ("192.168.1.0/24",)),)
        member.lan._record()
    own, copy = (seal.seal(ME, 5000, [host], NOW) for host in ("192.168.1.2", "192.168.1.9"))
    member.lan.async_update_records(None, 0.0, [update(own)])  # type: ignore[arg-type]
    assert member.lan.twin is None
    member.lan.async_update_records(None, 0.0, [update(copy)])  # type: ignore[arg-type]
    assert member.lan.twin == Address("192.168.1.9", 5000)
    assert member.found == []
    member.lan.async_update_records(None, 1e15, [update(copy, ttl=0)])  # type: ignore[arg-type]
    assert member.lan.twin is None


async def test_a_member_nearby_is_handed_over_again(monkeypatch, until):
    monkeypatch.setattr(lan_module, "AGAIN_S", 0.05)
    swarm = fresh_swarm()
    one, two = Member(swarm, ME, 5001), Member(swarm, OTHER, 5002)
    async with running(one.lan, two.lan):
        await until(lambda: len(one.found) >= 3)
    assert set(map(str, one.found)) == {str((OTHER, ["127.0.0.1:5002"]))}


# -- on a real network: loopback -------------------------------------------------------------------


async def test_members_find_each_other_and_nobody_else(until):
    swarm = fresh_swarm()
    one, two, stranger = Member(swarm, ME, 5001), Member(swarm, OTHER, 5002), Member(fresh_swarm(), THIRD)
    async with running(stranger.lan, one.lan, two.lan):
        await until(lambda: one.found and two.found)
        assert (one.lan.near, two.lan.near, stranger.lan.near) == (1, 1, 0)
    assert one.found == [(OTHER, ["127.0.0.1:5002"])]
    assert two.found == [(ME, ["127.0.0.1:5001"])]
    assert stranger.found == []
    assert one.said == ["announced on lo"]


async def test_found_members_connect_without_knowing_anything_of_each_other(swarm, until):
    one, two = await swarm.pair()
    lans = [
        Lan(
            SwarmId(bytes(swarm.root.swarm)),
            node.peer,
            node.transport.port,
            node.transport.meet,
            lambda _: None,
            interfaces=lambda: HERE,
        )
        for node in (one, two)
    ]
    async with running(*lans):
        await until(lambda: two.peer in one.transport.connected and one.peer in two.transport.connected)


@pytest.mark.attack
async def test_a_record_that_names_a_peer_at_anothers_port_is_refused(swarm, until):
    one, two = await swarm.pair()
    absent = PeerId(b"a" * 32)
    one.transport.meet(absent, [Address("127.0.0.1", two.transport.port)])
    await until(lambda: one.events.downs)
    assert one.events.downs[0][0] == absent
    assert "not the peer that is meant" in one.events.downs[0][1]
    assert one.transport.connected == []


@pytest.mark.attack
async def test_rubbish_and_strangers_disturb_nobody(until):
    swarm, random = fresh_swarm(), Random(1)
    good = LanSeal(swarm).seal(THIRD, 5003, ["127.0.0.1"], NOW)
    texts = [b"", b"\0", b"\x05s=abc", good[:-1], good[1:], LanSeal(fresh_swarm()).seal(ME, 5000, [], NOW)]
    texts += [random.randbytes(random.randrange(300)) for _ in range(20)]
    one, two = Member(swarm, ME, 5001), Member(swarm, OTHER, 5002)
    async with running(one.lan), AsyncZeroconf(interfaces=["127.0.0.1"]) as stranger:
        await until(lambda: one.said)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            for size in (0, 1, 12, 100, 1400):
                sender.sendto(random.randbytes(size), GROUP)
            for text in texts:
                sender.sendto(answer(text), GROUP)
        for number, text in enumerate(texts[:4]):
            name = f"Böse <b>{number}</b>.{SERVICE}"
            info = ServiceInfo(SERVICE, name, port=1, properties=text, server="x.")
            await stranger.async_register_service(info, cooperating_responders=True, strict=False)
        async with running(two.lan):
            await until(lambda: one.found and two.found)
    assert one.found == [(OTHER, ["127.0.0.1:5002"])]
    assert two.found == [(ME, ["127.0.0.1:5001"])]


def answer(text: bytes) -> bytes:
    """One mDNS answer with a TXT record."""
    name = b"".join(bytes([len(part)]) + part.encode() for part in f"x.{SERVICE}".split("."))
    head = struct.pack(">6H", 0, 0x8400, 0, 1, 0, 0)
    return head + name + struct.pack(">HHIH", 16, 1, 120, len(text)) + text


async def test_nothing_can_be_read_in_what_is_sent(until):
    swarm = fresh_swarm()
    heard: list[bytes] = []
    names: list[set[bytes]] = []
    for _ in range(2):
        async with listening(heard.append):
            async with running(Member(swarm, ME, 47123).lan):
                await until(lambda: len(ours(heard, swarm)) >= 2)
            packets = ours(heard, swarm)
            heard.clear()
        names.append({name for packet in packets for name in re.findall(rb"[0-9a-f]{16}", packet)})
        for packet in packets:
            for secret in (socket.gethostname(), getpass.getuser(), peer_text(ME), swarm.hex(), "127.0.0.1"):
                assert secret.encode() not in packet
            for secret in (ME[:8], swarm[:8], socket.inet_aton("127.0.0.1")):
                assert secret not in packet
    assert [len(each) for each in names] == [2, 2]  # a record and a computer, both random
    assert not names[0] & names[1]


def ours(packets: list[bytes], swarm: SwarmId) -> list[bytes]:
    """The packets with a record of this swarm: other tests are on the same network."""
    seal = LanSeal(swarm)
    found = []
    for packet in packets:
        at = packet.find(b"s=")
        text = packet[at - 1 : at + packet[at - 1]] if at > 0 else b""
        if seal.open(text, wall_clock()):
            found.append(packet)
    return found


@asynccontextmanager
async def listening(heard: Callable[[bytes], object]) -> AsyncIterator[None]:
    """Hear all multicast DNS on loopback, as any computer on the network does."""

    class Listener(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            heard(data)

    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    ear.bind(("", GROUP[1]))
    where = socket.inet_aton(GROUP[0]) + socket.inet_aton("127.0.0.1")
    ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, where)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Listener, sock=ear)
    try:
        yield
    finally:
        transport.close()


async def test_interfaces_may_come_and_go(until):
    swarm = fresh_swarm()
    now: list[tuple[Interface, ...]] = [()]
    one, two = Member(swarm, ME, 5001, interfaces=lambda: now[0]), Member(swarm, OTHER, 5002)
    async with running(one.lan, two.lan):
        await until(lambda: one.said == ["no local network"])
        now[0] = HERE
        await until(lambda: one.lan.near and two.lan.near)
        now[0] = ()
        await until(lambda: one.lan.near == 0 and two.lan.near == 0)
        now[0] = HERE
        await until(lambda: one.lan.near and two.lan.near)
    assert one.said == 2 * ["no local network", "announced on lo"]


def test_the_interfaces_of_this_computer_are_usable():
    for one in usable_interfaces():
        assert one.addresses
        for address in one.addresses:
            assert is_dialable(Address(address, 5000))
            assert one.reaches(address)
            assert [only.addresses for only in usable_interfaces(address)] == [(address,)]
    assert usable_interfaces("192.0.2.254") == ()
