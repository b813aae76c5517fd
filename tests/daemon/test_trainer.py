"""The daemon keeps one trainer process alive, whatever that does; here it is an actor (`actor.py`)."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.inputs import Input, TrainerLost, TrainerReady
from p2ptrain.core.types import BlobId, Ref
from p2ptrain.daemon import trainer as trainers
from p2ptrain.daemon.trainer import Trainer
from p2ptrain.learn import wire

GOOD = BlobId(Ref("0" * 64))
BAD = BlobId(Ref("f" * 64))
SECONDS = 30.0


class Stage:
    """A trainer process with an actor in it, and what came of it."""

    def __init__(self) -> None:
        self.inputs: list[Input] = []
        self.words: list[str] = []
        self.trainer = Trainer(wire.Setup(task="any"), self.inputs.append, self.words.append)
        self.task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self.task = asyncio.create_task(self.trainer.run())
        await self.until(lambda: self.count(TrainerReady))

    async def until(self, question: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS):
            while not question():
                assert self.task is None or not self.task.done(), self.task
                await asyncio.sleep(0.01)

    def count(self, kind: type[Input]) -> int:
        return sum(isinstance(event, kind) for event in self.inputs)

    @property
    def losses(self) -> list[TrainerLost]:
        return [event for event in self.inputs if isinstance(event, TrainerLost)]


@pytest.fixture
async def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[str], Stage]]:
    """Hire an actor: `stage("dies")`."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).with_name("actor.py")}"\n')
    script.chmod(0o755)
    monkeypatch.setattr(trainers.sys, "executable", str(script))
    monkeypatch.setattr(trainers, "RETRY_FIRST_S", 0.05)
    hired: list[Stage] = []

    def hire(act: str) -> Stage:
        monkeypatch.setenv("ACT", act)
        hired.append(Stage())
        return hired[-1]

    yield hire
    for one in hired:
        if one.task is not None:
            one.task.cancel()
            await asyncio.gather(one.task, return_exceptions=True)
        assert one.trainer.pid is None


async def test_answers_are_inputs(stage: Callable[[str], Stage]) -> None:
    on = stage("acts")
    await on.begin()
    assert on.inputs == [TrainerReady(step=7, samples=70, parameters=8, blob_bytes=64)]
    assert on.trainer.pid is not None


async def test_fetched_weights_are_checked(stage: Callable[[str], Stage]) -> None:
    on = stage("acts")
    await on.begin()
    assert await asyncio.gather(on.trainer.accept(GOOD), on.trainer.accept(BAD)) == ["", "not finite"]


async def test_who_dies_while_checking_blames_nobody(stage: Callable[[str], Stage]) -> None:
    """The sender of the weights would be distrusted for minutes, for our own accident."""
    on = stage("dies")
    with pytest.raises(P2PTrainError, match="no trainer"):
        await on.trainer.accept(GOOD)
    await on.begin()
    with pytest.raises(P2PTrainError, match="died while"):
        await on.trainer.accept(GOOD)


async def test_it_is_started_again_and_the_reason_is_a_sentence(stage: Callable[[str], Stage]) -> None:
    on = stage("dies")
    await on.begin()
    on.trainer.send(wire.Accept(GOOD))
    await on.until(lambda: on.count(TrainerReady) == 2)
    assert [loss.reason for loss in on.losses] == ["the trainer was killed by signal 9"]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("explains", "out of memory; use smaller batches"),
        ("cries", "the trainer ended with code 3: ValueError: the last line"),
    ],
)
async def test_its_last_words_are_the_reason(stage: Callable[[str], Stage], act: str, reason: str) -> None:
    on = stage(act)
    on.task = asyncio.create_task(on.trainer.run())
    await on.until(lambda: on.losses)
    assert on.losses[0].reason == reason


async def test_what_keeps_failing_is_tried_less_and_less_often(stage: Callable[[str], Stage]) -> None:
    on = stage("explains")
    on.task = asyncio.create_task(on.trainer.run())
    await on.until(lambda: len(on.losses) >= 3)
    assert [round(loss.retry_s, 3) for loss in on.losses[:3]] == [0.05, 0.1, 0.2]


async def test_a_progress_bar_stops_nobody(stage: Callable[[str], Stage]) -> None:
    """A task may use tqdm: megabytes without the end of a line."""
    on = stage("draws")
    await on.begin()
    await on.until(lambda: "trainer: done" in on.words)
    assert "trainer: 2999 of 3000" in on.words[-2]
    assert len(on.words) < 10


async def test_rubbish_in_the_pipe_is_a_lost_trainer(stage: Callable[[str], Stage]) -> None:
    on = stage("raves")
    on.task = asyncio.create_task(on.trainer.run())
    await on.until(lambda: on.losses)
    assert "something else than frames" in on.losses[0].reason


async def test_it_ends_when_asked_and_is_ended_when_it_does_not(
    stage: Callable[[str], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    on = stage("acts")
    await on.begin()
    await on.trainer.quit()
    assert on.trainer.pid is None
    monkeypatch.setattr(trainers, "QUIT_S", 0.1)
    stubborn = stage("clings")
    await stubborn.begin()
    await stubborn.trainer.quit()
    assert stubborn.trainer.pid is None
    assert on.losses == stubborn.losses == []
