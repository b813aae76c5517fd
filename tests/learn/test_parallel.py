"""Several devices of one computer train as one would; here two processes on a CPU."""

import signal
import subprocess
import sys

import psutil
import pytest
import torch

from p2ptrain.core.effects import Adopt, Combine, Evaluate, OptimizerState, Publish, Train
from p2ptrain.core.errors import ConfigError
from p2ptrain.core.inputs import Trained
from p2ptrain.core.types import OWN
from p2ptrain.learn import wire
from p2ptrain.learn.device import choose_all
from p2ptrain.learn.engine import Engine
from p2ptrain.learn.training import parallel
from p2ptrain.learn.weights.blobs import MemoryBlobs

TOGETHER = "cpu,cpu"
NO_CHANCE = {"dropout": 0.0}


@pytest.fixture
def build():
    engines = []

    def make(device, **setup):
        engine = Engine(
            wire.Setup(
                **{"task": "digits", "task_config": NO_CHANCE, "device": device, "threads": 1, **setup}
            ),
            MemoryBlobs(),
        )
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        if isinstance(engine._trainer.group, parallel.Leader):
            engine._trainer.group.close()


def losses(engine, steps):
    """Train, and have the weights changed now and then as a strategy would."""
    found = []
    for step in range(steps):
        found.append(engine.perform(Train(1, step // 10)).loss)
        if step == 20:
            blob = engine.perform(Publish("p")).blob
        if step == 30:
            engine.perform(Adopt("a", blob, OptimizerState.RESET, 0.5))
        if step == 35:
            engine.perform(Evaluate("e", (OWN, blob)))
        if step == 40:
            engine.perform(Combine("c", OWN, ((0.5, OWN), (0.5, blob))))
    return found


def test_two_take_the_steps_of_one_until_one_is_killed(build):
    drawn = {"parts": 3, "formation": "hybrid"}
    alone, together = build("cpu", **drawn), build(TOGETHER, **drawn)
    assert together.notices == ["together with cpu"]
    assert losses(together, 50) == pytest.approx(losses(alone, 50), abs=1e-5)
    (helper,) = together._trainer.group._helpers
    helper.kill()
    assert losses(together, 5) == pytest.approx(losses(alone, 5), abs=1e-5)
    assert together.notices[1:] == ["training goes on with cpu alone: the helper for cpu ended with -9"]
    torch.testing.assert_close(together._trainer.vector.flat, alone._trainer.vector.flat, rtol=0, atol=1e-4)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="this system cannot stop a process")
def test_who_does_not_answer_is_given_up(build, monkeypatch):
    monkeypatch.setattr(parallel, "SILENCE_S", 1.0)
    together = build(TOGETHER, task_config={"batch_size": 1})
    together.perform(Train(3))  # the helper's share is empty
    (helper,) = together._trainer.group._helpers
    helper.send_signal(signal.SIGSTOP)
    assert together.perform(Train(3)).step == 6
    assert "training goes on with cpu alone" in together.notices[-1]
    assert helper.poll() is not None


def test_without_helpers_one_trains_alone(build, monkeypatch):
    monkeypatch.setattr(parallel.sys, "executable", "false")
    one = build(TOGETHER)
    assert one.perform(Train(3)).step == 3
    (notice,) = one.notices
    assert notice.startswith("training on cpu alone: the helper for cpu did not start")


def test_no_helper_outlives_the_trainer(tmp_path):
    folders = {"blob_folder": str(tmp_path / "b"), "checkpoint_folder": str(tmp_path / "c")}
    setup = wire.Setup(task="digits", device=TOGETHER, threads=1, precision="f32", **folders)
    command = [sys.executable, "-m", "p2ptrain.learn.process.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        try:
            worker.stdin.write(wire.frame(setup) + wire.frame(Train(3)))
            worker.stdin.flush()
            while not isinstance(wire.decode_answer(wire.read_body(worker.stdout)), Trained):
                pass
            (helper,) = psutil.Process(worker.pid).children()
        finally:
            worker.kill()
    assert psutil.wait_procs([helper], timeout=20)[0] == [helper]


@pytest.mark.parametrize("names", ["cpu,mps", "cuda:0,cpu", "cpu,", ",", "cuda:all"])
def test_devices_that_cannot_train_together(names):
    if names == "cuda:all" and torch.cuda.is_available():
        pytest.skip("there are GPUs here")
    with pytest.raises(ConfigError):
        choose_all(names)


def test_one_name_is_one_device():
    assert choose_all("cpu") == [torch.device("cpu")]
    assert choose_all("cpu, cpu") == [torch.device("cpu")] * 2
