"""Parts of a line in two and three daemons: bytes there and back, and what ends it early."""

import asyncio
import os
from collections.abc import Callable

import pytest

from p2ptrain.core.effects import Stage
from p2ptrain.core.inputs import LearnFailed, Staged
from p2ptrain.daemon.staging import stage
from p2ptrain.learn.wire import Came, Cut, Goes, Side
from tests.net import conftest

swarm = conftest.swarm

SILENCE_S = 1.0
ROUNDS = 3
SIZE = 3_000_000
"""More than a flow holds back."""


class Trainer:
    """Sends some bytes on, waits for as many back, a few times; whoever is last sends them back."""

    def __init__(self, effect: Stage) -> None:
        self._effect = effect
        self._got = dict.fromkeys(Side, 0)
        self._done = 0
        self.is_over = self.is_stuck = False

    def begin_stage(self, effect: Stage, put: Callable[[object], None]) -> bool:
        self._put = put
        if effect.before is None:
            self._give(Side.AFTER)
        return True

    def send(self, command: Came | Cut) -> None:
        if self.is_over or self.is_stuck:
            return
        if isinstance(command, Cut):
            peers = {Side.BEFORE: self._effect.before, Side.AFTER: self._effect.after}
            return self.end(command.reason, peers[command.side] if command.is_at_fault else None)
        self._got[command.side] += len(command.data)
        if self._got[command.side] < SIZE:
            return
        self._got[command.side] = 0
        if command.side is Side.BEFORE and self._effect.after is not None:
            return self._give(Side.AFTER)
        if self._effect.before is not None:
            self._give(Side.BEFORE)
        self._done += 1
        if self._done == ROUNDS:
            self.end()
        elif self._effect.before is None:
            self._give(Side.AFTER)

    def end(self, reason: str = "", silent: object = None) -> None:
        self.is_over = True
        self._put(Staged("s", self._done, 0, self._done, 1.0, 0.0, reason, silent))

    def die(self) -> None:
        self.is_over = True
        self._put(None)

    def _give(self, side: Side) -> None:
        for _ in range(3):
            self._put(Goes("s", side, bytes(SIZE // 3)))


class Line:
    def __init__(self, nodes) -> None:
        self.nodes, self.name = nodes, os.urandom(16).hex()
        peers = [None, *(node.peer for node in nodes), None]
        self.effects = [
            Stage("s", self.name, (at, at + 1), peers[at], peers[at + 2], ROUNDS, 1, "f32", 2.0, SILENCE_S)
            for at in range(len(nodes))
        ]
        self.trainers = [Trainer(effect) for effect in self.effects]

    def start(self, at: int, **options) -> "asyncio.Task[object]":
        return asyncio.create_task(self._run(at, **options))

    async def _run(self, at: int, **options) -> object:
        answers: list[object] = []
        flows = self.nodes[at].transport.flows
        async with asyncio.timeout(20):
            await stage(self.effects[at], flows, self.trainers[at], answers.append, **options)
        return answers[0] if answers else None


@pytest.fixture
def line(swarm):
    async def make(count: int) -> Line:
        nodes = [await swarm.node() for _ in range(count)]
        for node in nodes:
            for other in nodes:
                node.transport.learn(other.peer, other.addresses)
        return Line(nodes)

    return make


@pytest.mark.parametrize("count", [2, 3])
async def test_bytes_go_there_and_back_until_all_are_done(line, count):
    them = await line(count)
    answers = await asyncio.gather(*(them.start(at) for at in range(count)))
    assert [(answer.taken, answer.reason) for answer in answers] == [(ROUNDS, "")] * count


async def test_who_never_comes_is_waited_for_so_long_and_no_longer(line):
    them = await line(3)
    answers = await asyncio.gather(them.start(0), them.start(1))
    assert isinstance(answers[1], LearnFailed)
    assert "did not come together" in answers[1].reason
    first = answers[0]
    assert isinstance(first, LearnFailed) or (first.taken == 0 and first.reason)


async def test_when_a_trainer_dies_the_others_stop_at_once(line):
    them = await line(3)
    them.trainers[1].is_stuck = True
    tasks = [them.start(at) for at in range(3)]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in tasks)
    them.trainers[1].die()
    first, second, third = await asyncio.gather(*tasks)
    assert second is None  # the daemon says that its trainer died
    assert first.reason
    assert third.reason
    assert first.silent is third.silent is None


async def test_when_a_daemon_is_gone_its_neighbours_name_it(line):
    them = await line(3)
    them.trainers[1].is_stuck = True
    tasks = [them.start(at) for at in range(3)]
    await asyncio.sleep(0.5)
    began = asyncio.get_running_loop().time()
    await them.nodes[1].transport.close()
    tasks[1].cancel()
    first, third = await asyncio.gather(tasks[0], tasks[2])
    assert asyncio.get_running_loop().time() - began < 3 * SILENCE_S
    assert {first.taken, third.taken} == {0}
    assert first.reason
    assert third.reason


async def test_an_owner_who_pauses_while_the_line_meets_is_heeded(line):
    them = await line(2)
    answers = await asyncio.gather(them.start(0, is_halted=lambda: True), them.start(1))
    assert isinstance(answers[0], LearnFailed)
    assert answers[0].reason == "stopped by its owner"
    assert isinstance(answers[1], LearnFailed) or answers[1].reason


async def test_a_name_that_is_none_is_refused(line):
    them = await line(2)
    them.effects[0] = Stage("s", "../x", (0, 1), None, them.nodes[1].peer, 1, 1, "f32", 1.0, 1.0)
    answer = await them.start(0)
    assert isinstance(answer, LearnFailed)
