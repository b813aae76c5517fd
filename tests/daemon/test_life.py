"""Starting, ending, leaving: one daemon a home, and an exit code that scripts can rely on."""

import pytest

from p2ptrain.daemon.daemon import only_one
from p2ptrain.daemon.home import Home as Place
from tests.daemon.helpers import Home, until

DAILY = ("stop", "pause", "resume", "status", "peers")


@pytest.mark.parametrize("command", DAILY)
def test_a_command_to_a_daemon_that_does_not_run(command: str, home: Home) -> None:
    said = home.call(command)
    assert said == (3, "", "error: p2ptrain is not running\n  fix: `p2ptrain start` starts it\n")


@pytest.mark.parametrize("command", DAILY)
def test_a_command_to_a_daemon_that_was_killed(command: str, home: Home) -> None:
    """It left its control.json, and nobody listens there."""
    home.control.write_text(
        '{"pid":1,"port":1,"token":"t","version":"0","started_at":"","started_by":"terminal"}'
    )
    said = home.call(command)
    assert said.code == 3
    assert said.err.startswith("error: p2ptrain is not running (it was killed)\n")


def test_what_a_killed_daemon_left_does_not_keep_the_next_from_starting(home: Home) -> None:
    home.found()
    home.start()
    home.kill()
    assert home.control.exists()
    home.command("start", "-d")
    assert home.call("status").code == 0
    assert home.call("stop").code == 0
    until(lambda: home.processes == [], "something lives on")  # the trainer of the killed one, at last


def test_a_home_that_somebody_just_begins_to_use_is_left_alone(home: Home) -> None:
    home.found()
    with only_one(Place(home.home)):
        said = home.call("start")
        assert (said.code, said.err) == (0, "already running; nothing to do\n")
        said = home.call("start", "-d")
        assert (said.code, said.err) == (0, "already running; nothing to do\n")


def test_a_background_start_that_fails_says_why(home: Home) -> None:
    home.found()
    (home.home / "config.toml").write_text("[network]\nport = 'seven'\n")
    said = home.call("start", "-d")
    assert said.code == 2
    assert "network.port" in said.err


def test_started_paused_it_trains_only_when_told(home: Home) -> None:
    home.found()
    home.command("start", "-d", "--paused")
    ready = home.until(lambda status: status.node.parameters, "no trainer")
    assert (ready.node.state, ready.node.reason) == ("paused", "started paused")
    saved = home.call("status")
    assert saved.code == 0
    assert "● paused" in saved.out
    assert home.now().node.step == 0
    assert home.call("resume").code == 0
    home.until(lambda status: status.node.step, "it does not train")
    assert home.call("stop").code == 0


def test_without_a_swarm_start_makes_one_of_its_own(home: Home) -> None:
    home.command("start", "-d", "--task", "digits")
    made = home.call("swarm", "list", "--json").json["swarms"]
    assert [(swarm["name"], swarm["task"], swarm["role"]) for swarm in made] == [
        ("my-digits", "digits", "issuer")
    ]
    words = (home.home / "start.log").read_text()
    assert "made a personal one, `my-digits`" in words
    assert "`p2ptrain invite` makes an invite for others" in words
    assert home.call("stop").code == 0


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_leaving_asks_first(answer: str, home: Home) -> None:
    home.found(task="digits")
    said = home.call("swarm", "leave", "test", stdin=answer)
    assert said.code != 0
    assert "without it nobody can be admitted any more" in said.err
    assert "Leave `test" in said.err
    assert len(home.call("swarm", "list", "--json").json["swarms"]) == 1


def test_leaving_forgets_keys_weights_and_all(home: Home) -> None:
    home.found(task="digits")
    folder = home.folder.path
    said = home.call("swarm", "leave", "test", stdin="y\n")
    assert said.code == 0
    assert "left `test" in said.err
    assert not folder.exists()
    assert (home.home / "identity.pem").exists()


# -- logs ------------------------------------------------------------------------------------------


def test_there_is_no_log_before_the_first_start(home: Home) -> None:
    said = home.call("logs")
    assert said.code == 1
    assert "there is no log at" in said.err
    assert "fix: `p2ptrain start` begins one" in said.err
