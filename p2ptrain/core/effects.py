"""What a node may ask of the world. Names are imperatives; answers are inputs of the same family.

Weights never enter the core: it names them by `Ref` and reasons about numbers.
"""

from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct, field

from p2ptrain.core.errors import Offence
from p2ptrain.core.messages import Message, Report, Signable
from p2ptrain.core.types import OWN, BlobId, PeerId, Ranges, Ref, Seconds, Slot


class Split(StrEnum):
    """Which examples a loss is measured on."""

    VALIDATION = "validation"
    """Held out from the own training part: what decisions rest on."""
    TEST = "test"
    """Seen by nobody's training: what results are reported on, never decided on."""
    TRAINING = "training"
    """Trained on by this peer: how far its result on other examples stays behind."""


class OptimizerState(StrEnum):
    """What becomes of momentum and the like when weights are replaced."""

    KEEP = "keep"
    RESET = "reset"


class Effect(Struct, frozen=True, tag=True):
    """Base of all effects."""


# -- network ---------------------------------------------------------------------------------------


class Send(Effect, frozen=True):
    """Sign and send a message to one peer; it may be lost, late or doubled."""

    to: PeerId
    message: Message


class Sign(Effect, frozen=True):
    """Sign a statement that others will pass on; answered at once by `Signed`."""

    statement: Signable


class Dial(Effect, frozen=True):
    """Try once to connect; answered by `PeerUp` or `PeerDown`."""

    peer: PeerId
    addresses: tuple[str, ...]


class Hangup(Effect, frozen=True):
    """Close the connection to a peer and refuse it for `refuse_s`."""

    peer: PeerId
    reason: str
    refuse_s: Seconds


class Fetch(Effect, frozen=True):
    """Bring a blob here, from several sources at once; answered by `Fetched` or `FetchFailed`.

    sources: who offered it first, then others that hold it. timeout_s: for all of it.
    Whoever carries it out checks hash, size, shapes and finiteness before it answers `Fetched`.
    """

    blob: BlobId
    size_bytes: int
    sources: tuple[PeerId, ...]
    timeout_s: Seconds


class Drop(Effect, frozen=True):
    """Forget a blob: nobody needs it any more."""

    blob: BlobId


class Remember(Effect, frozen=True):
    """Keep a peer's signed contact for the next start."""

    peer: PeerId
    raw: bytes


# -- learning --------------------------------------------------------------------------------------


class Fresh(Effect, frozen=True, omit_defaults=True):
    """Start from a random point. `lr_scale` multiplies the task's learning rate. Answered by `Adopted`.

    out: into another slot only random weights are drawn, and nothing else changes; answered by `Combined`.
    """

    seed: int
    lr_scale: float = field(default_factory=lambda: 1.0)  # not left out: older journals have it
    out: Slot = OWN


class Guide(Struct, frozen=True, omit_defaults=True):
    """What decides on a step besides the gradient of the task's loss.

    layers: only those from the first to before the second are trained, as `TrainerReady` counts them;
        all other numbers stay as they are.
    local: these layers lower a loss of their own, through a head that is no part of the weights; what
        comes after them is not computed (LW-L of ALGORITHMS 2.3).
    towards, pull: `pull * (own - towards)` is added to the gradient (FedProx).
    shift: is added to the weights after each step (SCAFFOLD, with control variates that are counted in
        way per step: so they hold for any optimiser and rate, and are combinations of weights).
    """

    layers: tuple[int, int] | None = None
    local: bool = False
    towards: Ref | None = None
    pull: float = 0.0
    shift: Ref | None = None


class Train(Effect, frozen=True, omit_defaults=True):
    """Take that many more optimiser steps; answered by `Trained`. Other effects may run in between.

    While steps are being taken, it adds to them; one answer counts for all.
    """

    steps: int
    round: int = 0
    """Decides on what these steps are trained, and those still left, where parts of the data change."""
    guide: Guide | None = None
    """Of these steps, and of those still left."""


class Halt(Effect, frozen=True):
    """Stop training now; an unfinished `Train` is answered by `Trained` with the steps taken."""


class Evaluate(Effect, frozen=True):
    """Measure weights on the same examples; answered by `Evaluated` with the same tag."""

    tag: str
    refs: tuple[Ref, ...]
    split: Split = Split.VALIDATION
    examples_max: int = 0
    """0: all of the split."""


