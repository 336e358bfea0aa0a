"""Converts a JSON Schema to the fields of a form, and a posted form to JSON.

Text, numbers, yes or no, and one of a list become simple fields. A list of texts or numbers becomes a text area with
a line for each, which a script shows as rows. A nested part, or one with alternatives, becomes a text area for JSON,
so that every schema has a form. Numbers stay the text that was typed, because a conversion to float could change
them. This module does not validate the result. The orchestrator's declared events do, as for every event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.errors import PayloadError
from perdure.http.languages import ENGLISH, say, speech
from perdure.model import payload
from perdure.model.human_tasks import in_words
from perdure.model.payload.choices import MEANINGS

if TYPE_CHECKING:
    from msgspec import Raw

Schema = Mapping[str, Any]
PREFIX = "field."
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
_INPUT_TYPES = {"date": "date", "time": "time", "email": "email", "uri": "url"}
_ITEMS = ("text", "integer", "number")  # the kinds of items whose list has a line for each
_HINTS = {"date-time": "2026-01-31T17:30:00Z", "duration": "PT1H30M", "uuid": "", "decimal": "12.50"}


class Said(str):
    """Why what was typed into a field is refused, in the visitor's language."""


@dataclass(frozen=True)
class Field:
    """One input of a form. `kind` is text, longtext, integer, number, flag, choice, list or json.

    A blank field that is not `required` is left out. A blank field that is `nullable` is null.
    """

    name: str
    kind: str
    label: str
    description: str = ""
    required: bool = True
    nullable: bool = False
    default: str = ""
    choices: tuple[tuple[str, str], ...] = ()
    meanings: Mapping[str, str] = field(
        default_factory=dict
    )  # what some of the choices cause, by their values
    input_type: str = "text"
    placeholder: str = ""
    minimum: Any = None
    maximum: Any = None
    max_length: int | None = None
    item: str = ""  # of a list: the kind of its items

    @property
    def is_short(self) -> bool:
        """Whether the field has few enough choices to show all of them."""
        return self.kind == "choice" and len(self.choices) <= 4

    @property
    def input_name(self) -> str:
        return PREFIX + self.name

    def read(self, posted: Mapping[str, str]) -> str | None:
        """The JSON text of the posted value, None to leave the member out. Raises PayloadError."""
        text = posted.get(self.input_name)
        if self.kind == "flag":
            return "true" if text is not None else "false"
        if text is None or not text.strip():
            return self._blank()
        return _READERS[self.kind](self, text)

    def _blank(self) -> str | None:
        if not self.required:
            return None
        if self.nullable:
            return "null"
        if self.kind in ("text", "longtext"):
            return '""'
        if self.kind == "list":
            return "[]"
        raise self._refusal(say("%(field)s is required", field=self.label))

    def _refusal(self, why: str) -> PayloadError:
        return PayloadError(Said(why), f"/{_escaped(self.name)}" if self.name else "")


# ------------------------------------------------------------------------------------- schema to fields


def fields_of(schema: Schema | None) -> tuple[Field, ...]:
    """The fields of a form for a schema; one JSON field without a schema."""
    if schema is None:
        return (
            Field("", "json", say("Data"), say("Any JSON value. Leave empty for no data."), required=False),
        )
    whole, nullable = _resolved(schema, schema)
    properties = whole.get("properties")
    if whole.get("type") != "object" or not isinstance(properties, Mapping) or nullable or not properties:
        return (_field("", schema, schema, required=not nullable),)
    required = set(whole.get("required", ()))
    return tuple(_field(name, part, schema, name in required) for name, part in properties.items())


def help_of(schema: Schema | None) -> str:
    """What the type's docstring says; "" without one."""
    return str(_resolved(schema, schema)[0].get("description", "")) if schema is not None else ""


def _field(name: str, part: Schema, root: Schema, required: bool) -> Field:
    found, nullable = _resolved(part, root)
    default = part.get("default", found.get("default"))
    kind, item = _kind(found), ""
    if kind == "json" and found.get("type") == "array":
        item = _kind(_resolved(found.get("items") or {}, root)[0])
        kind = "list" if item in _ITEMS else "json"
    if kind == "flag" and default is None:
        # An empty check box would mean no, although the person has not decided.
        kind, found = "choice", {**found, "enum": [True, False]}
    return Field(
        name=name,
        kind=kind,
        label=_label(part, found, name),
        description=str(part.get("description", found.get("description", "")) or ""),
        required=required,
        nullable=nullable,
        default=_shown(kind, default),
        choices=_choices(found),
        meanings=_meanings(found),
        input_type=_INPUT_TYPES.get(found.get("format", ""), "text"),
        placeholder=_HINTS.get(found.get("format", ""), ""),
        minimum=found.get("minimum"),
        maximum=found.get("maximum"),
        max_length=found.get("maxLength"),
        item=item,
    )


