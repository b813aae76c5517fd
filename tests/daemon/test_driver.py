"""The driver between node and world: who is blamed, what is waited for, what comes in which order."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from p2ptrain.core import inputs
from p2ptrain.core.effects import Checkpoint, Effect, Fetch, Hangup, Note, SetTimer, Sign
from p2ptrain.core.errors import Offence, P2PTrainError, RemoteProtocolError, UnreachableError
from p2ptrain.core.inputs import Input
from p2ptrain.core.types import BlobId, PeerId, Ref
from p2ptrain.daemon import driver as drivers
from p2ptrain.daemon.driver import Driver

SOURCE, LIAR = PeerId(bytes(32)), PeerId(b"x" * 32)
BLOB = BlobId(Ref("a" * 64))
FETCH = Fetch(BLOB, 4, (SOURCE,), 5.0)

Accept = Callable[[BlobId], Awaitable[str]]


class Node:
    """Answers each input with the effects that a test prepared, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[Input] = []
        self.answers: dict[type[Input], list[Effect]] = {}

    def handle(self, now: float, event: Input) -> list[Effect]:
        self.seen.append(event)
        return self.answers.pop(type(event), [])

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.seen]


class Trainer:
    """Takes commands; checks weights as a test says."""

    def __init__(self, accept: Accept) -> None:
        self.commands: list[Any] = []
        self.accept = accept

    def send(self, command: Any) -> None:
        self.commands.append(command)


class Signer:
    """Signs by doing nothing."""

    def seal(self, statement: Any) -> Any:
        return statement


class Transport:
    """Hangs up."""

    def __init__(self) -> None:
        self.hung_up: list[str] = []

    def hangup(self, peer: PeerId, reason: str) -> None:
        self.hung_up.append(reason)


class Journal:
    """Keeps the order."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def record(self, at: float, event: Input, effects: list[Effect]) -> None:
        self.entries.append(type(event).__name__)


class Scene:
    """A driver, and all that is around it."""

    def __init__(self, blobs: Path, accept: Accept) -> None:
        self.node, self.trainer, self.journal = Node(), Trainer(accept), Journal()
        self.notes: list[str] = []
        self.blobs = blobs
        self.driver = Driver(
            self.node,  # type: ignore[arg-type]
            Signer(),  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            self.journal,
            blobs,
            lambda peer, raw: None,
            lambda note: self.notes.append(note.event),
        )
        self.driver.trainer = self.trainer
        self.transport = Transport()
        self.driver.transport = self.transport  # type: ignore[assignment]

    async def fetch(self, wish: Fetch = FETCH) -> None:
        """Let the node wish for weights, and wait for what comes of it."""
        self.node.answers[inputs.Resumed] = [wish]
        self.driver.feed(inputs.Resumed())
        async with asyncio.timeout(10):
            while not {"Fetched", "FetchFailed"} & set(self.node.kinds()):
                await asyncio.sleep(0)


@pytest.fixture
def brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fetch brings its blob."""

    async def bring(transport: Any, sources: Any, blob: BlobId, size: int, folder: Path, *_: Any) -> PeerId:
        (folder / blob).write_bytes(b"data")
        return SOURCE

    monkeypatch.setattr(drivers, "fetch_from_any", bring)


async def approve(_: BlobId) -> str:
    return ""


async def refuse(_: BlobId) -> str:
    return "not finite"


async def die(_: BlobId) -> str:
    raise P2PTrainError("the trainer died while it checked them")


@pytest.mark.usefixtures("brings")
async def test_weights_are_news_only_after_they_were_checked(tmp_path: Path) -> None:
    scene = Scene(tmp_path, approve)
    await scene.fetch()
    assert scene.node.seen[-1] == inputs.Fetched(BLOB, SOURCE)
    assert (tmp_path / BLOB).exists()


