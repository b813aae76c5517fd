"""The weights that a trainer can name besides its own: slots and blobs, as vectors."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from p2ptrain.core import limits
from p2ptrain.core.errors import WeightsError
from p2ptrain.core.types import OWN, BlobId, Ranges, Ref, Slot, is_blob
from p2ptrain.learn.training.memory import free_bytes
from p2ptrain.learn.weights import pieces

CACHE_BYTES_MAX = 512 * limits.MIB
"""Decoded blobs kept at hand; the others are decoded again from their files. Guess: the candidates of
one decision, for nets of ten million numbers."""


VECTORS_ROOM = 40
"""A GPU with room for so many vectors keeps those at hand that a strategy works with. Guess: activations
take most of the rest."""


def home_of(device: torch.device, flat: Tensor) -> torch.device:
    """Return where vectors are kept: on a GPU that has room for many, else in the computer's memory."""
    has_room = device.type == "cuda" and free_bytes(device) > VECTORS_ROOM * flat.nbytes
    return device if has_room else torch.device("cpu")


class Refs:
    """Vectors by name. Whoever gets one does not change it.

    Args:
        decode: reads a blob, or raises WeightsError.
    """

    def __init__(self, decode: Callable[[BlobId], Tensor]) -> None:
        self.slots: dict[Slot, Tensor] = {}
        self._brought: dict[Ref, Tensor] = {}
        self._decode = decode
        self._decoded: OrderedDict[Ref, Tensor] = OrderedDict()

    def get(self, ref: Ref) -> Tensor:
        """Return the weights of a slot or blob.

        Raises:
            WeightsError: they are not here, or do not fit.
        """
        if not is_blob(ref):
            if ref not in self.slots:
                raise WeightsError(f"there are no weights called `{ref}`")
            return self.slots[Slot(ref)]
        if ref not in self._decoded:
            brought = self._brought.pop(ref, None)
            self._decoded[ref] = self._decode(BlobId(ref)) if brought is None else brought
        self._decoded.move_to_end(ref)
        vector = self._decoded[ref]
        while len(self._decoded) > 1 and sum(v.nbytes for v in self._decoded.values()) > CACHE_BYTES_MAX:
            self._decoded.popitem(last=False)
        return vector

    def bring(self, blob: BlobId, vector: Tensor) -> None:
        """Take a decoded blob over from another thread."""
        self._brought[blob] = vector

    def put(self, slot: Slot, vector: Tensor) -> None:
        """Fill a slot.

        Raises:
            WeightsError: it is no name for a slot, or there are too many.
        """
        if slot == OWN or is_blob(slot):
            raise WeightsError(f"`{slot}` is not a slot that can be filled")
        if slot not in self.slots and len(self.slots) >= limits.SLOTS_MAX:
            raise WeightsError(f"there are {limits.SLOTS_MAX} slots already, none is left for `{slot}`")
        self.slots[slot] = vector

    def change(self, slot: Slot, ranges: Ranges, numbers: Tensor, count: int) -> None:
        """Put numbers into these places of a slot of `count`; elsewhere it stays, or has zeros.

        Raises:
            WeightsError: as `put`.
        """
        held = self.slots.get(slot)
        if len(numbers) == count:
            vector = numbers
        else:  # whoever was given the old vector keeps it
            vector = torch.zeros(count, device=numbers.device) if held is None else held.clone()
            pieces.put(vector, ranges, numbers)
        self.put(slot, vector)

    def forget(self, blob: BlobId) -> None:
        """Let go of a decoded blob."""
        self._brought.pop(blob, None)
        self._decoded.pop(blob, None)
