"""A day with one daemon: look at it, pause it, go on, read what it said, end it."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec
import psutil
import pytest

from p2ptrain.control.api import PeerTraffic, Status, SwarmView
from p2ptrain.core.view import NodeView
from tests.daemon.conftest import homes_in
from tests.daemon.helpers import Home
from tests.daemon.test_cli_surface import ALL, examples

CONFIG = """\
# mine
name   =   "quiet-otter"
[network]
listen="127.0.0.1"  # nobody else's business
[training]
threads = 1
"""
STATUS_S = 0.3
STEPS_STOP_S = 2.0
IDLE_BYTES_MAX = 90_000_000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A daemon that trains alone; whoever pauses it lets it go on."""
    with homes_in(tmp_path_factory.mktemp("daily")) as make:
        home = make()
        (home.home / "config.toml").write_text(CONFIG)
        home.found()
        home.trains()
        yield home


def names(struct: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(struct)}


# -- looking ---------------------------------------------------------------------------------------


def test_status_says_in_words_what_is_done_and_why(live: Home) -> None:
    said = live.call("status")
    assert said.code == 0
    first, *rest = said.out.splitlines()
    assert first.startswith("● training  test   step ")
    words = {line[:13].strip(): line[13:].strip() for line in rest}
    assert "alone" in words["why"]
    assert "p2ptrain invite" in words["why"]
    assert live.name in words["this PC"]
    assert set(words) >= {"why", "now", "this PC", "network", "saved"}


def test_status_as_json_has_the_documented_keys(live: Home, tmp_path: Path) -> None:
    answer = live.call("status", "--json").json
    assert set(answer) == names(Status)
    assert set(answer["swarm"]) == names(SwarmView)
    assert set(answer["node"]) == names(NodeView)
    assert answer["schema"] == 1
    assert answer["home"] == str(live.home)
    assert live.call("status", "--json", tmp_path / "answer.json").out == ""
    assert set(msgspec.json.decode((tmp_path / "answer.json").read_bytes())) == names(Status)


def test_peers_of_somebody_alone_say_how_others_get_in(live: Home) -> None:
    said = live.call("peers")
    assert said == (0, "", "only you so far; `p2ptrain invite` lets others in\n")
    assert live.call("peers", "--json").json == {"schema": 1, "peers": [], "traffic": []}
    assert names(PeerTraffic) == {"peer", "path", "bytes_sent", "bytes_received"}


def test_invites_swarms_and_files_are_json_too(live: Home, tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    for words, keys in (
        (["invite"], {"invite", "expires", "uses", "addresses"}),
        (["swarm", "list"], {"swarms"}),
        (
            ["swarm", "show"],
            {"id", "name", "task", "strategy", "role", "slot", "certificate_expires", "folder"},
        ),
    ):
        assert keys <= set(live.call(*words, "--json").json)
        assert live.call(*words, "--json", file).out == ""
        assert keys <= set(msgspec.json.decode(file.read_bytes()))


def test_logs_show_the_last_lines(live: Home) -> None:
    lines = live.log.splitlines()
    assert live.call("logs", "-n", 2).out.splitlines() == lines[-2:]
    assert live.call("logs").out.splitlines() == lines
    assert live.call("logs", "-n", 0).out == ""


def test_the_control_token_is_never_in_a_log(live: Home) -> None:
    token = msgspec.json.decode(live.control.read_bytes())["token"]
    assert len(token) > 40
    for file in live.home.rglob("*"):
        if file.is_file() and file != live.control:
            assert token.encode() not in file.read_bytes(), file


def test_status_answers_at_once_while_training_and_while_paused(live: Home) -> None:
    """The median: what other tests do on this computer is not the daemon's fault."""

    def seconds() -> float:
        began = time.monotonic()
        live.now()
        return time.monotonic() - began

    assert median(seconds() for _ in range(20)) < STATUS_S
    live.call("pause")
    assert median(seconds() for _ in range(20)) < STATUS_S
    live.call("resume")


def test_settings_are_used_and_their_file_is_left_as_it_is(live: Home) -> None:
    assert live.now().name == "quiet-otter"
    assert live.now().addresses[0].startswith("127.0.0.1:")
    assert (live.home / "config.toml").read_text() == CONFIG


# -- pause and resume ------------------------------------------------------------------------------


def test_a_pause_stops_the_steps_and_resume_goes_on_where_they_stopped(live: Home) -> None:
    assert live.call("pause").code == 0
    stopped = live.now().uptime_s + STEPS_STOP_S
    step = live.until(lambda status: status.uptime_s > stopped, "time passes").node.step
    later = live.until(lambda status: status.uptime_s > stopped + 1, "time passes").node
    assert (later.state, later.reason) == ("paused", "paused by its owner")
    assert later.step == later.saved_step == step
    assert live.call("resume").code == 0
    on = live.until(lambda status: status.node.step > step, "it does not go on")
    assert on.node.state == "training"


def test_a_resume_without_a_pause_says_so(live: Home) -> None:
    assert live.call("resume") == (0, "", "it was not paused: training\n")


def test_pausing_twice_and_resuming_twice_is_once(live: Home) -> None:
    for command in ("pause", "pause", "resume", "resume"):
        assert live.call(command).code == 0
    step = live.now().node.step
    live.until(lambda status: status.node.step > step, "it does not go on")


# -- one daemon a home -----------------------------------------------------------------------------


def test_a_second_start_says_that_one_runs_already(live: Home) -> None:
    pid = live.now().pid
    for words in (["start"], ["start", "-d"]):
        said = live.call(*words)
        assert said.code == 0
        assert f"already running (pid {pid}, training)" in said.err
    assert live.now().pid == pid


def test_a_swarm_cannot_be_left_while_its_daemon_runs(live: Home) -> None:
    said = live.call("swarm", "leave", "test", "--yes")
    assert said.code == 2
    assert "already running" in said.err
    assert "p2ptrain stop" in said.err


# -- memory ----------------------------------------------------------------------------------------


def test_an_idle_daemon_takes_little_memory(live: Home) -> None:
    live.call("pause")
    used = psutil.Process(live.now().pid).memory_info().rss
    live.call("resume")
    assert used < IDLE_BYTES_MAX, (
        f"{used / 1e6:.0f} MB: a daemon that waits all day on a home PC must not be noticed; "
        "something heavy (torch?) is imported outside of the trainer"
    )


# -- examples --------------------------------------------------------------------------------------

FIRST = [("swarm", "create"), ("start",)]
LAST = [("stop",), ("swarm", "leave")]
ELSEWHERE = [("join",), ("demo",), ("simulate",), ("replay",), ("invite", "revoke")]
ELSEWHERE += [("swarm", "revoke"), ("swarm", "delegate"), ("swarm", "admit"), ("bench", "train")]
ELSEWHERE += [("task", name) for name in ("new", "show", "check", "run", "compare")]
ELSEWHERE += [("strategy", "show"), ("strategy", "check"), ("evaluate",), ("export",), ("try",)]
"""Their examples take long, or name somebody else, or an invite, a package or a file that is not there."""


def test_the_examples_of_daily_commands_work(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write a file
    shown = {path: examples(command) for path, command in ALL if path not in ELSEWHERE}
    between = [path for path in shown if path not in FIRST + LAST]
    for path in FIRST + between + LAST:
        for words in shown[path]:
            if words not in (["start"], ["logs", "-f"]):  # these two only end when they are ended
                if words[0] == "start":
                    home.command(*words)
                else:
                    assert home.call(*words).code == 0, words
    assert home.call("swarm", "list", "--json").json == {"swarms": []}
    assert home.processes == []
