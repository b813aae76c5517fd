"""Writes docs/strategies/: `python -m tests.pages`. The pages are drawn from the code."""

from pathlib import Path

from p2ptrain.cli.pages import page
from p2ptrain.strategies import load, names

FOLDER = Path(__file__).parents[1] / "docs" / "strategies"


def pages() -> dict[str, str]:
    """Return what each file should say."""
    return {f"{name}.md": page(load(name)) for name in names()}


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
