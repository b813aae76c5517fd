"""How fast a line is: few bytes, the owners' bounds hold, and nobody can be made to send for ever."""

import pytest

from p2ptrain.core.errors import UnreachableError
from p2ptrain.net import speed as module
from p2ptrain.net.channel.bandwidth import Bandwidth
from p2ptrain.net.reach.ask import ask
from p2ptrain.net.speed import (
    PIECE_BYTES_MAX,
    PIECES_BYTES,
    REQUESTS_BURST,
    ROUND_TRIPS,
    SPEED_PATH,
    measure,
    round_trip,
)


async def pair(swarm, **options):
    one, other = await swarm.pair(**options)
    one.transport.learn(other.peer, other.addresses)
    return one, other


async def test_both_directions_and_the_way_are_measured(swarm):
    one, other = await pair(swarm)
    speed = await measure(one.transport, other.peer, one.transport.bandwidth)
    assert speed.up > 0
    assert speed.down > 0
    assert 0 < speed.moved <= 2 * sum(PIECES_BYTES)
    assert await round_trip(one.transport, other.peer) < 1


async def test_a_slow_line_moves_few_bytes_and_is_measured_right(swarm):
    one, other = await pair(swarm, bandwidth=Bandwidth(1, 1))
    speed = await measure(one.transport, other.peer, one.transport.bandwidth)
    assert speed.moved == 2 * PIECES_BYTES[0]
    assert speed.up < 2 * 125_000 * 1.5
    assert speed.down < 2 * 125_000 * 1.5


@pytest.mark.parametrize("asked", [PIECE_BYTES_MAX + 1, 9_999_999])
@pytest.mark.attack
async def test_nobody_gives_more_than_a_piece(swarm, asked):
    one, other = await pair(swarm)
    answer = await ask(one.transport, "GET", other.peer, f"{SPEED_PATH}/{asked}", bytes_max=PIECE_BYTES_MAX)
    assert len(answer.body) == PIECE_BYTES_MAX


@pytest.mark.attack
async def test_nobody_takes_more_than_a_piece(swarm, monkeypatch):
    one, other = await pair(swarm)
    monkeypatch.setattr(module, "PIECE_BYTES_MAX", 1000)
    data = bytes(1001)
    answer = await ask(one.transport, "PUT", other.peer, SPEED_PATH, data=data, bytes_max=1000)
    assert answer.status == 400


@pytest.mark.attack
async def test_who_measures_without_end_is_stopped(swarm):
    one, other = await pair(swarm)
    other.transport.learn(one.peer, one.addresses)
    for _ in range(REQUESTS_BURST // ROUND_TRIPS):
        await round_trip(one.transport, other.peer)
    with pytest.raises(UnreachableError, match="does not let"):
        await round_trip(one.transport, other.peer)
    assert await round_trip(other.transport, one.peer) < 1


async def test_a_piece_that_does_not_come_whole_is_no_measurement(swarm, monkeypatch):
    one, other = await pair(swarm)
    monkeypatch.setattr(module, "PIECE_BYTES_MAX", 1000)
    with pytest.raises(UnreachableError, match="does not let"):
        await measure(one.transport, other.peer, one.transport.bandwidth)
