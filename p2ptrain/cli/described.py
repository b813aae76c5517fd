"""What stands in the code, for readers: docstrings taken apart, and the ranges of fields in words."""

import inspect
import re
from typing import Any, NamedTuple

import msgspec
from msgspec.inspect import (
    BoolType,
    BytesType,
    EnumType,
    FloatType,
    IntType,
    LiteralType,
    NoneType,
    StrType,
    StructType,
    UnionType,
    VarTupleType,
)

from p2ptrain.core import limits

FIELDS = re.compile(r"((?:\w+, )*\w+): (.*)")

NATURAL_MAX = 2**53


class Described(NamedTuple):
    """A docstring: what it says in general, and of each field."""

    text: str
    fields: dict[str, str]


class Field(NamedTuple):
    """One field of a Struct, in words. default: None where there is none."""

    name: str
    range: str
    default: str | None
    meaning: str
    value: Any


def describe(thing: Any) -> Described:
    """Take a docstring apart: lines `name, name: meaning` speak of fields, indented ones go on with that."""
    text: list[str] = []
    fields: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        found = FIELDS.fullmatch(line)
        if found and set(found[1].split(", ")) <= set(getattr(thing, "__struct_fields__", ())):
            names = found[1].split(", ")
            fields |= dict.fromkeys(names, found[2])
        elif names and line.startswith(" "):
            fields |= {name: f"{fields[name]} {line.strip()}" for name in names}
        elif line or not names:
            names = []
            text.append(line)
    return Described("\n".join(text).strip(), fields)


def fields_of(struct: Any) -> list[Field]:
    """Describe the fields of a Struct, in order."""
    meanings = describe(struct).fields
    described = msgspec.inspect.type_info(struct).fields  # type: ignore[attr-defined]
    return [
        Field(
            one.name,
            "1 to 16 GiB" if one.name == "size_bytes" else range_of(one.type),
            None if one.required else _plain(one.default),
            meanings.get(one.name, ""),
            one.default,
        )
        for one in described
    ]


def range_of(kind: Any) -> str:
    """Say in words what a field may hold."""
    match kind:
        case BoolType():
            return "yes or no"
        case IntType():
            return _numbers(kind, "natural" if kind.le == NATURAL_MAX else "")
        case FloatType():
            huge = kind.le is not None and kind.le >= limits.ABSOLUTE_NUMBER_MAX
            return "number" if huge else "share" if (kind.ge, kind.le) == (0, 1) else _numbers(kind, "")
        case StrType():
            return (
                "64 hex digits" if "64" in (kind.pattern or "") else f"at most {kind.max_length} characters"
            )
        case BytesType():
            exact = kind.min_length == kind.max_length
            return f"{kind.max_length} bytes" if exact else f"at most {kind.max_length} bytes"
        case VarTupleType():
            return f"at most {kind.max_length}: {range_of(kind.item_type)}"
        case StructType():
            inner = ", ".join(f"{one.name} ({one.range})" for one in fields_of(kind.cls))
            return f"{kind.cls.__name__}: {inner}"
        case UnionType():
            return " or ".join(range_of(one) for one in kind.types if not isinstance(one, NoneType))
        case EnumType():
            return ", ".join(f"`{one.value}`" for one in kind.cls)
        case LiteralType():
            return ", ".join(f"`{one}`" for one in kind.values)
        case _:
            return type(kind).__name__.removesuffix("Type").lower()


def _numbers(kind: Any, known: str) -> str:
    if known and kind.ge == 0:
        return known
    if kind.ge is not None and kind.le is not None:
        return f"{kind.ge:g} to {kind.le:g}"
    bounds = {"above": kind.gt, "from": kind.ge, "below": kind.lt, "to": kind.le}
    return ", ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None) or "any"


def _plain(default: Any) -> str:
    match default:
        case None:
            return "none"
        case bool():
            return "yes" if default else "no"
        case ():
            return "none"
        case _:
            return str(default)
