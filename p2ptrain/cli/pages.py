"""A strategy's page, drawn from its code: idea, settings, messages, states."""

import inspect
import sys
from collections.abc import Iterator
from types import ModuleType

from p2ptrain.cli.described import Field, describe, fields_of
from p2ptrain.core.messages import STRATEGY_KIND_FIRST
from p2ptrain.core.strategy import Rules


def module_of(rules: Rules) -> ModuleType:
    """Return the file of a strategy."""
    return sys.modules[rules.build.__module__]


def sentence(rules: Rules) -> str:
    """Return the idea of a strategy: the first paragraph of its file."""
    return (inspect.getdoc(module_of(rules)) or "").split("\n\n")[0].replace("\n", " ")


def page(rules: Rules) -> str:
    """Write the page of a strategy, in Markdown."""
    lines = [f"# {rules.name}", "", inspect.getdoc(module_of(rules)) or "", "", "## Settings", ""]
    lines += [describe(rules.config).text, "", *_table("setting", fields_of(rules.config)), ""]
    lines += ["## Messages", ""]
    for kind, message in enumerate(rules.messages, start=STRATEGY_KIND_FIRST):
        lines += [f"### {message.__name__}, kind {kind}", "", describe(message).text, ""]
        lines += [*_table("field", fields_of(message)), ""]
    if not rules.messages:
        lines += ["None of its own: reports say it all.", ""]
    diagram = list(_states(module_of(rules)))
    if diagram:
        lines += ["## States", "", "```mermaid", "stateDiagram-v2", *diagram, "```", ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(head: str, fields: list[Field]) -> Iterator[str]:
    yield f"| {head} | range | default | |"
    yield "|---|---|---|---|"
    for one in fields:
        cells = (f"`{one.name}`", one.range, one.default or "", one.meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _states(module: ModuleType) -> Iterator[str]:
    """Draw the phases that a file lists, and what leads from one to the next."""
    phases, moves = getattr(module, "Phase", None), getattr(module, "PHASES", None)
    if phases is None or moves is None:
        return
    named = list(phases)
    for phase in named:
        yield f"    {phase.name}: {phase.value}"
    yield f"    [*] --> {named[0].name}"
    for (before, cause), after in moves.items():
        yield f"    {before.name} --> {after.name}: {cause}"
    for phase in named:
        if all(before is not phase for before, _ in moves):
            yield f"    {phase.name} --> [*]"
