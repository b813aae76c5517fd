"""Streams between two members: in order, for one reader, at the reader's pace, and never a hang."""

import asyncio
import os
import struct
import time

import pytest
from aiohttp import web

from p2ptrain.core.errors import LocalProtocolError, RemoteProtocolError
from p2ptrain.core.limits import KIB, MIB
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.flows import flows, frames
from p2ptrain.net.flows.frames import AbortedError, SilentError

NAME = "0123456789abcdef" * 2
SILENCE_S = 0.6


class Pair:
    """A node that offers, and one that reads."""

    def __init__(self, swarm) -> None:
        self.swarm = swarm

    async def start(self, **options) -> None:
        self.there, self.here = await self.swarm.pair(**options)
        self.here.transport.learn(self.there.peer, self.there.addresses)

    def offer(self, name=NAME, reader=None):
        return self.there.transport.flows.offer(name, reader or self.here.peer, SILENCE_S)

    def read(self, name=NAME, silence_s=SILENCE_S, by=None):
        return (by or self.here).transport.flows.read(self.there.peer, name, silence_s)

    async def stranger(self):
        """Another member that knows all names."""
        node = await self.swarm.node()
        node.transport.learn(self.there.peer, self.there.addresses)
        return node


@pytest.fixture
async def pair(swarm):
    pair = Pair(swarm)
    await pair.start()
    return pair


async def say(writer, *data) -> None:
    for piece in data:
        await writer.write(piece)
    await writer.end()


async def test_all_bytes_come_in_order_and_once(pair):
    data = os.urandom(3 * MIB + 17)
    async with pair.read() as reader:
        saying = asyncio.create_task(say(pair.offer(), data[:5], data[5:]))
        got = bytearray(len(data))
        await reader.read_into(memoryview(got))
        await reader.expect_end()
        await saying
    assert got == data
    assert pair.here.transport.traffic.total.blobs_down == pytest.approx(len(data), rel=0.001)
    assert pair.there.transport.traffic.total.blobs_up == pair.here.transport.traffic.total.blobs_down


async def test_pieces_can_be_read_as_they_come(pair):
    saying = asyncio.create_task(say(pair.offer(), b"one", b"two"))
    async with pair.read() as reader:
        assert [piece async for piece in reader] == [b"one", b"two"]
    await saying


async def test_a_reader_waits_for_an_offer_that_comes_late(pair):
    async def later():
        await asyncio.sleep(0.3)
        await say(pair.offer(), b"late")

    saying = asyncio.create_task(later())
    async with pair.read() as reader:
        assert await reader.read(4) == b"late"
        await reader.expect_end()
    await saying


async def test_a_reader_waits_for_a_peer_that_is_not_there_yet_and_not_for_ever(pair):
    await pair.there.transport.close()
    began = time.monotonic()
    async with pair.read() as reader:
        with pytest.raises(SilentError, match="gives nothing"):
            await reader.open()
    assert SILENCE_S <= time.monotonic() - began < SILENCE_S + 1


async def test_an_offer_that_never_comes_ends_the_wait(pair):
    async with pair.read() as reader:
        with pytest.raises(SilentError, match="does not offer it"):
            await reader.read(1)


async def test_a_quiet_writer_is_not_a_silent_one(pair):
    writer = pair.offer()

    async def slowly():
        await writer.write(b"a")
        await asyncio.sleep(3 * SILENCE_S)
        await say(writer, b"b")

    saying = asyncio.create_task(slowly())
    async with pair.read(silence_s=1.5 * frames.BEAT_S) as reader:
        assert await reader.read(2) == b"ab"
        await reader.expect_end()
    await saying


async def test_a_slow_reader_slows_the_writer_down(pair):
    """What waits in between is bounded: no more than the buffers of this node and of two systems."""
    writer, given = pair.offer(), 0

    async def pour():
        nonlocal given
        for _ in range(200):
            await writer.write(bytes(256 * KIB))
            given += 256 * KIB

    pouring = asyncio.create_task(pour())
    async with pair.read() as reader:
        await reader.read(1)
        await asyncio.sleep(0.3)
        assert frames.BUFFER_BYTES <= given < 16 * MIB
        before = given
        await asyncio.sleep(0.1)
        assert given == before
    with pytest.raises(SilentError):
        await pouring


