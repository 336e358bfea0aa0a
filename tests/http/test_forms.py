"""A JSON Schema as a form, and the posted form as JSON."""

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pydantic
import pytest

from perdure.errors import PayloadError
from perdure.http.pages.forms import fields_of, read_fields
from perdure.model import payload


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Everything:
    approved: bool
    who: str
    count: int
    rate: float
    colour: Colour
    level: Literal[1, 2]
    day: date
    at: datetime
    price: Decimal
    parts: list[str]
    more: dict[str, int]
    urgent: bool = False
    limit: float | None = None
    comment: str = ""
    again: bool | None = None
    tags: list[str] = field(default_factory=list)


class Model(pydantic.BaseModel):
    approved: bool = pydantic.Field(description="Whether it is paid")
    amount: int = pydantic.Field(ge=1, le=100, default=7)


def kinds(expected: Any) -> dict[str, str]:
    return {field.name: field.kind for field in fields_of(payload.schema_of(expected))}


def test_a_field_is_made_for_each_member() -> None:
    assert kinds(Everything) == {
        "approved": "choice",  # an empty box would say no without anybody having decided so
        "who": "text",
        "count": "integer",
        "rate": "number",
        "colour": "choice",
        "level": "choice",
        "day": "text",
        "at": "text",
        "price": "text",
        "parts": "list",
        "more": "json",
        "urgent": "flag",
        "limit": "number",
        "comment": "text",
        "again": "choice",
        "tags": "list",
    }


def test_the_filled_in_form_decodes_to_the_type() -> None:
    fields = fields_of(payload.schema_of(Everything))
    posted = {
        "field.approved": "true",
        "field.who": 'Ada "the first"',
        "field.count": "123456789012345678901234567890",
        "field.rate": "0.10",
        "field.colour": '"blue"',
        "field.level": "2",
        "field.day": "2026-01-31",
        "field.at": "2026-01-31T17:30:00Z",
        "field.price": "12.50",
        "field.parts": "a\r\nb",
        "field.more": '{"x": 1}',
        "field.limit": "",
        "field.comment": "two\r\nlines",
    }

    found = payload.decode(read_fields(fields, posted) or b"", Everything)

    assert found.approved is True
    assert found.who == 'Ada "the first"'
    assert found.count == 123456789012345678901234567890
    assert found.colour is Colour.BLUE
    assert found.price == Decimal("12.50")
    assert found.parts == ["a", "b"]
    assert found.comment == "two\nlines"
    assert found.urgent is False
    assert found.limit is None


def test_a_pydantic_model_brings_its_words_and_bounds() -> None:
    approved, amount = fields_of(payload.schema_of(Model))

    assert approved.description == "Whether it is paid"
    assert (amount.minimum, amount.maximum, amount.default, amount.required) == (1, 100, "7", False)


@pytest.mark.parametrize(
    ("expected", "kind", "text", "body"),
    [
        (str, "text", "hello", b'"hello"'),
        (int, "integer", "-3", b"-3"),
        (bool, "choice", "false", b"false"),
        (list[int], "list", "1\r\n2", b"[1,2]"),
        (list[list[int]], "json", "[[1, 2]]", b"[[1,2]]"),
        (int | str, "json", '"x"', b'"x"'),
        (Any, "json", '{"a": null}', b'{"a":null}'),
    ],
)
def test_a_type_without_members_is_one_field(expected: Any, kind: str, text: str, body: bytes) -> None:
    (only,) = fields_of(payload.schema_of(expected))

    assert (only.kind, only.name) == (kind, "")
    assert bytes(read_fields((only,), {"field.": text}) or b"") == body


def test_nothing_typed_is_nothing_sent() -> None:
    assert read_fields(fields_of(None), {"field.": "  "}) is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("count", "1.5", "whole number"),
        ("count", "", "is required"),
        ("rate", "fast", "must be a number"),
        ("rate", "nan", "must be a number"),
        ("colour", '"green"', "one of the listed"),
        ("approved", "", "is required"),
        ("more", "[", "is not valid JSON"),
    ],
)
def test_what_cannot_be_read_is_said_at_its_field(name: str, text: str, said: str) -> None:
    found = next(one for one in fields_of(payload.schema_of(Everything)) if one.name == name)

    with pytest.raises(PayloadError, match=said) as refused:
        found.read({f"field.{name}": text})

    assert refused.value.pointer == f"/{name}"


def test_a_number_travels_as_it_was_typed() -> None:
    found = fields_of({"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]})

    assert bytes(read_fields(found, {"field.n": "0.1000000000000000055"}) or b"") in (
        b'{"n":0.1000000000000000055}',
        b'{"n":0.1}',
    )
    assert bytes(read_fields(found, {"field.n": ".5"}) or b"") == b'{"n":0.5}'


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/Loop", "$defs": {"Loop": {"$ref": "#/$defs/Loop"}}},
        {"$ref": "#/nowhere"},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
        {"anyOf": []},
        {"type": "object"},
        {},
    ],
)
def test_a_schema_nobody_understands_has_a_form_all_the_same(schema: dict[str, Any]) -> None:
    fields = fields_of(schema)

    assert [one.kind for one in fields] == ["json"]


class Choice(Enum):
    """What happens to the claim."""

    PAY = "pay_now"
    "The claim is paid at once."
    DENY = "deny"
    ASK = "ask"
    """The claimant gets a letter,
    and can answer."""


@dataclass
class Answer:
    choice: Choice
    how: Literal["z", "b", "a"]
    numbers: list[int]
    words: list[str] = field(default_factory=lambda: ["one", "two"])
    maybe: Choice | None = None


def test_choices_come_in_the_order_of_their_declaration_with_what_they_cause() -> None:
    choice, how, _, _, maybe = fields_of(payload.schema_of(Answer))
    assert choice.choices == (('"pay_now"', "Pay now"), ('"deny"', "Deny"), ('"ask"', "Ask"))
    assert [label for _, label in how.choices] == ["Z", "B", "A"]
    assert maybe.choices == choice.choices
    assert choice.meanings == {
        '"pay_now"': "The claim is paid at once.",
        '"ask"': "The claimant gets a letter, and can answer.",
    }


def test_an_enum_without_source_has_no_meanings() -> None:
    made = Enum("Made", {"B": "b", "A": "a"})
    [one] = fields_of(payload.schema_of(made))
    assert ([label for _, label in one.choices], one.meanings) == (["B", "A"], {})


def test_a_list_has_a_line_for_each_item() -> None:
    fields = fields_of(payload.schema_of(Answer))
    posted = {"field.choice": '"deny"', "field.how": '"z"', "field.numbers": "1\r\n\r\n 22 \r\n"}
    body = read_fields(fields, posted | {"field.words": 'say "x"\r\nplain'})
    assert payload.decode(body, Answer) == Answer(Choice.DENY, "z", [1, 22], ['say "x"', "plain"])
    assert payload.decode(read_fields(fields, posted | {"field.numbers": ""}), Answer).numbers == []
    with pytest.raises(PayloadError, match="Numbers must be a whole number, not 'x'"):
        read_fields(fields, posted | {"field.numbers": "1\nx"})