def _resolved(part: Schema, root: Schema) -> tuple[Schema, bool]:
    """The part with its reference resolved and without the alternative `null`, and whether it can be null."""
    nullable = False
    for _ in range(16):
        reference = part.get("$ref")
        options = part.get("anyOf") or part.get("oneOf")
        if isinstance(reference, str) and reference.startswith("#/"):
            part = _at(root, reference)
        elif isinstance(options, list) and {"type": "null"} in options:
            nullable = True
            rest = [option for option in options if option != {"type": "null"}]
            part = rest[0] if len(rest) == 1 else {"anyOf": rest}
        elif isinstance(part.get("allOf"), list) and len(part["allOf"]) == 1:
            part = part["allOf"][0]
        elif isinstance(part.get("type"), list) and "null" in part["type"] and len(part["type"]) == 2:
            nullable = True
            part = {**part, "type": next(kind for kind in part["type"] if kind != "null")}
        else:
            break
    return part, nullable


def _at(root: Schema, reference: str) -> Schema:
    found: Any = root
    for token in reference[2:].split("/"):
        found = found.get(token.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _kind(found: Schema) -> str:
    if isinstance(found.get("enum"), list) or "const" in found:
        return "choice"
    kind = {"string": "text", "integer": "integer", "number": "number", "boolean": "flag"}.get(
        found.get("type", ""), "json"
    )
    return "longtext" if kind == "text" and (found.get("maxLength") or 0) > 200 else kind


def _label(part: Schema, found: Schema, name: str) -> str:
    title = part.get("title") or (found.get("title") if found.get("type") != "object" else None)
    return str(title) if title and "enum" not in found else in_words(name) or say("Data")


def _choices(found: Schema) -> tuple[tuple[str, str], ...]:
    values = [found["const"]] if "const" in found else found.get("enum", [])
    return tuple((_dumped(value), _choice_label(value)) for value in values)


def _meanings(found: Schema) -> Mapping[str, str]:
    said = found.get(MEANINGS)
    if not isinstance(said, Mapping):
        return {}
    return {_dumped(value): str(said[str(value)]) for value in found.get("enum", []) if str(value) in said}


def _choice_label(value: Any) -> str:
    if isinstance(value, bool):
        return say("Yes") if value else say("No")
    if not isinstance(value, str):
        return _dumped(value)
    words = in_words(value)
    return words[:1].upper() + words[1:]


def _shown(kind: str, default: Any) -> str:
    if default is None:
        return ""
    if kind == "list" and isinstance(default, list):
        return "\n".join(one if isinstance(one, str) else _dumped(one) for one in default)
    return default if kind in ("text", "longtext") and isinstance(default, str) else _dumped(default)


def typed_of(fields: tuple[Field, ...], value: Any) -> dict[str, str]:
    """What the inputs of a form contain for a value, such as the input of an instance."""
    if len(fields) == 1 and not fields[0].name:
        return {fields[0].input_name: _shown(fields[0].kind, value)}
    members = value if isinstance(value, Mapping) else {}
    return {one.input_name: _shown(one.kind, members[one.name]) for one in fields if one.name in members}


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# --------------------------------------------------------------------------------------- fields to JSON


def read_fields(fields: tuple[Field, ...], posted: Mapping[str, str]) -> Raw | None:
    """The JSON body of a posted form. Raises PayloadError with a pointer to the field."""
    if len(fields) == 1 and not fields[0].name:
        text = fields[0].read(posted)
        return None if text is None else payload.check(text.encode())
    members = [(field.name, field.read(posted)) for field in fields]
    inside = ",".join(f"{_dumped(name)}:{text}" for name, text in members if text is not None)
    return payload.check(f"{{{inside}}}".encode())


def _read_text(field: Field, text: str) -> str:
    # Forms always send line breaks as CR LF.
    return json.dumps(text.replace("\r\n", "\n"))


def _read_integer(field: Field, text: str) -> str:
    if not _INTEGER.fullmatch(text.strip()):
        raise field._refusal(
            say(
                "%(field)s must be a whole number, not %(given)s",
                field=field.label,
                given=repr(text.strip()[:40]),
            )
        )
    return text.strip()


def _read_number(field: Field, text: str) -> str:
    typed = text.strip()
    if _NUMBER.fullmatch(typed):
        return typed
    try:
        return json.dumps(float(typed), allow_nan=False)
    except ValueError:
        raise field._refusal(
            say("%(field)s must be a number, not %(given)s", field=field.label, given=repr(typed[:40]))
        ) from None


def _read_choice(field: Field, text: str) -> str:
    if text not in (value for value, _ in field.choices):
        raise field._refusal(say("%(field)s must be one of the listed values", field=field.label))
    return text


def _read_list(field: Field, text: str) -> str:
    read = _READERS[field.item]
    return f"[{','.join(read(field, line.strip()) for line in text.splitlines() if line.strip())}]"


def _read_json(field: Field, text: str) -> str:
    try:
        return bytes(payload.check(text.encode())).decode()
    except PayloadError as error:
        said = str(error.args[0])
        if speech().language != ENGLISH:  # the reason is in English
            raise field._refusal(say("%(field)s is not valid JSON", field=field.label)) from None
        told = f"is {said}" if said.startswith("not ") else f"is invalid: {said}"
        raise field._refusal(f"{field.label} {told}") from None


_READERS: dict[str, Callable[[Field, str], str]] = {
    "text": _read_text,
    "longtext": _read_text,
    "integer": _read_integer,
    "number": _read_number,
    "choice": _read_choice,
    "list": _read_list,
    "json": _read_json,
}


def _escaped(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")


__all__ = ["Field", "Said", "fields_of", "help_of", "read_fields", "typed_of"]