class Combine(Effect, frozen=True, omit_defaults=True):
    """Put sum(coefficient * weights) into a slot, `OWN` too; answered by `Combined`.

    ranges: only these numbers of the slot change; a slot that is new has zeros elsewhere.
    """

    tag: str
    out: Slot
    terms: tuple[tuple[float, Ref], ...]
    rule: str = "weighted_sum"
    ranges: Ranges = ()


class Adopt(Effect, frozen=True):
    """Go on training from these weights; answered by `Adopted`."""

    tag: str
    ref: Ref
    optimizer: OptimizerState = OptimizerState.KEEP
    lr_scale: float | None = None
    """None: unchanged."""


class Publish(Effect, frozen=True, omit_defaults=True):
    """Write weights as a blob that peers can fetch; answered by `Published`.

    base: whole weights that are here and at the receivers: the blob is a delta from them. It is used like
        any weights, and stands for base + difference. What the codec leaves out is `ref` - blob.
    codec: how numbers are written; None: as the manifest says. Whole weights are as the manifest says,
        or f32; `topk` and its kind are for deltas.
    ranges: only these numbers are written; the blob is used like weights that are zero elsewhere.
    """

    tag: str
    ref: Ref = field(default_factory=lambda: OWN)  # not left out: older journals have it
    base: BlobId | None = None
    codec: str | None = None
    ranges: Ranges = ()


class Reduce(Effect, frozen=True, omit_defaults=True):
    """Put the mean of everyone's weights into a slot, by a ring; answered by `Reduced` or `ReduceFailed`.

    It begins when the neighbours in the ring ask for the same: the same name, group and ranges. All get
    the same numbers, bit by bit.

    out: mean = sum(weight * weights) / sum(weight); no weight counts more than 4 times the middle one.
    ref: the own contribution, as it is now.
    group: the ring, this node among them; everyone gets from the one before.
    name: 32 hex digits, the same for the whole group and for no other reduction.
    silence_s: who gives nothing for so long is given up.
    ranges: only these numbers travel and change.
    """

    tag: str
    out: Slot
    ref: Ref
    weight: float
    group: tuple[PeerId, ...]
    name: str
    silence_s: Seconds
    ranges: Ranges = ()


class Stage(Effect, frozen=True, omit_defaults=True):
    """Take that many optimiser steps as a part of a line of peers, each with some of the layers.

    Answered by `Staged`. It begins when all of the line ask for the same: the same name, steps and cuts. The
    first of the line gives the examples. Each batch is cut into micro-batches; what a layer gives goes to
    `after`, gradients come back, and after each batch everyone takes a step with its own layers: the same
    as one peer would take with all of them, up to rounding. All other numbers stay as they are. `Halt` ends
    it early; and so does a peer of the line that is gone.

    name: 32 hex digits, the same for the whole line and for no other.
    round: decides on the examples, where parts of the data change.
    layers: this peer's, from the first to before the second, as `TrainerReady` counts them.
    before, after: the neighbours in the line; None at its ends.
    micro: micro-batches of a batch.
    codec: how activations and gradients are written: f32, bf16 or int8.
    meet_s: so long all of the line are waited for.
    silence_s: a neighbour that gives nothing for so long, once it has begun, is given up.
    """

    tag: str
    name: str
    layers: tuple[int, int]
    before: PeerId | None
    after: PeerId | None
    steps: int
    micro: int
    codec: str
    meet_s: Seconds
    silence_s: Seconds
    round: int = 0


class Checkpoint(Effect, frozen=True):
    """Save weights, optimiser, randomness, data position and `memory`; answered by `Saved`."""

    memory: bytes


# -- the node itself -------------------------------------------------------------------------------


class SetTimer(Effect, frozen=True):
    """Answer by `TimerFired(key)` after that long; replaces a timer of the same key."""

    key: str
    after_s: Seconds


class Tell(Effect, frozen=True):
    """A strategy states its loss: the node signs it and spreads it."""

    report: Report


class Accuse(Effect, frozen=True):
    """A strategy found a peer at fault: the node charges it."""

    peer: PeerId
    offence: Offence
    detail: str


class Finish(Effect, frozen=True):
    """A strategy is done: nothing is trained any more, the result stays on offer."""

    reason: str


class Note(Effect, frozen=True):
    """Something that a person or a test may want to know."""

    event: str
    fields: dict[str, Any] = {}


def digest(effects: list[Effect]) -> bytes:
    """Bytes that are equal exactly for equal effects: what traces and replays compare."""
    return msgspec.msgpack.encode(effects)
