"""A net's parameters and buffers as one flat tensor, so that mixing weights is arithmetic on vectors."""

from collections.abc import Iterator
from math import prod

import torch
from msgspec import Struct
from torch import Tensor, nn

from p2ptrain.core.errors import ManifestError


class Entry(Struct, frozen=True):
    """One tensor of a net, and where it begins in the vector."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)


class Spec(Struct, frozen=True):
    """What a net's vector consists of: trained parameters first, then frozen ones, then buffers.

    trainable: how many of the numbers training changes.
    count: how many there are. All are float32.
    """

    entries: tuple[Entry, ...]
    trainable: int
    count: int


class Vector:
    """The flat tensor, and a net whose parameters and persistent float buffers are views into it.

    Integer buffers are counters of this peer: they stay outside and are never averaged.

    Args:
        net: its tensors move into the vector.
        gradients: whether their gradients move into one vector too.

    Attributes:
        flat: shape (spec.count,), float32, on the net's device.
        gradient: shape (spec.trainable,); autograd adds into it. Empty without `gradients`.
        counters: persistent buffers that are not floats, by name.
    """

    def __init__(self, net: nn.Module, *, gradients: bool = True) -> None:
        floats, self.counters = _named_state(net)
        self.spec = _lay_out(floats)
        device = next(iter(floats.values())).device
        self.flat = torch.empty(self.spec.count, device=device)
        self.gradient = torch.zeros(self.spec.trainable if gradients else 0, device=device)
        self._homes: list[tuple[nn.Module, str, Tensor]] = []
        owners = _buffer_owners(net)
        with torch.no_grad():
            for entry, view in self.views(self.flat):
                tensor = floats[entry.name]
                view.copy_(tensor)
                if isinstance(tensor, nn.Parameter):
                    tensor.data = view
                    if tensor.requires_grad and gradients:
                        end = entry.offset + entry.count
                        tensor.grad = self.gradient[entry.offset : end].view(entry.shape)
                else:
                    self._homes += [(module, name, view) for module, name in owners[id(tensor)]]
        self.settle()

    def views(self, flat: Tensor) -> Iterator[tuple[Entry, Tensor]]:
        """Cut a vector of this spec into the net's tensors."""
        for entry in self.spec.entries:
            yield entry, flat[entry.offset : entry.offset + entry.count].view(entry.shape)

    def release(self, net: nn.Module) -> None:
        """Give the net tensors of its own again, with the same numbers; the vector is theirs no more."""
        self.settle()
        for parameter in net.parameters():
            parameter.data = parameter.data.clone()
        for module, name, view in self._homes:
            module._buffers[name] = view.clone()
        self._homes = []

    def settle(self) -> None:
        """Take in buffers that the net replaced by new tensors instead of writing into them."""
        for module, name, view in self._homes:
            buffer = module._buffers[name]
            if buffer is not view and buffer is not None:
                with torch.no_grad():
                    view.copy_(buffer)
                module._buffers[name] = view


def _named_state(net: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return floats in the order of the vector, and counters; a tensor with two names has its first."""
    persistent = net.state_dict(keep_vars=True)
    parameters = sorted(net.named_parameters(), key=lambda named: not named[1].requires_grad)
    buffers = [(name, buffer) for name, buffer in net.named_buffers() if name in persistent]
    counters = {name: buffer for name, buffer in buffers if not _is_fractional(buffer)}
    floats = dict(parameters) | {name: buffer for name, buffer in buffers if _is_fractional(buffer)}
    if not any(parameter.requires_grad for _, parameter in parameters):
        raise ManifestError("the model has no parameters to train")
    for name, tensor in floats.items():
        if tensor.dtype != torch.float32:
            raise ManifestError(
                f"`{name}` of the model is {tensor.dtype}",
                "build the model in float32: that is what peers share",
            )
    return floats, counters


def _lay_out(floats: dict[str, Tensor]) -> Spec:
    entries: list[Entry] = []
    count = trainable = 0
    for name, tensor in floats.items():
        entries.append(Entry(name, tuple(tensor.shape), count))
        count += tensor.numel()
        trainable += tensor.numel() if tensor.requires_grad else 0
    return Spec(tuple(entries), trainable, count)


def _buffer_owners(net: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in net.modules():
        for name, buffer in module._buffers.items():
            owners.setdefault(id(buffer), []).append((module, name))
    return owners


def _is_fractional(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
