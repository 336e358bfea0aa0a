"""Values as strict JSON: written once, checked once, read once.

A payload is one JSON value in compact UTF-8 text, and between the edges nobody looks inside it.
msgspec does the work at C speed, and this module refuses what msgspec would lose without a word.
What `encode` has written it reads back, and when the result equals the value, nothing was lost.
Only a value that does not compare equal, such as one that holds dates or sets, is walked in Python.
Sets are written in sorted order, whereas dicts keep theirs, so that replay iterates as the first run did.
Text from outside is decoded and written anew, and unless that gives the same text, its strings are counted.
The count of quotes tells whether a duplicate key was dropped, because every dropped string takes two along.
Depth is measured by peeling empty brackets off the text's skeleton, one level at a time.
Only a body that is going to be refused is read token by token, to learn the pointer of its flaw.
Every refusal is a PayloadError with an RFC 6901 pointer, so that the caller can show where it hurts.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import count
from types import NoneType
from typing import Any, NamedTuple, cast, get_args
from uuid import UUID

import msgspec
from msgspec import UNSET, Raw, Struct, structs

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

_UNTYPED = (Any, object, inspect.Parameter.empty)
_COMPARABLE = frozenset({dict, list, str, int, float, bool, NoneType})  # with their JSON form, as they are
_UNORDERED = object()  # what a rule yields in the place of a set, beside its parts
_MINUTE = timedelta(minutes=1)


# ---------------------------------------------------------------------------------------------- the verbs


def encode(value: object, *, limit: int = MAX_BYTES) -> bytes:
    """The compact JSON of a value.

    Dict keys must be text: str, or what JSON writes as text anyway (an Enum of str, UUID, date). Numbers are
    refused as keys, since they would come back as strings. Dicts keep their order; sets are sorted.

    Parameters:
        value: JSON builtins, dataclass, msgspec Struct, Pydantic model, datetime, date, time, timedelta,
            Decimal, UUID, Enum, bytes, set, tuple, in any combination; a `Raw` passes unread.
        limit: the largest body that is accepted, in bytes.

    Returns: JSON text in UTF-8.

    Raises: PayloadError, whose pointer tells the place, for what strict JSON cannot carry.
    """
    if type(value) is Raw:
        return _passed(value, limit)
    try:
        body = _write(value)
        form = _read(body)
    except Exception as error:
        raise _why_not(value, error) from error
    if len(body) > limit:
        raise _too_large(body, limit)
    _reject_suspects(body)
    return body if _is_kept(form, value) else _settled(value, form, body)


def decode(raw: bytes | Raw, expected_type: Any = Any) -> Any:
    """The value of a body that was encoded or checked before.

    Parameters:
        raw: JSON text.
        expected_type: what msgspec can decode, Pydantic models at any depth, or Any for JSON builtins.

    Returns: an instance of `expected_type`; integers are exact, whatever their size.

    Raises: PayloadError when the body does not fit; the pointer tells the place.
    """
    try:
        read = _known_reader(expected_type)
    except TypeError:  # unhashable, for instance Annotated[int, []]
        read = _new_reader(expected_type)
    try:
        return read(raw)
    except PayloadError:
        raise
    except Exception as error:
        raise _misfit(bytes(raw), expected_type, read, error) from error


def check(body: bytes, *, limit: int = MAX_BYTES) -> Raw:
    """The payload of JSON text that comes from outside.

    Parameters:
        body: exactly one JSON value in UTF-8, white space allowed.
        limit: the largest body that is accepted, in bytes, before as well as after it was made compact.

    Returns: the same value as compact JSON: members in their order, integers exact, floats to the double.

    Raises: PayloadError, with a pointer, for malformed text, NaN and infinities (also 1e400), duplicate keys,
        NUL, lone surrogates, integers beyond MAX_DIGITS, nesting beyond MAX_DEPTH and excess size.
    """
    if type(body) is not bytes:
        body = bytes(memoryview(body))
    if len(body) > limit:
        raise _too_large(body, limit)
    _reject_suspects(body)
    try:
        compact = _write(_read(body))
    except Exception as error:
        raise _malformed(body, error) from error
    if compact != body and not _same_strings(body, compact):
        _reject_flaws(body)
    if len(compact) > limit:
        raise _too_large(compact, limit)
    return Raw(compact)


def schema_of(expected_type: Any) -> dict[str, Any] | None:
    """The JSON Schema (2020-12) of a type.

    Parameters:
        expected_type: a type as `decode` takes it.

    Returns: a new dict, or None for Any, for no annotation, and for a type that has no schema.
    """
    if _is_untyped(expected_type):
        return None
    try:
        return _schema(expected_type) or None
    except Exception:  # msgspec, Pydantic and forward references each have their own
        return None


def fits(raw: bytes | Raw, expected_type: Any) -> PayloadError | None:
    """Whether a body decodes as a type.

    Parameters:
        raw: JSON text that was encoded or checked before.
        expected_type: a type as `decode` takes it.

    Returns: None when it does, otherwise the refusal, not raised.
    """
    try:
        decode(raw, expected_type)
    except PayloadError as refusal:
        return refusal
    return None


# ------------------------------------------------------------------------------------------- the refusal


def _refusal(message: str, trail: Iterable[Token] = ()) -> PayloadError:
    pointer = "".join(f"/{_escaped(token)}" for token in trail)
    return PayloadError(f"{message}, at {pointer}" if pointer else message, pointer)


def _escaped(token: Token) -> str:
    return str(token).replace("~", "~0").replace("/", "~1")


def _too_large(body: bytes, limit: int) -> PayloadError:
    return _refusal(
        f"the payload has {len(body):,} bytes and the limit is {limit:,}: "
        "store the content elsewhere and pass a reference to it"
    )


def _too_deep(trail: Iterable[Token]) -> PayloadError:
    return _refusal(f"arrays and objects are nested deeper than {MAX_DEPTH}", trail)


def _surrogate(trail: Iterable[Token]) -> PayloadError:
    return _refusal("a string holds a lone surrogate, which is no character", trail)


def _too_long(trail: Iterable[Token]) -> PayloadError:
    return _refusal(f"an integer has more than {MAX_DIGITS} digits, the sign counted as one", trail)


# -------------------------------------------------------------------------------------- writing, C speed


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "model_validate_json") and hasattr(kind, "model_dump")


def _model_form(model: Any, mode: str = "json", warnings: bool = True) -> Any:
    return model.model_dump(mode=mode, by_alias=True, round_trip=True, warnings=warnings)


_EXACTLY: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)


def _builtin_form(value: object) -> Any:
    if _is_model(type(value)):
        return _model_form(value)
    for base, exactly in _EXACTLY:
        if isinstance(value, base):
            return exactly(value)
    raise TypeError(_unsupported(value))


_write = msgspec.json.Encoder(enc_hook=_builtin_form).encode
_read = msgspec.json.Decoder().decode


def _is_kept(form: object, value: object) -> bool:
    """Whether the JSON form of a value, or of an object's fields, equals it: then nothing was lost."""
    try:
        return bool(form == (value if type(value) in _COMPARABLE else _bare(value)))
    except Exception:  # somebody's __eq__ that expects its own kind
        return False


