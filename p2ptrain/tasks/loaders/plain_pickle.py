"""Reads the pickles that CIFAR comes in, and nothing else: no code can be reached from their bytes.

A pickle is a program for a machine with a stack. This one knows only the instructions with which Python 2
wrote dicts, lists, tuples, byte strings, integers and arrays of bytes. Of the four names that a pickle may
ask for, none is looked up: they are told apart by their text.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

ARRAY = "numpy.core.multiarray _reconstruct"
NAMES = (ARRAY, "numpy._core.multiarray _reconstruct", "numpy ndarray", "numpy dtype")

DEPTH_MAX = 1 << 20
"""Things on the stack: ten times the most that CIFAR-100 puts there at once."""


class _Name(str):
    """A name that the pickle asked for."""

    __slots__ = ()


class _Kind:
    """A dtype: bytes, the only one there is here."""


class _Array:
    """An array that is not filled yet."""

    def __init__(self) -> None:
        self.content: np.ndarray[Any, np.dtype[np.uint8]] | None = None


_MARK = object()


class _RefusedError(ValueError):
    """What this reader does not read, in words."""


def loads(content: bytes) -> dict[bytes, Any]:
    """Return the dict that a pickle holds: of arrays, which are uint8, and lists of integers or bytes.

    Raises:
        ValueError: it is damaged, or holds anything else.
    """
    try:
        found = _Machine(content).run()
    except _RefusedError:
        raise
    except (ValueError, LookupError, TypeError, struct.error) as error:
        raise ValueError(f"it is not a pickle of plain arrays ({type(error).__name__})") from None
    if type(found) is not dict:
        raise ValueError("it is not a pickle of a dict")
    return {name: _plain(value) for name, value in found.items()}


def _plain(found: Any) -> Any:
    """Return the content of an array in its place, and refuse what is only a part of one."""
    if type(found) is _Array and found.content is not None:
        return found.content
    plain = all(type(item) in (int, bytes) for item in found) if type(found) is list else False
    if plain or type(found) in (int, bytes):
        return found
    raise _RefusedError("it holds something else than plain arrays, lists and numbers")


class _Machine:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Carry out instructions up to the stop."""
        while (code := self._take(1)) != b".":
            step = _STEPS.get(code)
            if step is None:
                raise _RefusedError(f"it is not a pickle of plain arrays (instruction {code!r})")
            step(self)
            if len(self._stack) > DEPTH_MAX:
                raise _RefusedError("it is not a pickle of plain arrays (too deep)")
        (result,) = self._stack
        return result

    def _take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if len(taken) != count:
            raise _RefusedError("it ends too early")
        self._at += count
        return taken

    def _number(self, form: str) -> int:
        (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return int(number)

    def _line(self) -> str:
        end = self._content.index(b"\n", self._at)
        return self._take(end + 1 - self._at)[:-1].decode("ascii")

    def _since_mark(self) -> list[Any]:
        place = len(self._stack) - 1
        while self._stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise _RefusedError("it has an end without a beginning")
        items = self._stack[place + 1 :]
        del self._stack[place:]
        return items

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def integer(self, form: str) -> None:
        self.push(self._number(form))

    def string(self, form: str) -> None:
        size = self._number(form)
        if size < 0:
            raise _RefusedError("it has a string of negative length")
        self.push(self._take(size))

    def keep(self, form: str) -> None:
        self._memo[self._number(form)] = self._stack[-1]

    def recall(self, form: str) -> None:
        self.push(self._memo[self._number(form)])

    def tuple_of(self, count: int) -> None:
        if count:
            items = self._stack[-count:]
            if len(items) != count:
                raise _RefusedError("it takes more than there is")
            del self._stack[-count:]
        else:
            items = self._since_mark()
        self.push(tuple(items))

    def append(self) -> None:
        item = self._stack.pop()
        self._grow(self._stack[-1], [item])

    def appends(self) -> None:
        items = self._since_mark()
        self._grow(self._stack[-1], items)

    @staticmethod
    def _grow(target: Any, items: list[Any]) -> None:
        if type(target) is not list:
            raise _RefusedError("it appends to what is no list")
        target.extend(items)

    def set_item(self) -> None:
        value, name = self._stack.pop(), self._stack.pop()
        self._set(self._stack[-1], [name, value])

    def set_items(self) -> None:
        items = self._since_mark()
        self._set(self._stack[-1], items)

    @staticmethod
    def _set(target: Any, items: list[Any]) -> None:
        names = items[::2]
        if type(target) is not dict or len(items) % 2 or any(type(name) is not bytes for name in names):
            raise _RefusedError("it fills what is no dict")
        target.update(zip(names, items[1::2], strict=True))

    def name(self) -> None:
        asked = f"{self._line()} {self._line()}"
        if asked not in NAMES:
            raise _RefusedError(f"it asks for {asked[:80]!r}, which no pickle of plain arrays needs")
        self.push(_Name(asked))

    def call(self) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if called in NAMES[:2] and arguments[0] == NAMES[2] and type(called) is _Name:
            self.push(_Array())
        elif called == NAMES[3] and type(called) is _Name and arguments[0] in (b"u1", b"|u1"):
            self.push(_Kind())
        else:
            raise _RefusedError("it calls what no pickle of plain arrays needs")

    def build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is _Array:
            _, shape, kind, by_columns, content = state
            sound = (
                type(kind) is _Kind
                and by_columns is False
                and type(shape) is tuple
                and type(content) is bytes
            )
            if not sound or not all(type(side) is int and side >= 0 for side in shape):
                raise _RefusedError("it holds an array of something else than bytes")
            target.content = np.frombuffer(content, np.uint8).reshape(shape)
        elif type(target) is not _Kind:
            raise _RefusedError("it builds what no pickle of plain arrays needs")


def _protocol(machine: _Machine) -> None:
    if machine._number("<B") > 2:
        raise _RefusedError("it was not written by Python 2, as the official files are")


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _protocol,
    b"(": lambda machine: machine.push(_MARK),
    b"}": lambda machine: machine.push({}),
    b"]": lambda machine: machine.push([]),
    b"N": lambda machine: machine.push(None),
    b"\x88": lambda machine: machine.push(True),
    b"\x89": lambda machine: machine.push(False),
    b"K": lambda machine: machine.integer("<B"),
    b"M": lambda machine: machine.integer("<H"),
    b"J": lambda machine: machine.integer("<i"),
    b"U": lambda machine: machine.string("<B"),
    b"T": lambda machine: machine.string("<i"),
    b"q": lambda machine: machine.keep("<B"),
    b"r": lambda machine: machine.keep("<I"),
    b"h": lambda machine: machine.recall("<B"),
    b"j": lambda machine: machine.recall("<I"),
    b"\x85": lambda machine: machine.tuple_of(1),
    b"\x86": lambda machine: machine.tuple_of(2),
    b"\x87": lambda machine: machine.tuple_of(3),
    b"t": lambda machine: machine.tuple_of(0),
    b"a": _Machine.append,
    b"e": _Machine.appends,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"c": _Machine.name,
    b"R": _Machine.call,
    b"b": _Machine.build,
}
