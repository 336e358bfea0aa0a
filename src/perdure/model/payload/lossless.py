"""Walks values that differ from their JSON form, and finds the parts that would be lost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import count
from types import NoneType
from typing import Any, NamedTuple
from uuid import UUID

from msgspec import UNSET, Raw, Struct, structs

from perdure.errors import PayloadError
from perdure.model.payload.round_trip import hold_against_itself, is_surely_whole, is_transparent, own_guard
from perdure.model.payload.text import (
    MAX_DEPTH,
    MAX_DIGITS,
    MINUTE,
    UNORDERED,
    Parts,
    Rule,
    Token,
    Trail,
    at,
    model_form,
    no_json,
    read_plain,
    refusal,
    surrogate,
    too_deep,
    too_long,
    unsupported,
    write_plain,
)


class _Twin(NamedTuple):
    """A part of a Pydantic model as Python sees it, and the same part as the model writes it in JSON."""

    node: Any
    form: Any


def settled(value: object, form: Any, body: bytes) -> bytes:
    """Raise if `body` lost part of the value; otherwise return the body, with its sets in order."""
    unordered = _survey(value, _WRITTEN_WELL)
    for trail in reversed(unordered):
        _put_in_order(form, trail)
    return write_plain(form) if unordered else body


def why_not(value: object, error: BaseException) -> PayloadError:
    try:
        _survey(value)
    except PayloadError as refused:
        return refused
    except Exception:  # the cause of the failed encoding may break the walk too
        pass
    return refusal(f"the value cannot be written as JSON: {type(error).__name__}: {error}")


def _survey(value: object, trusted: frozenset[type] = frozenset()) -> list[Trail]:
    """Raise for the first part of the value that JSON would lose; otherwise return the places of its sets.

    Parts of a `trusted` type are skipped.
    """
    unordered: list[Trail] = []
    todo: list[tuple[Trail, object]] = [((), value)]
    while todo:
        trail, node = todo.pop()
        if len(trail) > MAX_DEPTH:
            raise too_deep(trail)
        if node is UNORDERED:
            unordered.append(trail)
            continue
        kind: Any = type(node)
        parts = [part for part in _rule(kind)(trail, node) if type(part[1]) not in trusted]
        todo += [(trail if token is None else (*trail, token), part) for token, part in reversed(parts)]
    return unordered


def _put_in_order(form: Any, trail: Trail) -> None:
    """Sort the array at `trail`: by value if its items compare, else by their text."""
    array = at(form, trail)
    if not isinstance(array, list):
        return  # a default, which its Struct omits
    try:
        array.sort()
    except TypeError:
        array.sort(key=write_plain)


@lru_cache(maxsize=512)
def _rule(kind: Any) -> Rule:
    for base, rule in _RULES:
        if issubclass(kind, base):
            return rule
    for mark, rule in _MARKED:
        if hasattr(kind, mark):
            return rule
    return _refuse


def _refuse(trail: Trail, node: object) -> Parts:
    raise refusal(unsupported(node), trail)


def _sound(trail: Trail, node: object) -> Parts:
    return ()


def _enum(trail: Trail, node: Enum) -> Parts:
    return ((None, node.value),)


def text_rule(trail: Trail, node: str) -> Parts:
    if _has_surrogate(node):
        raise surrogate(trail)
    return ()


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _integer(trail: Trail, node: int) -> Parts:
    if node >= 10**MAX_DIGITS or node <= -(10 ** (MAX_DIGITS - 1)):
        raise too_long(trail)
    return ()


def _number(trail: Trail, node: float) -> Parts:
    if not math.isfinite(node):
        raise refusal(f"{node!r} has no JSON form: use None, or a string", trail)
    return ()


def _decimal(trail: Trail, node: Decimal) -> Parts:
    if not node.is_finite():
        raise refusal(f"{node!r} has no JSON form: use None, or a string", trail)
    return ()


def _clock(trail: Trail, node: datetime | time) -> Parts:
    offset = None if node.tzinfo is UTC else node.utcoffset()
    if offset is not None and offset % MINUTE:
        raise refusal(
            f"the UTC offset of {node.isoformat()} has seconds, which JSON cannot represent: use "
            "astimezone(UTC)",
            trail,
        )
    return ()


def _object(trail: Trail, node: dict[Any, Any]) -> Parts:
    names: set[str] = set()
    for key, child in node.items():
        name = _name(trail, key)
        if name in names:
            raise refusal("two keys of a dict have the same JSON text", (*trail, name))
        names.add(name)
        yield name, child


def _name(trail: Trail, key: object) -> str:
    """The key as JSON text: itself if it is a str, else its JSON form if that is a string."""
    if isinstance(key, str):
        text_rule(trail, key)
        return str.__str__(key)
    try:
        name = read_plain(write_plain(key))
    except Exception:
        name = None
    if isinstance(name, str):
        return name
    raise refusal(
        f"the dict key {_shown(key)} is of type {type(key).__name__}, but JSON keys are strings: use "
        "str(key), or a list of pairs",
        (*trail, _shown(key)),
    )


def _shown(key: object) -> str:
    return ascii(key)[:80]


def _array(trail: Trail, node: Iterable[Any]) -> Parts:
    return enumerate(node)


def _set(trail: Trail, node: Collection[Any]) -> Parts:
    if len(node) > 1:
        yield None, UNORDERED
    yield from enumerate(node)


def _encoded(trail: Trail, node: Raw) -> Parts:
    try:
        read_plain(node)
    except ValueError:
        raise no_json(trail) from None
    return ()


def _hold(trail: Trail, node: object, kind: Any) -> None:
    """Raise for an object whose fields have more than their types, or that its class decodes as another."""
    guard = own_guard(kind)
    if guard is not None:
        guard(trail, node)
    if not is_transparent(kind):
        hold_against_itself(trail, node, node)


def _struct(trail: Trail, node: Struct) -> Parts:
    _hold(trail, node, type(node))
    config = node.__struct_config__
    tagged = config.tag is not None
    names: Iterable[Token] = count(tagged) if config.array_like else node.__struct_encode_fields__
    fields = zip(names, structs.astuple(node), strict=False)
    return [field for field in fields if field[1] is not UNSET]


def _fields(trail: Trail, node: object) -> Parts:
    kind: Any = type(node)
    _hold(trail, node, kind)
    names = _field_names(kind)
    return [(name, part) for name in names if (part := getattr(node, name, UNSET)) is not UNSET]


@lru_cache(maxsize=512)
def _field_names(kind: Any) -> tuple[str, ...]:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else kind.__attrs_attrs__
    return tuple(field.name for field in fields)


def _model(trail: Trail, node: Any) -> Parts:
    try:
        form = model_form(node)
        seen = model_form(node, mode="python", warnings=False)
    except Exception as error:
        raise refusal(f"{type(node).__name__} cannot be written as JSON: {error}", trail) from error
    if not is_surely_whole(node):
        hold_against_itself(trail, node, form)
    return (None, form), (None, _Twin(seen, form))


def _twin(trail: Trail, twin: _Twin) -> Parts:
    """The losses visible only by comparison: NaN in a field of type Any, and the order of a set."""
    node, form = twin
    if form is None and isinstance(node, float):
        _number(trail, node)
    if isinstance(form, list) and isinstance(node, set | frozenset):
        yield None, UNORDERED
    if isinstance(form, list) and isinstance(node, list | tuple | set | frozenset):
        yield from enumerate(map(_Twin, node, form))
    if isinstance(form, dict) and isinstance(node, dict):
        yield from zip(form, map(_Twin, node.values(), form.values()), strict=False)


_RULES: tuple[tuple[type | tuple[type, ...], Rule], ...] = (
    (Enum, _enum),
    (str, text_rule),
    (int, _integer),
    (float, _number),
    (Decimal, _decimal),
    ((datetime, time), _clock),
    ((NoneType, date, timedelta, UUID, bytes, bytearray, memoryview), _sound),
    (dict, _object),
    (_Twin, _twin),
    ((list, tuple), _array),
    ((set, frozenset), _set),
    (Raw, _encoded),
    (Struct, _struct),
)

_MARKED: tuple[tuple[str, Rule], ...] = (
    ("__dataclass_fields__", _fields),
    ("__attrs_attrs__", _fields),
    ("model_validate_json", _model),
)

_WRITTEN_WELL: frozenset[type] = frozenset({str, int, bool, NoneType, date, timedelta, UUID, bytes})
"""Types that msgspec either rejects or encodes without loss."""
