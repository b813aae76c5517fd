"""The pages of strategies say what the code says."""

from enum import StrEnum
from typing import Any

import pytest

from p2ptrain.cli.described import describe, fields_of
from p2ptrain.cli.pages import module_of
from p2ptrain.strategies import load, names
from tests.pages import FOLDER, pages


def test_there_is_a_page_for_each_and_it_is_fresh() -> None:
    """If not: `python -m tests.pages`."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")} == pages()


@pytest.mark.parametrize("name", names())
def test_every_setting_and_every_message_is_explained(name: str) -> None:
    rules = load(name)
    unexplained = [one.name for one in fields_of(rules.config) if not one.meaning]
    assert unexplained == []
    assert all(describe(message).text for message in rules.messages)


@pytest.mark.parametrize("name", names())
def test_the_source_is_named(name: str) -> None:
    document = module_of(load(name)).__doc__ or ""
    assert "ALGORITHMS" in document
    assert "source" in document.lower()


@pytest.mark.parametrize("name", names())
def test_every_phase_is_reached_and_left_but_the_last(name: str) -> None:
    module = module_of(load(name))
    phases: type[StrEnum] = module.Phase
    moves: dict[tuple[Any, str], Any] = module.PHASES
    first, *_, last = phases
    assert {*moves.values(), first} == set(phases)
    assert {before for before, _ in moves} == set(phases) - {last}
