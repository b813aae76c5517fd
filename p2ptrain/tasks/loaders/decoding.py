"""Decodes one picture from bytes of which nothing is known."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

PIXELS_MAX = 1 << 26
"""67 million, 200 MB in colours: a photograph of a good camera. Larger ones are taken for bombs."""

FORMATS = ("JPEG", "PNG")
MODES = {1: "L", 3: "RGB"}

FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    Image.DecompressionBombError,
)
"""What Pillow raises for damaged bytes, of whatever kind they are."""


def decode(content: bytes, channels: int = 3) -> npt.NDArray[np.uint8]:
    """Decode a JPEG or PNG: uint8 of shape (height, width, channels), with one channel or three.

    Raises:
        ValueError: the bytes are damaged, of another format, or hold too many pixels.
    """
    with _opened(io.BytesIO(content)) as picture:
        plain = np.asarray(picture.convert(MODES[channels]), dtype=np.uint8)
    return plain.reshape(*plain.shape[:2], channels)


def size_of(file: Path) -> tuple[int, int]:
    """Return the width and the height that a JPEG or PNG states.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged, of another format, or states too many pixels.
    """
    with file.open("rb") as content, _opened(content) as picture:
        return picture.size


@contextmanager
def _opened(content: IO[bytes]) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(content, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > PIXELS_MAX:
                    raise ValueError(f"it states {width} x {height} pixels, too many")
                yield picture
    except FAULTS as error:
        strange = isinstance(error, UnidentifiedImageError)
        why = "it is neither a JPEG nor a PNG" if strange else str(error) or type(error).__name__
        raise ValueError(why) from None
