"""What can happen to a node. Names are in the past tense."""

from math import inf, nan

from msgspec import Struct
from msgspec.structs import replace

from p2ptrain.core import limits
from p2ptrain.core.envelope import Verified
from p2ptrain.core.errors import Offence
from p2ptrain.core.messages import Message
from p2ptrain.core.types import BlobId, PeerId, Ranges, Seconds


class Input(Struct, frozen=True, tag=True):
    """Base of all inputs."""


# -- network ---------------------------------------------------------------------------------------


class Received(Input, frozen=True):
    """A message that passed the border; `via` is the neighbour that handed it over."""

    via: PeerId
    message: Verified[Message]


class Signed(Input, frozen=True):
    """The own statement, ready to be passed on."""

    message: Verified[Message]


class PeerUp(Input, frozen=True):
    """A connection to a member stands."""

    peer: PeerId


class PeerDown(Input, frozen=True):
    """A connection ended or could not be made."""

    peer: PeerId
    reason: str


class Offended(Input, frozen=True):
    """The border caught a peer."""

    peer: PeerId
    offence: Offence
    detail: str


class Fetched(Input, frozen=True):
    """A blob is here, whole, fitting and finite."""

    blob: BlobId
    source: PeerId


class FetchFailed(Input, frozen=True):
    """No source gave the blob; `liar` is the one that gave something else, if any."""

    blob: BlobId
    reason: str
    liar: PeerId | None = None


# -- learning --------------------------------------------------------------------------------------


class Layer(Struct, frozen=True):
    """A piece of a net that one tensor enters and one leaves.

    ranges: its numbers in the vector of weights.
    cost: of a step of training, in a unit that is the same for all layers of a net.
    """

    ranges: Ranges
    cost: float


class TrainerReady(Input, frozen=True, omit_defaults=True):
    """The trainer runs. `step` > 0: it resumed, and `memory` is what the strategy kept.

    numbers: in the vector of weights, statistics of normalisation among them.
    layers: of the net, in order; every number is in exactly one. A net that cannot be cut is one layer.
    """

    step: int
    samples: int
    parameters: int
    blob_bytes: int
    memory: bytes = b""
    numbers: int = 0
    layers: tuple[Layer, ...] = ()


class TrainerLost(Input, frozen=True):
    """The trainer died or refused; the daemon starts it again after `retry_s`."""

    reason: str
    retry_s: Seconds


class Trained(Input, frozen=True):
    """Steps were taken. `step` and `samples` count from the beginning of this peer's work."""

    step: int
    samples: int
    loss: float
    """Mean training loss over these steps; NaN if none was taken or training diverged."""
    seconds: Seconds


class Evaluated(Input, frozen=True):
    """One entry a ref, in the order asked.

    losses: mean over the examples; NaN or inf is possible and means useless weights.
    errors: standard error of each loss.
    accuracies: share of right answers, NaN where the task has none.
    distances: Euclidean distance of each to the first ref.
    differences: standard error of the mean of the differences of its losses, example by example, to those of
        the first ref; NaN where losses are not known by example; none: not known at all.
    seconds: that measuring took, in which nothing was trained; 0 in simulations.
    """

    tag: str
    losses: tuple[float, ...]
    errors: tuple[float, ...]
    accuracies: tuple[float, ...]
    distances: tuple[float, ...]
    examples: int
    seconds: Seconds = 0.0
    differences: tuple[float, ...] = ()

    def believable(self) -> "Evaluated":
        """Make numbers that no peer would believe say what they mean: useless weights, no accuracy."""
        losses = [loss if abs(loss) <= limits.ABSOLUTE_NUMBER_MAX else inf for loss in self.losses]
        accuracies = [share if 0 <= share <= 1 else nan for share in self.accuracies]
        return replace(self, losses=tuple(losses), accuracies=tuple(accuracies))


class Combined(Input, frozen=True):
    """The slot holds the combination."""

    tag: str


class Adopted(Input, frozen=True):
    """Training goes on from the new weights."""

    tag: str


class Published(Input, frozen=True):
    """The weights can be fetched under this id."""

    tag: str
    blob: BlobId
    size_bytes: int


class Saved(Input, frozen=True):
    """A checkpoint is safe on disk."""

    step: int
    seconds: Seconds


class Reduced(Input, frozen=True):
    """The slot holds the mean of the whole group."""

    tag: str
    seconds: Seconds


class ReduceFailed(Input, frozen=True):
    """There is no mean; `silent` is who gave nothing, if it was a peer. The own contribution is as it was."""

    tag: str
    reason: str
    silent: PeerId | None = None


class Staged(Input, frozen=True, omit_defaults=True):
    """A part in a line of peers is over. `step` and `samples` count from the beginning of this peer's work.

    taken: optimiser steps of it; the others of the line may have taken one more or less.
    loss: mean training loss over these steps; NaN if none was taken or training diverged.
    seconds: this peer computed, without waiting for others.
    reason: why it ended early; empty if it did not.
    silent: the neighbour that gave nothing, or what could not be used, if that was it.
    """

    tag: str
    step: int
    samples: int
    taken: int
    loss: float
    seconds: Seconds
    reason: str = ""
    silent: PeerId | None = None


class LearnFailed(Input, frozen=True):
    """An effect of learning could not be carried out, for instance because its weights are gone."""

    tag: str
    reason: str


# -- the node itself -------------------------------------------------------------------------------


class Started(Input, frozen=True):
    """The first input: what is left of the time before the last stop.

    contacts: members as they introduced themselves.
    held: blobs that lie here, the oldest first.
    """

    contacts: tuple[Verified[Message], ...] = ()
    held: tuple[BlobId, ...] = ()


class TimerFired(Input, frozen=True):
    """May be late, early or repeated."""

    key: str


class Paused(Input, frozen=True):
    """The owner, or a rule of the owner's, stops the work. `until`: words for people, may be empty."""

    reason: str
    until: str = ""


class Resumed(Input, frozen=True):
    """The work may go on."""


class Leaving(Input, frozen=True):
    """The daemon is about to stop."""