async def test_who_stops_reading_is_noticed_at_once(pair):
    writer = pair.offer()
    async with pair.read() as reader:
        await writer.write(b"x")
        await reader.read(1)
    began = time.monotonic()
    with pytest.raises(SilentError, match="broke off"):
        await say(writer, bytes(8 * MIB))
    assert time.monotonic() - began < SILENCE_S


async def test_a_reader_that_takes_nothing_is_given_up(pair):
    writer = pair.offer()
    with pytest.raises(SilentError, match="takes nothing"):
        await say(writer, bytes(2 * MIB))
    assert writer.is_over


async def test_an_abort_is_heard_at_once_and_says_why(pair):
    writer = pair.offer()
    async with pair.read(silence_s=30.0) as reader:
        await writer.write(b"x")
        await reader.read(1)
        began = time.monotonic()
        writer.abort("the disk is \x1b[31mfull")
        with pytest.raises(AbortedError) as caught:
            await reader.read(1)
        assert time.monotonic() - began < 1
    assert "the disk is" in str(caught.value)
    assert "\x1b" not in str(caught.value)


async def test_who_comes_after_an_abort_is_told_too(pair):
    pair.offer().abort("no")
    async with pair.read() as reader:
        with pytest.raises(AbortedError, match="no"):
            await reader.read(1)


async def test_a_writer_that_dies_is_noticed_at_once(pair):
    writer = pair.offer()
    async with pair.read(silence_s=30.0) as reader:
        await writer.write(b"x")
        await reader.read(1)
        closing = asyncio.create_task(pair.there.transport.close())
        with pytest.raises((SilentError, AbortedError)):
            await asyncio.wait_for(reader.read(1), 5)
        await closing


async def test_what_ends_too_early_or_too_late_is_no_good_flow(pair):
    first = asyncio.create_task(say(pair.offer(), b"abc"))
    async with pair.read() as reader:
        with pytest.raises(RemoteProtocolError, match="too early"):
            await reader.read(4)
    await first
    await pair.offer().write(b"abcd")
    async with pair.read() as reader:
        await reader.read(3)
        with pytest.raises(RemoteProtocolError, match="goes on"):
            await reader.expect_end()


async def test_bounds_on_weights_hold_for_flows(swarm):
    pair = Pair(swarm)
    await pair.start(bandwidth=Bandwidth(up_mbit=8))
    saying = asyncio.create_task(say(pair.offer(), bytes(MIB)))
    began = time.monotonic()
    async with pair.read() as reader:
        await reader.read(MIB)
        await reader.expect_end()
    await saying
    assert 0.8 < time.monotonic() - began < 3


async def test_a_name_is_offered_once_to_the_same_reader(pair):
    pair.offer()
    with pytest.raises(LocalProtocolError):
        pair.offer()
    pair.offer(reader=pair.there.peer)


async def test_what_nobody_reads_does_not_pile_up(pair, monkeypatch):
    monkeypatch.setattr(flows, "OFFERS_MAX", 2)
    pair.offer(NAME).abort("over")
    pair.offer(NAME[:-1] + "0")
    with pytest.raises(LocalProtocolError, match="2 are"):
        pair.offer(NAME[:-1] + "1")
    await asyncio.sleep(SILENCE_S + 0.05)
    pair.offer(NAME[:-1] + "1")


# -- attacks ---------------------------------------------------------------------------------------


@pytest.mark.attack
async def test_another_member_that_knows_the_name_gets_nothing_and_takes_nothing_away(pair):
    thief = await pair.stranger()
    async with pair.read(by=thief) as stolen:
        writer = pair.offer()
        await writer.write(b"secret")
        with pytest.raises(SilentError, match="does not offer it"):
            await stolen.read(1)
    saying = asyncio.create_task(say(writer))
    async with pair.read() as reader:
        assert await reader.read(6) == b"secret"
        await reader.expect_end()
    await saying


