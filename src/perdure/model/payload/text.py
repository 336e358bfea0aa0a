"""JSON text: writing and reading it at C speed, the limits of payloads, and the errors with their pointers.

Checks look at the text without decoding it. Only an invalid body is read token by token, to find the place of its
error.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

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


_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]|-?[0-9][0-9.eE+-]*+|[A-Za-z]++', re.DOTALL)

_WORDS = (b"true", b"false", b"null")

_NO_NUMBERS = (b"nan", b"infinity", b"inf")

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_AT_BYTE = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)", re.DOTALL)


class _Cursor:
    """The position of a reader: a token for each open array or object.

    The token is the index in an array, the key in an object, and None before a key.
    """

    def __init__(self) -> None:
        self.trail: list[Token] = []
        self.keys: list[set[str]] = []

    def place(self) -> Trail:
        return tuple(token for token in self.trail if token is not None)

    def open_array(self, _: bytes) -> None:
        self._open(0)

    def open_object(self, _: bytes) -> None:
        self._open(None)

    def _open(self, first: Token) -> None:
        if len(self.trail) == MAX_DEPTH:
            raise too_deep(self.place())
        self.trail.append(first)
        self.keys.append(set())

    def close(self, _: bytes) -> None:
        if self.trail:
            self.trail.pop()
            self.keys.pop()

    def comma(self, _: bytes) -> None:
        if self.trail:
            token = self.trail[-1]
            self.trail[-1] = token + 1 if isinstance(token, int) else None

    def string(self, token: bytes) -> None:
        is_key = bool(self.trail) and self.trail[-1] is None
        if not is_key and b"\\" not in token:
            return
        text = self._text(token)
        if is_key and text is not None:
            self._key(text)

    def _text(self, token: bytes) -> str | None:
        try:
            text: str = read_plain(token)
        except ValueError:
            if _SURROGATE.search(token):
                raise surrogate(self.place()) from None
            return None
        if "\0" in text:
            raise refusal("a string contains the character NUL", self.place())
        return text

    def _key(self, key: str) -> None:
        if key in self.keys[-1]:
            raise refusal("duplicate key in an object", (*self.place(), key))
        self.keys[-1].add(key)
        self.trail[-1] = key

    def number(self, token: bytes) -> None:
        if token.lstrip(b"-").isdigit():
            if len(token) > MAX_DIGITS:
                raise too_long(self.place())
        elif _overflows(token):
            raise refusal("a number is too large for a float", self.place())

    def word(self, token: bytes) -> None:
        if token not in _WORDS:
            advice = (
                "JSON has no such number: send null or a string"
                if token.lower() in _NO_NUMBERS
                else "put strings in double quotes; the only literals are true, false and null"
            )
            raise refusal(f"not valid JSON near {token[:40].decode()!r}: {advice}", self.place())


_STEPS: dict[int, Callable[[_Cursor, bytes], None]] = {
    ord("["): _Cursor.open_array,
    ord("{"): _Cursor.open_object,
    ord("]"): _Cursor.close,
    ord("}"): _Cursor.close,
    ord(","): _Cursor.comma,
    ord('"'): _Cursor.string,
    **dict.fromkeys(b"-0123456789", _Cursor.number),
}


def _overflows(token: bytes) -> bool:
    try:
        return math.isinf(float(token))
    except ValueError:
        return False


def reject_flaws(body: bytes, stop: int | None = None) -> Trail:
    """Read the text up to byte `stop` and raise for the first error; otherwise return the position there."""
    cursor = _Cursor()
    end = len(body) if stop is None else stop
    for found in _TOKEN.finditer(body):
        token = found[0]
        step = _STEPS.get(token[0], _Cursor.word)
        if found.start() >= end and step is not _Cursor.word:  # the decoder may have stopped at this word
            break
        step(cursor, token)
    return cursor.place()


def malformed(body: bytes, error: BaseException) -> PayloadError:
    """The error for invalid external text; a specific error takes precedence over the decoder's message."""
    stop, reason = _breaking_point(body, error)
    try:
        return refusal(reason, reject_flaws(body, stop))
    except PayloadError as refused:
        return refused


def _breaking_point(body: bytes, error: BaseException) -> tuple[int, str]:
    try:
        body.decode()
    except UnicodeDecodeError as undecodable:
        return undecodable.start, f"the body is not UTF-8, at byte {undecodable.start}"
    if not body.strip():
        return 0, "not valid JSON: the body is empty"
    found = _AT_BYTE.fullmatch(str(error))
    if found is None:
        said = "it ends unexpectedly" if "truncated" in str(error) else str(error)
        return len(body), f"not valid JSON: {said}"
    stop = int(found[2])
    near = body[stop : stop + 24].strip() or body[max(0, stop - 24) : stop].strip()
    return stop, f"not valid JSON near {near.decode(errors='ignore')[:20]!r}, at byte {stop}: {found[1]}"


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_FLAT = bytes.maketrans(b"{}", b"[]")

_NEITHER_QUOTE_NOR_BRACKET = bytes(set(range(256)) - set(b'"[]{}'))

_STRING = re.compile(rb'"[^"]*"?')

_ABYSS = b"[" * (MAX_DEPTH + 1)


def reject_suspects(body: bytes) -> None:
    """Raise for NUL and for excess depth; valid text costs three scans."""
    if (
        len(body) > 2 * MAX_DEPTH
        and body.count(b"[") + body.count(b"{") > MAX_DEPTH
        and not _is_shallow(body)
    ):
        reject_flaws(body)
    if body.find(b"\\u0000") >= 0 and _NUL.search(body):
        reject_flaws(body)


def _is_shallow(body: bytes) -> bool:
    """Whether peeling at most MAX_DEPTH levels leaves no bracket."""
    skeleton = _skeleton(body)
    for _ in range(MAX_DEPTH):
        if not skeleton or skeleton.find(_ABYSS) >= 0:
            break
        skeleton = skeleton.replace(b"[]", b"")
    return not skeleton


def _skeleton(body: bytes) -> bytes:
    """The text's brackets, all as square ones, without those inside strings."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if body.find(b"\\") >= 0 else body
    marks = plain.translate(_FLAT, _NEITHER_QUOTE_NOR_BRACKET).replace(b'""', b"")
    return _STRING.sub(b"", marks) if marks.find(b'"') >= 0 else marks


def same_strings(body: bytes, compact: bytes) -> bool:
    """Whether no string was dropped; False may also mean that escapes hide the answer.

    Each string has two quotes; those inside it are escaped in both texts, or are \\u0022 in `body`.
    """
    return compact.count(b'"') == body.count(b'"') + body.count(b"\\u0022")