def _bare(value: object) -> object:
    if isinstance(value, Struct):
        return structs.asdict(value)
    return getattr(value, "__dict__", value)


def _passed(raw: Raw, limit: int) -> bytes:
    body = bytes(raw)
    if not body:
        raise _no_json(())
    if len(body) > limit:
        raise _too_large(body, limit)
    return body


def _no_json(trail: Trail) -> PayloadError:
    return _refusal("this msgspec.Raw does not hold a JSON value", trail)


# ---------------------------------------------------------------------------- what the text itself tells

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_FLAT = bytes.maketrans(b"{}", b"[]")
_NEITHER_QUOTE_NOR_BRACKET = bytes(set(range(256)) - set(b'"[]{}'))
_STRING = re.compile(rb'"[^"]*"?')
_ABYSS = b"[" * (MAX_DEPTH + 1)


def _reject_suspects(body: bytes) -> None:
    """Raise for NUL and for excess depth, at the price of three scans when there is neither."""
    if (
        len(body) > 2 * MAX_DEPTH
        and body.count(b"[") + body.count(b"{") > MAX_DEPTH
        and not _is_shallow(body)
    ):
        _reject_flaws(body)
    if body.find(b"\\u0000") >= 0 and _NUL.search(body):
        _reject_flaws(body)


