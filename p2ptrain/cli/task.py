"""`task`: what can be trained, built in, installed or your own: list, show, new, check, run, compare."""

import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import click

from p2ptrain.cli.here import data_option, device_option, look_here, set_option, use_data
from p2ptrain.cli.lazy import Lazy
from p2ptrain.cli.output import LINE_CHARS_MAX, Exit, human_bytes, json_option, say, table, write_json
from p2ptrain.core.text import clean

if TYPE_CHECKING:
    from p2ptrain.learn.check import Checked, Finding

COMMANDS = {
    "list": ("task", "list_"),
    "show": ("task", "show"),
    "new": ("task_new", "new"),
    "check": ("task", "check"),
    "run": ("task_run", "run"),
    "compare": ("compare", "compare"),
}

WIDTH_MAX = 120
"""Longer lines are not read."""

GLYPHS = {"ok": "✔", "note": "▲", "broken": "✖", "skipped": "–"}


@click.group(cls=Lazy, places=COMMANDS)
def task() -> None:
    """See what can be trained, and bring something of your own."""


@click.command("list", epilog="\b\nExample:\n  p2ptrain task list")
@json_option
def list_(json_file: str | None) -> None:
    """List the tasks that are here: built in, or installed with a package."""
    from p2ptrain.cli.catalogue import catalogue

    entries = catalogue()
    if json_file is not None:
        write_json({"tasks": entries}, json_file)
        return
    rows = [[entry.name, entry.title, entry.source, entry.needs] for entry in entries]
    click.echo(table([["NAME", "WHAT", "FROM", "DATA"], *rows]))


@click.command(
    "show", epilog="\b\nExamples:\n  p2ptrain task show fashion\n  p2ptrain task show my_net:task --json"
)
@click.argument("name", metavar="TASK")
@json_option
def show(name: str, json_file: str | None) -> None:
    """Show a task: its settings, what they mean, and what it needs."""
    from p2ptrain.cli.catalogue import describe

    look_here(name)
    facts = describe(name)
    if json_file is not None:
        write_json(facts, json_file)
        return
    package = facts.package
    click.echo(f"{facts.name}, version {facts.version}: {facts.title}")
    click.echo(
        f"  from        {package.name} {package.version or '(not installed)'}, sha256 {package.sha256[:16]}"
    )
    click.echo(f"  data        {facts.needs}")
    click.echo(f"  functions   {', '.join(facts.functions)}")
    click.echo(f"  parameters  {facts.parameters:,} with these settings\n")
    for one in facts.settings:
        usual = str(one.default).lower() if isinstance(one.default, bool) else one.default
        click.echo(f"  --set {one.name}={usual}  ({one.type})")
        if one.meaning:
            show_wrapped(one.meaning, " " * 8)
    say(f"try it: `p2ptrain task run {name}`, or `p2ptrain start --task {name}`")


@click.command(
    "check",
    epilog="\b\nExamples:\n  p2ptrain task check fashion\n  p2ptrain task check my_net:task --set width=128",
)
@click.argument("name", metavar="TASK")
@set_option
@data_option
@device_option
@json_option
def check(name: str, task_set: tuple[str, ...], data: str | None, device: str, json_file: str | None) -> None:
    """Look for what is wrong with a task, one sentence each, and say what it costs."""
    from p2ptrain.cli.quantities import parse_settings
    from p2ptrain.learn.check import check as look

    look_here(name)
    use_data(data)
    tell = show_finding if json_file is None else lambda _: None
    checked = look(name, parse_settings(task_set), device, tell)
    if json_file is not None:
        answer: dict[str, Any] = {
            "task": name,
            "broken": checked.broken,
            "findings": checked.findings,
            "figures": checked.figures,
        }
        write_json(answer, json_file)
    else:
        click.echo(summary(checked))
    if checked.broken:
        raise click.exceptions.Exit(Exit.FAILED)


def show_finding(finding: "Finding") -> None:
    """Write a finding: what was seen, and below it the repair."""
    head = f"{GLYPHS[finding.state]} {finding.state:<8} {finding.name:<11}"
    show_wrapped(finding.said, head, " " * len(head))
    if finding.fix:
        show_wrapped(finding.fix, f"{'':<{len(head)}}fix: ", " " * (len(head) + 5))


def show_wrapped(text: str, head: str, indent: str | None = None) -> None:
    """Write words within the width of the terminal; part of them may be others'."""
    width = max(60, min(shutil.get_terminal_size().columns, WIDTH_MAX))
    indent = head if indent is None else indent
    lines = textwrap.wrap(
        clean(text, LINE_CHARS_MAX),
        width,
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    click.echo("\n".join(lines))


def summary(checked: "Checked") -> str:
    """Write what a task costs, and what must be equal on all peers."""
    figures = checked.figures
    broken = [finding.name for finding in checked.findings if finding.state == "broken"]
    if broken:
        return f"\nbroken: {', '.join(broken)}"
    memory = (figures.memory_bytes or 0) / 1e6
    sizes = ", ".join(f"{human_bytes(1e6 * size)} ({codec})" for codec, size in figures.megabytes.items())
    version = figures.package_version or "not installed"
    return f"""
nothing is broken
  parameters  {figures.parameters:,}, in {figures.layers} {"layer" if figures.layers == 1 else "layers"}
  a round     {sizes}
  here        {figures.samples_per_s:,.0f} samples/s, {memory:,.0f} MB, {figures.device}
peers must have equal
  task        {figures.task}, version {figures.version}, and its settings
  package     {figures.package} ({version}), sha256 {figures.package_sha256}
  train data  {figures.train_examples:,} examples, digest of some {figures.train_digest}
  test data   {figures.test_examples:,} examples, digest of some {figures.test_digest}"""
