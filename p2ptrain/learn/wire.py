"""What the daemon and its trainer process say to each other, over a pair of pipes. Free of torch.

A frame is a length (u32, big-endian) and a msgpack body. The daemon sends `Setup`, then commands; the
trainer sends answers.
"""

import struct
from enum import StrEnum
from typing import Annotated, BinaryIO, Literal

import msgspec
from msgspec import Meta, Struct

from p2ptrain.core import limits
from p2ptrain.core.effects import (
    Adopt,
    Checkpoint,
    Combine,
    Drop,
    Evaluate,
    Fresh,
    Halt,
    Publish,
    Stage,
    Train,
)
from p2ptrain.core.errors import LocalProtocolError
from p2ptrain.core.inputs import (
    Adopted,
    Combined,
    Evaluated,
    LearnFailed,
    Published,
    Saved,
    Staged,
    Trained,
    TrainerReady,
)
from p2ptrain.core.manifest import Formation, Settings
from p2ptrain.core.messages import Natural
from p2ptrain.core.types import BlobId, Ranges, Ref, Slot

HEAD_BYTES = 4
FRAME_BYTES_MAX = limits.MIB
"""Several times what a strategy may keep: weights move through files, never through the pipe."""

FLOW_BYTES = 512 * limits.KIB
"""So much of what flows along a line goes through the pipe at once: others get in between."""


Duty = Annotated[float, Meta(gt=0, le=1)]


