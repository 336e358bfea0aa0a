"""Types in annotations: decoding bodies as them, what JSON cannot represent, and where a body does not fit.

msgspec describes a type as a tree before it decodes anything. An unknown type appears there as a custom type,
which would fail at the first body; a walk over the tree finds it when the application starts. Decoders are
created once per type.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec
from msgspec import inspect

from perdure.errors import PayloadError
from perdure.model.payload.text import (
    UNTYPED,
    Reader,
    Token,
    at,
    holds,
    is_model,
    malformed,
    read_plain,
    refusal,
    write_plain,
)

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


def new_reader(expected_type: Any) -> Reader:
    if is_untyped(expected_type):
        return read_plain
    if is_model(expected_type):
        return _model_reader(expected_type.model_validate_json)
    try:
        return msgspec.json.Decoder(expected_type, dec_hook=_custom).decode
    except Exception as error:
        adapter = adapter_of(expected_type)
        if adapter:
            return _model_reader(adapter.validate_json)
        raise refusal(f"JSON cannot be decoded as {title(expected_type)}: {advice_for(error)}") from error


def why_unreadable(expected_type: Any) -> str | None:
    """Why no body can decode as a type, as a clause with advice; None if some can."""
    try:
        return _known_flaw(expected_type)
    except TypeError:  # unhashable
        return _flaw(expected_type)


def _flaw(expected_type: Any) -> str | None:
    try:
        new_reader(expected_type)
    except PayloadError as refused:
        return str(refused).partition(": ")[2]
    return None if is_untyped(expected_type) else flaw_of(expected_type)


_known_flaw = lru_cache(maxsize=512)(_flaw)

known_reader = lru_cache(maxsize=512)(new_reader)


def is_untyped(expected_type: Any) -> bool:
    return any(expected_type is untyped for untyped in UNTYPED)


def _model_reader(validate: Reader) -> Reader:
    return lambda raw: validate(bytes(raw))


def _custom(kind: Any, form: Any) -> Any:
    """An instance of a type unknown to msgspec, from JSON builtins."""
    if is_model(kind):
        return kind.model_validate_json(write_plain(form))
    for base in MADE_OF:
        if isinstance(kind, type) and issubclass(kind, base) and isinstance(form, base):
            return cast(Any, kind)(form)
    raise TypeError(
        f"{title(kind)} cannot be read from JSON: "
        "annotate with a dataclass, a msgspec.Struct, a Pydantic model or JSON builtins"
    )


def adapter_of(expected_type: Any) -> Any:
    """Pydantic's adapter of a type with a model where msgspec accepts none, such as a union of two."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not _names_model(expected_type):
        return None
    try:
        return pydantic.TypeAdapter(expected_type)
    except Exception:  # of many kinds: schema errors, unresolved names
        return None


def _names_model(expected_type: Any) -> bool:
    return is_model(expected_type) or any(_names_model(part) for part in get_args(expected_type))


_AT_PATH = re.compile(r"(.*) - at `(key` in `)?\$(.*)`", re.DOTALL)

_STEP = re.compile(r"\[(\d+)\]|(\[\.\.\.\])|\.([^.\[]+)")


def misfit(body: bytes, expected_type: Any, read: Reader, error: BaseException) -> PayloadError:
    """The error for a body that does not fit its type, with the place."""
    try:
        form = read_plain(body)
    except Exception:
        return malformed(body, error)
    model_error = _model_error(error)
    trail = _trail(form, read, error) if isinstance(error, msgspec.ValidationError) else []
    reason = _reason(error)
    if model_error is not None:
        first, *others = model_error.errors(include_url=False, include_context=False, include_input=False)
        trail += _located(at(form, trail), first)
        reason = first["msg"] + (f" (and {len(others)} more)" if others else "")
    return refusal(f"the value does not fit {title(expected_type)}: {reason}", trail)


def _model_error(error: BaseException) -> Any:
    """Pydantic's ValidationError, if it is the error or its cause."""
    causes = (error, error.__cause__)
    return next((cause for cause in causes if hasattr(cause, "error_count")), None)


def _reason(error: BaseException) -> str:
    if not isinstance(error, msgspec.ValidationError):
        return f"{type(error).__name__}: {error}"
    found = _AT_PATH.fullmatch(str(error))
    return found[1] if found else str(error)


def _path(error: Exception) -> list[Token]:
    """msgspec's path; None stands for a dict member, whose key msgspec does not report."""
    found = _AT_PATH.fullmatch(str(error))
    if found is None:
        return []
    steps: list[Token] = [int(step[1]) if step[1] else step[3] for step in _STEP.finditer(found[3])]
    return [*steps, None] if found[2] else steps


def _trail(form: Any, read: Reader, error: Exception) -> list[Token]:
    """msgspec's path with its keys filled in, as far as they can be found. Removes members of `form`."""
    trail: list[Token] = []
    steps = _path(error)
    node = form
    for step in steps:
        token = _refused_key(form, node, read, steps) if step is None else step
        if not holds(node, token):
            break
        trail.append(token)
        node = node[token]
    return trail


def _refused_key(form: Any, node: Any, read: Reader, steps: list[Token]) -> Token:
    """The first member of `node` whose presence makes the reader reject `form` at the same path.

    Afterwards it is the only member.
    """
    if not isinstance(node, dict):
        return None
    members = list(node.items())

    def refused_with(many: int) -> bool:
        node.clear()
        node.update(members[:many])
        return _refused_path(form, read) == steps

    first = bisect_left(range(1, len(members) + 1), True, key=refused_with)
    node.clear()
    node.update(members[first : first + 1])
    return next(iter(node), None)


def _refused_path(form: Any, read: Reader) -> list[Token] | None:
    try:
        read(write_plain(form))
    except Exception as error:
        return _path(error)
    return None


def _located(form: Any, flaw: dict[str, Any]) -> list[Token]:
    """Pydantic's loc without the names of union members and the like, which are not places in the body."""
    *outer, last = flaw["loc"] or (None,)
    trail: list[Token] = []
    for token in outer:
        if holds(form, token):
            trail.append(token)
            form = form[token]
    is_place = flaw["type"] == "missing" or holds(form, last)
    return [*trail, last] if is_place else trail


def schema_for(expected_type: Any) -> dict[str, Any]:
    if is_model(expected_type):
        return dict(expected_type.model_json_schema())
    try:
        return _composed_schema(expected_type)
    except TypeError:
        adapter = adapter_of(expected_type)
        return dict(adapter.json_schema()) if adapter else {}


def _composed_schema(expected_type: Any) -> dict[str, Any]:
    """msgspec's schema, with the definitions of nested models moved to where its references point."""
    moved: dict[str, Any] = {}

    def model_schema(kind: Any) -> dict[str, Any]:
        if not is_model(kind):
            raise TypeError(f"{title(kind)} has no JSON Schema")
        own: dict[str, Any] = kind.model_json_schema(ref_template=f"#/$defs/{kind.__name__}.{{model}}")
        definitions = own.pop("$defs", {})
        moved.update({f"{kind.__name__}.{name}": schema for name, schema in definitions.items()})
        return own

    schema: dict[str, Any] = msgspec.json.schema(expected_type, schema_hook=model_schema)
    if moved:
        schema["$defs"] = {**schema.get("$defs", {}), **moved}
    return schema
