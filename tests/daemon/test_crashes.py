"""kill -9 of a daemon or a trainer: the others go on, it comes back and goes on, at most a little is lost.

`kill_many.py` does the same at random moments, many times.
"""

import signal
import time
from collections.abc import Iterator

import pytest

from tests.daemon.conftest import MakeHome, homes_in
from tests.daemon.helpers import Home, Pulse, until

PAUSE_MAX_S = 2.0
STOP_MAX_S = 20.0
STEPS = 2000
"""10 s: the first checkpoint comes after 5 s."""


def swarm(*homes: Home, steps: int) -> None:
    """Let homes train together until each has a checkpoint and all are connected."""
    first, *others = homes
    first.found("--steps", str(steps), "--parts", str(len(homes)))
    first.start()
    invite = first.invite()
    for home in others:
        assert home.join(invite).code == 0
        home.start()
    for home in homes:
        home.until(lambda status: status.node.saved_step, "no checkpoint")
        home.until(lambda status: sum(peer.connected for peer in status.node.peers) == len(others), "alone")


def test_others_go_on_without_a_killed_daemon_and_it_goes_on_from_its_checkpoint(homes: MakeHome) -> None:
    survivors, victim = [homes("first"), homes("second")], homes("victim")
    swarm(*survivors, victim, steps=STEPS)
    saved = victim.now().node.saved_step
    with Pulse(*survivors) as pulse:
        victim.kill()
        until(lambda: not victim.processes, "its trainer outlives it")
        assert victim.control.exists()
        for home in survivors:
            home.until(lambda status: sum(peer.connected for peer in status.node.peers) == 1, "not noticed")
        assert victim.call("status").code == 3
        assert "not running (it was killed)" in victim.call("status").err
        victim.trains()
        assert victim.now().node.step >= saved
        assert resumed_at(victim) >= saved > 0
        for home in survivors:
            home.until(lambda status: all(peer.connected for peer in status.node.peers), "not back")
    for home in survivors:
        assert pulse.longest_s(home) < PAUSE_MAX_S
    for home in (*survivors, victim):
        done = home.until(lambda status: status.node.test_loss is not None, "it does not finish")
        assert done.node.step == STEPS


def resumed_at(home: Home) -> int:
    """The step that the last trainer began at, by the log."""
    return int(home.log.rpartition("trainer_ready step=")[2].split()[0])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Home]]:
    """Two that train without end; whoever ends one of them starts it again."""
    with homes_in(tmp_path_factory.mktemp("pair")) as make:
        pair = make("one"), make("other")
        swarm(*pair, steps=0)
        yield pair


def test_a_killed_trainer_is_started_again_and_nobody_else_notices(pair: tuple[Home, Home]) -> None:
    victim, other = pair
    downs = other.log.count("peer_down")
    before = victim.now()
    with Pulse(other) as pulse:
        victim.kill_trainer()
        lost = victim.until(lambda status: status.node.state == "recovering", "it is not missed")
        said = victim.call("status")
        if victim.now().node.state == "recovering":
            assert said.code == 5
        assert lost.node.reason == "the trainer was killed by signal 9"
        assert lost.node.until == "the next try in 1 s"
        back = victim.until(lambda status: status.node.state == "training", "it does not come back")
        step = resumed_at(victim)
        victim.until(lambda status: status.node.step > step, "it does not go on")
    assert back.pid == before.pid
    assert back.trainer_pid != before.trainer_pid
    assert step >= before.node.saved_step > 0
    assert pulse.longest_s(other) < PAUSE_MAX_S
    assert other.log.count("peer_down") == downs
    assert not other.now().notes.get("peer_charged")


def test_a_daemon_that_is_asked_to_end_saves_says_goodbye_and_leaves_nothing(pair: tuple[Home, Home]) -> None:
    leaver, other = pair
    step = leaver.now().node.step
    began = time.monotonic()
    assert leaver.terminate() == 0
    assert time.monotonic() - began < STOP_MAX_S
    assert not leaver.control.exists()
    assert leaver.processes == []
    other.until(lambda status: not status.node.peers[0].connected, "it is still there")
    assert "left: stopped by its owner" in other.log
    assert leaver.call("status").code == 3
    leaver.trains()
    assert resumed_at(leaver) >= step


def test_ctrl_c_ends_a_daemon_that_still_loads_without_waiting_for_what_is_not_there(home: Home) -> None:
    home.found()
    home.start()
    assert home.now().node.state == "starting"
    home.signal(signal.SIGINT)
    assert home.wait() == 0
    assert "could not be saved" not in home.log
    assert home.processes == []


def test_stop_now_does_not_wait_for_a_checkpoint(home: Home) -> None:
    home.found()
    home.trains()
    assert home.call("stop", "--now").code == 0
    assert home.processes == []
    assert not home.control.exists()
    assert not home.folder.checkpoint.joinpath("checkpoint.safetensors").exists()