@pytest.mark.usefixtures("brings")
async def test_bad_weights_are_charged_to_who_sent_them_and_deleted(tmp_path: Path) -> None:
    scene = Scene(tmp_path, refuse)
    await scene.fetch()
    assert inputs.Offended(SOURCE, Offence.BAD_WEIGHTS, "not finite") in scene.node.seen
    assert scene.node.seen[-1] == inputs.FetchFailed(BLOB, "not finite", SOURCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("brings")
async def test_nobody_is_charged_when_the_own_trainer_died(tmp_path: Path) -> None:
    scene = Scene(tmp_path, die)
    await scene.fetch()
    assert scene.node.kinds() == ["Resumed", "FetchFailed"]
    assert list(tmp_path.iterdir()) == []  # a file there would count as checked after the next start


@pytest.mark.usefixtures("brings")
async def test_nobody_is_charged_for_weights_that_were_dropped_meanwhile(tmp_path: Path) -> None:
    """The trainer deletes on `Drop` too: a late one takes away what was fetched again since."""

    async def drop(blob: BlobId) -> str:
        (tmp_path / blob).unlink()
        return "the weights are not here"

    scene = Scene(tmp_path, drop)
    await scene.fetch()
    assert scene.node.seen[-1] == inputs.FetchFailed(BLOB, "the weights are not here")
    assert scene.node.kinds() == ["Resumed", "FetchFailed"]


async def test_a_failed_fetch_is_a_sentence_and_blames_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> PeerId:
        raise UnreachableError("nobody answers")

    monkeypatch.setattr(drivers, "fetch_from_any", fail)
    scene = Scene(tmp_path, approve)
    await scene.fetch()
    assert scene.node.seen[-1] == inputs.FetchFailed(BLOB, "nobody answers")


@pytest.mark.attack
async def test_who_gave_wrong_bytes_is_not_asked_for_that_blob_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many fetches later, and after its ban has ended; other blobs are another matter."""
    asked: list[tuple[BlobId, tuple[PeerId, ...]]] = []

    async def lie(
        transport: Any, sources: Any, blob: BlobId, size: int, folder: Path, timeout_s: float, lied: Any
    ) -> PeerId:
        asked.append((blob, sources))
        if LIAR in sources:
            lied(LIAR, RemoteProtocolError(Offence.WRONG_BYTES, "chunk 2 does not match"))
        raise UnreachableError("nobody answers")

    monkeypatch.setattr(drivers, "fetch_from_any", lie)
    scene = Scene(tmp_path, approve)
    other = BlobId(Ref("b" * 64))
    for blob in (BLOB, BLOB, other, BLOB, other):
        scene.node.seen.clear()
        await scene.fetch(Fetch(blob, 4, (LIAR, SOURCE), 5.0))
    assert asked == [
        (BLOB, (LIAR, SOURCE)),
        (BLOB, (SOURCE,)),
        (other, (LIAR, SOURCE)),
        (BLOB, (SOURCE,)),
        (other, (SOURCE,)),
    ]


async def test_it_knows_whether_a_checkpoint_is_being_written(tmp_path: Path) -> None:
    scene = Scene(tmp_path, approve)
    ends = inputs.Saved(1, 0.1), inputs.TrainerLost("died", 1.0), inputs.LearnFailed("checkpoint", "full")
    for end in ends:
        scene.node.answers[inputs.Leaving] = [Checkpoint(b"")]
        scene.driver.feed(inputs.Leaving())
        scene.driver.feed(inputs.LearnFailed("mix", "weights are gone"))
        assert scene.driver.saving
        scene.driver.feed(end)
        assert not scene.driver.saving


async def test_an_input_from_within_an_effect_waits_for_its_turn(tmp_path: Path) -> None:
    scene = Scene(tmp_path, approve)
    statements: list[Any] = ["first", "second"]
    scene.node.answers[inputs.Resumed] = [*map(Sign, statements), Note("said")]
    scene.driver.feed(inputs.Resumed())
    assert scene.notes == ["said"]
    assert scene.journal.entries == ["Resumed", "Signed", "Signed"]
    assert scene.node.seen[1:] == [*map(inputs.Signed, statements)]


async def test_a_timer_set_again_fires_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, approve)
    for _ in range(3):
        scene.node.answers[inputs.Resumed] = [SetTimer("tick", 0.01)]
        scene.driver.feed(inputs.Resumed())
    async with asyncio.timeout(10):
        while "TimerFired" not in scene.node.kinds():
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert scene.node.kinds().count("TimerFired") == 1


async def test_nothing_is_carried_out_after_the_end(tmp_path: Path) -> None:
    scene = Scene(tmp_path, approve)
    scene.node.answers[inputs.Resumed] = [SetTimer("tick", 0.01)]
    scene.driver.feed(inputs.Resumed())
    await scene.driver.close()
    scene.driver.feed(inputs.Resumed())
    await asyncio.sleep(0.05)
    assert scene.node.kinds() == ["Resumed"]


async def test_a_peer_is_turned_away_for_as_long_as_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 100.0
    monkeypatch.setattr(drivers, "now", lambda: clock)
    scene = Scene(tmp_path, approve)
    assert not scene.driver.refuses(SOURCE)
    scene.node.answers[inputs.Resumed] = [Hangup(SOURCE, "rude", refuse_s=30.0)]
    scene.driver.feed(inputs.Resumed())
    assert scene.transport.hung_up == ["rude"]
    assert scene.driver.refuses(SOURCE)
    clock = 130.0
    assert not scene.driver.refuses(SOURCE)
