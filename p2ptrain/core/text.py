"""Peers' words, made harmless before anyone reads them."""

import unicodedata

from p2ptrain.core import limits


def clean(text: str, chars_max: int = limits.NAME_CHARS_MAX) -> str:
    """Replace whatever is not a printable character: escapes, bidi marks, zero-width and private ones."""
    normal = unicodedata.normalize("NFC", text[: 4 * chars_max])[:chars_max]
    return "".join(c if c.isprintable() else "·" for c in normal)
