"""Wrong words on the command line: a sentence, what to do, exit code 2, and nothing made by halves."""

import math
from pathlib import Path

import pytest

from p2ptrain.core.manifest import Manifest
from p2ptrain.daemon.swarms import Swarms
from p2ptrain.net.trust.identity import Identity
from tests.daemon.helpers import Home, Outcome, p2ptrain


def is_refused(said: Outcome, *words: str) -> None:
    assert said.code == 2, said
    assert said.out == ""
    for word in words:
        assert word in said.err, said.err


UNKNOWN = [
    (["--task", "fasion"], ["no task `fasion`", "did you mean `fashion`?"]),
    (["--task", "zebra"], ["no task `zebra`", "digits, fashion"]),
    (["--task", "nowhere:task"], ["`nowhere:task` cannot be loaded", "install the package"]),
    (["--task", "digits", "--set", "lrr=1"], ["no setting `lrr`", "did you mean `lr`?"]),
    (["--task", "digits", "--set", "lr=fast"], ["a setting of the task digits is wrong", "float"]),
    (["--strategy", "gosip"], ["no strategy `gosip`", "gossip"]),
    (["--strategy-set", "exchange_step=5"], ["no setting `exchange_step`", "did you mean `exchange_steps`?"]),
    (["--strategy-set", "exchange_steps=0"], ["a setting of the strategy `gossip` is wrong", ">= 1"]),
    (["--spread-set", "perod_s=1"], ["no setting `perod_s`", "did you mean `period_s`?"]),
    (["--strategy-set", "exchange_steps"], ["`exchange_steps` is not name=value"]),
    (["--set", "lr=[1]"], ["lr", "wrong"]),
    (["--codec", "f16"], ["'f16' is not one of", "bf16"]),
    (["--target-loss", "nan"], ["target"]),
    (["--parts", "0"], ["parts"]),
    (["--parts", "-3"], ["parts"]),
    (["--steps", "-1"], ["steps"]),
    (["--seed", "-1"], ["seed"]),
]
unknown = pytest.mark.parametrize(("options", "words"), UNKNOWN, ids=[" ".join(o) for o, _ in UNKNOWN])


@unknown
def test_swarm_create_refuses_what_is_not_there_and_makes_no_swarm(
    options: list[str], words: list[str], home: Home
) -> None:
    is_refused(home.call("swarm", "create", *options), *words)
    assert home.call("swarm", "list", "--json").json == {"swarms": []}


@unknown
def test_simulate_refuses_what_is_not_there(options: list[str], words: list[str]) -> None:
    named = options[1] if options[0] == "--task" else "digits"
    rest = options[2:] if options[0] == "--task" else options
    is_refused(p2ptrain("simulate", named, "--peers", "2", "--steps", "1", *rest), *words)


@pytest.mark.parametrize("text", ["soon", "1..2s", "-3h", "", "5", "1h-", ".", "99999999999d"])
def test_what_is_no_duration_is_refused(text: str, home: Home) -> None:
    home.found(task="digits")
    is_refused(home.call("invite", "--expires", text), "--expires")


@pytest.mark.parametrize("text", ["fast", "1.2.3MB", "-1", ".", "5 parsecs"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    is_refused(p2ptrain("simulate", "toy", "--upload", text), "is no rate; write 2MB or 5Mbit")


@pytest.mark.parametrize("text", ["150%", "-0.1", "half", "nan", "inf"])
def test_what_is_no_share_is_refused(text: str) -> None:
    is_refused(p2ptrain("simulate", "toy", "--loss", text), "is no share; write 30% or 0.3")


@pytest.mark.parametrize(
    "option",
    ["--loss", "--duplicate", "--reorder", "--churn", "--partition", "--slow", "--clock-jumps"],
)
def test_all_of_a_fault_is_a_world_too(option: str) -> None:
    done = p2ptrain("simulate", "toy", "--peers", "4", "--for", "10s", option, "100%", "--json")
    assert done.code == 0, done.err
    assert not math.isnan(done.json["virtual_s"])


@pytest.mark.parametrize("nothing", ["--latency=0s", "--upload=0", "--step-time=0s", "--for=0s"])
def test_nothing_of_a_quantity_is_a_world_too(nothing: str) -> None:
    assert p2ptrain("simulate", "toy", "--peers", "3", "--for", "5s", "--steps", "10", nothing).code == 0


@pytest.mark.parametrize("impossible", ["--liars=100%", "--session=0s", "--peers=0"])
def test_a_world_that_cannot_be_is_refused(impossible: str) -> None:
    is_refused(p2ptrain("simulate", "toy", impossible), impossible.partition("=")[0])


def test_start_with_an_unknown_task_makes_no_swarm(home: Home) -> None:
    is_refused(home.call("start", "--task", "fasion"), "no task `fasion`", "did you mean `fashion`?")
    assert home.call("swarm", "list", "--json").json == {"swarms": []}


def test_a_task_cannot_be_chosen_for_a_swarm_that_is_there_already(home: Home) -> None:
    """Training something else than was asked for, without a word, would be worse."""
    home.found(task="digits")
    is_refused(home.call("start", "--task", "fashion"), "`test`", "digits", "swarm create --task fashion")


def test_a_swarm_that_is_not_there_is_answered_with_those_that_are(home: Home) -> None:
    is_refused(home.call("start", "friends"), "this computer is in no swarm", "`p2ptrain start` makes one")
    home.found(task="digits")
    is_refused(home.call("start", "friends"), "there is no swarm called `friends`", "known are: test (")


def test_a_name_that_two_swarms_have_is_asked_about(home: Home) -> None:
    home.found(task="digits")
    home.found(task="digits")
    is_refused(home.call("swarm", "show", "test"), "more than one swarm is called `test`")
    ids = [swarm["id"] for swarm in home.call("swarm", "list", "--json").json["swarms"]]
    assert [home.call("swarm", "show", id_[:8], "--json").json["id"] for id_ in ids] == ids


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    is_refused(p2ptrain("--home", tmp_path / "file", "swarm", "create"), "home folder", "--home")


def test_an_answer_that_cannot_be_written_is_a_sentence(home: Home, tmp_path: Path) -> None:
    home.found(task="digits")
    is_refused(home.call("swarm", "list", "--json", tmp_path / "no" / "answer.json"), "cannot be written")


@pytest.mark.parametrize("option", ["--picture", "--json"])
def test_the_demo_finds_out_first_that_its_result_cannot_be_written(option: str, tmp_path: Path) -> None:
    is_refused(p2ptrain("demo", "--peers", "2", option, tmp_path / "no" / "file"), "cannot be written")


@pytest.mark.parametrize("count", ["-5", "many"])
def test_logs_of_less_than_no_lines_are_refused(count: str, home: Home) -> None:
    is_refused(home.call("logs", "-n", count), "-n")


def test_names_of_swarms_hold_nothing_that_a_terminal_would_obey(home: Home) -> None:
    """A manifest comes with an invite, from whoever sent that."""
    identity = Identity.create()
    home.home.joinpath("swarms").mkdir()
    identity.save(home.home / "identity.pem")
    evil = Manifest(name="a\x1b[2Jb\nc\u202e", task="x:\x1b[3J")
    Swarms(home.home / "swarms").create(evil, identity, seed=1)
    for command in (["swarm", "list"], ["swarm", "show"], ["swarm", "leave", "a·[2Jb·c·", "--yes"]):
        said = home.call(*command)
        assert said.code == 0, said.err
        assert "a·[2Jb·c·" in said.out + said.err
        assert not {"\x1b", "\u202e"} & set(said.out + said.err)
