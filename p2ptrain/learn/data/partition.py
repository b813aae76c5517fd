"""Which examples each peer trains on, and which ones it measures on, in every round.

A pure function of the manifest, a peer's slot and the round: nobody sends indices. Two questions are kept
apart. How parts differ (`balance`, `skew`, `uneven`, or not at all) decides once how many examples of each
class a part has; the formation (`formation.py`) decides which ones, round by round. What is held out for
measuring is the same in every formation and round, and nobody ever trains on it.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from p2ptrain.core.errors import ManifestError
from p2ptrain.learn.data.formation import Places, ranks, turns
from p2ptrain.learn.randomness import normals, permutation, shares

VALIDATION_SHARE = 0.15
"""Of the own part (ALGORITHMS 5, measured)."""

PART_MIN = 20
DRAWS_MAX = 100
"""A part of fewer examples than that trains nothing; so often another division is tried (guess)."""

NOBODYS = -1


class Plan(Struct, frozen=True, kw_only=True):
    """What the manifest says of the division of data; its words are explained there."""

    seed: int = 0
    parts: int = 1
    pool: int = 0
    balance: float | None = None
    classes: int = 2
    skew: float = 0.0
    uneven: float = 0.0
    formation: str = "static"
    keep: float = 0.5
    disjoint: bool = False

    @property
    def by_class(self) -> bool:
        """Whether the classes of the examples must be known."""
        return self.skew > 0 or self.balance is not None


class Division:
    """One peer's data. Peers with equal `slot % parts` have the same, unless they draw on their own.

    Args:
        count: examples in all.
        slot: the peer's.
        labels: the class of each example, int64, shape (count,); needed if `plan.by_class`.

    Attributes:
        validation: what it decides on, int64: the pool, or the end of its static part.
        balance: of what it trains on, see `balance_of`, equal in all rounds; None if classes do not matter.

    Raises:
        ManifestError: there are too few examples for that many parts.
    """

    def __init__(self, count: int, plan: Plan, slot: int, labels: Tensor | None = None) -> None:
        self._plan, self._slot = plan, slot
        order = permutation(count, "parts", plan.seed)
        pool, self._rest = order[: plan.pool], order[plan.pool :]
        if len(self._rest) // plan.parts < 2:
            raise ManifestError(
                f"{count} examples are too few for {plan.parts} parts",
                "make the swarm with fewer parts of the data",
            )
        labels = torch.zeros_like(order) if labels is None else labels
        labels = labels[self._rest]
        self._kinds = _numbered(labels)
        self._part = first_parts(labels, plan)
        sizes = self._part[self._part != NOBODYS].bincount(minlength=plan.parts)
        held_out = (VALIDATION_SHARE * sizes.double()).round().long().clamp(min=1)
        self._trained = sizes if plan.pool else sizes - held_out
        self._is_free = (self._part == NOBODYS) | (ranks(self._part) < self._trained[self._part])
        self._is_own = self._part == slot % plan.parts
        self.validation = pool if plan.pool else self._rest[self._is_own & ~self._is_free]
        taken = self._is_own & self._is_free
        self.balance = balance_of(self._kinds, taken, plan) if plan.by_class else None

    def training(self, round_: int = 0) -> Tensor:
        """Return what the peer trains on: int64; as many in every round, and as many of each class."""
        if self._plan.formation == "static":
            return self._rest[self._is_own & self._is_free]
        return self._rest[self._is_free][self._places.filled(round_)]

    @cached_property
    def _places(self) -> Places:
        """A place for each example that a peer trains on, of all parts if these are to be disjoint."""
        plan = self._plan
        together = plan.disjoint or plan.formation == "dynamic"
        key = (plan.seed, 0 if together else 1 + self._slot)
        taken = (self._part != NOBODYS) & self._is_free & (self._is_own | together)
        placed = taken.nonzero().squeeze(1)
        placed = placed[permutation(len(placed), "places", *key)]  # so that all turns have all classes
        part = self._part[placed]
        keep = plan.keep if plan.formation == "hybrid" else 0.0
        return Places(
            key=key,
            kinds=self._kinds[placed],
            turns=turns(ranks(part), self._trained[part], keep),
            is_shown=self._is_own[placed],
            universe=self._kinds[self._is_free],
        )


def balance_of(labels: Tensor, own: Tensor, plan: Plan) -> float:
    """Return how evenly the classes occur among `own` examples (which, or a mask), from 0 to 1 (as in all).

    It is about `plan.balance` in parts made by it, whatever the number of classes: one minus the total
    variation between both distributions, as a share of that of a part that has main classes only.
    """
    kinds = _numbered(labels)
    classes = int(kinds.max()) + 1
    shares_of_all = kinds.bincount(minlength=classes) / len(kinds)
    shares_of_own = kinds[own].bincount(minlength=classes) / max(1, len(kinds[own]))
    farthest = 1 - max(plan.classes, classes / plan.parts) / classes
    if farthest <= 0:
        return 1.0
    return max(0.0, 1 - 0.5 * float((shares_of_own - shares_of_all).abs().sum()) / farthest)


def first_parts(labels: Tensor, plan: Plan) -> Tensor:
    """Return the part of each shuffled example of these classes: int64; of equal parts some are `NOBODYS`.

    Raises:
        ManifestError: no division gives every part enough.
    """
    if plan.skew:
        return _large_enough(_by_shares_of_classes(labels, plan), plan, f"a skew of {plan.skew}")
    if plan.uneven:
        return _large_enough(_by_sizes(len(labels), plan), plan, f"sizes as uneven as {plan.uneven}")
    if plan.balance is not None:
        return _by_main_classes(_numbered(labels), plan, plan.balance)
    part = torch.arange(len(labels)) // (len(labels) // plan.parts)
    return torch.where(part < plan.parts, part, NOBODYS)


def _numbered(labels: Tensor) -> Tensor:
    """Return labels counted from 0 without gaps."""
    return torch.from_numpy(np.unique(labels.numpy(), return_inverse=True)[1]).long()


def _large_enough(draws: Iterator[Tensor], plan: Plan, wish: str) -> Tensor:
    for part in draws:
        if part.bincount(minlength=plan.parts).min() >= PART_MIN:
            return part
    raise ManifestError(
        f"no division of the data with {wish} gives each of {plan.parts} parts enough",
        "make the swarm with fewer parts, or with " + ("a larger skew" if plan.skew else "more equal ones"),
    )


def _by_shares_of_classes(labels: Tensor, plan: Plan) -> Iterator[Tensor]:
    """Divide each class by shares from Dirichlet(skew)."""
    for draw in range(DRAWS_MAX):
        part = torch.zeros(len(labels), dtype=torch.int64)
        for label in sorted(set(labels.tolist())):
            places = (labels == label).nonzero().squeeze(1)
            parted = shares(plan.parts, plan.skew, plan.seed, draw, label)
            mixed = permutation(
                len(places), "mixed", plan.seed, draw, label
            )  # held out are all classes alike
            part[places] = _cut(len(places), parted)[mixed]
        yield part


def _by_sizes(count: int, plan: Plan) -> Iterator[Tensor]:
    """Cut pieces whose sizes are log-normal; `uneven` is the standard deviation of the logarithm."""
    for draw in range(DRAWS_MAX):
        sizes = (plan.uneven * normals(plan.parts, "sizes", plan.seed, draw)).exp()
        yield _cut(count, sizes / sizes.sum())


def _cut(count: int, parted: Tensor) -> Tensor:
    """Return the part of each of `count` examples, for shares that add up to one."""
    ends = (parted.cumsum(0) * count).round().long()
    return torch.searchsorted(ends[:-1], torch.arange(count), right=True)


def _by_main_classes(kinds: Tensor, plan: Plan, balance: float) -> Tensor:
    """Give each part a share `balance` that is like the whole, and the rest from few classes.

    What is left of the data is sorted by class and cut into `classes` equal pieces a part (the pathological
    division of McMahan 2017, which `balance` = 0 is). So parts are equal, whatever the sizes of the classes;
    where there are fewer such pieces than classes, a piece spans several.
    """
    size = len(kinds) // plan.parts
    alike = round(balance * size)
    shuffled = permutation(
        len(kinds), "balance", plan.seed
    )  # the end of a part, held out, must be like the part
    own = kinds[shuffled]
    share_before = (ranks(own) + 0.5).double() / own.bincount()[own]
    order = shuffled[share_before.argsort(stable=True)]  # any stretch of it is like the whole
    numbers = torch.arange(plan.parts)
    part = torch.full((len(kinds),), NOBODYS)
    part[order[: plan.parts * alike]] = numbers.repeat_interleave(alike)
    left = order[plan.parts * alike : plan.parts * size]
    names = permutation(int(kinds.max()) + 1, "order of classes", plan.seed)
    left = left[names[kinds[left]].argsort(stable=True)]
    for piece in range(plan.classes):
        width = (size - alike) // plan.classes + (piece < (size - alike) % plan.classes)
        taken, left = left[: plan.parts * width], left[plan.parts * width :]
        part[taken] = permutation(plan.parts, "main classes", plan.seed, piece).repeat_interleave(width)
    return part
