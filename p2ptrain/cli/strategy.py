"""`strategy`: how peers can cooperate, built in, installed or somebody's own: list, show, check."""

import inspect
import textwrap
from typing import Any

import click

from p2ptrain.cli.described import Field, fields_of
from p2ptrain.cli.here import look_here
from p2ptrain.cli.output import Exit, json_option, say, table, write_json
from p2ptrain.cli.pages import module_of, page, sentence
from p2ptrain.core.strategy import Rules

BUILT_IN = "built in"


@click.group()
def strategy() -> None:
    """See how peers can cooperate, and try a way of your own."""


@strategy.command("list", epilog="\b\nExample:\n  p2ptrain strategy list")
@json_option
def list_(json_file: str | None) -> None:
    """List the strategies that are here: built in, or installed with a package."""
    from p2ptrain import strategies

    found = [
        {"name": name, "from": BUILT_IN, "what": sentence(strategies.load(name))}
        for name in strategies.names()
    ]
    found += [{"name": name, "from": place, "what": ""} for name, place in strategies.installed().items()]
    if json_file is not None:
        write_json({"strategies": found}, json_file)
        return
    click.echo(table([["NAME", "FROM", "WHAT"], *([one["name"], one["from"], one["what"]] for one in found)]))


@strategy.command("show", epilog="\b\nExample:\n  p2ptrain strategy show gossip")
@click.argument("name", metavar="STRATEGY")
@click.option("--page", "as_page", is_flag=True, help="Write it as a page in Markdown, with a diagram.")
@json_option
def show(name: str, as_page: bool, json_file: str | None) -> None:
    """Show a strategy: its settings, what they mean, and its messages."""
    from p2ptrain.strategies import load

    look_here(name)
    rules = load(name)
    if json_file is not None:
        write_json(_facts(rules), json_file)
    elif as_page:
        click.echo(page(rules), nl=False)
    else:
        click.echo(f"{inspect.getdoc(module_of(rules)) or ''}\n\n{_settings(rules)}")
        messages = ", ".join(message.__name__ for message in rules.messages)
        click.echo(f"\nmessages of its own: {messages or 'none'}")


@click.command(epilog="\b\nExample:\n  p2ptrain strategies")
@json_option
def strategies(json_file: str | None) -> None:
    """Say what each strategy does, and what can be set."""
    from p2ptrain.strategies import load, names

    found = [load(name) for name in names()]
    if json_file is not None:
        write_json({"strategies": [_facts(rules) for rules in found]}, json_file)
        return
    for rules in found:
        text = textwrap.fill(sentence(rules), 100, initial_indent="  ", subsequent_indent="  ")
        click.echo(f"{rules.name}\n{text}\n\n{textwrap.indent(_settings(rules), '  ')}\n")
    say("whole: `p2ptrain strategy show NAME`; which one fits: `p2ptrain advise TASK`")


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


def _facts(rules: Rules) -> dict[str, Any]:
    settings = [
        {"name": one.name, "range": one.range, "default": _default(one), "meaning": one.meaning}
        for one in fields_of(rules.config)
    ]
    messages = [message.__name__ for message in rules.messages]
    document = inspect.getdoc(module_of(rules)) or ""
    return {"name": rules.name, "document": document, "settings": settings, "messages": messages}


def _settings(rules: Rules) -> str:
    rows = [[one.name, one.default or "", one.meaning] for one in fields_of(rules.config)]
    return table([["SETTING", "DEFAULT", "MEANING"], *rows])


def _default(one: Field) -> Any:
    return one.value if isinstance(one.value, bool | int | float | str) else None