def _is_shallow(body: bytes) -> bool:
    """Whether no more than MAX_DEPTH levels have to be peeled until no bracket is left."""
    skeleton = _skeleton(body)
    for _ in range(MAX_DEPTH):
        if not skeleton or skeleton.find(_ABYSS) >= 0:
            break
        skeleton = skeleton.replace(b"[]", b"")
    return not skeleton


def _skeleton(body: bytes) -> bytes:
    """The text's brackets, all of them square, without those that stand in strings."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if body.find(b"\\") >= 0 else body
    marks = plain.translate(_FLAT, _NEITHER_QUOTE_NOR_BRACKET).replace(b'""', b"")
    return _STRING.sub(b"", marks) if marks.find(b'"') >= 0 else marks


def _same_strings(body: bytes, compact: bytes) -> bool:
    """Whether no string was dropped; False may also mean that escapes make it hard to tell.

    Each string has two quotes; those inside it are escaped in both texts, or are \\u0022 in `body`.
    """
    return compact.count(b'"') == body.count(b'"') + body.count(b"\\u0022")


# ------------------------------------------------------------------------------ reading text for its flaws

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]|-?[0-9][0-9.eE+-]*+|[A-Za-z]++', re.DOTALL)
_WORDS = (b"true", b"false", b"null")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_AT_BYTE = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)", re.DOTALL)


class _Cursor:
    """Where a reading from left to right has come to: a token for each open array or object.

    The token is the index in an array, the key in an object, and None where a key is awaited.
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
            raise _too_deep(self.place())
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
            text: str = _read(token)
        except ValueError:
            if _SURROGATE.search(token):
                raise _surrogate(self.place()) from None
            return None
        if "\0" in text:
            raise _refusal("a string holds the character NUL", self.place())
        return text

    def _key(self, key: str) -> None:
        if key in self.keys[-1]:
            raise _refusal("duplicate key in an object", (*self.place(), key))
        self.keys[-1].add(key)
        self.trail[-1] = key

    def number(self, token: bytes) -> None:
        if token.lstrip(b"-").isdigit():
            if len(token) > MAX_DIGITS:
                raise _too_long(self.place())
        elif _overflows(token):
            raise _refusal("a number is too large for a float: it would become infinite", self.place())

    def word(self, token: bytes) -> None:
        if token not in _WORDS:
            raise _refusal(f"{token[:40].decode()} is no word of JSON: send null, or a string", self.place())


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


def _reject_flaws(body: bytes, stop: int | None = None) -> Trail:
    """Read the text as far as byte `stop` and raise for the first flaw; otherwise return the place there."""
    cursor = _Cursor()
    end = len(body) if stop is None else stop
    for found in _TOKEN.finditer(body):
        token = found[0]
        step = _STEPS.get(token[0], _Cursor.word)
        if found.start() >= end and step is not _Cursor.word:  # the word may be what the decoder stopped at
            break
        step(cursor, token)
    return cursor.place()


def _malformed(body: bytes, error: Exception) -> PayloadError:
    """Why outside text was refused; a flaw with a name goes before the decoder's general words."""
    stop, reason = _breaking_point(body, error)
    try:
        return _refusal(reason, _reject_flaws(body, stop))
    except PayloadError as refusal:
        return refusal


def _breaking_point(body: bytes, error: Exception) -> tuple[int, str]:
    try:
        body.decode()
    except UnicodeDecodeError as undecodable:
        return undecodable.start, f"the body is not UTF-8, at byte {undecodable.start}"
    found = _AT_BYTE.fullmatch(str(error))
    if found is None:
        return len(body), f"malformed JSON: {error}"
    stop = int(found[2])
    return stop, f"malformed JSON at byte {stop}: {found[1]}"


# ---------------------------------------------------------------------- walking values that differ in JSON


class _Twin(NamedTuple):
    """A part of a Pydantic model as Python sees it, and the same part as the model writes it in JSON."""

    node: Any
    form: Any


def _settled(value: object, form: Any, body: bytes) -> bytes:
    """Raise if the value lost something on the way to `body`; otherwise the body, with its sets in order."""
    unordered = _survey(value, _WRITTEN_WELL)
    for trail in reversed(unordered):
        _put_in_order(form, trail)
    return _write(form) if unordered else body


