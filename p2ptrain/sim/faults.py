"""What goes wrong, and how often. Drawn from a seed or given by hand."""

from random import Random

from msgspec import Struct

from p2ptrain.core.types import Seconds


class Faults(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The weather of a simulated swarm. Shares lie between 0 and 1.

    latency_s: one way, the middle of a long-tailed distribution.
    upload: bytes per second of each peer; 0: unlimited.
    loss, duplicate: share of messages (and of transfers, for loss) that vanish or come twice.
    reorder: share of messages that are held back by up to a second.
    churn: share of the time that each peer is off; it crashes and comes back from its checkpoint.
    session_s: mean time between a return and the next crash.
    partition: share of the time that the swarm is cut in two.
    partition_s: mean length of a cut.
    slow: share of the peers that are ten times slower.
    liars: share of the peers that claim the best loss, offer poisoned weights and send rubbish.
    attack: how the weights are poisoned: a kind of poison.py, or `mixed`.
    clock_jumps: share of inputs at which a peer's clock jumps ahead by up to an hour.
    until_s: the weather clears then, so that it can be seen whether the swarm heals.
    """

    latency_s: Seconds = 0.05
    upload: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    churn: float = 0.0
    session_s: Seconds = 60.0
    partition: float = 0.0
    partition_s: Seconds = 15.0
    slow: float = 0.0
    liars: float = 0.0
    attack: str = "mixed"
    clock_jumps: float = 0.0
    until_s: Seconds = float("inf")


def draw(seed: int) -> Faults:
    """Draw a weather: each fault is off in a third of the seeds and of any strength in the others."""
    rng = Random(seed)

    def some(most: float) -> float:
        return 0.0 if rng.random() < 1 / 3 else rng.uniform(0, most)

    return Faults(
        latency_s=rng.uniform(0.005, 0.3),
        upload=0.0 if rng.random() < 0.5 else rng.uniform(1e4, 1e6),
        loss=some(0.4),
        duplicate=some(0.3),
        reorder=some(0.3),
        churn=some(0.4),
        session_s=rng.uniform(5, 40),
        partition=some(0.4),
        partition_s=rng.uniform(3, 15),
        slow=some(0.3),
        liars=some(0.25),
        clock_jumps=some(0.002),
        until_s=rng.uniform(40, 120),
    )
