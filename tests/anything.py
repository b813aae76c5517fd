"""Any value of a wire type, drawn by hypothesis from the type itself: a new message is tested at once."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from p2ptrain.core.messages import Message


def any_of(type_: Any) -> st.SearchStrategy[Any]:
    """Draw values that a type allows."""
    match type_:
        case inspect.IntType():
            low = type_.ge if type_.gt is None else type_.gt + 1
            return st.integers(low, type_.le if type_.lt is None else type_.lt - 1)
        case inspect.FloatType():
            low, high = type_.ge if type_.gt is None else type_.gt, type_.le
            return st.floats(low, high, exclude_min=type_.gt is not None)
        case inspect.StrType(pattern=str()):
            return st.from_regex(type_.pattern, fullmatch=True)
        case inspect.StrType():
            return st.text(max_size=type_.max_length)
        case inspect.BytesType():
            return st.binary(min_size=type_.min_length or 0, max_size=min(type_.max_length, 200))
        case inspect.EnumType():
            return st.sampled_from(list(type_.cls))
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.UnionType():
            return st.one_of(*map(any_of, type_.types))
        case inspect.VarTupleType():
            return st.lists(
                any_of(type_.item_type), min_size=type_.min_length or 0, max_size=type_.max_length
            ).map(tuple)
        case inspect.StructType():
            return st.builds(type_.cls, *[any_of(field.type) for field in type_.fields])
        case _:
            raise TypeError(f"nobody knows how to draw {type_}: is it bounded?")


def any_message(type_: type[Message]) -> st.SearchStrategy[Message]:
    """Draw messages of one kind."""
    return any_of(inspect.type_info(type_))


def with_floats(value: Any, number: float) -> list[Any]:
    """Return copies of a message's plain form, each with one of its floats replaced."""
    if isinstance(value, float):
        return [number]
    if isinstance(value, list | tuple):
        return [
            [*value[:at], changed, *value[at + 1 :]]
            for at, item in enumerate(value)
            for changed in with_floats(item, number)
        ]
    return []


def plain(message: Message) -> Any:
    """Turn a message into lists and numbers, as msgpack holds it."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message))
