"""How long a round of each strategy takes: what advice rests on. A model of links, no measurement.

All peers are alike, lines are full duplex, and what goes through one line at the same time shares it. Source:
the scaling model of ALGORITHMS 2.4, `t_step = t_comp + t_comm`; others as named.
"""

from msgspec import Struct

from p2ptrain.core.law import turns
from p2ptrain.core.types import Seconds


class Situation(Struct, frozen=True, kw_only=True):
    """What decides on the time of a round.

    weights_bytes: of one set of weights as it travels.
    peers: that take part, at least 1.
    up, down: bytes per second of each peer's line.
    latency_s: one way.
    step_s: one optimiser step on one peer, with the whole net.
    round_steps: steps between two exchanges.
    """

    weights_bytes: float
    peers: int
    up: float
    down: float
    latency_s: Seconds = 0.03
    step_s: Seconds
    round_steps: int = 1

    @property
    def train_s(self) -> Seconds:
        """Time of the steps of a round."""
        return self.step_s * self.round_steps

    @property
    def slower(self) -> float:
        """Bytes per second where as much is sent as received."""
        return min(self.up, self.down)


class Cost(Struct, frozen=True):
    """A round of one strategy, for one peer.

    train_s: it computes.
    exchange_s: weights, or activations, travel.
    sent_bytes: by whom sends the most.
    overlaps: whether training goes on meanwhile.
    """

    train_s: Seconds
    exchange_s: Seconds
    sent_bytes: float
    overlaps: bool = False

    @property
    def round_s(self) -> Seconds:
        """All of the round."""
        longer = max(self.train_s, self.exchange_s)
        return longer if self.overlaps else self.train_s + self.exchange_s

    @property
    def busy(self) -> float:
        """Share of the time in which a peer computes; 1 where nothing takes time."""
        return self.train_s / self.round_s if self.round_s else 1.0


def central_server(now: Situation) -> Cost:
    """One server that only serves: `2 N M / B`, everything in and everything out (ALGORITHMS 2.4)."""
    through = now.peers * now.weights_bytes
    return Cost(now.train_s, through / now.down + through / now.up + 4 * now.latency_s, through)


def parameter_server(now: Situation, shards: int = 4, *, waits: bool = True) -> Cost:
    """Workers of which some serve a shard each as well.

    Changes of a shard go to its server from all others, then the new numbers go back the same way; a server
    sends its own changes of the other shards too. Two questions and two answers of latency.

    Args:
        now: the situation.
        shards: servers, if there are so many peers.
        waits: synchronous; else training goes on meanwhile.
    """
    served = min(shards, now.peers)
    to_server = (now.peers - 1) / served * now.weights_bytes
    of_worker = (1.0 if now.peers > served else (served - 1) / served) * now.weights_bytes
    changes_s = max(to_server / now.down, of_worker / now.up)
    numbers_s = max(to_server / now.up, of_worker / now.down)
    sent = max(to_server + (served - 1) / served * now.weights_bytes, of_worker)
    return Cost(now.train_s, changes_s + numbers_s + _answers(now, 4), sent, not waits)


def ring(now: Situation) -> Cost:
    """All-reduce: `2 (N - 1) / N M / B + 2 (N - 1) latency` (ALGORITHMS 2.4)."""
    sent = 2 * (now.peers - 1) / now.peers * now.weights_bytes
    return Cost(now.train_s, sent / now.slower + _answers(now, 2 * (now.peers - 1)), sent)


def gossip(now: Situation, exchanges: int = 1) -> Cost:
    """Pairs that swap their weights, while training goes on."""
    sent = exchanges * now.weights_bytes if now.peers > 1 else 0.0
    return Cost(now.train_s, sent / now.slower + _answers(now, 4 * exchanges), sent, overlaps=True)


def federated(now: Situation) -> Cost:
    """A coordinator gets everybody's weights; the new ones spread from all who have parts of them already.

    Spreading takes what no schedule can beat: the source sends all of it once, everyone receives all of it,
    and all lines together send it to everyone (Kumar and Ross 2006, peer-assisted file distribution).
    """
    others, weights = now.peers - 1, now.weights_bytes
    if not others:
        return Cost(now.train_s, 0.0, 0.0)
    gather_s = max(others * weights / now.down, weights / now.up)
    spread_s = max(weights / now.up, weights / now.down, others * weights / (now.peers * now.up))
    latency_s = (4 + 2 * turns(now.peers)) * now.latency_s
    return Cost(now.train_s, gather_s + spread_s + latency_s, 2 * weights)


def layerwise(now: Situation, share: float) -> Cost:
    """Groups of layers trained apart and joined: everyone sends its group to all, and gets all the others.

    Args:
        now: the situation; as many groups as peers.
        share: of the time of a whole step that the slowest group's step takes, from measured costs.
    """
    sent = (now.peers - 1) / now.peers * now.weights_bytes
    return Cost(share * now.train_s, sent / now.slower + _answers(now, 4), sent)


def pipeline(now: Situation, activation_bytes: float, micro: int, share: float) -> Cost:
    """A net cut into as many stages as peers; of each batch, activations go on and gradients come back.

    A batch passes in `micro` pieces. The slower of computing and sending a piece sets the beat; the line is
    filled and emptied once a batch: `(micro + stages - 1)` beats, and latency along it and back (GPipe 2019).

    Args:
        now: the situation.
        activation_bytes: that cross the widest cut for one batch, one way.
        micro: pieces of a batch.
        share: of the time of a whole step that the slowest stage takes.
    """
    compute_s = share * now.step_s / micro
    travel_s = activation_bytes / micro / now.slower if now.peers > 1 else 0.0
    beat_s = max(compute_s, travel_s)
    step_s = (micro + now.peers - 1) * beat_s + _answers(now, 2 * (now.peers - 1))
    train_s = micro * compute_s * now.round_steps
    sent = 2 * activation_bytes * now.round_steps if now.peers > 1 else 0.0
    return Cost(train_s, step_s * now.round_steps - train_s, sent)


def _answers(now: Situation, ways: int) -> Seconds:
    """Time of so many messages one after the other."""
    return ways * now.latency_s if now.peers > 1 else 0.0
