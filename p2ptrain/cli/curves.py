"""Draws accuracy over steps as an SVG file, without any library."""

from html import escape

from msgspec import Struct

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 190, 40, 50
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito: told apart by colour-blind people too."""


class Curve(Struct, frozen=True):
    """One line. `dashed` lines are for comparison; lines of one `group` share a colour."""

    label: str
    points: tuple[tuple[int, float], ...]
    group: int
    dashed: bool = False


def draw(title: str, curves: list[Curve]) -> str:
    """Return an SVG picture; an empty one is still a picture."""
    points = [point for curve in curves for point in curve.points] or [(0, 0.0), (1, 1.0)]
    right = max(step for step, _ in points) or 1
    low = max(0.0, min(value for _, value in points) - 0.02)
    high = min(1.0, max(value for _, value in points) + 0.02)

    def place(step: int, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / right
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / max(high - low, 1e-9)
        return round(x, 1), round(y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for index in range(6):
        value = low + (high - low) * index / 5
        x, y = place(0, value)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{100 * value:.0f} %</text>')
        x, y = place(round(right * index / 5), low)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{round(right * index / 5)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">optimiser steps</text>')
    for index, curve in enumerate(curves):
        colour = COLOURS[curve.group % len(COLOURS)]
        dash = ' stroke-dasharray="5 4"' if curve.dashed else ""
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in curve.points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        y = TOP + 12 + 18 * index
        x = WIDTH - RIGHT + 14
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 24}" y2="{y}" stroke="{colour}"{dash} stroke-width="2"/>'
        )
        parts.append(f'<text x="{x + 30}" y="{y + 4}">{escape(curve.label)}</text>')
    return "\n".join([*parts, "</svg>", ""])
