"""Encoding values at C speed, and comparing the result with the value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from perdure.model.payload.errors import COMPARABLE, Token, no_json, too_large


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_validate_json") and hasattr(kind, "model_dump")


def model_form(model: Any, mode: str = "json", warnings: bool = True) -> Any:
    return model.model_dump(mode=mode, by_alias=True, round_trip=True, warnings=warnings)


def _bare_datetime(value: datetime) -> datetime:
    return datetime.combine(datetime.date(value), datetime.timetz(value))


def _bare_time(value: time) -> time:
    return datetime.combine(date.min, value).timetz()


EXACTLY: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (Decimal, Decimal),
    (datetime, _bare_datetime),
    (date, lambda value: date.fromordinal(date.toordinal(value))),
    (time, _bare_time),
    (timedelta, lambda value: timedelta.__add__(value, timedelta())),
    (bytes, bytes),
)
"""Values of subclasses are encoded as their base. If that is not equal, they have more than the base can
represent.
"""


def _builtin_form(value: object) -> Any:
    if is_model(type(value)):
        return model_form(value)
    for base, exactly in EXACTLY:
        if isinstance(value, base):
            bare = exactly(value)
            if bare == value or isinstance(value, float):
                return bare
            raise TypeError(f"{value!r} does not fit a {base.__name__} and would be truncated")
    raise TypeError(unsupported(value))


write_plain = msgspec.json.Encoder(enc_hook=_builtin_form).encode

read_plain = msgspec.json.Decoder().decode


def is_kept(form: object, value: object) -> bool:
    """Whether the JSON form of a value, or of an object's fields, equals it, so that nothing was lost."""
    try:
        return bool(form == (value if type(value) in COMPARABLE else _bare(value)))
    except Exception:  # an `__eq__` that expects its own type
        return False


def _bare(value: object) -> object:
    if isinstance(value, Struct):
        return structs.asdict(value)
    return getattr(value, "__dict__", value)


def passed(raw: Raw, limit: int) -> bytes:
    body = bytes(raw)
    if not body:
        raise no_json(())
    if len(body) > limit:
        raise too_large(body, limit)
    return body


_INSTEAD = (
    ("__await__", "await it, and pass the result"),
    ("mro", "use its name"),
    ("get_secret_value", "pass a name to look the secret up by"),
    ("tolist", "use value.tolist()"),
    ("__fspath__", "use str(value)"),
    ("__traceback__", "use str(value)"),
    ("__next__", "use list(value)"),
    ("keys", "use dict(value)"),
    ("__iter__", "use list(value)"),
    ("numerator", "use str(value), or [value.numerator, value.denominator]"),
    ("conjugate", "use [value.real, value.imag]"),
    ("__call__", "use its name"),
    ("", "use a dataclass, a msgspec.Struct, a Pydantic model or JSON builtins"),
)


def unsupported(value: object) -> str:
    kind = type(value)
    marks = {name for base in kind.__mro__ for name in vars(base)}
    advice = next(advice for mark, advice in _INSTEAD if not mark or mark in marks)
    return f"a value of type {kind.__module__}.{kind.__qualname__} has no JSON form: {advice}"


def holds(node: Any, token: Any) -> bool:
    if isinstance(node, dict):
        return token in node
    return isinstance(node, list) and isinstance(token, int) and token < len(node)


def at(form: Any, trail: Iterable[Token]) -> Any:
    """The value at a place of a JSON form, None without such a place."""
    node = form
    for token in trail:
        if not holds(node, token):
            return None
        node = node[token]
    return node