def _why_not(value: object, error: Exception) -> PayloadError:
    try:
        _survey(value)
    except PayloadError as refusal:
        return refusal
    except Exception:  # what broke the writing may break the walking too
        pass
    return _refusal(f"the value cannot be written as JSON: {type(error).__name__}: {error}")


def _survey(value: object, trusted: frozenset[type] = frozenset()) -> list[Trail]:
    """Raise for the first thing in the value that JSON would lose; otherwise the places of its sets.

    Parts whose type is `trusted` are passed over.
    """
    unordered: list[Trail] = []
    todo: list[tuple[Trail, object]] = [((), value)]
    while todo:
        trail, node = todo.pop()
        if len(trail) > MAX_DEPTH:
            raise _too_deep(trail)
        if node is _UNORDERED:
            unordered.append(trail)
            continue
        kind: Any = type(node)
        parts = [part for part in _rule(kind)(trail, node) if type(part[1]) not in trusted]
        todo += [(trail if token is None else (*trail, token), part) for token, part in reversed(parts)]
    return unordered


def _put_in_order(form: Any, trail: Trail) -> None:
    """Sort the array at `trail`: by value if its items compare, else by their text."""
    array = _at(form, trail)
    if not isinstance(array, list):
        return  # a default, which its Struct leaves out
    try:
        array.sort()
    except TypeError:
        array.sort(key=_write)


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
    raise _refusal(_unsupported(node), trail)


def _sound(trail: Trail, node: object) -> Parts:
    return ()


def _enum(trail: Trail, node: Enum) -> Parts:
    return ((None, node.value),)


def _text(trail: Trail, node: str) -> Parts:
    if _has_surrogate(node):
        raise _surrogate(trail)
    return ()


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _integer(trail: Trail, node: int) -> Parts:
    if node >= 10**MAX_DIGITS or node <= -(10 ** (MAX_DIGITS - 1)):
        raise _too_long(trail)
    return ()


def _number(trail: Trail, node: float) -> Parts:
    if not math.isfinite(node):
        raise _refusal(f"{node!r} is not a number that JSON knows: use None, or a string", trail)
    return ()


def _decimal(trail: Trail, node: Decimal) -> Parts:
    if not node.is_finite():
        raise _refusal(f"{node!r} is not a number that JSON knows: use None, or a string", trail)
    return ()


def _clock(trail: Trail, node: datetime | time) -> Parts:
    offset = None if node.tzinfo is UTC else node.utcoffset()
    if offset is not None and offset % _MINUTE:
        raise _refusal(
            f"the UTC offset of {node.isoformat()} has seconds, which JSON cuts off: use astimezone(UTC)",
            trail,
        )
    return ()


def _object(trail: Trail, node: dict[Any, Any]) -> Parts:
    names: set[str] = set()
    for key, child in node.items():
        name = _name(trail, key)
        if name in names:
            raise _refusal("two keys of a dict are the same text in JSON", (*trail, name))
        names.add(name)
        yield name, child


def _name(trail: Trail, key: object) -> str:
    """The key as JSON text: itself if it is a str, else its JSON form if that is a string."""
    if isinstance(key, str):
        _text(trail, key)
        return str.__str__(key)
    try:
        name = _read(_write(key))
    except Exception:
        name = None
    if isinstance(name, str):
        return name
    raise _refusal(
        f"the dict key {_shown(key)} is of type {type(key).__name__}, and JSON keys are strings: "
        "use str(key), or a list of pairs",
        (*trail, _shown(key)),
    )


def _shown(key: object) -> str:
    return ascii(key)[:80]


def _array(trail: Trail, node: Iterable[Any]) -> Parts:
    return enumerate(node)


def _set(trail: Trail, node: Collection[Any]) -> Parts:
    if len(node) > 1:
        yield None, _UNORDERED
    yield from enumerate(node)


def _encoded(trail: Trail, node: Raw) -> Parts:
    try:
        _read(node)
    except ValueError:
        raise _no_json(trail) from None
    return ()


def _struct(trail: Trail, node: Struct) -> Parts:
    config = node.__struct_config__
    tagged = config.tag is not None
    names: Iterable[Token] = count(tagged) if config.array_like else node.__struct_encode_fields__
    fields = zip(names, structs.astuple(node), strict=False)
    return [field for field in fields if field[1] is not UNSET]


