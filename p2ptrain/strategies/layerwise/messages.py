"""What coordinator and workers of layers say to each other."""

from p2ptrain.core.joining import Part
from p2ptrain.core.messages import BlobBytes, BlobName, Message, Natural, Number, Offer
from p2ptrain.core.types import BlobId, PeerId
from p2ptrain.strategies.layerwise.coordinating import Delivery


class Lead(Message, frozen=True):
    """I coordinate this term: what is the newest that you have?"""

    term: Natural


class Here(Message, frozen=True):
    """I am free, and these are the newest common weights that I have.

    term: the coordinator's that is asked.
    round: which these weights begin; nothing without `newest`.
    left: steps that I may still take.
    newest: with the loss that I measured.
    """

    term: Natural
    round: Natural
    left: Natural
    newest: Offer | None = None


class Assign(Message, frozen=True):
    """Train these layers from these weights, and offer me the result.

    term: mine.
    round: counts joins.
    blob, size_bytes: the common weights; I have them.
    loss: theirs, as I measured it.
    begin, end: layers, from the one to before the other.
    steps: so many; 0: nothing is to be trained any more, these are the last weights.
    """

    term: Natural
    round: Natural
    blob: BlobName
    size_bytes: BlobBytes
    loss: Number
    begin: Natural
    end: Natural
    steps: Natural


class Result(Message, frozen=True):
    """My layers of that round.

    term: the coordinator's that is told.
    round, base: where I began.
    begin, end: layers, from the one to before the other.
    blob, size_bytes: these layers.
    loss: of the whole net with them, as I measured it.
    steps: taken for that.
    seconds: they took so long.
    left: steps that I may still take.
    """

    term: Natural
    round: Natural
    base: BlobName
    begin: Natural
    end: Natural
    blob: BlobName
    size_bytes: BlobBytes
    loss: Number
    steps: Natural
    seconds: Number
    left: Natural


def delivery_of(author: PeerId, result: Result, steps_max: int) -> Delivery:
    """Return what a coordinator needs of a result: no part weighs more than a whole round."""
    offer = Offer(result.blob, result.size_bytes, result.loss)
    part = Part(author, (result.begin, result.end), offer, min(result.steps, steps_max))
    return Delivery(result.round, BlobId(result.base), part, result.seconds, result.left)
