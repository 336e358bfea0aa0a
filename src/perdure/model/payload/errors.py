"""PayloadErrors, their messages and pointers, and the limits of payloads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from datetime import timedelta
from types import NoneType
from typing import Any

from perdure.errors import PayloadError

MAX_BYTES = 1024 * 1024
"""The default maximal size of a body in bytes."""

MAX_DEPTH = 64
"""The maximal nesting of arrays and objects."""

MAX_DIGITS = 4300
"""The maximal length of an integer in decimal digits, a minus sign included: msgspec reads no more."""

Token = str | int | None

Trail = tuple[Token, ...]

Reader = Callable[[Any], Any]

Parts = Iterable[tuple[Token, Any]]

Rule = Callable[[Trail, Any], Parts]

UNTYPED = (Any, object, inspect.Parameter.empty)

COMPARABLE = frozenset({dict, list, str, int, float, bool, NoneType})  # directly with their JSON form

UNORDERED = object()  # yielded by a rule in place of a set, with its parts

REFUSING = (Exception, SystemExit, GeneratorExit)
"""The exceptions of a type's own code that mean that the value does not fit."""

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
