"""Types in annotations: their display names, and the types that JSON cannot represent.

msgspec describes a type as a tree before it decodes anything. An unknown type appears there as a custom type,
which would fail at the first body; a walk over the tree finds it when the application starts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from uuid import UUID

from msgspec import inspect

from perdure.model.payload.writing import is_model

MADE_OF: tuple[type, ...] = (str, int, float)
"""Builtins whose subclasses are created from the JSON value."""

_BASES: tuple[type, ...] = (date, time, timedelta, Decimal, UUID, bytes, list, dict, set, frozenset, tuple)
"""Types whose subclasses are encoded and decoded as the type itself."""

_KINDS_OF_TEXT = (
    inspect.AnyType,
    inspect.StrType,
    inspect.DateType,
    inspect.DateTimeType,
    inspect.TimeType,
    inspect.TimeDeltaType,
    inspect.UUIDType,
    inspect.DecimalType,
    inspect.BytesType,
)

_INSTEAD = (
    ("__fspath__", "annotate with str, and create the path from it"),
    ("__await__", "write `async def`, and annotate with what it returns"),
    ("numerator", "annotate with str, or with tuple[int, int]"),
    ("conjugate", "annotate with tuple[float, float]"),
    ("keys", "annotate with dict"),
    ("__iter__", "annotate with list"),
    ("", "annotate with a dataclass, a msgspec.Struct, a Pydantic model or JSON builtins"),
)

_ADVICE = (
    ("InitVar", "give it a field, or compute the value in a class method"),
    ("more than one dataclass", "make them msgspec.Structs with tag=True, or Pydantic models"),
    ("must be tagged", "give each Struct tag=True"),
    ("more than one str-like", "annotate with one of them, or with a dataclass that has a field for each"),
    ("Enums must contain", "give its members texts or integers as values"),
    ("not defined", "define that class at the top level of a module"),
    ("containing a custom type", "annotate with one of them, or make all of them Pydantic models"),
    ("LiteralString", "annotate with str"),
    ("is not supported", _INSTEAD[-1][1]),
)


def title(kind: Any) -> str:
    """A type as written in an annotation: `list[Order]`, `int | None`."""
    if kind is None or kind is NoneType:
        return "None"
    if kind is Ellipsis:
        return "..."
    parts, origin = get_args(kind), get_origin(kind)
    if origin in (Union, UnionType):
        return " | ".join(map(title, parts))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, parts))}]"
    if isinstance(kind, list):  # the parameters of a Callable
        return f"[{', '.join(map(title, kind))}]"
    if hasattr(kind, "__metadata__"):  # Annotated
        return title(parts[0])
    if parts:
        return f"{title(origin)}[{', '.join(map(title, parts))}]"
    if isinstance(kind, (type, TypeVar)) or hasattr(kind, "__supertype__"):
        return str(getattr(kind, "__qualname__", kind.__name__)).rpartition("<locals>.")[2]
    return re.sub(r"\btyping\.", "", str(kind))


def advice_for(error: Exception) -> str:
    """msgspec's objection to a type, without quotes, and an alternative."""
    said = re.sub(r" - type `.*` is not supported$", "", str(error).splitlines()[0])
    said = re.sub(r"^Type '(?:typing\.)?(.*?)' ", r"\1 ", said)
    advice = next((advice for mark, advice in _ADVICE if mark in str(error)), "")
    return f"{said}: {advice}" if advice else said


def flaw_of(expected_type: Any) -> str | None:
    """The first part of a type that JSON cannot represent; None if there is none, or msgspec does not know the
    type.
    """
    if is_model(expected_type):
        return _model_flaw(expected_type)
    try:
        described = inspect.type_info(expected_type)
    except Exception:  # read by Pydantic's adapter, which has checked it
        return None
    return next(_flaws(described, "", set()), None)


def is_plain_class(kind: Any) -> bool:
    """Whether a type is an application's own class without a base, which JSON cannot represent."""
    if not isinstance(kind, type) or kind.__mro__ != (kind, object):
        return False
    if kind.__module__.partition(".")[0] in sys.stdlib_module_names:
        return False
    try:
        return isinstance(inspect.type_info(kind), inspect.CustomType)
    except Exception:  # a type unknown to msgspec
        return False


def _flaws(node: Any, inside: str, seen: set[int]) -> Iterator[str]:
    if id(node) in seen:
        return
    seen.add(id(node))
    match node:
        case inspect.CustomType(cls=kind):
            yield from _custom_flaws(kind, inside)
        case inspect.DictType(key_type=key, value_type=value):
            if not _is_text(key):
                yield (
                    f"keys of JSON objects are text, but those of a dict{inside} are not: annotate with "
                    "dict[str, ...], or with a list of pairs"
                )
            yield from _flaws(key, inside, seen)
            yield from _flaws(value, inside, seen)
        case _:
            for part, place in _parts(node, inside):
                yield from _flaws(part, place, seen)


def _parts(node: Any, inside: str) -> Iterator[tuple[Any, str]]:
    for field in getattr(node, "fields", ()):
        yield field.type, f" in {title(node.cls)}.{field.name}"
    for name in ("item_type", "type"):
        part = getattr(node, name, None)
        if isinstance(part, inspect.Type):
            yield part, inside
    for name in ("item_types", "types"):
        for part in getattr(node, name, ()):
            yield part, inside


def _custom_flaws(kind: Any, inside: str) -> Iterator[str]:
    if is_model(kind):
        flaw = _model_flaw(kind)
        if flaw is not None:
            yield flaw
    elif kind is not object and not (isinstance(kind, type) and issubclass(kind, MADE_OF)):
        yield f"{title(kind)}{inside} cannot be read from JSON: {_instead(kind)}"


def _model_flaw(model: Any) -> str | None:
    if getattr(model, "__pydantic_complete__", True) or model.model_rebuild(raise_errors=False):
        return None
    return f"{title(model)} refers to a type that is not defined: define it at the top level of a module"


def _instead(kind: Any) -> str:
    base = next((base for base in _BASES if isinstance(kind, type) and issubclass(kind, base)), None)
    if base is not None:
        base = next(
            one for one in kind.__mro__ if one.__module__ in ("builtins", "datetime", "decimal", "uuid")
        )
        return f"its values are written as {title(base)}: annotate with that"
    marks = {name for one in getattr(kind, "__mro__", ()) for name in vars(one)}
    return next(advice for mark, advice in _INSTEAD if not mark or mark in marks)


def _is_text(key: Any) -> bool:
    match key:
        case inspect.EnumType(cls=kind):
            return all(isinstance(member.value, str) for member in kind)
        case inspect.LiteralType(values=values):
            return all(isinstance(value, str) for value in values)
        case inspect.CustomType(cls=kind):
            return isinstance(kind, type) and issubclass(kind, str)
        case inspect.UnionType(types=types):
            return all(map(_is_text, types))
        case _:
            return isinstance(key, _KINDS_OF_TEXT)


__all__ = ["MADE_OF", "advice_for", "flaw_of", "title"]