def _fields(trail: Trail, node: object) -> Parts:
    kind: Any = type(node)
    names = _field_names(kind)
    return [(name, part) for name in names if (part := getattr(node, name, UNSET)) is not UNSET]


@lru_cache(maxsize=512)
def _field_names(kind: Any) -> tuple[str, ...]:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else kind.__attrs_attrs__
    return tuple(field.name for field in fields)


def _model(trail: Trail, node: Any) -> Parts:
    try:
        form = _model_form(node)
        seen = _model_form(node, mode="python", warnings=False)
    except Exception as error:
        raise _refusal(f"{type(node).__name__} cannot be written as JSON: {error}", trail) from error
    return (None, form), (None, _Twin(seen, form))


def _twin(trail: Trail, twin: _Twin) -> Parts:
    """The losses that only a comparison shows: NaN in a field of type Any, and the order of a set."""
    node, form = twin
    if form is None and isinstance(node, float):
        _number(trail, node)
    if isinstance(form, list) and isinstance(node, set | frozenset):
        yield None, _UNORDERED
    if isinstance(form, list) and isinstance(node, list | tuple | set | frozenset):
        yield from enumerate(map(_Twin, node, form))
    if isinstance(form, dict) and isinstance(node, dict):
        yield from zip(form, map(_Twin, node.values(), form.values()), strict=False)


