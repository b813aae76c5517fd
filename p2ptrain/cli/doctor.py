"""`doctor`: what can be wrong here, and what to do about each of it."""

import shutil
import textwrap
from typing import TYPE_CHECKING

import click

from p2ptrain.cli.main import home_option
from p2ptrain.cli.output import LINE_CHARS_MAX, Exit, json_option, say, write_json
from p2ptrain.core.text import clean

if TYPE_CHECKING:
    from p2ptrain.control.api import Finding

GLYPHS = {"ok": "✔", "warning": "▲", "failure": "✖", "skipped": "–"}

WIDTH_MAX = 120
"""Longer lines are not read."""

NAME_CHARS = 9
STATE_CHARS = 7


@click.command(
    epilog="\b\nExamples:\n  p2ptrain doctor\n  p2ptrain doctor --json bug.json\n\n"
    "bug.json holds no keys, no invites and no public addresses: it may be shown to others."
)
@json_option
@home_option
@click.pass_obj
def doctor(home: str | None, json_file: str | None) -> None:
    """Look for what is wrong: this computer, its settings, and with the daemon running the network too."""
    from p2ptrain.daemon.doctor.examination import diagnose, examine
    from p2ptrain.daemon.home import find_home

    say("looking at torch, the files and the network; takes up to 10 s …")
    findings = examine(find_home(home))
    if json_file is not None:
        write_json(diagnose(findings), json_file)
    else:
        width = min(shutil.get_terminal_size().columns, WIDTH_MAX)
        click.echo("\n".join(line for one in findings for line in show(one, width)))
        click.echo(summary(findings))
    if any(one.state == "failure" for one in findings):
        raise click.exceptions.Exit(Exit.FAILED)


def show(finding: "Finding", width: int) -> list[str]:
    """Write a finding: what was seen, and below it the repair; commands are not cut."""
    head = f"{GLYPHS[finding.state]} {finding.state:<{STATE_CHARS}}  {finding.name:<{NAME_CHARS}} "
    indent = " " * len(head)
    lines = _wrap(finding.seen, head, indent, width)
    if finding.repair:
        lines += _wrap(finding.repair, f"{indent}fix: ", f"{indent}     ", width)
    return lines


def summary(findings: "tuple[Finding, ...]") -> str:
    """Count, in one line."""
    count = {state: sum(one.state == state for one in findings) for state in GLYPHS}
    verdict = "something is broken" if count["failure"] else "nothing is broken"
    return (
        f"{verdict}: {count['ok']} ok, {count['warning']} to look at, {count['failure']} failed, "
        f"{count['skipped']} not looked at"
    )


def _wrap(text: str, head: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        clean(text, LINE_CHARS_MAX),
        max(width, len(indent) + 20),
        initial_indent=head,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
