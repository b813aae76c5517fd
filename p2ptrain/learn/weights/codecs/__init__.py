"""Trained numbers as few bytes, and back. A new codec is a new file and a line in the table.

Both ways are pure functions of tensors, on any device. The size of the bytes follows from the count of
numbers alone. Whatever the bytes are, what comes back is finite, or they are refused.
"""

from p2ptrain.core.errors import ManifestError
from p2ptrain.learn.weights.codecs.bf16 import BF16
from p2ptrain.learn.weights.codecs.codec import Codec, Part
from p2ptrain.learn.weights.codecs.f32 import F32
from p2ptrain.learn.weights.codecs.feedback import DECAY, squeeze
from p2ptrain.learn.weights.codecs.int8 import Int8
from p2ptrain.learn.weights.codecs.topk import TopK

__all__ = ["CODECS", "DECAY", "Codec", "Part", "find", "squeeze"]

TOP = (TopK("topk", 1), TopK("topk3", 3), TopK("topk10", 10))
"""1 % reaches the accuracy of f32 where parts are alike; 3 and 10 % are for skewed ones: see `feedback`."""

CODECS: dict[str, Codec] = {codec.name: codec for codec in (F32(), BF16(), Int8(), *TOP)}


def find(name: str) -> Codec:
    """Return a codec by its name.

    Raises:
        ManifestError: there is none.
    """
    if name not in CODECS:
        raise ManifestError(f"there is no codec `{name}`", f"known are: {', '.join(CODECS)}")
    return CODECS[name]
