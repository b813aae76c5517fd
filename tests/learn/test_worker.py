"""The real process over real pipes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2ptrain.core.blobid import hash_blob
from p2ptrain.core.effects import Checkpoint, Combine, Drop, Evaluate, Guide, Halt, Publish, Train
from p2ptrain.core.errors import LocalProtocolError
from p2ptrain.core.inputs import Combined, Evaluated, LearnFailed, Published, Saved, Trained, TrainerReady
from p2ptrain.core.types import OWN, Ref, Slot
from p2ptrain.learn import wire
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.weights.blobs import MemoryBlobs
from p2ptrain.learn.weights.checkpoint import FolderCheckpoints

TASK = """
import os
import sys
from dataclasses import dataclass
import torch
from p2ptrain import Task
from p2ptrain.tasks import digits

@dataclass(frozen=True, kw_only=True)
class Config(digits.Config):
    fault: str = ""
    width: int = 8

def loss(net, batch):
    print("noise on stdout", flush=True)
    assert sys.stdin.read() == ""
    if net.training and cfg_fault == "memory":
        torch.empty(10**15)
    if net.training and cfg_fault == "error":
        raise KeyError("no such thing")
    return digits.task.loss(net, batch)

def model(cfg):
    global cfg_fault
    cfg_fault = cfg.fault
    return digits.task.model(cfg)

def data(cfg, split):
    print("data in", os.environ.get("P2PTRAIN_DATA"))
    return digits.data(cfg, split)

