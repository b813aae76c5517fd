"""Weights as a file for others, with a card beside it that says what they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from p2ptrain import __version__

if TYPE_CHECKING:
    from p2ptrain.learn.result import Measured, Result

OWN_DATA = "of the task's own package: ask who made it"


def save_with_card(result: "Result", path: Path, measured: "Measured | None", **more: Any) -> str:
    """Write both; return a sentence.

    Args:
        result: the net.
        path: of the weights; the card has the ending `.json`.
        measured: on test data.
        more: other fields of the card.

    Raises:
        ConfigError: a file cannot be written.
    """
    from p2ptrain.learn.result import Card, write_card
    from p2ptrain.net.trust.certificates import wall_clock

    digest = result.save(path)
    setup = result.setup
    card = Card(
        file=path.name,
        sha256=digest,
        date=wall_clock().isoformat(timespec="seconds"),
        p2ptrain=__version__,
        task=setup.task,
        task_version=result.task.version,
        settings=setup.task_config,
        parameters=result.parameters,
        **({"steps": result.step} | more),
        loss=measured.loss if measured else None,
        error=measured.error if measured else None,
        accuracy=measured.accuracy if measured else None,
        examples=measured.examples if measured else None,
        data_licence=licence(setup.task),
    )
    beside = path.with_suffix(".json")
    write_card(card, beside)
    return f"wrote {path} ({path.stat().st_size / 1e6:.3g} MB) and {beside}"


def licence(task: str) -> str:
    """Return the terms of a built-in task's data."""
    from p2ptrain.tasks.loaders.licences import LICENCES

    return LICENCES.get(task, OWN_DATA)
