"""What a net does with the tensor that enters it, step by step, and where it can be cut.

torch.fx follows a tensor through the net's own code. What cannot be followed, as an `if` about numbers,
stays one step, together with the module that it stands in.
"""

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument, map_arg

from p2ptrain.core.errors import P2PTrainError
from p2ptrain.learn.blame import blame, own_code

_IN_PLACE = (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.setitem, setattr)


class Followed:
    """The steps of a net, in the mode that it is in now: that is what its code sees as `self.training`.

    Args:
        closed: why the net must stay one step; empty if it may be followed.

    Attributes:
        ends: after how many steps exactly one value is still needed; all of them are the last entry.
        notice: what could not be followed, and why; may be empty.
    """

    def __init__(self, net: nn.Module, closed: str = "") -> None:
        self._root = _Root(net)
        with plainly(net):
            graph, self.notice = _follow(self._root, closed)
        self._entry, *nodes = graph.nodes
        self._result: Argument = nodes.pop().args[0]
        self._nodes = nodes
        self.ends = self._find_ends()

    def tensors(self, begin: int, end: int) -> list[Tensor]:
        """Return the parameters and buffers that these steps use."""
        found: list[Tensor] = []
        for node in self._nodes[begin:end]:
            if node.op == "call_module":
                module = self._root.get_submodule(str(node.target))
                found += [*module.parameters(), *module.buffers()]
            named = [one for one in node.all_input_nodes if one.op == "get_attr"]
            values = [operator.attrgetter(str(one.target))(self._root) for one in named]
            found += [value for value in values if isinstance(value, Tensor)]
        return found

    def piece(self, begin: int, end: int) -> nn.Module:
        """Return a module that takes what is needed after `begin` steps, and returns what is after `end`.

        It calls the net's own modules.
        """
        graph = fx.Graph()
        copies = {self._needed[begin]: graph.placeholder("numbers")}

        def copy(node: fx.Node) -> fx.Node:
            if node not in copies:
                copies[node] = graph.node_copy(node, copy)
            return copies[node]

        for node in self._nodes[begin:end]:
            if node.op != "get_attr":  # these are wherever they are used
                copy(node)
        result = self._result if end == len(self._nodes) else self._needed[end]
        graph.output(map_arg(result, copy))
        return fx.GraphModule(self._root, graph)

    def _find_ends(self) -> list[int]:
        last_use: dict[fx.Node, int] = {}
        for place, node in enumerate(self._nodes):
            last_use |= dict.fromkeys(node.all_input_nodes, place)
        map_arg(self._result, lambda node: last_use.update({node: len(self._nodes)}))
        self._needed, needed, ends = {0: self._entry}, [self._entry], list[int]()
        for place, node in enumerate(self._nodes):
            needed += [node] if node.op != "get_attr" else []
            needed = [one for one in needed if last_use.get(one, -1) > place]
            if len(needed) == 1 and not any(map(self._is_in_place, needed[0].users)):
                self._needed[place + 1] = needed[0]
                ends.append(place + 1)
        return ends if ends and ends[-1] == len(self._nodes) else [*ends, len(self._nodes)]

    def _is_in_place(self, node: fx.Node) -> bool:
        """Say whether a step may write into what enters it: it belongs to the step before, then."""
        if node.op == "call_module":
            return bool(getattr(self._root.get_submodule(str(node.target)), "inplace", False))
        name = str(getattr(node.target, "__name__", node.target))
        is_named = node.op != "output" and name.endswith("_") and not name.endswith("__")
        return is_named or node.target in _IN_PLACE or bool(node.kwargs.get("inplace"))


class Memory:
    """What the modules of a net have as attributes, so that following it leaves nothing there."""

    def __init__(self, net: nn.Module) -> None:
        self._kept = [
            (module, dict(vars(module)), {name: copy(value) for name, value in _holders(module)})
            for module in net.modules()
        ]

    def changed(self) -> nn.Module | None:
        """Return a module that has other attributes now."""
        for module, attributes, contents in self._kept:
            if not _are_same(vars(module), attributes):
                return module
            if not all(_are_same(vars(module)[name], content) for name, content in contents.items()):
                return module
        return None

    def restore(self) -> None:
        """Give all modules back what they had."""
        for module, attributes, contents in self._kept:
            vars(module).clear()
            vars(module).update(attributes)
            for name, content in contents.items():
                holder: Any = attributes[name]
                holder.clear()
                (holder.extend if isinstance(holder, list) else holder.update)(content)


def _holders(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in vars(module).items() if isinstance(value, dict | list | set)]


def _are_same(now: Any, before: Any) -> bool:
    """Say whether two collections hold the same objects."""
    if isinstance(now, dict):
        return now.keys() == before.keys() and all(now[name] is before[name] for name in now)
    return len(now) == len(before) and all(map(operator.is_, now, before))


@contextmanager
def plainly(net: nn.Module) -> Iterator[None]:
    """Have a net computed by its own code, even if it was compiled."""
    compiled, net._compiled_call_impl = net._compiled_call_impl, None
    try:
        yield
    finally:
        net._compiled_call_impl = compiled


class _Root(nn.Module):
    """Has one tensor enter a net: other arguments are as its code says."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.training = net.training

    def forward(self, numbers: Any) -> Any:
        return self.net(numbers)


class _Follower(fx.Tracer):
    """Takes modules of these kinds as one step; remembers the innermost one that could not be followed."""

    def __init__(self, closed: set[type[nn.Module]]) -> None:
        super().__init__()
        self._closed = closed
        self.stuck: nn.Module | None = None

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return type(module) in self._closed or super().is_leaf_module(module, qualified_name)

    def call_module(
        self, module: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(module, forward, args, kwargs)
        except Exception:
            self.stuck = self.stuck or module
            raise


def _follow(root: _Root, notice: str) -> tuple[fx.Graph, str]:
    """Return the graph, and what could not be followed."""
    closed = {type(root.net)} if notice else set[type[nn.Module]]()
    while True:
        follower, drawn, remembered = _Follower(closed), torch.default_generator.get_state(), Memory(root.net)
        try:
            with own_code("the net cannot be followed"):
                graph = follower.trace(root)
            if not torch.equal(drawn, torch.default_generator.get_state()):
                follower.stuck, reason = root.net, "its code draws random numbers itself"
            elif (changed := remembered.changed()) is not None:
                follower.stuck, reason = changed, "it remembers something from step to step"
            else:
                return graph, notice
        except P2PTrainError as error:
            reason = blame(error.__cause__ or error)
        torch.default_generator.set_state(drawn)
        remembered.restore()
        kind = type(follower.stuck or root.net)
        notice = f"the inside of {kind.__name__} cannot be followed: {reason}"
        closed.add(kind)
