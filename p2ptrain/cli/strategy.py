"""`strategy`: how peers can cooperate, built in, installed or somebody's own: list, show, check."""

import inspect
import sys
from typing import Any

import click

from p2ptrain.cli.here import look_here
from p2ptrain.cli.output import Exit, json_option, say, table, write_json

BUILT_IN = "built in"


@click.group()
def strategy() -> None:
    """See how peers can cooperate, and try a way of your own."""


@strategy.command("list", epilog="\b\nExample:\n  p2ptrain strategy list")
@json_option
def list_(json_file: str | None) -> None:
    """List the strategies that are here: built in, or installed with a package."""
    from p2ptrain import strategies

    found = [{"name": name, "from": BUILT_IN, "what": _sentence(name)} for name in strategies.names()]
    found += [{"name": name, "from": place, "what": ""} for name, place in strategies.installed().items()]
    if json_file is not None:
        write_json({"strategies": found}, json_file)
        return
    click.echo(table([["NAME", "FROM", "WHAT"], *([one["name"], one["from"], one["what"]] for one in found)]))


@strategy.command("show", epilog="\b\nExample:\n  p2ptrain strategy show gossip")
@click.argument("name", metavar="STRATEGY")
@json_option
def show(name: str, json_file: str | None) -> None:
    """Show a strategy: its settings, what they mean, and its messages."""
    from p2ptrain.strategies import load

    look_here(name)
    rules = load(name)
    document = inspect.getdoc(sys.modules[rules.build.__module__]) or ""
    settings = _settings(rules.config)
    messages = [message.__name__ for message in rules.messages]
    if json_file is not None:
        answer = {"name": name, "document": document, "settings": settings, "messages": messages}
        write_json(answer, json_file)
        return
    click.echo(f"{document}\n")
    rows = [[one["name"], str(one["default"]), one["meaning"]] for one in settings]
    click.echo(table([["SETTING", "DEFAULT", "MEANING"], *rows]))
    click.echo(f"\nmessages of its own: {', '.join(messages) or 'none'}")


@strategy.command(
    "check",
    epilog="\b\nExamples:\n  p2ptrain strategy check gossip\n  p2ptrain strategy check my_way:Strategy",
)
@click.argument("name", metavar="STRATEGY")
@json_option
def check(name: str, json_file: str | None) -> None:
    """Try a strategy in small simulated swarms, in all weathers, and say what fails, one sentence each."""
    from p2ptrain.sim.conformance import examine

    look_here(name)
    findings = []
    for requirement, fault in examine(name):
        findings.append({"requirement": requirement, "ok": not fault, "fault": fault})
        if json_file is None:
            click.echo(f"{'✖' if fault else '✔'} {requirement}" + (f": {fault}" if fault else ""))
    failed = sum(not one["ok"] for one in findings)
    if json_file is not None:
        write_json({"strategy": name, "ok": not failed, "findings": findings}, json_file)
    elif failed:
        say(f"{failed} of {len(findings)} requirements are not met")
    else:
        say(f"all {len(findings)} requirements are met: `p2ptrain swarm create --strategy {name}`")
    if failed:
        raise click.exceptions.Exit(Exit.FAILED)


def _sentence(name: str) -> str:
    from p2ptrain.strategies import load

    document = inspect.getdoc(sys.modules[load(name).build.__module__]) or ""
    return document.split("\n\n")[0].replace("\n", " ")


def _settings(config: Any) -> list[dict[str, Any]]:
    """Return the fields of a config; what they mean stands in its docstring, a line each."""
    import msgspec

    meanings: dict[str, str] = {}
    for line in (inspect.getdoc(config) or "").splitlines():
        names, colon, meaning = line.partition(": ")
        if colon and all(name.isidentifier() for name in names.split(", ")):
            meanings |= dict.fromkeys(names.split(", "), meaning)
    fields = msgspec.inspect.type_info(config).fields  # type: ignore[attr-defined]
    return [
        {"name": one.name, "default": _plain(one.default), "meaning": meanings.get(one.name, "")}
        for one in fields
    ]


def _plain(default: Any) -> Any:
    return default if isinstance(default, bool | int | float | str) else None
