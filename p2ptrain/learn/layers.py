"""A net as a chain of layers: pieces that one tensor enters and one leaves.

A layer begins where something is multiplied by weights: normalisation, activation, pooling and the like
belong to what comes before them.
"""

from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.core.inputs import Layer
from p2ptrain.core.types import Ranges
from p2ptrain.learn.blame import own_code
from p2ptrain.learn.following import Followed, Memory, plainly
from p2ptrain.learn.weights.vector import Entry, Spec

MATRIX = 2
"""Weights of fewer dimensions are scales and shifts: they do not begin a layer."""


class Part(Struct):
    """Steps of a net up to `end`, and the names of the vector's tensors that they use."""

    end: int
    names: set[str]


class Chain:
    """The layers of a net, and the pieces that compute them.

    All pieces in order give what the net gives, bit by bit, and draw the same random numbers: they call its
    own modules, with its own weights, whose gradients and statistics change as if the net had been called.
    They are for training: what code does in the other mode is not in them.

    Args:
        net: in training mode; its tensors are those of the vector.
        spec: of the vector.
        example: what enters the net, for a few examples; without it, costs are numbers of weights.
        closed: why the net must stay one layer; empty if it may be cut.

    Attributes:
        layers: where their numbers are, and their cost: products of numbers, forward and backward, for the
            examples. It follows from shapes alone, so all peers find the same.
        shapes: of what leaves each layer, for the examples; empty if unknown.
        notice: why there are fewer layers than one might expect; empty if there is nothing to say.
    """

    def __init__(self, net: nn.Module, spec: Spec, example: Tensor | None = None, closed: str = "") -> None:
        self._steps = Followed(net, closed)
        self.notice = self._steps.notice
        self._parts = self._group(_entries_by_id(net, spec), _matrices(spec))
        self._parts[-1].names |= {entry.name for entry in spec.entries} - _all_names(self._parts)
        self.shapes: list[torch.Size] = []
        remembered = Memory(net)
        with plainly(net):
            costs = [] if example is None else self._measure(example)
        remembered.restore()
        ranges = [_ranges(spec, part.names) for part in self._parts]
        counts = [sum(end - begin for begin, end in some) for some in ranges]
        costs = [cost or count for cost, count in zip(costs or counts, counts, strict=True)]
        self.layers = tuple(Layer(some, float(cost)) for some, cost in zip(ranges, costs, strict=True))

    def __len__(self) -> int:
        return len(self._parts)

    @cached_property
    def pieces(self) -> list[nn.Module]:
        """One a layer: it takes what leaves the layer before, and returns what leaves its own."""
        ends = [0, *(part.end for part in self._parts)]
        return [self._steps.piece(begin, end) for begin, end in pairwise(ends)]

    def run(self, numbers: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """Compute the layers from the first to before the last, of what enters the first."""
        for piece in self.pieces[first:last]:
            numbers = piece(numbers)
        return numbers

    def ranges(self, first: int, last: int) -> Ranges:
        """Return the numbers of the layers from the first to before the last."""
        return _joined(one for layer in self.layers[first:last] for one in layer.ranges)

    # -- how it is cut -----------------------------------------------------------------------------

    def _group(self, entries: dict[int, Entry], matrices: set[str]) -> list[Part]:
        """Begin a layer with each part that has a matrix, unless it shares something with one before."""
        parts: list[Part] = []
        for begin, end in pairwise([0, *self._steps.ends]):
            used = [entries.get(id(tensor)) for tensor in self._steps.tensors(begin, end)]
            names = {entry.name for entry in used if entry is not None}
            if parts and not (names & matrices and parts[-1].names & matrices):
                names |= parts.pop().names
            parts.append(Part(end, names))
            self._join_sharing(parts)
        return parts

    def _join_sharing(self, parts: list[Part]) -> None:
        """Join the last part with the first that has a tensor of it, and with all between them."""
        for at, part in enumerate(parts[:-1]):
            if shared := part.names & parts[-1].names:
                self.notice = self.notice or f"a part near the end shares `{min(shared)}` with layer {at + 1}"
                joined = Part(parts[-1].end, _all_names(parts[at:]))
                parts[at:] = [joined]
                return

    def _measure(self, example: Tensor) -> list[int]:
        """Count the products of each layer, by shapes alone; none if that cannot be done."""
        numbers = example.to("meta")
        costs = []
        try:
            with own_code("the net cannot be computed without numbers"):
                for at, piece in enumerate(self.pieces):
                    numbers, cost = _products(piece, numbers, at > 0)
                    costs.append(cost)
                    self.shapes.append(numbers.shape)
        except P2PTrainError:
            self.shapes = []
            return []
        return costs


def _products(piece: nn.Module, numbers: Tensor, needs_gradient: bool) -> tuple[Tensor, int]:
    """Return what leaves a piece, and the products of numbers that it takes to compute and to train."""
    tensors = [*piece.named_parameters(), *piece.named_buffers()]
    own = {name: torch.empty_like(one, device="meta") for name, one in tensors}
    for name, one in tensors:
        own[name].requires_grad_(one.requires_grad)
    numbers = numbers.detach().requires_grad_(needs_gradient and numbers.is_floating_point())
    with FlopCounterMode(display=False) as counter:
        result: Tensor = functional_call(piece, own, (numbers,))
        if result.requires_grad:
            result.backward(torch.empty_like(result))  # type: ignore[no-untyped-call]
    return result.detach(), counter.get_total_flops()


def _entries_by_id(net: nn.Module, spec: Spec) -> dict[int, Entry]:
    tensors: dict[str, Tensor] = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {id(tensors[entry.name]): entry for entry in spec.entries}


def _matrices(spec: Spec) -> set[str]:
    """Return the names of what begins a layer; in a net of scales and shifts, of all that is trained."""
    trained = [entry for entry in spec.entries if entry.offset < spec.trainable]
    matrices = {entry.name for entry in trained if len(entry.shape) >= MATRIX}
    return matrices or {entry.name for entry in trained}


def _all_names(parts: Iterable[Part]) -> set[str]:
    return set[str]().union(*(part.names for part in parts))


def _ranges(spec: Spec, names: set[str]) -> Ranges:
    return _joined((one.offset, one.offset + one.count) for one in spec.entries if one.name in names)


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return ranges in order; those that touch become one."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(ranges):
        touches = bool(joined) and joined[-1][1] == begin
        joined.append((joined.pop()[0] if touches else begin, end))
    return tuple(one for one in joined if one[0] < one[1])
