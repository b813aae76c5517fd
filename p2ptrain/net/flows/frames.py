"""What a flow looks like on the wire: pieces with their lengths, beats in between, one last word.

u32 big-endian, at most `PIECE_BYTES`: so many bytes follow. 0: a beat, there is nothing yet.
`END`: all has been said. `ABORT`: it ends here, and a piece follows that says why.
"""

import struct

from p2ptrain.core import limits
from p2ptrain.core.errors import Offence, P2PTrainError, RemoteProtocolError
from p2ptrain.core.text import clean
from p2ptrain.core.types import Seconds

PATH = "/v1/flow"

PIECE_BYTES = 256 * limits.KIB
"""As with weights: larger writes cost asyncio copies of what is left of them (research: net 1.2)."""

BUFFER_BYTES = limits.MIB
"""So much waits in a writer for its reader: four pieces, enough to keep a line busy (guess)."""

BEAT_S: Seconds = 0.5
"""A writer that has nothing to say shows that it lives (guess)."""

REASON_BYTES_MAX = 256
"""Of the last word of a flow that was aborted."""

HEAD = struct.Struct(">I")
END = 0xFFFF_FFFF
ABORT = 0xFFFF_FFFE


class FlowError(P2PTrainError):
    """A flow ended before its end."""


class SilentError(FlowError):
    """The other side is gone, or said nothing for too long."""


class AbortedError(FlowError):
    """The other side ended it and said why: `message`, its own words."""


def abort_frame(reason: str) -> bytes:
    """Return the last word of a flow that ends before its end."""
    words = reason.encode()[:REASON_BYTES_MAX]
    return HEAD.pack(ABORT) + HEAD.pack(len(words)) + words


def reason_of(words: bytes) -> str:
    """Read the last word: somebody's text, made harmless."""
    return clean(words.decode(errors="replace"), REASON_BYTES_MAX)


def checked_length(head: bytes, most: int) -> int:
    """Return the length that a head announces, `END` or `ABORT`.

    Raises:
        RemoteProtocolError: no flow goes on like this.
    """
    length: int = HEAD.unpack(head)[0]
    if length > most and length not in (END, ABORT):
        raise RemoteProtocolError(Offence.MALFORMED, f"a piece of {length} bytes in a flow")
    return length
