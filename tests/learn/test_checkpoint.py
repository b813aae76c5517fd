"""A checkpoint is all there is to a run, and a broken one is never the end of it."""

import math

import pytest
import torch

from p2ptrain.core.effects import Adopt, Checkpoint, Combine, Train
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.inputs import LearnFailed, Saved
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.learn.weights.checkpoint import (
    LATEST,
    PART,
    PREVIOUS,
    REFUSED,
    FolderCheckpoints,
    MemoryCheckpoints,
)

A = Slot(Ref("a"))


@pytest.fixture(params=["folder", "memory"])
def stores(request, tmp_path):
    """Return what opens the same store again and again."""
    memory = MemoryCheckpoints()
    return (lambda: FolderCheckpoints(tmp_path)) if request.param == "folder" else lambda: memory


def weights(engine):
    return engine._trainer.vector.flat.clone()


@pytest.mark.parametrize("name", ["toys:plain", "toys:normed", "fashion"])
def test_going_on_is_exact(engine, stores, name):
    steps = 6 if name == "fashion" else 50
    straight = engine(name, steps=2 * steps)
    straight.perform(Combine("c", A, ((0.5, OWN),)))
    straight.perform(Adopt("a", OWN, lr_scale=0.3))
    straight.perform(Train(steps))
    first = engine(name, steps=2 * steps, checkpoints=stores())
    first.perform(Combine("c", A, ((0.5, OWN),)))
    first.perform(Adopt("a", OWN, lr_scale=0.3))
    first.perform(Train(steps))
    assert isinstance(first.perform(Checkpoint(b"mind")), Saved)
    first.perform(Train(3))
    for _ in range(2):
        second = engine(name, steps=2 * steps, checkpoints=stores())
        ready = second.ready()
        assert (ready.step, ready.samples, ready.memory) == (
            steps,
            first.ready().samples * steps // (steps + 3),
            b"mind",
        )
        assert torch.equal(weights(second), weights(straight))
        trained = second.perform(Train(steps))
    assert trained.loss == straight.perform(Train(steps)).loss
    assert torch.equal(weights(second), weights(straight))
    assert torch.equal(second._refs.get(A), straight._refs.get(A))


@pytest.fixture
def saved(engine, tmp_path):
    """A folder with two checkpoints, of steps 5 and 10."""
    one = engine(checkpoints=FolderCheckpoints(tmp_path))
    for _ in range(2):
        one.perform(Train(5))
        one.perform(Checkpoint(b""))
    return tmp_path


def damage(content: bytes) -> dict[str, bytes]:
    flipped = bytearray(content)
    flipped[-20] ^= 1
    return {
        "empty": b"",
        "truncated": content[:-7],
        "half": content[: len(content) // 2],
        "flipped": bytes(flipped),
        "noise": bytes(range(256)) * 20,
        "longer": content + b"x",
    }


@pytest.mark.parametrize("how", ["empty", "truncated", "half", "flipped", "noise", "longer"])
def test_a_damaged_file_falls_back_to_the_one_before(engine, saved, how):
    latest = saved / LATEST
    latest.write_bytes(damage(latest.read_bytes())[how])
    again = engine(checkpoints=FolderCheckpoints(saved))
    assert again.ready().step == 5
    assert len(again.notices) == 1
    assert LATEST in again.notices[0]
    assert (saved / REFUSED).exists()
    again.perform(Checkpoint(b""))
    assert engine(checkpoints=FolderCheckpoints(saved)).notices == []


def test_all_damaged_starts_from_scratch(engine, saved):
    for name in (LATEST, PREVIOUS):
        (saved / name).write_bytes(b"x")
    again = engine(checkpoints=FolderCheckpoints(saved))
    assert again.ready().step == 0
    assert len(again.notices) == 2


def test_another_task_starts_from_scratch(engine, saved):
    other = engine("toys:normed", checkpoints=FolderCheckpoints(saved))
    assert other.ready().step == 0
    assert "another task" in other.notices[0]


def test_a_half_written_file_is_not_looked_at(engine, saved):
    (saved / PART).write_bytes(b"half")
    assert engine(checkpoints=FolderCheckpoints(saved)).ready().step == 10


def test_killed_between_the_renames(engine, saved):
    (saved / LATEST).rename(saved / PREVIOUS)
    assert engine(checkpoints=FolderCheckpoints(saved)).ready().step == 10


def test_a_disk_that_refuses(engine, tmp_path, monkeypatch):
    one = engine(checkpoints=FolderCheckpoints(tmp_path))

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    answer = one.perform(Checkpoint(b""))
    assert isinstance(answer, LearnFailed)
    assert answer.tag == "checkpoint"
    assert "No space left" in answer.reason


def test_diverged_runs_are_saved_as_they_are(engine, tmp_path):
    one = engine(task_config={"lr": 3e38}, checkpoints=FolderCheckpoints(tmp_path))
    one.perform(Train(20))
    assert isinstance(one.perform(Checkpoint(b"")), Saved)
    again = engine(task_config={"lr": 3e38}, checkpoints=FolderCheckpoints(tmp_path))
    assert again.ready().step == 20
    assert math.isnan(weights(again).sum())
    with pytest.raises(WeightsError):
        again.accept(OWN)