task = Task(
    "noisy", version="1", model=model, data=data, loss=loss, config=Config, prepare=digits.task.prepare
)
"""


class Trainer:
    """A worker and our two ends of its pipes."""

    def __init__(self, folder: Path, **setup):
        self.folder = folder
        (folder / "noisy.py").write_text(TASK)
        path = os.pathsep.join([str(folder), *sys.path])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "p2ptrain.learn.process.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        folders = {"blob_folder": str(folder / "blobs"), "checkpoint_folder": str(folder / "checkpoints")}
        self.send(wire.Setup(**{"task": "digits", "threads": 1, **folders, **setup}))

    def send(self, *commands):
        for command in commands:
            self.process.stdin.write(wire.frame(command))
        self.process.stdin.flush()

    def receive(self):
        body = wire.read_body(self.process.stdout)
        return None if body is None else wire.decode_answer(body)

    def expect(self, type_):
        """Skip other answers."""
        while not isinstance(answer := self.receive(), type_):
            assert answer is not None, self.process.stderr.read().decode()
        return answer


@pytest.fixture
def start(tmp_path):
    started = []

    def make(**setup):
        started.append(Trainer(tmp_path, **setup))
        return started[-1]

    yield make
    for trainer in started:
        with trainer.process:
            trainer.process.kill()


def test_a_conversation(start):
    trainer = start()
    assert trainer.receive() == wire.Notice("training on CPU, 1 thread")
    ready = trainer.receive()
    assert isinstance(ready, TrainerReady)
    trainer.process.send_signal(signal.SIGINT)
    trainer.send(Train(10**7), Evaluate("before", (OWN,)), Publish("p"))
    before = trainer.expect(Evaluated)
    published = trainer.expect(Published)
    time.sleep(0.3)
    trainer.send(Evaluate("after", (OWN, published.blob)))
    after = trainer.receive()
    assert after.losses[0] < before.losses[0]
    assert after.distances[1] > 0
    a = Slot(Ref("a"))
    trainer.send(Combine("c", a, ((0.5, OWN), (0.5, published.blob))), Evaluate("x", (Ref("b"),)), Halt())
    assert trainer.receive() == Combined("c")
    assert trainer.receive() == LearnFailed("x", "there are no weights called `b`")
    trained = trainer.receive()
    assert isinstance(trained, Trained)
    assert trained.samples == trained.step * 32 > 0
    assert len(ready.layers) == 2
    gone, local = Guide(shift=Ref("b")), Guide((0, 1), local=True)
    trainer.send(Train(3, guide=gone), Train(2, guide=local))
    assert trainer.receive() == LearnFailed("train", "there are no weights called `b`")
    assert trainer.receive().step == trained.step + 2
    content = (trainer.folder / "blobs" / published.blob).read_bytes()
    assert (hash_blob(content), len(content)) == (published.blob, ready.blob_bytes)
    accept_and_refuse(trainer, content)
    trainer.send(Drop(published.blob), Checkpoint(b"mind"), wire.Quit())
    assert trainer.receive().step == trained.step + 2
    assert trainer.receive() is None
    assert trainer.process.wait() == 0
    assert not (trainer.folder / "blobs" / published.blob).exists()


def accept_and_refuse(trainer, content):
    """Put blobs into the folder as a fetch would; the worker survives all of them."""
    nan = content[:-4] + b"\0\0\xc0\x7f"
    for data, verdict in {
        content: None,
        content[:-1]: "instead of",
        nan: "not finite",
        content[:100] + b"!" + content[101:]: "another model",
        b"": "not here",
        content[:-1] + b"\x7e": "weights of length",
    }.items():
        blob = hash_blob(data)
        (trainer.folder / "blobs" / blob).write_bytes(data)
        trainer.send(wire.Accept(blob))
        answer = trainer.receive()
        assert answer.blob == blob
        if verdict is None:
            assert answer == wire.Accepted(blob)
        else:
            assert verdict in answer.reason


def test_a_kill_never_leaves_a_broken_checkpoint(start):
    fingerprint = Engine(wire.Setup(task="digits"), MemoryBlobs())._fingerprint
    saved_step = 0
    for pause_s in (0.0, 0.013):
        trainer = start()
        assert trainer.expect(TrainerReady).step >= saved_step
        trainer.send(Train(10**7))
        for _ in range(30):
            trainer.send(Checkpoint(b"m" * 1000))
            saved_step = trainer.expect(Saved).step
        trainer.send(*[Checkpoint(b"m" * 1000)] * 200)
        time.sleep(pause_s)
        trainer.process.kill()
        trainer.process.wait()
        state, notices = FolderCheckpoints(trainer.folder / "checkpoints").load(fingerprint)
        assert notices == []
        assert state.facts.step >= saved_step > 0
        assert state.facts.memory == b"m" * 1000


def test_it_ends_with_its_daemon(start):
    trainer = start()
    trainer.expect(TrainerReady)
    trainer.send(Train(10**7))
    trainer.process.stdin.close()
    assert trainer.process.wait(10) == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("memory", "out of memory"), ("error", "the task failed (KeyError: 'no such thing')")],
)
def test_a_task_that_fails(start, fault, reason):
    trainer = start(task="noisy:task", task_config={"fault": fault}, data="my sets")
    trainer.expect(TrainerReady)
    trainer.send(Evaluate("e", (OWN,)), Train(1))
    assert trainer.expect(Evaluated).examples == 216
    crashed = trainer.expect(wire.Crashed)
    assert reason in crashed.reason
    assert crashed.hint
    assert trainer.receive() is None
    assert trainer.process.wait() == 1
    said = trainer.process.stderr.read()
    assert b"noise on stdout" in said
    assert b"data in my sets" in said


def test_the_owner_may_have_it_work_less_at_any_time(start):
    trainer = start(duty=0.05)
    trainer.expect(TrainerReady)
    steps = []
    for limits in (wire.Limits(duty=0.05), wire.Limits(duty=1.0), wire.Limits(duty=0.05)):
        trainer.send(limits, Train(10**7))
        time.sleep(1.0)
        before = sum(steps)
        trainer.send(Halt())
        steps.append(trainer.expect(Trained).step - before)
    assert max(steps[0], steps[2]) < 0.4 * steps[1]
    assert min(steps) > 0


def test_a_task_that_is_not_here(start):
    trainer = start(task="digit")
    assert trainer.receive() == wire.Crashed("there is no task `digit` here", "did you mean `digits`?")
    assert trainer.process.wait() == 1


def test_frames():
    setup = wire.Setup(task="digits", task_config={"width": 3, "lr": 0.5, "x": None})
    head, body = wire.frame(setup)[: wire.HEAD_BYTES], wire.frame(setup)[wire.HEAD_BYTES :]
    assert wire.body_bytes(head) == len(body)
    assert wire.decode_setup(body) == setup
    with pytest.raises(LocalProtocolError):
        wire.frame(Checkpoint(bytes(wire.FRAME_BYTES_MAX)))
    with pytest.raises(LocalProtocolError):
        wire.body_bytes(b"HTTP")


def test_the_daemon_needs_no_torch():
    code = """
import sys
from p2ptrain.learn import task, wire
task.known()
assert "torch" not in sys.modules
"""
    path = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
