"""Loops of people's own, each with a real daemon: this process takes the steps of all of them."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import p2ptrain
from p2ptrain import Attached, own_loop
from p2ptrain.control.client import Client
from p2ptrain.core.errors import ConfigError, ManifestError, P2PTrainError
from p2ptrain.tasks import digits
from tests.daemon.helpers import MARK, end_all, processes, until
from tests.daemon.helpers import p2ptrain as command

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 200
EXCHANGE_STEPS = 10


def pictures(split: str) -> tuple[Tensor, Tensor]:
    images, classes = digits.data(digits.Config(), split).tensors
    return images.float() / 16, classes


def small(width: int = 24) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))


def accuracy(net: nn.Module) -> float:
    images, classes = pictures("test")
    return float((net(images).argmax(1) == classes).float().mean())


class Loop:
    """A script: a net, an optimiser, and some of the classes."""

    def __init__(self, home: Path, classes: range = range(10), **options: Any) -> None:
        self.net = options.pop("net", None) or small()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)
        images, labels = pictures("train")
        mine = torch.isin(labels, torch.tensor(list(classes)))
        self.images, self.labels = images[mine], labels[mine]
        self.swarm: Attached | None = None
        self.options = {"held_out": pictures("test"), "home": home, "optimizer": self.optimizer, **options}

    def attach(self) -> Attached:
        self.swarm = p2ptrain.attach(self.net, **self.options)
        return self.swarm

    def train(self, steps: int = 1) -> None:
        for _ in range(steps):
            batch = torch.randint(len(self.images), (32,))
            self.optimizer.zero_grad()
            cross_entropy(self.net(self.images[batch]), self.labels[batch]).backward()
            self.optimizer.step()
            if self.swarm is not None:
                self.swarm.step(32)

    def train_until(self, question: Callable[[], object], what: str) -> None:
        def step_and_ask() -> object:
            self.train()
            return question()

        until(step_and_ask, what)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for homes; what is started has ended at the end, and is looked for."""
    monkeypatch.setenv(MARK, str(tmp_path))
    monkeypatch.setattr(own_loop, "RETRY_FIRST_S", 0.1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text("[network]\nlan = false\nmap_port = false\n")
    yield tmp_path
    end_all(tmp_path)


def let_the_swarm_in(*loops: Loop) -> None:
    """Wait until all are mixed, as if steps took long; some weights are refused, so not for ever."""
    before = [accuracy(loop.net) for loop in loops]
    for _ in range(10):
        if all(accuracy(loop.net) != was for loop, was in zip(loops, before, strict=True)):
            return
        for loop in loops:
            assert loop.swarm is not None
            loop.swarm.wait_for(1, 0.05)


def daemons(folder: Path) -> list[int]:
    return [process.pid for process in processes(folder)]


QUICK = {"strategy_config": {"exchange_steps": EXCHANGE_STEPS}, "spread_config": {"period_s": 0.5}}


# -- together --------------------------------------------------------------------------------------


def test_two_loops_that_know_half_of_the_classes_each_know_all_of_them(folder: Path) -> None:
    low, high = (
        Loop(folder / "a", range(5), swarm="t", steps=STEPS, **QUICK),
        Loop(folder / "b", range(5, 10)),
    )
    for alone in (low, high):
        alone.train(STEPS)
        assert accuracy(alone.net) < 0.55
    first = low.attach()
    high.options["invite"] = first.invite()
    with first, high.attach() as second:
        assert (first.slot, second.slot) == (0, 1)
        until(lambda: all([first.wait_for(1, 0.1), second.wait_for(1, 0.1)]), "they do not meet")
        while not (first.done and second.done):
            for loop in (low, high):
                loop.train(EXCHANGE_STEPS)
            let_the_swarm_in(low, high)
        until(lambda: all([first.finish(0.1), second.finish(0.1)]), "they do not agree")
    assert first.steps == STEPS
    assert min(accuracy(low.net), accuracy(high.net)) > 0.7
    for mine, theirs in zip(low.net.parameters(), high.net.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=0.05)
    assert daemons(folder) == []


def test_the_example_runs_as_two_processes(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "own_loop.py"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    members = sorted(line.split(", all")[0] for line in done.stdout.splitlines())
    assert [line.split(":")[0] for line in members] == ["member 0", "member 1"]
    assert all("agreed True" in line for line in members), done.stdout
    assert daemons(folder) == []


# -- what may go wrong -----------------------------------------------------------------------------


def test_a_dead_daemon_stops_nobody_and_comes_back_until_its_owner_stops_it(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Loop(folder / "a", swarm="t", **QUICK)
    with caplog.at_level(logging.WARNING, "p2ptrain.attach"), loop.attach() as swarm:
        loop.train_until(lambda: swarm.status().node.step > 0, "the daemon does not see any steps")
        (pid,) = daemons(folder)
        assert os.getpgid(pid) != os.getpgrp()  # or Ctrl-C would end it before it has saved
        os.kill(pid, signal.SIGKILL)
        loop.train_until(lambda: swarm.lost, "nobody noticed")
        at = swarm.steps
        loop.train_until(lambda: not swarm.lost, "it does not come back")
        loop.train_until(lambda: swarm.status().node.step > at, "it does not go on where it was")
        Client(folder / "a" / "control.json").stop()
        loop.train_until(lambda: swarm.lost, "it does not stop")
        assert not swarm.finish(0.1)
        until(lambda: daemons(folder) == [], "it does not end")
        loop.train(3)
    assert [record.message for record in caplog.records] == [
        "p2ptrain's daemon has ended; training goes on alone",
        "the swarm is back",
        "p2ptrain was stopped; training goes on alone until `attach` is called again",
    ]


def test_a_loop_that_fails_leaves_nothing_behind_and_goes_on_where_it_was(folder: Path) -> None:
    loop = Loop(folder / "a", swarm="t")
    with contextlib.suppress(ZeroDivisionError), loop.attach():
        loop.train(7)
        raise ZeroDivisionError
    assert daemons(folder) == []
    weights = [parameter.clone() for parameter in loop.net.parameters()]
    assert len({parameter.untyped_storage().data_ptr() for parameter in loop.net.parameters()}) == len(
        weights
    )
    loop.swarm = None
    loop.train(5)  # it may go on alone
    with pytest.raises(P2PTrainError, match=r"the swarm t \(\w+\) was made with steps 0, not 9"):
        Loop(folder / "a", swarm="t", steps=9).attach()
    again = Loop(folder / "a", swarm="t", strategy="gossip")
    swarm = again.attach()
    assert (swarm.steps, swarm.samples) == (7, 224)
    assert all(map(torch.equal, again.net.parameters(), weights))
    assert again.optimizer.state_dict()["state"][0]["momentum_buffer"] is not None
    assert swarm._line is not None
    swarm._line.hang_up()  # as the system does for who is killed
    until(lambda: daemons(folder) == [], "the daemon of who was killed stays")
    swarm.close()


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "it is not said which swarm"),
        ({"swarm": "t", "held_out": None}, "nobody's weights could be judged"),
        ({"swarm": "t", "evaluate": lambda net: 1.0}, "nobody's weights could be judged"),
        ({"swarm": "t", "held_out": (3, 4)}, "`held_out` cannot be indexed"),
    ],
)
def test_what_is_missing_is_said_at_once(folder: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Loop(folder / "a", **options).attach()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": "gosip"}, "did you mean `gossip`"),
        ({"colour": "blue"}, "there can be no such swarm.*colour"),
    ],
)
def test_a_swarm_that_cannot_be_made_leaves_the_net_alone(
    folder: Path, options: dict[str, Any], said: str
) -> None:
    loop = Loop(folder / "a", swarm="t", **options)
    before = [parameter.clone() for parameter in loop.net.parameters()]
    with pytest.raises(P2PTrainError, match=said):
        loop.attach()
    assert all(map(torch.equal, loop.net.parameters(), before))
    assert daemons(folder) == []


