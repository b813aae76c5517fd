"""Who descends from whom: what the notes of a run say of it, and from which starts its results come.

Exact but for one thing: weights taken over count as of their author's latest start, and may be of an
earlier one that was better.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import Struct

from p2ptrain.core.effects import Note
from p2ptrain.core.types import Seconds, short
from p2ptrain.sim.host import Host

EVENTS = ("restarted", "adopted", "result")

STEPS_MAX = 1000
"""More are not kept in a summary (guess)."""

Start = tuple[int, int]
"""A peer's number, and the number of its random start, from 1."""


class Step(Struct, frozen=True, omit_defaults=True):
    """Weights began anew, or became others'.

    event: `restarted`, `adopted`, or at the end `result`.
    how: `fresh`, `shrunken` or `perturbed`; empty: taken over as they were.
    parents: numbers of peers; the own one too where a result was mixed with others'.
    """

    at: Seconds
    peer: int
    event: str
    loss: float
    how: str = ""
    parents: tuple[int, ...] = ()


def steps(hosts: Sequence[Host]) -> tuple[Step, ...]:
    """Gather what the peers noted, in the order of time."""
    numbers = {short(host.peer): host.number for host in hosts}
    found = [
        _step(at, host.number, note, numbers)
        for host in hosts
        for at, note in host.notes
        if note.event in EVENTS
    ]
    return tuple(sorted(found, key=lambda step: (step.at, step.peer)))


def _step(at: Seconds, peer: int, note: Note, numbers: dict[str, int]) -> Step:
    fields = note.fields
    named = fields.get("from", ())
    parents = [numbers[name] for name in ((named,) if isinstance(named, str) else named) if name in numbers]
    own = [peer] if fields.get("with_own") else []
    return Step(at, peer, note.event, fields["loss"], fields.get("how", ""), (*own, *parents))


def starts_of_results(taken: Iterable[Step], peers: Iterable[int]) -> dict[int, tuple[Start, ...]]:
    """Return for each peer from which random starts its result comes."""
    counts = dict.fromkeys(peers, 1)
    roots = {peer: (peer, 1) for peer in counts}
    results = {}
    for step in taken:
        if step.event == "result":  # what others offer does not change by what they choose at the end
            results[step.peer] = step.parents
        elif step.parents:
            roots[step.peer] = roots[step.parents[0]]
        elif step.how == "fresh":
            counts[step.peer] += 1
            roots[step.peer] = (step.peer, counts[step.peer])
    return {
        peer: tuple(dict.fromkeys(roots[parent] for parent in results.get(peer) or (peer,))) for peer in roots
    }


def in_words(taken: Sequence[Step], peers: int) -> str:
    """Say how many results come from which starts."""
    of_results = starts_of_results(taken, range(peers))
    count = peers + sum(step.how == "fresh" for step in taken)
    shares = Counter(start for roots in of_results.values() for start in roots)
    told = [f"peer {peer}'s {_ordinal(number)} in {n}" for (peer, number), n in shares.most_common(4)]
    more = f" and {len(shares) - 4} more" if len(shares) > 4 else ""
    return f"{peers} results come from {len(shares)} of {count} starts: {', '.join(told)}{more}"


def _ordinal(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
