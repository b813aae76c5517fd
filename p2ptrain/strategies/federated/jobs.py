"""What a client is given to do, what comes of it, and where it stands meanwhile."""

from enum import StrEnum

from msgspec import Struct

from p2ptrain.core.messages import Offer
from p2ptrain.core.types import BlobId, PeerId, Seconds


class Phase(StrEnum):
    """Where a client stands."""

    WAIT = "waiting for the coordinator"
    FETCH = "fetching the global weights"
    CHECK = "measuring the global weights"
    TRAIN = "training"
    HALT = "stopping for a newer round"
    HAND_IN = "measuring and writing what was learned"
    ALONE = "training alone"
    END = "measuring the result"
    DONE = "done"


PHASES: dict[tuple[Phase, str], Phase] = {
    (Phase.WAIT, "a task came"): Phase.FETCH,
    (Phase.FETCH, "a task came"): Phase.FETCH,
    (Phase.CHECK, "a task came"): Phase.FETCH,
    (Phase.HAND_IN, "a task came"): Phase.FETCH,
    (Phase.TRAIN, "a task came"): Phase.HALT,
    (Phase.ALONE, "a task came"): Phase.HALT,
    (Phase.HALT, "stopped"): Phase.FETCH,
    (Phase.FETCH, "weights came"): Phase.CHECK,
    (Phase.FETCH, "weights did not come"): Phase.WAIT,
    (Phase.CHECK, "they are good"): Phase.TRAIN,
    (Phase.CHECK, "they are the result"): Phase.END,
    (Phase.CHECK, "they are useless"): Phase.WAIT,
    (Phase.CHECK, "no steps are left"): Phase.WAIT,
    (Phase.TRAIN, "steps taken"): Phase.HAND_IN,
    (Phase.TRAIN, "it failed"): Phase.WAIT,
    (Phase.HAND_IN, "written"): Phase.WAIT,
    (Phase.HAND_IN, "it failed"): Phase.WAIT,
    (Phase.WAIT, "nobody to hand in to"): Phase.ALONE,
    (Phase.ALONE, "steps taken"): Phase.END,
    (Phase.WAIT, "no result came"): Phase.END,
    (Phase.END, "measured"): Phase.DONE,
}


class Algorithm(StrEnum):
    """What decides on a client's steps, and when it goes on."""

    FEDAVG = "fedavg"
    FEDPROX = "fedprox"
    SCAFFOLD = "scaffold"
    FEDBUFF = "fedbuff"


class Job(Struct, frozen=True):
    """Weights to go from.

    author: who has them, and answers for them.
    control: the mean way per step of all, if there is one.
    deadline_s: after this the client stops; 0: it takes its time.
    is_last: nothing is trained from them, they are the result.
    """

    author: PeerId
    number: int
    offer: Offer
    control: Offer | None = None
    deadline_s: Seconds = 0.0
    is_last: bool = False


class Way(Struct, frozen=True):
    """What came of a job.

    number, base: of the round.
    name: tells it from all others of this client.
    offer: the way, with the held-out loss at its end; None: nothing came of it.
    """

    number: int
    base: BlobId | None
    name: int
    offer: Offer | None = None
    steps: int = 0
    samples: int = 0
    train_loss: float = 0.0
