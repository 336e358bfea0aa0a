"""Refusals: what a PayloadError says and where it points, and the limits it tells of."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import NoneType
from typing import Any

from perdure.errors import PayloadError

MAX_BYTES = 1024 * 1024
"""How large a body may be unless the caller says otherwise, in bytes."""

MAX_DEPTH = 64
"""How many arrays and objects may lie inside each other."""

MAX_DIGITS = 4300
"""How long an integer may be, in decimal digits, a minus sign counted as one: msgspec reads no more."""

Token = str | int | None

Trail = tuple[Token, ...]

Reader = Callable[[Any], Any]

Parts = Iterable[tuple[Token, Any]]

Rule = Callable[[Trail, Any], Parts]

UNTYPED = (Any, object, inspect.Parameter.empty)

COMPARABLE = frozenset({dict, list, str, int, float, bool, NoneType})  # with their JSON form, as they are

UNORDERED = object()  # what a rule yields in the place of a set, beside its parts

REFUSING = (Exception, SystemExit, GeneratorExit)
"""What a type's own code may raise while its values are read or written: the value does not fit."""

MINUTE = timedelta(minutes=1)


def refusal(message: str, trail: Iterable[Token] = ()) -> PayloadError:
    pointer = "".join(f"/{_escaped(token)}" for token in trail)
    return PayloadError(f"{message}, at {pointer}" if pointer else message, pointer)


def _escaped(token: Token) -> str:
    return str(token).replace("~", "~0").replace("/", "~1")


def too_large(body: bytes, limit: int) -> PayloadError:
    return refusal(
        f"the payload has {len(body):,} bytes and the limit is {limit:,}: "
        "store the content elsewhere and pass a reference to it"
    )


def too_deep(trail: Iterable[Token]) -> PayloadError:
    return refusal(f"arrays and objects are nested deeper than {MAX_DEPTH}", trail)


def surrogate(trail: Iterable[Token]) -> PayloadError:
    return refusal("a string contains a lone surrogate, which is not a character", trail)


def too_long(trail: Iterable[Token]) -> PayloadError:
    return refusal(f"an integer has more than {MAX_DIGITS} digits (the sign counts as one)", trail)


def no_json(trail: Trail) -> PayloadError:
    return refusal("this msgspec.Raw is not a JSON value", trail)
