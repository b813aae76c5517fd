"""What a part in a line of peers says and hears, as bytes that go to the daemon in pieces."""

import struct
from collections.abc import Iterator

from p2ptrain.core.inputs import Staged
from p2ptrain.learn import wire
from p2ptrain.learn.training.stage import Part

HEAD = struct.Struct(">I")


class Strand:
    """Puts frames into a stream and takes them out of one: a length (u32, big-endian), then so many bytes."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._most = part.frame_bytes_max
        self._streams = {side: bytearray() for side in wire.Side}

    def take(self, came: "wire.Flowing") -> None:
        """Hand over what a neighbour said, or that it says nothing more."""
        if came.tag != self.part.tag:
            return
        if isinstance(came, wire.Cut):
            self.part.end(came.reason, came.side if came.is_at_fault else None)
            return
        stream = self._streams[came.side]
        stream += came.data
        while len(stream) >= HEAD.size:
            (size,) = HEAD.unpack_from(stream)
            if size > self._most:
                self.part.end(f"the peer {came.side} it sends {size} bytes at once", came.side)
                return
            if len(stream) < HEAD.size + size:
                return
            self.part.receive(came.side, bytes(stream[HEAD.size : HEAD.size + size]))
            del stream[: HEAD.size + size]

    def give(self) -> "Iterator[wire.Goes | Staged]":
        """Return what the part wants to be sent, and its answer when it is over."""
        while self.part.outbox:
            side, frame = self.part.outbox.popleft()
            data = HEAD.pack(len(frame)) + frame
            for at in range(0, len(data), wire.FLOW_BYTES):
                yield wire.Goes(self.part.tag, side, data[at : at + wire.FLOW_BYTES])
        if self.part.answer is not None:
            yield self.part.answer
