"""Decoding bodies as typed values; decoders are created once per type."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any, cast, get_args

import msgspec

from perdure.errors import PayloadError
from perdure.model.payload.errors import UNTYPED, Reader, refusal
from perdure.model.payload.shapes import MADE_OF, advice_for, flaw_of, title
from perdure.model.payload.writing import is_model, read_plain, write_plain


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
