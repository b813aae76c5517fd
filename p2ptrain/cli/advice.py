"""Which strategy fits a task, some computers and their lines: times of rounds, and a reason for each."""

import math
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from p2ptrain.cli.output import human_bytes, human_seconds, percent
from p2ptrain.core import costs, law
from p2ptrain.core.blocks import balanced
from p2ptrain.core.costs import Cost, Situation
from p2ptrain.core.types import Seconds

BUSY_ENOUGH = 0.8
"""Who computes that much of the time waits little (guess)."""

STEPS_MAX = 500
"""Steps apart between two exchanges: the longest that is in the literature (DiLoCo, arXiv 2311.08105)."""

NEAR_BEST = 0.6
"""Of the speed of the fastest: still a good choice (guess)."""

LEAD = 1 / 3
"""Of a step with a layer, computing it forward only takes so much (ALGORITHMS 4.3)."""

MICRO = 4
"""Pieces of a batch in a pipeline (guess)."""


class Fit(IntEnum):
    """How well a strategy fits."""

    GOOD = 0
    POSSIBLE = 1
    POOR = 2


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a task, and of those who would train it.

    now: with `round_steps` 1.
    layers: costs of the net's layers; one: it cannot be cut.
    activation_bytes: that leave the widest layer but the last for one batch; 0: not known.
    fits: whether one computer can train the whole net.
    uneven: whether the members' data differ in kind.
    unsure: whether nobody knows a good learning rate, or bad minima are feared.
    session_s: a member stays so long; infinite: for ever.
    """

    now: Situation
    layers: tuple[float, ...] = (1.0,)
    activation_bytes: float = 0.0
    fits: bool = True
    uneven: bool = False
    unsure: bool = False
    session_s: Seconds = math.inf


class Advice(Struct, frozen=True, kw_only=True):
    """What is said of one strategy.

    speed: optimiser steps in all, as a multiple of one computer alone.
    busy: share of the time in which a member computes.
    settings: that this rests on, other than the defaults.
    """

    strategy: str
    fit: Fit
    speed: float
    busy: float
    round_s: Seconds
    sent_per_hour: float
    why: str
    settings: dict[str, Any] = {}


def advise(facts: Facts) -> list[Advice]:
    """Look at every strategy; the best first."""
    found = [consider(facts) for consider in STRATEGIES]
    best = max((one.speed for one in found if one.fit is not Fit.POOR), default=1.0)
    judged = [_beside(one, best) for one in found]
    return sorted(judged, key=lambda one: (one.fit, -one.speed))


def _beside(one: Advice, best: float) -> Advice:
    """What is much slower than the best is possible, and no more."""
    slow = one.fit is Fit.GOOD and one.speed < NEAR_BEST * best and one.strategy not in SEARCHES
    return replace(one, fit=Fit.POSSIBLE) if slow else one


# -- all train the whole net -----------------------------------------------------------------------


def _gossip(facts: Facts) -> Advice:
    exchanges = law.turns(facts.now.peers) if facts.uneven else 1
    steps, cost = _paced(facts, 50, lambda now: costs.gossip(now, exchanges))
    settings = _changed("exchange_steps", steps, 50) | _changed("exchanges", exchanges, 1)
    why = "weights travel while training goes on, in pairs; who leaves or comes disturbs nobody"
    if facts.uneven:
        why += "; for uneven data several exchanges a round"
    return _shared(facts, "gossip", cost, why, settings)


def _federated(facts: Facts) -> Advice:
    steps, cost = _paced(facts, 50, costs.federated)
    why = "one of the members, chosen by all, gathers a round's weights and gives out their mean"
    settings = _changed("round_steps", steps, 50)
    if facts.uneven:
        why += "; SCAFFOLD holds members with uneven data together"
        settings |= {"algorithm": "scaffold"}
    return _shared(facts, "federated", cost, why, settings)


def _allreduce(facts: Facts) -> Advice:
    steps, cost = _paced(facts, 16, costs.ring)
    why = "all go on from exactly the same mean, each sends no more than it must; all wait for the slowest"
    return _shared(facts, "allreduce", cost, why, _changed("round_steps", steps, 16), waits=True)


def _parameter_server(facts: Facts) -> Advice:
    steps, cost = _paced(facts, 8, costs.parameter_server)
    why = "some members add up everybody's changes; their lines carry all of it"
    return _shared(facts, "parameter_server", cost, why, _changed("round_steps", steps, 8), waits=True)


def _shared(
    facts: Facts, name: str, cost: Cost, why: str, settings: dict[str, Any], *, waits: bool = False
) -> Advice:
    """Everybody trains the whole net on an own part of the data."""
    now = facts.now
    lost = 1 - math.exp(-now.peers * cost.round_s / facts.session_s) if waits else 0.0
    speed = now.peers * cost.busy * (1 - lost / 2)
    if lost > 0.05:
        why += f"; in {percent(lost)} of the rounds somebody leaves, and it is made anew"
    if not facts.fits:
        fit, why = Fit.POOR, "the net does not fit into one computer"
    elif speed <= 1:
        fit, why = Fit.POOR, f"no faster than one computer: {_slow(cost)}"
    elif facts.unsure:
        fit, why = Fit.POSSIBLE, f"{why}; a wrong learning rate is wrong for all"
    else:
        fit = Fit.GOOD
    return _advice(name, fit, speed, cost, why, settings)


def _paced(facts: Facts, usual: int, cost_of: Callable[[Situation], Cost]) -> tuple[int, Cost]:
    """Return the steps between two exchanges that keep members busy, and what a round costs then."""
    steps = usual
    while True:
        cost = cost_of(replace(facts.now, round_steps=steps))
        if cost.busy >= BUSY_ENOUGH or steps >= STEPS_MAX:
            return steps, cost
        steps = min(STEPS_MAX, 2 * steps)


# -- everybody searches apart ----------------------------------------------------------------------


def _restart(facts: Facts) -> Advice:
    """A quarter of the members looks for better weights every 12 s (its defaults)."""
    now = facts.now
    sent = now.weights_bytes / 4 if now.peers > 1 else 0.0
    cost = Cost(12.0, sent / now.slower, sent, overlaps=True)
    why = "everybody searches from an own start, with an own learning rate; losers go on from the best"
    return _search(facts, "restart", cost, why)


def _polytope(facts: Facts) -> Advice:
    cost = costs.gossip(replace(facts.now, round_steps=50))
    why = "members with worse results move along a line through the mean of others; bad rates are left behind"
    return _search(facts, "polytope", cost, why)


def _search(facts: Facts, name: str, cost: Cost, why: str) -> Advice:
    settings: dict[str, Any] = {"lr_spread": 2.0} if facts.unsure else {}
    if not facts.fits:
        return _advice(name, Fit.POOR, 1.0, cost, "the net does not fit into one computer", settings)
    if not facts.unsure:
        why += "; it pays where runs differ, hardly where all are healthy"
    return _advice(name, Fit.GOOD if facts.unsure else Fit.POSSIBLE, cost.busy, cost, why, settings)


# -- the net is cut --------------------------------------------------------------------------------


def _layerwise(facts: Facts) -> Advice:
    blocks = balanced(facts.layers, facts.now.peers, LEAD)
    share = max(_with_lead(facts.layers, block) for block in blocks) / sum(facts.layers)
    steps, cost = _paced(facts, 16, lambda now: costs.layerwise(now, share))
    speed = cost.busy / share
    if len(blocks) < 2:
        return _uncut(facts, "layerwise", cost)
    fit = Fit.GOOD if speed > 1 and facts.fits else Fit.POOR
    why = f"{len(blocks)} groups of layers are trained at once, each for a loss of its own"
    if speed <= 1:
        why = f"no faster than one computer: {_slow(cost)}"
    return _advice("layerwise", fit, speed, cost, why, _changed("round_steps", steps, 16))


def _pipeline(facts: Facts) -> Advice:
    blocks = balanced(facts.layers, facts.now.peers)
    share = max(sum(facts.layers[first:last]) for first, last in blocks) / sum(facts.layers)
    now = replace(facts.now, peers=len(blocks))
    cost = costs.pipeline(now, facts.activation_bytes, MICRO, share)
    speed = facts.now.step_s / cost.round_s if cost.round_s else 1.0
    if len(blocks) < 2:
        return _uncut(facts, "pipeline", cost)
    sent = human_bytes(2 * facts.activation_bytes)
    if not facts.fits:
        fit, why = Fit.GOOD, f"the net fits only in pieces: {len(blocks)} members hold a part each"
    elif speed <= 1:
        fit, why = Fit.POOR, f"no faster than one computer: {sent} of activations travel in each step"
    else:
        fit, why = Fit.POSSIBLE, f"{len(blocks)} stages, {sent} of activations in each step: for fast lines"
    return _advice("pipeline", fit, speed, cost, why, {})


def _uncut(facts: Facts, name: str, cost: Cost) -> Advice:
    why = "the net cannot be cut into layers" if facts.now.peers > 1 else "there is nobody to share it with"
    return _advice(name, Fit.POOR, 1.0, cost, why, {})


def _with_lead(layers: tuple[float, ...], block: tuple[int, int]) -> float:
    first, last = block
    return LEAD * sum(layers[:first]) + sum(layers[first:last])


# -- words -----------------------------------------------------------------------------------------


def _advice(name: str, fit: Fit, speed: float, cost: Cost, why: str, settings: dict[str, Any]) -> Advice:
    per_hour = cost.sent_bytes / cost.round_s * 3600 if cost.round_s else 0.0
    return Advice(
        strategy=name,
        fit=fit,
        speed=speed,
        busy=cost.busy,
        round_s=cost.round_s,
        sent_per_hour=per_hour,
        why=why,
        settings=settings,
    )


def _slow(cost: Cost) -> str:
    took, trained = human_seconds(cost.exchange_s), human_seconds(cost.train_s)
    return f"{human_bytes(cost.sent_bytes)} travel {took} for {trained} of training"


def _changed(name: str, value: int, usual: int) -> dict[str, Any]:
    return {} if value == usual else {name: value}


SEARCHES = ("restart", "polytope")

STRATEGIES: tuple[Callable[[Facts], Advice], ...] = (
    _gossip,
    _federated,
    _allreduce,
    _parameter_server,
    _restart,
    _polytope,
    _layerwise,
    _pipeline,
)
"""In the order of preference where they are equally fast."""