@pytest.mark.attack
async def test_a_flow_is_read_once(pair):
    writer = pair.offer()
    async with pair.read() as reader, pair.read() as again:
        await writer.write(b"x")
        assert await reader.read(1) == b"x"
        with pytest.raises(SilentError):
            await again.read(1)


@pytest.mark.attack
@pytest.mark.parametrize("name", ["../../blob", "a" * 15, "A" * 32, "a" * 81, "%2e%2e%2f" + "a" * 20])
async def test_names_that_are_none_lead_nowhere(pair, name):
    async with pair.here.transport.get(pair.there.peer, f"/v1/flow/{name}") as answer:
        assert answer.status == 404


@pytest.mark.attack
async def test_guessing_names_holds_few_places(pair, monkeypatch):
    """Who guesses waits, in few places; the others are refused, and other readers are served."""
    monkeypatch.setattr(flows, "ABSENT_S", 0.3)
    monkeypatch.setattr(flows, "READERS_PER_PEER_MAX", 2)
    guesser = await pair.stranger()
    asked = []

    async def guess(number):
        async with guesser.transport.get(pair.there.peer, f"/v1/flow/{number:032x}") as answer:
            asked.append(answer.status)

    guessing = [asyncio.create_task(guess(number)) for number in range(8)]
    saying = asyncio.create_task(say(pair.offer(), b"x"))
    async with pair.read() as reader:
        assert await reader.read(1) == b"x"
        await reader.expect_end()
    await saying
    await asyncio.gather(*guessing)
    assert sorted(asked) == [404, 404, *6 * [503]]


def hostile(*said, beat_s=0.05, forever=b""):
    """A server that says these bytes under every name, and then one thing for ever."""

    async def serve(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for data in said:
            await response.write(data)
        while forever:
            await response.write(forever)
            await asyncio.sleep(beat_s)
        return response

    return [web.get("/v1/flow/{name}", serve)]


async def liar(swarm, monkeypatch, *said, **options):
    monkeypatch.setattr(flows.Flows, "routes", lambda _: hostile(*said, **options))
    pair = Pair(swarm)
    await pair.start()
    return pair


@pytest.mark.attack
@pytest.mark.parametrize("length", [frames.PIECE_BYTES + 1, 2**31, 0xFFFF_FFFD])
async def test_a_piece_that_is_too_long_is_not_waited_for(swarm, monkeypatch, length):
    pair = await liar(swarm, monkeypatch, struct.pack(">I", length), forever=b"x")
    async with pair.read() as reader:
        with pytest.raises(RemoteProtocolError, match="a piece of"):
            await reader.some()


@pytest.mark.attack
async def test_a_last_word_has_its_bound(swarm, monkeypatch):
    pair = await liar(swarm, monkeypatch, struct.pack(">II", frames.ABORT, 10**6), forever=b"x")
    async with pair.read() as reader:
        with pytest.raises(RemoteProtocolError, match="a piece of"):
            await reader.some()


@pytest.mark.attack
async def test_a_flow_that_is_cut_is_not_taken_for_its_end(swarm, monkeypatch):
    pair = await liar(swarm, monkeypatch, struct.pack(">I", 3) + b"ab")
    async with pair.read() as reader:
        with pytest.raises(SilentError, match="broke off"):
            await reader.read(3)


@pytest.mark.attack
async def test_beats_without_end_are_seen_by_who_asks_how_long_nothing_came(swarm, monkeypatch):
    """Beats keep a flow alive: whoever reads has a bound of its own."""
    pair = await liar(swarm, monkeypatch, forever=bytes(4))
    async with pair.read() as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2 * SILENCE_S):
                await reader.read(1)


@pytest.mark.attack
async def test_who_was_turned_away_is_cut_off(swarm):
    banned = set()
    pair = Pair(swarm)
    await pair.start(refused=banned.__contains__)
    writer = pair.offer()
    async with pair.read(silence_s=30.0) as reader:
        await writer.write(b"x")
        await reader.read(1)
        banned.add(pair.here.peer)
        with pytest.raises(SilentError):
            await asyncio.wait_for(reader.read(1), 5)