def test_two_loops_cannot_share_a_home_nor_differ(folder: Path) -> None:
    with Loop(folder / "a", swarm="t").attach() as swarm:
        with pytest.raises(P2PTrainError, match=r"already running.*\n.*another `home`"):
            Loop(folder / "a", swarm="t").attach()
        invite = swarm.invite()
        other = Loop(folder / "b", invite=invite, net=small(width=25))
        with pytest.raises(
            ManifestError, match=r"it has `1.weight` \[25, 64\], and the swarm's `1.weight` \[24, 64\]"
        ):
            other.attach()
        assert len(daemons(folder)) == 1
        said = command("--home", folder / "c", "join", invite, "--yes")
        assert said.code == 2
        assert "train in scripts of their own" in said.err
        assert "p2ptrain.attach(net, invite=" in said.err
    assert "train in scripts of their own" in command("--home", folder / "a", "start").err


def test_a_loop_may_take_part_in_the_swarm_of_a_task(folder: Path) -> None:
    made = command(
        "--home", folder / "a", "swarm", "create", "--task", "digits", "--set", "width=24", "--name", "t"
    )
    assert made.code == 0, made.err
    net = digits.task.model(digits.task.configure({"width": 24}))
    with Loop(folder / "a", swarm="t", net=net).attach() as swarm:
        swarm.step(32)
    with pytest.raises(ManifestError, match="not the swarm's"):
        Loop(folder / "a", swarm="t", net=small(23)).attach()
