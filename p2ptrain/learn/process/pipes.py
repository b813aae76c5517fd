"""The two pipes that a process was started with, kept to what it is for. Free of torch."""

import os
from typing import BinaryIO


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return stdin and stdout, to be read and written by us alone.

    What anything else prints from now on goes to stderr, and it reads nothing.
    """
    reading, writing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return reading, writing
