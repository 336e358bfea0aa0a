"""Values in PostgreSQL's binary form, whole columns at a time.

A batch travels as one array per column (`unnest($1::bigint[], $2::bytea[], ...)`), so that a statement has the
same text, and the same plan, for any number of rows. The driver's own adaption costs several times more, and
chooses the type of an integer by its size, which makes a new prepared statement for every mixture. An array is:
dimensions, a flag for nulls, the elements' type, their number, the first index; then for each element its
length and its bytes, or -1 for null. All numbers are big-endian.
"""

from __future__ import annotations

from struct import Struct, pack
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_INT8: Final = 20
_TEXT: Final = 25
_BYTEA: Final = 17
_HEAD: Final = Struct(">iiiii").pack
_LENGTH: Final = Struct(">i").pack
_NUMBER: Final = Struct(">q").pack
_ELEMENT: Final = Struct(">iq").pack
_NULL: Final = _LENGTH(-1)
_LENGTHS: Final = [_LENGTH(size) for size in range(2_048)]
_EMPTY: Final = {oid: pack(">iii", 0, 0, oid) for oid in (_INT8, _TEXT, _BYTEA)}
_FEW: Final = 8


def number(value: int) -> bytes:
    """One bigint."""
    return _NUMBER(value)


def text(value: str) -> bytes:
    """One text."""
    return value.encode()


def numbers(values: Sequence[int]) -> bytes:
    """A bigint[] without nulls."""
    count = len(values)
    if not count:
        return _EMPTY[_INT8]
    head = _HEAD(1, 0, _INT8, count, 1)
    if count < _FEW:
        return head + b"".join([_ELEMENT(8, value) for value in values])
    # One byte of every element at a time, at the speed of copying.
    packed = pack(f">{count}q", *values)
    body = bytearray(b"\0\0\0\x08........") * count
    for place in range(8):
        body[4 + place :: 12] = packed[place::8]
    return head + body


def numbers_or_null(values: Sequence[int | None]) -> bytes:
    """A bigint[]."""
    if None not in values:
        return numbers(values)  # type: ignore[arg-type]
    body = [_NULL if value is None else _ELEMENT(8, value) for value in values]
    return _HEAD(1, 1, _INT8, len(values), 1) + b"".join(body)


def texts(values: Sequence[str]) -> bytes:
    """A text[] without nulls."""
    return _elements(_TEXT, list(map(str.encode, values)))


def texts_or_null(values: Sequence[str | None]) -> bytes:
    """A text[]."""
    if None not in values:
        return texts(values)  # type: ignore[arg-type]
    return _elements_or_null(_TEXT, [None if value is None else value.encode() for value in values])


def bodies(values: Sequence[bytes]) -> bytes:
    """A bytea[] without nulls."""
    return _elements(_BYTEA, values)


def bodies_or_null(values: Sequence[bytes | None]) -> bytes:
    """A bytea[]."""
    return _elements(_BYTEA, values) if None not in values else _elements_or_null(_BYTEA, values)  # type: ignore[arg-type]


def _elements(oid: int, values: Sequence[bytes]) -> bytes:
    count = len(values)
    if not count:
        return _EMPTY[oid]
    head = _HEAD(1, 0, oid, count, 1)
    sizes = list(map(len, values))
    if sizes.count(sizes[0]) == count:  # digests, and columns with equal values
        prefix = _LENGTH(sizes[0])
        return head + prefix + prefix.join(values)
    small, known = _LENGTHS, len(_LENGTHS)
    parts = [head]
    for size, value in zip(sizes, values, strict=True):
        parts.append(small[size] if size < known else _LENGTH(size))
        parts.append(value)
    return b"".join(parts)


def _elements_or_null(oid: int, values: Sequence[bytes | None]) -> bytes:
    parts = [_NULL if value is None else _LENGTH(len(value)) + value for value in values]
    return _HEAD(1, 1, oid, len(values), 1) + b"".join(parts)


__all__ = [
    "bodies",
    "bodies_or_null",
    "number",
    "numbers",
    "numbers_or_null",
    "text",
    "texts",
    "texts_or_null",
]
