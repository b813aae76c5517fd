"""Bytes to messages and back. Whatever leaves here has the right shape and finite numbers in range."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from p2ptrain.core.errors import LocalProtocolError, Offence, RemoteProtocolError
from p2ptrain.core.messages import KINDS, STRATEGY_KIND_FIRST, Message


class Codec:
    """Knows the messages of the core and of one strategy.

    Args:
        private: the strategy's messages, in the order of their kinds.
    """

    def __init__(self, private: Iterable[type[Message]] = ()) -> None:
        types = dict(KINDS)
        types.update(enumerate(private, start=STRATEGY_KIND_FIRST))
        self._kinds: Mapping[type[Message], int] = {type_: kind for kind, type_ in types.items()}
        self._decoders = {kind: msgspec.msgpack.Decoder(type_) for kind, type_ in types.items()}
        self._numeric = {type_: holds_floats(msgspec.inspect.type_info(type_)) for type_ in types.values()}
        self._encoder = msgspec.msgpack.Encoder()

    def encode(self, message: Message) -> tuple[int, bytes]:
        """Return kind and bytes.

        Raises:
            LocalProtocolError: the message is not of this codec, or holds a number that is not finite.
        """
        kind = self._kinds.get(type(message))
        if kind is None:
            raise LocalProtocolError(f"{type(message).__name__} is no message of this swarm")
        if self._numeric[type(message)] and not all_finite(message):
            raise LocalProtocolError(f"{type(message).__name__} holds a number that is not finite")
        return kind, self._encoder.encode(message)

    def decode(self, kind: int, data: bytes | memoryview) -> Message | None:
        """Return the message, or None for a kind that a newer peer may know.

        Raises:
            RemoteProtocolError: wrong shape, or a number that is not finite or out of range.
        """
        decoder = self._decoders.get(kind)
        if decoder is None:
            return None
        try:
            message = decoder.decode(data)
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(Offence.OUT_OF_RANGE, str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(Offence.MALFORMED, str(error)) from None
        if self._numeric[type(message)] and not all_finite(message):
            raise RemoteProtocolError(Offence.OUT_OF_RANGE, "a number is not finite")
        return message


def holds_floats(type_: Any) -> bool:
    """Say whether values of a type, as msgspec describes it, can hold a float anywhere."""
    if isinstance(type_, msgspec.inspect.FloatType | msgspec.inspect.AnyType):
        return True
    parts = [getattr(type_, name, None) for name in ("item_type", "key_type", "value_type")]
    parts += getattr(type_, "item_types", ()) or getattr(type_, "types", ())
    parts += [field.type for field in getattr(type_, "fields", ())]
    return any(holds_floats(part) for part in parts if part is not None)


def all_finite(value: Any) -> bool:
    """Say whether every float in a message is a finite number: msgspec lets NaN through."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is int or kind is str or kind is bytes or value is None:
        return True
    if kind is tuple or kind is list:
        items: Iterable[Any] = value
    elif kind is dict:
        items = value.values()
    elif isinstance(value, msgspec.Struct):
        items = msgspec.structs.astuple(value)
    else:
        return True
    return all(map(all_finite, items))