_RULES: tuple[tuple[type | tuple[type, ...], Rule], ...] = (
    (Enum, _enum),
    (str, _text),
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
"""What msgspec either refuses to write or writes without loss."""

_INSTEAD = (
    ("__await__", "await it, and pass the result"),
    ("mro", "use its name"),
    ("tolist", "use value.tolist()"),
    ("__fspath__", "use str(value)"),
    ("__traceback__", "use str(value)"),
    ("__next__", "use list(value)"),
    ("keys", "use dict(value)"),
    ("__iter__", "use list(value)"),
    ("conjugate", "use [value.real, value.imag]"),
    ("__call__", "use its name"),
    ("", "use a dataclass, a msgspec.Struct, a Pydantic model or JSON builtins"),
)


def _unsupported(value: object) -> str:
    kind = type(value)
    marks = {name for base in kind.__mro__ for name in vars(base)}
    advice = next(advice for mark, advice in _INSTEAD if not mark or mark in marks)
    return f"a value of type {kind.__module__}.{kind.__qualname__} has no JSON form: {advice}"


# ------------------------------------------------------------------------------------------ reading, typed


def _new_reader(expected_type: Any) -> Reader:
    if _is_untyped(expected_type):
        return _read
    if _is_model(expected_type):
        return _model_reader(expected_type.model_validate_json)
    try:
        return msgspec.json.Decoder(expected_type, dec_hook=_custom).decode
    except Exception as error:
        adapter = _adapter(expected_type)
        if adapter:
            return _model_reader(adapter.validate_json)
        raise _refusal(f"JSON cannot be decoded as {_title(expected_type)}: {error}") from error


_known_reader = lru_cache(maxsize=512)(_new_reader)


def _is_untyped(expected_type: Any) -> bool:
    return any(expected_type is untyped for untyped in _UNTYPED)


def _model_reader(validate: Reader) -> Reader:
    return lambda raw: validate(bytes(raw))


def _custom(kind: Any, form: Any) -> Any:
    """An instance of a type that msgspec does not know, from JSON builtins."""
    if _is_model(kind):
        return kind.model_validate_json(_write(form))
    for base, _ in _EXACTLY:
        if isinstance(kind, type) and issubclass(kind, base) and isinstance(form, base):
            return cast(Any, kind)(form)
    raise TypeError(
        f"{_title(kind)} cannot be read from JSON: "
        "annotate with a dataclass, a msgspec.Struct, a Pydantic model or JSON builtins"
    )


def _adapter(expected_type: Any) -> Any:
    """Pydantic's adapter of a type which names a model where msgspec takes none, such as a union of two."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not _names_model(expected_type):
        return None
    try:
        return pydantic.TypeAdapter(expected_type)
    except Exception:  # of many kinds: schema errors, unresolved names
        return None


def _names_model(expected_type: Any) -> bool:
    return _is_model(expected_type) or any(_names_model(part) for part in get_args(expected_type))


def _title(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _schema(expected_type: Any) -> dict[str, Any]:
    if _is_model(expected_type):
        return dict(expected_type.model_json_schema())
    try:
        return _composed_schema(expected_type)
    except TypeError:
        adapter = _adapter(expected_type)
        return dict(adapter.json_schema()) if adapter else {}


def _composed_schema(expected_type: Any) -> dict[str, Any]:
    """msgspec's schema, with the definitions of nested models moved to where its references point."""
    moved: dict[str, Any] = {}

    def model_schema(kind: Any) -> dict[str, Any]:
        if not _is_model(kind):
            raise TypeError(f"{_title(kind)} has no JSON Schema")
        own: dict[str, Any] = kind.model_json_schema(ref_template=f"#/$defs/{kind.__name__}.{{model}}")
        definitions = own.pop("$defs", {})
        moved.update({f"{kind.__name__}.{name}": schema for name, schema in definitions.items()})
        return own

    schema: dict[str, Any] = msgspec.json.schema(expected_type, schema_hook=model_schema)
    if moved:
        schema["$defs"] = {**schema.get("$defs", {}), **moved}
    return schema


# --------------------------------------------------------------------------------- where a body does not fit

_AT_PATH = re.compile(r"(.*) - at `(key` in `)?\$(.*)`", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|(\[\.\.\.\])|\.([^.\[]+)")


def _misfit(body: bytes, expected_type: Any, read: Reader, error: Exception) -> PayloadError:
    """Why a body does not fit its type, and where."""
    try:
        form = _read(body)
    except Exception:
        return _malformed(body, error)
    model_error = _model_error(error)
    trail = _trail(form, read, error) if isinstance(error, msgspec.ValidationError) else []
    reason = _reason(error)
    if model_error is not None:
        first, *others = model_error.errors(include_url=False, include_context=False, include_input=False)
        trail += _located(_at(form, trail), first)
        reason = first["msg"] + (f" (and {len(others)} more)" if others else "")
    return _refusal(f"the value does not fit {_title(expected_type)}: {reason}", trail)


def _model_error(error: Exception) -> Any:
    """Pydantic's ValidationError, if that is what the error is or was caused by."""
    causes = (error, error.__cause__)
    return next((cause for cause in causes if hasattr(cause, "error_count")), None)


def _reason(error: Exception) -> str:
    if not isinstance(error, msgspec.ValidationError):
        return f"{type(error).__name__}: {error}"
    found = _AT_PATH.fullmatch(str(error))
    return found[1] if found else str(error)


def _path(error: Exception) -> list[Token]:
    """msgspec's path; None is the member of a dict, whose key msgspec does not tell."""
    found = _AT_PATH.fullmatch(str(error))
    if found is None:
        return []
    steps: list[Token] = [int(step[1]) if step[1] else step[3] for step in _STEP.finditer(found[3])]
    return [*steps, None] if found[2] else steps


def _trail(form: Any, read: Reader, error: Exception) -> list[Token]:
    """msgspec's path with its keys filled in, as far as they can be found. Members of `form` get lost."""
    trail: list[Token] = []
    steps = _path(error)
    node = form
    for step in steps:
        token = _refused_key(form, node, read, steps) if step is None else step
        if not _holds(node, token):
            break
        trail.append(token)
        node = node[token]
    return trail


def _refused_key(form: Any, node: Any, read: Reader, steps: list[Token]) -> Token:
    """The first member of `node` whose presence makes the reader refuse `form` at the same path.

    Afterwards it is the only one.
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
        read(_write(form))
    except Exception as error:
        return _path(error)
    return None


def _holds(node: Any, token: Any) -> bool:
    if isinstance(node, dict):
        return token in node
    return isinstance(node, list) and isinstance(token, int) and token < len(node)


def _at(form: Any, trail: Iterable[Token]) -> Any:
    """What stands at a place of a JSON form, None if there is no such place."""
    node = form
    for token in trail:
        if not _holds(node, token):
            return None
        node = node[token]
    return node


def _located(form: Any, flaw: dict[str, Any]) -> list[Token]:
    """Pydantic's loc without the names of union members and the like, which are no places in the body."""
    *outer, last = flaw["loc"] or (None,)
    trail: list[Token] = []
    for token in outer:
        if _holds(form, token):
            trail.append(token)
            form = form[token]
    is_place = flaw["type"] == "missing" or _holds(form, last)
    return [*trail, last] if is_place else trail
