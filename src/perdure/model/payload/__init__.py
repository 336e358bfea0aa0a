"""Values as strict JSON: written once, checked once, read once.

A payload is one JSON value in compact UTF-8 text, which is opaque between encoding and decoding. msgspec works
at C speed, and this module rejects values that msgspec would silently change. `encode` decodes its result, and
if it equals the value, nothing was lost. Only a value that does not compare equal, for example with dates or
sets, is walked in Python. Sets are written in sorted order, whereas dicts keep theirs, so that replay iterates
as the first run did. External text is decoded and encoded again, and unless the result is the same text, its
strings are counted. The count of quotes shows a dropped duplicate key, because every dropped string removes
two. Depth is measured by peeling empty brackets off the text's skeleton, one level at a time. Only an invalid
body is read token by token, to find the pointer of its error. Every error is a PayloadError with an RFC 6901
pointer, so that the caller can show the place.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from perdure.errors import PayloadError
from perdure.model.payload.choices import in_order
from perdure.model.payload.decoding import (
    is_plain_class,
    is_untyped,
    known_reader,
    misfit,
    new_reader,
    schema_for,
    title,
    why_unreadable,
)
from perdure.model.payload.lossless import settled, why_not
from perdure.model.payload.round_trip import Guard, guard_of, is_transparent
from perdure.model.payload.text import (
    COMPARABLE,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DIGITS,
    REFUSING,
    is_kept,
    malformed,
    passed,
    read_plain,
    reject_flaws,
    reject_suspects,
    same_strings,
    too_large,
    write_plain,
)


def encode(value: object, *, limit: int = MAX_BYTES) -> bytes:
    """The compact JSON of a value.

    Dict keys must be text: str, or a type that JSON writes as text (an Enum of str, UUID, date). Numbers are
    rejected as keys, because they would come back as strings. Dicts keep their order; sets are sorted.

    Parameters:
        value: JSON builtins, dataclass, msgspec Struct, Pydantic model, datetime, date, time, timedelta,
            Decimal, UUID, Enum, bytes, set, tuple, in any combination; a `Raw` passes unread.
        limit: the maximal size of the body in bytes.

    Returns: JSON text in UTF-8.

    Raises: PayloadError, with a pointer to the place, for a value that strict JSON cannot represent.
    """
    if type(value) is Raw:
        return passed(value, limit)
    kind: Any = type(value)
    try:
        body = write_plain(value)
        if kind is int and len(body) <= MAX_DIGITS and len(body) <= limit:
            return body  # digits alone: nothing to check, and nothing can be lost
        if kind is str and len(body) <= limit and body.find(b"\\u0000") < 0:
            return body  # text alone comes back unchanged, unless it has NUL
        form = value if kind is str else read_plain(body)  # encoded text comes back unchanged
    except REFUSING as error:
        raise why_not(value, error) from error
    if len(body) > limit:
        raise too_large(body, limit)
    reject_suspects(body)
    if (kind in COMPARABLE or is_transparent(kind)) and is_kept(form, value):
        return body
    return settled(value, form, body)


def decode(raw: bytes | Raw, expected_type: Any = Any) -> Any:
    """The value of an encoded or checked body.

    Parameters:
        raw: JSON text.
        expected_type: a type that msgspec decodes, Pydantic models at any depth, or Any for JSON builtins.

    Returns: an instance of `expected_type`; integers are exact at any size.

    Raises: PayloadError if the body does not fit, with a pointer to the place.
    """
    try:
        read = known_reader(expected_type)
    except TypeError:  # unhashable, for instance Annotated[int, []]
        read = new_reader(expected_type)
    try:
        return read(raw)
    except PayloadError:
        raise
    except REFUSING as error:
        raise misfit(bytes(raw), expected_type, read, error) from error


def check(body: bytes, *, limit: int = MAX_BYTES) -> Raw:
    """The payload of external JSON text.

    Parameters:
        body: exactly one JSON value in UTF-8, white space allowed.
        limit: the maximal size of the body in bytes, before and after compaction.

    Returns: the same value as compact JSON: members in their order, integers exact, floats to the double.

    Raises: PayloadError, with a pointer, for malformed text, NaN and infinities (also 1e400), duplicate keys,
        NUL, lone surrogates, integers beyond MAX_DIGITS, nesting beyond MAX_DEPTH and excess size.
    """
    if type(body) is not bytes:
        body = bytes(memoryview(body))
    if len(body) > limit:
        raise too_large(body, limit)
    reject_suspects(body)
    try:
        compact = write_plain(read_plain(body))
    except Exception as error:
        raise malformed(body, error) from error
    if compact != body and not same_strings(body, compact):
        reject_flaws(body)
    if len(compact) > limit:
        raise too_large(compact, limit)
    return Raw(compact)


def schema_of(expected_type: Any) -> dict[str, Any] | None:
    """The JSON Schema (2020-12) of a type.

    Parameters:
        expected_type: a type as `decode` takes it.

    Returns: a new dict, or None for Any, for no annotation, and for a type without a schema.
    """
    if is_untyped(expected_type):
        return None
    try:
        schema = schema_for(expected_type)
        return in_order(schema, expected_type) if schema else None
    except Exception:  # msgspec, Pydantic and forward references each have their own
        return None


def fits(raw: bytes | Raw, expected_type: Any) -> PayloadError | None:
    """Check whether a body decodes as a type.

    Parameters:
        raw: encoded or checked JSON text.
        expected_type: a type as `decode` takes it.

    Returns: None if it does, otherwise the error, not raised.
    """
    try:
        decode(raw, expected_type)
    except PayloadError as refused:
        return refused
    return None


__all__ = [
    "Guard",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "check",
    "decode",
    "encode",
    "fits",
    "guard_of",
    "is_plain_class",
    "schema_of",
    "title",
    "why_unreadable",
]
