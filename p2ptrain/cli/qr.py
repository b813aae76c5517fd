"""QR codes for terminals."""

import segno

BORDER = 4
"""Modules of white around the code (ISO/IEC 18004)."""

BLACK_ON_WHITE = "\x1b[38;5;16;48;5;231m"
"""Fixed colours of the 256: many cameras read no code in a terminal's own colours, light on dark."""

PLAIN = "\x1b[0m"
HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def draw_qr(text: str) -> str:
    """Draw a code, two rows of modules a line; capitals and digits make a smaller one."""
    code = segno.make(text, error="l", micro=False)
    rows = [[int(bool(module)) for module in row] for row in code.matrix_iter(border=BORDER)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        drawn = "".join(HALVES[pair] for pair in zip(upper, lower, strict=True))
        lines.append(f"{BLACK_ON_WHITE}{drawn}{PLAIN}")
    return "\n".join(lines)


def width(drawn: str) -> int:
    """Return how many columns a drawn code takes."""
    return len(drawn.splitlines()[0]) - len(BLACK_ON_WHITE) - len(PLAIN)
