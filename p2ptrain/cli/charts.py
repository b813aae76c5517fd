"""A picture of what several variants reached: their curves, and a table below. Needs matplotlib."""

from math import isfinite
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from p2ptrain.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito: told apart by colour-blind people too."""
DASHES = ("solid", "dashed", "dotted", "dashdot")
"""For more lines than colours."""

NAMES_A_PANEL = 4
"""So many stand beside each other above each panel."""

SHOOTING = 2.0
"""So many times the height of half of the losses is drawn, no more. Guess."""

MARGIN = 0.05
"""Of the height, above and below."""

PANEL_INCHES = 5.6
CHART_INCHES, ROW_INCHES = 3.1, 0.24
DOTS_PER_INCH = 110


class Line(Struct, frozen=True):
    """One variant. points: (step, lowest, mean, highest) over the seeds; for each chart of the panel."""

    label: str
    charts: list[list[tuple[int, float, float, float]]]
    row: list[str]


class Panel(Struct, frozen=True):
    """Lines to be compared with each other. head: of the table; each line's label and row follow it."""

    title: str
    head: list[str]
    lines: list[Line]


def check(path: Path) -> None:
    """Demand that a picture can be written there, before hours are spent on it.

    Raises:
        ConfigError: it cannot.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("pictures need matplotlib", "pip install 'p2ptrain[report]'") from None
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path} is no picture", f"let the name end in one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder", "make it, or choose another place for the picture")


def draw(path: Path, title: str, names: list[str], panels: list[Panel]) -> None:
    """Draw the panels side by side: a chart under another for each name, then the table.

    Raises:
        ConfigError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    rows = max(len(panel.lines) for panel in panels) + 1
    heights = [CHART_INCHES] * len(names) + [ROW_INCHES * rows]
    figure = Figure(figsize=(PANEL_INCHES * len(panels), sum(heights) + 1), layout="constrained")
    axes = figure.subplots(len(heights), len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})
    for column, panel in enumerate(panels):
        for index, name in enumerate(names):
            _chart(axes[index][column], index, name, panel)
        axes[0][column].set_title(panel.title)
        _table(axes[-1][column], panel)
    for index, name in enumerate(names):
        for one in axes[index]:
            one.set_ylim(_bounds(name, index, panels))
    handles, labels = axes[0][0].get_legend_handles_labels()  # the same lines in every panel
    columns = NAMES_A_PANEL * len(panels)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, title=title, frameon=False)
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None


def _chart(axes: "Axes", index: int, name: str, panel: Panel) -> None:
    for number, line in enumerate(panel.lines):
        steps, low, mean, high = zip(*line.charts[index], strict=True)
        style: dict[str, Any] = {"color": COLOURS[number % len(COLOURS)]}
        dash = DASHES[number // len(COLOURS) % len(DASHES)]
        axes.plot(steps, mean, label=line.label, linestyle=dash, linewidth=1.8, **style)
        axes.fill_between(steps, low, high, alpha=0.15, linewidth=0, **style)
    axes.set_xlabel("steps of the optimizer")
    axes.set_ylabel(name)
    axes.grid(alpha=0.3)


def _bounds(name: str, index: int, panels: list[Panel]) -> tuple[float, float]:
    """Return one scale for charts beside each other; losses that shoot up leave it, for the others' sake."""
    lines = [line.charts[index] for panel in panels for line in panel.lines]
    drawn = [[value for _, *values in line for value in values if isfinite(value)] for line in lines]
    drawn = [values for values in drawn if values] or [[0.0, 1.0]]
    low, high = min(map(min, drawn)), max(map(max, drawn))
    if name.startswith("loss"):
        high = min(high, low + SHOOTING * (median_low(map(max, drawn)) - low))
    margin = MARGIN * (high - low) or MARGIN
    return low - margin, high + margin


def _table(axes: "Axes", panel: Panel) -> None:
    axes.axis("off")
    cells = [[line.label, *line.row] for line in panel.lines]
    lengths = [max(len(text) + 4 for text in texts) for texts in zip(panel.head, *cells, strict=True)]
    widths = [length / sum(lengths) for length in lengths]
    table = axes.table(cells, colLabels=panel.head, colWidths=widths, loc="upper center", cellLoc="right")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, column), cell in table.get_celld().items():
        cell.set_linewidth(0.3)
        cell.set_height(1 / (len(cells) + 1))
        if column == 0 and row:
            cell.set_text_props(color=COLOURS[(row - 1) % len(COLOURS)])
