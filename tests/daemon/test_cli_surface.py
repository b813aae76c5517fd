"""What the command line offers, frozen: a new flag is a decision, and an example must work."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from p2ptrain.cli.main import COMMANDS, cli
from tests.daemon.conftest import MakeHome
from tests.daemon.helpers import p2ptrain

GOLDEN = Path(__file__).with_name("commands.txt")


def leaves(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands that do something, with the words that lead there."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield (*path, name), command


ALL = list(leaves(cli))
every_command = pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])


def describe(path: tuple[str, ...], command: click.Command) -> list[str]:
    arguments = [
        p.make_metavar(click.Context(command)) for p in command.params if p.param_type_name == "argument"
    ]
    lines = [" ".join(["p2ptrain", *path, *arguments])]
    for option in command.params:
        if isinstance(option, click.Option):
            names = ", ".join([*option.opts, *option.secondary_opts])
            takes = "" if option.is_flag else f" {option.make_metavar(click.Context(command))}"
            lines.append(f"    {names}{takes}")
    return lines


def examples(command: click.Command) -> list[list[str]]:
    """The command lines that a help text shows, without `p2ptrain` and what they are piped into."""
    lines = [line.strip() for line in (command.epilog or "").splitlines()]
    shown = [line.partition(" | ")[0] for line in lines if line.startswith("p2ptrain ")]
    return [shlex.split(line)[1:] for line in shown]


def test_commands_and_options_are_those_that_were_decided() -> None:
    """If this fails and you meant it: put the new text into commands.txt, and the reason into the commit."""
    assert "\n".join(line for leaf in ALL for line in describe(*leaf)) + "\n" == GOLDEN.read_text()


@every_command
def test_help_says_what_a_command_is_for_and_shows_an_example(
    path: tuple[str, ...], command: click.Command
) -> None:
    shown = p2ptrain(*path, "--help")
    assert shown.code == 0
    assert command.help
    assert "Example" in shown.out
    assert any(example[: len(path)] == list(path) for example in examples(command))


@every_command
def test_examples_use_options_that_exist(
    path: tuple[str, ...], command: click.Command, tmp_path: Path
) -> None:
    """The examples of the daily commands are also run, in `test_cli_daily.py`."""
    for example in examples(command):
        (tmp_path / "journal").touch()
        words = [str(tmp_path / "journal") if word.endswith("/journal") else word for word in example]
        command.make_context(" ".join(path), words[len(path) :])


def test_every_command_is_in_the_list_of_help_with_its_own_summary() -> None:
    shown = p2ptrain("--help").out
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} " in shown
        assert summary in shown


def test_examples_of_the_program_itself_use_commands_that_exist() -> None:
    named = [words[0] for words in examples(cli)]
    assert named
    assert set(named) <= set(COMMANDS)


@pytest.mark.parametrize(("typed", "meant"), [("stauts", "status"), ("invte", "invite"), ("strat", "start")])
def test_a_mistyped_command_is_met_with_the_nearest_one(typed: str, meant: str) -> None:
    said = p2ptrain(typed)
    assert said.code == 2
    assert f"no command `{typed}`" in said.err
    assert f"Did you mean `{meant}`?" in said.err


def test_a_mistyped_option_is_met_with_the_nearest_one() -> None:
    said = p2ptrain("invite", "--expire", "1d")
    assert said.code == 2
    assert "--expires" in said.err


def test_the_home_may_stand_before_and_after_the_command(homes: MakeHome) -> None:
    home = homes("named")
    assert p2ptrain("--home", home.home, "swarm", "create").code == 0
    before, after = (
        p2ptrain("--home", home.home, "swarm", "list", "--json"),
        p2ptrain("swarm", "list", "--json", "--home", home.home),
    )
    assert before == after
    assert len(before.json["swarms"]) == 1


def test_the_home_may_come_from_the_environment(homes: MakeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    home = homes("named")
    monkeypatch.setenv("P2PTRAIN_HOME", str(home.home))
    assert p2ptrain("swarm", "create").code == 0
    assert (home.home / "identity.pem").exists()