class Setup(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a trainer is told at its start.

    task, task_config, seed, steps, codec: as in the manifest.
    parts, pool, skew, balance, classes, uneven, formation, keep, disjoint: as in the manifest.
    slot: this peer's place in the swarm; it decides on its part of the data and on the order in it.
    peer_seed: of the randomness that differs between peers.
    device: `auto`, or what torch calls it.
    threads: CPU threads of the whole process; 0: the worker tries what is fastest for this net.
    precision: `f32`, `tf32`, `bf16`, or `auto`: the worker tries what is faster.
    compile: have torch compile the net.
    memory_gb: GB (2^30) of the device's memory, or of the process's on a CPU; 0: no bound.
    duty: share of the time that the device works, above 0.
    data: folders of data sets, see `tasks/loaders/files.py`; empty: as the environment says.
    blob_folder, checkpoint_folder: where weights lie as files.
    """

    task: str
    task_config: Settings = {}
    seed: Natural = 0
    peer_seed: Natural = 0
    slot: Natural = 0
    parts: Annotated[int, Meta(ge=1)] = 1
    pool: Natural = 0
    skew: Annotated[float, Meta(ge=0)] = 0.0
    balance: Annotated[float, Meta(ge=0, le=1)] | None = None
    classes: Annotated[int, Meta(ge=1)] = 2
    uneven: Annotated[float, Meta(ge=0)] = 0.0
    formation: Formation = "static"
    keep: Annotated[float, Meta(ge=0, lt=1)] = 0.5
    disjoint: bool = False
    steps: Natural = 0
    codec: str = "f32"
    device: str = "auto"
    threads: Natural = 0
    precision: Literal["auto", "f32", "tf32", "bf16"] = "f32"
    compile: bool = False
    memory_gb: Annotated[float, Meta(ge=0)] = 0.0
    duty: Duty = 1.0
    data: str = ""
    blob_folder: str = ""
    checkpoint_folder: str = ""


# -- commands --------------------------------------------------------------------------------------


class Accept(Struct, frozen=True, tag=True):
    """A blob was brought into the folder: check it. Answered by `Accepted` or `Refused`."""

    blob: BlobId


class Export(Struct, frozen=True, tag=True):
    """Write the numbers of these ranges, or all, to a file as plain f32. Answered by `Moved`."""

    tag: str
    ref: Ref
    path: str
    ranges: Ranges = ()


class Import(Struct, frozen=True, tag=True):
    """Put the f32 of a file into these ranges of a slot, if they are usable weights. Answered by `Moved`."""

    tag: str
    out: Slot
    path: str
    ranges: Ranges = ()


class Side(StrEnum):
    """A neighbour in a line of peers, see `core.effects.Stage`."""

    BEFORE = "before"
    AFTER = "after"


class Came(Struct, frozen=True, tag=True):
    """These bytes came from a neighbour; it is not answered. tag: of the `Stage`."""

    tag: str
    side: Side
    data: bytes


class Cut(Struct, frozen=True, tag=True):
    """Nothing more comes from a neighbour, whose fault it may be: the part is over; answered by `Staged`."""

    tag: str
    side: Side
    reason: str
    is_at_fault: bool


class Limits(Struct, frozen=True, tag=True):
    """What the owner allows from now on, see `Setup`; it is not answered."""

    duty: Duty = 1.0
    memory_gb: Annotated[float, Meta(ge=0)] = 0.0


class Quit(Struct, frozen=True, tag=True):
    """Finish what is being written, and end."""


Learning = Fresh | Train | Stage | Halt | Evaluate | Combine | Adopt | Publish | Checkpoint | Drop
"""The effects that an engine carries out."""

Moving = Accept | Export | Import
"""Files that come and go."""

Flowing = Came | Cut
"""What comes along a line of peers."""

Command = Learning | Moving | Flowing | Limits | Quit


# -- answers ---------------------------------------------------------------------------------------


class Accepted(Struct, frozen=True, tag=True):
    """The blob fits this model, and all its numbers are finite."""

    blob: BlobId


class Refused(Struct, frozen=True, tag=True):
    """The blob must not be used."""

    blob: BlobId
    reason: str


class Moved(Struct, frozen=True, tag=True):
    """So many numbers were written or taken over. `reason`: why none were."""

    tag: str
    numbers: int
    reason: str = ""


class Goes(Struct, frozen=True, tag=True):
    """These bytes are for a neighbour in a line. tag: of the `Stage`."""

    tag: str
    side: Side
    data: bytes


class Notice(Struct, frozen=True, tag=True):
    """Something that the owner should read."""

    text: str


class Crashed(Struct, frozen=True, tag=True):
    """The trainer's last word: it ends with an error. `hint`: what the owner can do, may be empty."""

    reason: str
    hint: str = ""


Outcome = TrainerReady | Trained | Staged | Evaluated | Combined | Adopted | Published | Saved | LearnFailed
"""The inputs that an engine gives back."""

Answer = Outcome | Accepted | Refused | Moved | Goes | Notice | Crashed


# -- bytes -----------------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_setup = msgspec.msgpack.Decoder(Setup)
_command: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def frame(value: Struct) -> bytes:
    """Return length and body.

    Raises:
        LocalProtocolError: the body is larger than `FRAME_BYTES_MAX`.
    """
    body = _encoder.encode(value)
    if len(body) > FRAME_BYTES_MAX:
        raise LocalProtocolError(f"a {type(value).__name__} of {len(body)} bytes does not fit in a frame")
    return struct.pack(">I", len(body)) + body


def body_bytes(head: bytes) -> int:
    """Return the length of the body that follows these `HEAD_BYTES`.

    Raises:
        LocalProtocolError: no frame begins like this.
    """
    size: int = struct.unpack(">I", head)[0]
    if size > FRAME_BYTES_MAX:
        raise LocalProtocolError("the pipe between daemon and trainer carries something else than frames")
    return size


def read_body(stream: BinaryIO) -> bytes | None:
    """Wait for the next frame and return its body, or None when the other side is gone."""
    head = stream.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return None
    size = body_bytes(head)
    body = stream.read(size)
    return body if len(body) == size else None


def decode_setup(body: bytes) -> Setup:
    """Read the first frame."""
    return _setup.decode(body)


def decode_command(body: bytes) -> Command:
    """Read a later frame."""
    return _command.decode(body)


def decode_answer(body: bytes) -> Answer:
    """Read a frame of the trainer's."""
    return _answer.decode(body)
