"""Payloads: what strict JSON carries comes back equal, and everything else is refused at its place."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import random
import subprocess
import sys
import time as clock
from collections import OrderedDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from perdure.errors import PayloadError
from perdure.model.payload import MAX_BYTES, MAX_DEPTH, MAX_DIGITS, check, decode, encode, fits, schema_of

NAN = float("nan")
UUID_1 = UUID(int=1)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(Enum):
    ONE = 1


class Broken(Enum):
    NOTHING = NAN


class Rank(IntEnum):
    FIRST = 1


class Name(StrEnum):
    ANNA = "anna"


class Email(str):
    pass


class Cents(int):
    pass


class Ratio(float):
    pass


Point = namedtuple("Point", "x y")


class Span(NamedTuple):
    start: int
    name: str


class Address(TypedDict):
    street: str
    number: int


@dataclasses.dataclass
class Claim:
    claim_id: str
    amount: Decimal
    at: datetime
    lasted: timedelta = timedelta(0)
    key: UUID = UUID_1
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Box:
    content: Any
    _seal: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    content: Any


@dataclasses.dataclass
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("number must not be negative")
        if self.number == 13:
            raise KeyError("thirteen")
        if self.number == 14:
            decode(b"[1]", list[str])


@dataclasses.dataclass
class Quarrelsome:
    """Equality that presumes its own kind, as is often written."""

    content: Any

    def __eq__(self, other: Any) -> bool:
        return bool(self.content == other.content)

    __hash__ = None  # type: ignore[assignment]


class BrokenZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise ValueError("no such zone")


class Item(msgspec.Struct, rename="camel", tag="item", omit_defaults=True):
    unit_price: Any
    side_labels: Any = frozenset({"a", "b"})


class Row(msgspec.Struct, array_like=True, tag=True):
    first: Any
    second: Any = None


class Bag(msgspec.Struct, omit_defaults=True):
    content: Any = msgspec.UNSET


class Part(pydantic.BaseModel):
    number: int
    sizes: list[int] = []


class Machine(pydantic.BaseModel):
    label: str = pydantic.Field("m", alias="theLabel")
    parts: dict[str, Part] = {}
    built: datetime | None = None
    anything: Any = None
    words: set[str] = set()
    by_number: dict[int, str] = {}


class Tree(pydantic.BaseModel):
    children: list[Tree] = []


class Squared(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    side: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


@dataclasses.dataclass
class Workshop:
    best: Part
    parts: list[Part] = dataclasses.field(default_factory=list)
    shelves: dict[str, list[Part]] = dataclasses.field(default_factory=dict)


def nested(depth: int, innermost: Any = 1) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


def refused(action: Any, *arguments: Any, **options: Any) -> PayloadError:
    with pytest.raises(PayloadError) as caught:
        action(*arguments, **options)
    return caught.value


def same(left: Any, right: Any) -> bool:
    """Equal down to the type of every part, the order of members and the sign of zero."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left.hex() == right.hex() if isinstance(left, float) else bool(left == right)


# ------------------------------------------------------------------------------------------------- encode


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ({"b": 1, "a": [True, None, 1.0, "é"]}, '{"b":1,"a":[true,null,1.0,"é"]}'),
        (
            Claim("C", Decimal("1.10"), datetime(2024, 1, 2, tzinfo=UTC)),
            '{"claim_id":"C","amount":"1.10","at":"2024-01-02T00:00:00Z","lasted":"P0D",'
            '"key":"00000000-0000-0000-0000-000000000001","tags":[]}',
        ),
        (Box(1, _seal=2), '{"content":1,"_seal":2}'),
        (Slotted(Slotted(1)), '{"content":{"content":1}}'),
        (Item(1), '{"type":"item","unitPrice":1}'),
        (Row(1), '["Row",1,null]'),
        (Bag(), "{}"),
        (
            Machine(theLabel="x", built=datetime(2024, 1, 2), by_number={1: "one"}),
            '{"theLabel":"x","parts":{},"built":"2024-01-02T00:00:00","anything":null,"words":[],'
            '"by_number":{"1":"one"}}',
        ),
        ([date(2024, 1, 2), time(3, 4, 5), timedelta(1, 1)], '["2024-01-02","03:04:05","P1DT1S"]'),
        ([Colour.RED, Level.ONE, Rank.FIRST, Name.ANNA], '["red",1,1,"anna"]'),
        ([b"abc", bytearray(b"abc")], '["YWJj","YWJj"]'),
        ((1, Point(2, 3), Span(4, "five")), '[1,[2,3],[4,"five"]]'),
        (Address(street="Elm", number=4), '{"street":"Elm","number":4}'),
        ([OrderedDict(a=1), defaultdict(int, b=2)], '[{"a":1},{"b":2}]'),
        ([Email("a@b"), Cents(5), Ratio(0.5)], '["a@b",5,0.5]'),
        ({"already": Raw(b'{"a":1}')}, '{"already":{"a":1}}'),
        ("\\u0000 in letters", '"\\\\u0000 in letters"'),
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=-3.5))), '"2024-01-02T00:00:00-03:30"'),
    ],
)
def test_a_value_is_written_as_compact_json(value: Any, body: str) -> None:
    assert encode(value) == body.encode()


def test_a_raw_passes_unread() -> None:
    assert encode(Raw(b'{ "a": 1 }')) == b'{ "a": 1 }'


@pytest.mark.parametrize("digits", [19, 20, 400, MAX_DIGITS])
def test_integers_of_any_size_are_exact(digits: int) -> None:
    for value in (10**digits - 1, 1 - 10 ** (digits - 1)):
        assert decode(encode(value)) == value
        assert decode(encode([value]), list[int]) == [value]
        assert decode(encode({"a": value}), dict[str, Any]) == {"a": value}
        assert decode(encode(Box(value)), Box) == Box(value)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"claim": {"amount": [1, 2, 3, NAN]}}, "/claim/amount/3"),
        (math.inf, ""),
        ([1.5, -math.inf], "/1"),
        ({"a~/b": NAN}, "/a~0~1b"),
        ((None, Ratio(NAN)), "/1"),
        (Box([Slotted(NAN)]), "/content/0/content"),
        (Item(NAN), "/unitPrice"),
        ([Row(1, [NAN])], "/0/2/0"),
        (Broken.NOTHING, ""),
        (Machine(anything=NAN), "/anything"),
        ([Machine(anything=[{"a": math.inf}])], "/0/anything/0/a"),
        ({"a": Decimal("NaN")}, "/a"),
        ([Decimal("-Infinity")], "/0"),
    ],
)
def test_trap_nan_and_infinity_are_refused_where_msgspec_writes_null(value: Any, pointer: str) -> None:
    assert refused(encode, value).pointer == pointer


def test_none_is_not_mistaken_for_nan() -> None:
    assert encode({"a": None, "b": [1.5, None]}) == b'{"a":null,"b":[1.5,null]}'


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ("\0", ""),
        ({"a": ["b", "c\0"]}, "/a/1"),
        ({"a": {"k\0": 1}}, "/a"),
        (Box("\\\0"), "/content"),
        (Machine(anything="\0"), "/anything"),
    ],
)
def test_trap_nul_is_refused(value: Any, pointer: str) -> None:
    refusal = refused(encode, value)
    assert refusal.pointer == pointer
    assert "NUL" in str(refusal)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ("\ud800", ""),
        ({"a": ["b", "c\udfff"]}, "/a/1"),
        ({"a": {"\ud800": 1}}, "/a"),
        (Box("\ud800"), "/content"),
    ],
)
def test_trap_lone_surrogates_are_refused(value: Any, pointer: str) -> None:
    refusal = refused(encode, value)
    assert refusal.pointer == pointer
    assert "surrogate" in str(refusal)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (1, "1"),
        (1.5, "1.5"),
        (NAN, "nan"),
        (True, "True"),
        (None, "None"),
        ((1,), "(1,)"),
        (Rank.FIRST, "<Rank.FIRST: 1>"),
        (Level.ONE, "<Level.ONE: 1>"),
    ],
)
def test_trap_keys_that_would_turn_into_strings_are_refused(key: Any, shown: str) -> None:
    refusal = refused(encode, {"a": [{key: 1}]})
    assert refusal.pointer == f"/a/0/{shown}"
    assert type(key).__name__ in str(refusal)
    assert "str(key)" in str(refusal)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("1", "1"),
        (Email("a@b"), "a@b"),
        (Name.ANNA, "anna"),
        (Colour.RED, "red"),
        (UUID_1, str(UUID_1)),
        (date(2024, 1, 2), "2024-01-02"),
        (Decimal("1.5"), "1.5"),
    ],
)
def test_keys_that_are_text_in_json_are_written_as_that_text(key: Any, name: str) -> None:
    assert json.loads(encode({key: "v"})) == {name: "v"}


def test_trap_two_keys_with_one_text_are_refused() -> None:
    assert refused(encode, {"a": {UUID_1: 1, str(UUID_1): 2}}).pointer == f"/a/{UUID_1}"


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (1j, "[value.real, value.imag]"),
        (object(), "dataclass"),
        (len, "its name"),
        (int, "its name"),
        (iter([1]), "list(value)"),
        (range(3), "list(value)"),
        (MappingProxyType({}), "dict(value)"),
        (Path("a"), "str(value)"),
        (ValueError("a"), "str(value)"),
        (msgspec.UNSET, "dataclass"),
    ],
)
def test_an_unsupported_type_is_named_with_advice(value: object, advice: str) -> None:
    refusal = refused(encode, {"a": [value]})
    assert refusal.pointer == "/a/0"
    assert type(value).__qualname__ in str(refusal)
    assert advice in str(refusal)


def test_an_unsupported_key_is_refused() -> None:
    assert "of type object" in str(refused(encode, {"a": 1, "b": {object(): 1}}))


def test_an_error_of_the_values_own_is_reported() -> None:
    refusal = refused(encode, [1, datetime(2024, 1, 2, tzinfo=BrokenZone())])
    assert "no such zone" in str(refusal)
    assert isinstance(refusal.__cause__, ValueError)


def test_a_forgotten_await_is_called_by_its_name() -> None:
    async def answer() -> int:
        return 1

    coroutine = answer()
    assert "await it" in str(refused(encode, [coroutine]))
    coroutine.close()


def test_what_pydantic_itself_cannot_write_is_refused_at_the_model() -> None:
    assert refused(encode, {"a": [Machine(anything=object())]}).pointer == "/a/0"


def test_trap_a_utc_offset_with_seconds_would_be_cut_off() -> None:
    for seconds in (30, 3629, -3631):
        odd = datetime(2024, 1, 2, tzinfo=timezone(timedelta(seconds=seconds)))
        assert refused(encode, {"at": odd}).pointer == "/at"
        assert decode(encode(odd.astimezone(UTC)), datetime) == odd


def test_depth_up_to_the_limit_is_accepted_and_beyond_it_refused() -> None:
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    assert refused(encode, nested(MAX_DEPTH + 1)).pointer == "/0" * MAX_DEPTH
    assert refused(encode, nested(MAX_DEPTH - 1, Box([]))).pointer == "/0" * (MAX_DEPTH - 1) + "/content"
    assert refused(encode, nested(100_000)).pointer.startswith("/0/0")


def test_many_brackets_side_by_side_or_in_strings_are_not_depth() -> None:
    for value in ([[]] * 1000, ["[" * 1000], ['"' + "[{" * 500], ["\\", "[" * 1000], ['\\"[', "]" * 100]):
        assert decode(encode(value)) == value
    assert refused(encode, ["]" * 100, nested(MAX_DEPTH)]).pointer == "/1" + "/0" * (MAX_DEPTH - 1)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    assert "nested deeper" in str(refused(encode, loop))


def test_an_integer_beyond_the_digits_that_can_be_read_is_refused() -> None:
    for value in (10**MAX_DIGITS, -(10 ** (MAX_DIGITS - 1)), -(10 ** (2 * MAX_DIGITS))):
        refusal = refused(encode, {"a": [value]})
        assert refusal.pointer == "/a/0"
        assert "4300 digits" in str(refusal)


def test_size_is_limited_and_the_message_names_both_sizes() -> None:
    assert len(encode("x" * (MAX_BYTES - 2))) == MAX_BYTES
    assert "1,048,577 bytes and the limit is 1,048,576" in str(refused(encode, "x" * (MAX_BYTES - 1)))
    assert "9 bytes and the limit is 8" in str(refused(encode, "éé123", limit=8))
    assert "5 bytes and the limit is 4" in str(refused(encode, 12345, limit=4))
    assert refused(encode, Raw(b"[1,2]"), limit=4).pointer == ""


def test_a_raw_without_json_is_refused() -> None:
    assert refused(encode, {"a": [Raw()]}).pointer == "/a/0"
    assert refused(encode, {"a": Raw(b"[NaN]")}).pointer == "/a"
    assert refused(encode, Raw()).pointer == ""


def test_sets_are_sorted_and_dicts_keep_their_order() -> None:
    value = {
        "z": {"c", "a", "b"},
        "a": [{10, 9, 100}],
        "nested": {frozenset({3, 2}), frozenset({1, 5})},
        "mixed": {"a", 1},
        "one": {7},
    }
    body = b'{"z":["a","b","c"],"a":[[9,10,100]],"nested":[[1,5],[2,3]],"mixed":["a",1],"one":[7]}'
    assert encode(value) == body
    assert encode([Box({"b", "a"}), Row({"b", "a"}), Item({"b", "a"})]) == (
        b'[{"content":["a","b"],"_seal":null},["Row",["a","b"],null],{"type":"item","unitPrice":["a","b"]}]'
    )
    assert json.loads(encode([Machine(words={"c", "b", "a"})]))[0]["words"] == ["a", "b", "c"]


def printed(program: str, **environment: str) -> str:
    """What a fresh interpreter prints that sees the same modules."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()


def test_sets_are_written_alike_whatever_the_hash_seed() -> None:
    program = "import perdure.model.payload as p; print(p.encode({f'word{n}' for n in range(50)}).decode())"
    words = printed(program, PYTHONHASHSEED="1")
    assert json.loads(words) == sorted(f"word{n}" for n in range(50))
    assert printed(program, PYTHONHASHSEED="2") == words


def test_an_eq_that_presumes_its_own_kind_does_no_harm() -> None:
    assert encode([Quarrelsome(1)]) == b'[{"content":1}]'
    assert refused(encode, [Quarrelsome(NAN)]).pointer == "/0/content"


# ------------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize(
    ("value", "expected_type"),
    [
        (Claim("C", Decimal("1.10"), datetime(2024, 1, 2, 3, 4, 5, 6, UTC), timedelta(-1, 2, 3)), Claim),
        ([Colour.BLUE], list[Colour]),
        ({Rank.FIRST}, set[Rank]),
        (b"\x00\xff", bytes),
        (frozenset({1, 2}), frozenset[int]),
        ((1, "a"), tuple[int, str]),
        (Span(1, "a"), Span),
        (Address(street="Elm", number=4), Address),
        (Email("a@b"), Email),
        (time(1, 2, 3, 4), time),
        (Item([1]), Item),
        (Row(1, 2), Row),
        (Part(number=1), Part),
        ([Part(number=1), None], list[Part | None]),
        ({"a": Part(number=1, sizes=[1])}, dict[str, Part]),
        (Workshop(Part(number=1), [Part(number=2)], {"a": [Part(number=3)]}), Workshop),
        (Machine(theLabel="x", built=datetime(2024, 1, 2, tzinfo=UTC), by_number={1: "b"}), Machine),
        (Machine(theLabel="x", words={"a", "b"}, anything=[1, None]), Machine),
        (Tree(children=[Tree()]), Tree),
        (Squared(side=3), Squared),
        (Part(number=2**70), Part | Tree),
        (None, None),
    ],
)
def test_a_value_comes_back_by_its_annotation(value: Any, expected_type: Any) -> None:
    back = decode(encode(value), expected_type)
    assert back == value
    assert type(back) is type(value)


def test_json_builtins_come_back_without_an_annotation() -> None:
    body = b'{"a":[18446744073709551616,-9223372036854775809,1.0,null]}'
    for untyped in (Any, object, inspect.Parameter.empty):
        assert same(decode(Raw(body), untyped), {"a": [2**64, -(2**63) - 1, 1.0, None]})
    assert bytes(decode(body, Raw)) == body


def test_an_unhashable_type_is_tolerated() -> None:
    odd = Annotated[int, []]
    assert decode(b"1", odd) == 1
    assert fits(b'"a"', odd) is not None


def test_types_that_compare_alike_do_not_share_a_decoder() -> None:
    assert decode(b"1", Literal[1]) == 1
    assert decode(b"1", int) == 1
    assert type(decode(b"1", float)) is float
    assert decode(b"true", bool) is True


@pytest.mark.parametrize(
    ("body", "expected_type", "pointer"),
    [
        (b'"a"', int, ""),
        (b'{"content":[1,{"x":"y"}]}', dict[str, list[int]], "/content/1"),
        (b'{"ok":{"a":1},"a/b":{"a":1,"b~":"x","c":"x"}}', dict[str, dict[str, int]], "/a~1b/b~0"),
        (b'{"1":1,"x":2}', dict[int, int], "/x"),
        (b'{"claim_id":"C","amount":"1","at":"never"}', Claim, "/at"),
        (b'{"claim_id":"C","amount":"1","at":"2024-01-02T00:00:00Z","tags":["a",1]}', Claim, "/tags/1"),
        (b'[{"number":1},{"number":-1}]', list[Positive], "/1"),
        (b'[{"number":13}]', list[Positive], ""),
        (b'{"number":"x"}', Part, "/number"),
        (b'{"sizes":[1]}', Part, "/number"),
        (b'{"number":1,"sizes":[1,"x"]}', Part, "/sizes/1"),
        (b'{"theLabel":1}', Machine, "/theLabel"),
        (b'{"parts":{"a":{"number":1},"b":{"number":"x"}}}', Machine, "/parts/b/number"),
        (b'{"by_number":{"1":"a","x":"b"}}', Machine, "/by_number/x"),
        (b'{"best":{"number":1},"parts":[{"number":1},{"number":"x"}]}', Workshop, "/parts/1/number"),
        (
            b'{"best":{"number":1},"shelves":{"a":[],"b/":[{"number":1},{}]}}',
            Workshop,
            "/shelves/b~1/1/number",
        ),
        (b'{"a":{"number":1},"b":{"number":1,"sizes":["x"]}}', dict[str, Part], "/b/sizes/0"),
        (b'{"number":"x"}', Part | Squared, "/number"),
        (b"1", complex, ""),
    ],
)
def test_a_misfit_is_refused_at_its_place(body: bytes, expected_type: Any, pointer: str) -> None:
    refusal = refused(decode, body, expected_type)
    assert refusal.pointer == pointer
    assert str(refusal).endswith(f", at {pointer}" if pointer else "")
    assert fits(body, expected_type).pointer == pointer  # type: ignore[union-attr]


def test_the_place_of_a_misfit_is_found_among_very_many_keys() -> None:
    members = {f"key{n}": n for n in range(3000)}
    members["key1234"] = "x"  # type: ignore[assignment]
    members["key2345"] = "x"  # type: ignore[assignment]
    assert refused(decode, encode(members), dict[str, int]).pointer == "/key1234"


def test_the_message_tells_the_type_and_the_reason_without_the_value() -> None:
    message = str(refused(decode, b'{"number":"secret"}', Part))
    assert message.startswith("the value does not fit Part: Input should be a valid integer")
    assert "secret" not in message
    assert "(and 1 more)" in str(refused(decode, b'{"sizes":["x"]}', Part))


def test_a_refusal_by_the_type_itself_is_left_as_it_is() -> None:
    assert refused(decode, b'[{"number":14}]', list[Positive]).pointer == "/0"
    assert "does not fit list[str]" in str(refused(decode, b'[{"number":14}]', list[Positive]))


def test_a_type_that_json_cannot_be_decoded_as_is_refused() -> None:
    assert "JSON cannot be decoded as" in str(refused(decode, b"1", Claim | Box))
    assert "JSON cannot be decoded as" in str(refused(decode, b"1", list["Nowhere"]))  # type: ignore[name-defined]  # noqa: F821
    assert "JSON cannot be decoded as" in str(refused(decode, b"1", Part | BrokenZone))
    assert "annotate with a dataclass" in str(refused(decode, b"1", Path))


def test_text_that_was_never_checked_is_refused_too() -> None:
    assert refused(decode, b'{"a":[1', dict[str, list[int]]).pointer == "/a/0"


def test_a_body_that_fits_is_no_refusal() -> None:
    assert fits(b'{"number":1}', Part) is None
    assert fits(Raw(b"[1]"), list[int]) is None


# -------------------------------------------------------------------------------------------------- check


@pytest.mark.parametrize(
    ("body", "compact"),
    [
        (b' {"b" : 1,\r\n\t"a" : [ ] } ', b'{"b":1,"a":[]}'),
        (b"[1.0, 1, 1e5, -0.0, -0]", b"[1.0,1,100000.0,-0.0,0]"),
        (b'"caf\\u00e9 \\ud83d\\ude00 \\/"', '"café 😀 /"'.encode()),
        (b'{"a":"\\u0022\\\\u0022","b":"\\\\u0000"}', b'{"a":"\\"\\\\u0022","b":"\\\\u0000"}'),
        (b'{"a":{"a":1},"b":{"a":1}}', b'{"a":{"a":1},"b":{"a":1}}'),
        (b'[{"":1},{"":2}]', b'[{"":1},{"":2}]'),
        (b"18446744073709551616", b"18446744073709551616"),
        (b"9" * MAX_DIGITS, b"9" * MAX_DIGITS),
        (b"1e-400", b"0.0"),
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, b"[" * MAX_DEPTH + b"]" * MAX_DEPTH),
    ],
)
def test_text_from_outside_is_made_compact(body: bytes, compact: bytes) -> None:
    checked = check(body)
    assert type(checked) is Raw
    assert bytes(checked) == compact
    assert bytes(check(compact)) == compact


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        (b"", "", "not valid JSON"),
        (b"1 2", "", "not valid JSON"),
        (b"{}{}", "", "not valid JSON"),
        (b'{"a":[1,2', "/a/1", "not valid JSON"),
        (b'{"a":[1,]}', "/a/1", "not valid JSON"),
        (b'{"a":{"b":tru}}', "/a/b", "near 'tru'"),
        (b'{"a" 1}', "/a", "not valid JSON"),
        (b"[0,01]", "/1", "not valid JSON"),
        (b'["a","\n"]', "/1", "not valid JSON"),
        (b'["\\x"]', "/0", "not valid JSON"),
        (b"\xef\xbb\xbf1", "", "not valid JSON"),
        (b'{"a":["b","\xff"]}', "/a/1", "UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "/a", "UTF-8"),
        (b'{"a":"\xc0\x80"}', "/a", "UTF-8"),
        (b'{"a":{"\xff":1}}', "/a", "UTF-8"),
        (b'{"a":[0,NaN]}', "/a/1", "NaN"),
        (b'{"a":-Infinity}', "/a", "Infinity"),
        (b'{"a":[0,1e400]}', "/a/1", "too large"),
        (b"-1E+400", "", "too large"),
        (b'{"a":1,"a":2}', "/a", "duplicate"),
        (b'[{"a":{"x":1,"b":2,"\\u0078":3}}]', "/0/a/x", "duplicate"),
        (b'{"b":"\\u0022\\u0022","a":1, "a":2}', "/a", "duplicate"),
        (b'{"b":"\\\\u0022","a":1, "a":2}', "/a", "duplicate"),
        (b'{"a":["\\u0000"]}', "/a/0", "NUL"),
        (b'{"a":["\\\\\\u0000"]}', "/a/0", "NUL"),
        (b'{"a":{"\\u0000":1}}', "/a", "NUL"),
        (b'["\x00"]', "/0", "not valid JSON"),
        (b'["\\ud800"]', "/0", "surrogate"),
        (b'["\\uDFFFabcdefgh"]', "/0", "surrogate"),
        (b'["\\ud83d\\ud83d"]', "/0", "surrogate"),
        (b'{"a":{"\\ud800":1}}', "/a", "surrogate"),
        (b'{"a":[' + b"1" * (MAX_DIGITS + 1) + b"]}", "/a/0", "4300 digits"),
        (b"[0,-" + b"1" * MAX_DIGITS + b"]", "/1", "4300 digits"),
        (b"[" * 65 + b"]" * 65, "/0" * 64, "nested deeper"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "/a" * 64, "nested deeper"),
        (b'["\\"]]]",' + b"[" * 64 + b"]" * 65, "/1" + "/0" * 63, "nested deeper"),
    ],
)
def test_trap_text_from_outside_is_refused_at_its_flaw(body: bytes, pointer: str, words: str) -> None:
    refusal = refused(check, body)
    assert refusal.pointer == pointer
    assert words in str(refusal)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'["' * 100_000,
        b'"' + b'\\"' * 100_000,
        b"1" * 1_000_000,
        b"-" * 1_000_000,
        b"[[]" * 100_000,
    ],
    ids=["arrays", "objects", "closed", "quotes", "escapes", "digits", "signs", "combs"],
)
def test_hostile_text_is_refused_quickly(body: bytes) -> None:
    begun = clock.process_time()  # a quadratic one takes minutes, whatever else the machine does
    refused(check, body)
    assert clock.process_time() - begun < 1.0


def test_size_from_outside_is_limited_before_and_after() -> None:
    assert "9 bytes and the limit is 8" in str(refused(check, b"[1, 2, 3]", limit=8))
    assert "18 bytes and the limit is 5" in str(refused(check, b"1e15", limit=5))


def test_any_buffer_of_bytes_may_be_checked_but_no_str() -> None:
    assert bytes(check(bytearray(b"[1]"))) == b"[1]"  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        check("[1]")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- schema


@pytest.mark.parametrize(
    "expected_type",
    [Any, object, inspect.Parameter.empty, complex, list["Nowhere"], Claim | Box],  # type: ignore[name-defined]  # noqa: F821
)
def test_there_is_no_schema_of_what_is_untyped_or_has_none(expected_type: Any) -> None:
    assert schema_of(expected_type) is None


def test_there_is_no_schema_of_what_refers_to_nowhere() -> None:
    lost = dataclasses.make_dataclass("Lost", [("a", "Nowhere")])
    assert schema_of(lost) is None
    assert "Nowhere" in str(refused(decode, b"{}", lost))


def test_the_schema_of_a_dataclass() -> None:
    schema = schema_of(Claim)
    assert schema is not None
    claim = schema["$defs"]["Claim"]
    assert claim["required"] == ["claim_id", "amount", "at"]
    assert claim["properties"]["amount"] == {"type": "string", "format": "decimal"}


def test_the_schema_of_a_model_is_its_own() -> None:
    assert schema_of(Machine) == Machine.model_json_schema()
    union = schema_of(Part | Tree)
    assert union is not None
    assert len(union["anyOf"]) == 2


def test_references_of_nested_models_point_into_the_whole() -> None:
    for expected_type in (Workshop, dict[str, Tree], list[Machine]):
        schema = schema_of(expected_type)
        assert schema is not None
        targets = {text.split('"')[0] for text in json.dumps(schema).split('"#/$defs/')[1:]}
        assert targets <= set(schema.get("$defs", {}))
    assert "Tree.Tree" in schema_of(dict[str, Tree])["$defs"]  # type: ignore[index]


def test_a_schema_is_the_callers_own() -> None:
    schema = schema_of(Part)
    assert schema is not None
    schema["properties"].clear()
    assert schema_of(Part) != schema


# --------------------------------------------------------------------------------------------- properties

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["\\u0000", '"', "\\", '\\"[{', "NaN", "null", "\x7f", "\x1f", "😀"])
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)


@given(json_values)
@settings(max_examples=80, deadline=None)
def test_property_json_comes_back_the_same(value: Any) -> None:
    body = encode(value)
    assert same(decode(body), value)
    assert json.loads(body) == value
    assert bytes(check(body)) == body


@given(json_values, st.booleans(), st.sampled_from([None, 1]))
@settings(max_examples=50, deadline=None)
def test_property_other_spellings_are_made_canonical(
    value: Any, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert bytes(check(text.encode())) == encode(value)


@given(
    st.builds(
        Claim,
        claim_id=texts,
        amount=st.decimals(allow_nan=False, allow_infinity=False),
        at=st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5, minutes=45)))),
        lasted=st.timedeltas(),
        key=st.uuids(),
        tags=st.lists(texts, max_size=3),
    )
)
@settings(max_examples=50, deadline=None)
def test_property_a_dataclass_comes_back_equal(claim: Claim) -> None:
    back = decode(encode(claim), Claim)
    assert back == claim
    assert str(back.amount) == str(claim.amount)


def read_strictly(body: bytes) -> Any:
    """The standard library's reading of strict JSON, against which `check` is held."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("duplicate key")
        return dict(pairs)

    def number(text: str) -> float:
        if math.isinf(float(text)):
            raise ValueError("overflow")
        return float(text)

    def word(text: str) -> Any:
        raise ValueError(text)

    value = json.loads(body.decode(), object_pairs_hook=members, parse_float=number, parse_constant=word)
    if "\0" in json.dumps(value, ensure_ascii=False).replace("\\\\", "").replace("\\u0000", "\0"):
        raise ValueError("NUL")
    json.dumps(value, ensure_ascii=False).encode()
    return value


SPECIMENS = (
    b'{"a": [1, 2.5, -0, 1e5, 1E308, null, true], "b": {"c": "\\u0022\\\\u0022", "a": "x"}, "\\u0061b": 0}',
    b'{"a":1,"b":{"a":1,"a\\u0000":"\\\\u0000"},"c":[18446744073709551616,-1,1e400,1.25e-20]}',
    '{"é":"ü\\"\\n","k":"a\\\\","\\ud83d\\ude00":[4.9e-324,9007199254740993.0]}'.encode(),
)
SPLINTERS = (
    b'"',
    b"\\",
    b"\\u0022",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b",",
    b":",
    b"[",
    b"]",
    b"{",
    b"}",
    b"1e400",
    b"1",
    b".",
    b"-",
    b"e",
    b"NaN",
    b" ",
    b"\n",
    b"\x00",
    b"\xff",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b'"a":1,',
    b'"a"',
    b"tru",
    b"null",
    b"\\\\",
    b'\\"',
    b"0",
    b"9" * 30,
    b"",
)


def mutilated(chance: random.Random) -> bytes:
    body = bytearray(chance.choice(SPECIMENS))
    for _ in range(chance.randrange(4)):
        start, stop = sorted((chance.randrange(len(body) + 1), chance.randrange(len(body) + 1)))
        spot = slice(start, min(stop, start + chance.randrange(4)))
        body[spot] = chance.choice(SPLINTERS)
    return bytes(body)


def test_check_agrees_with_the_standard_library_on_mutilated_text() -> None:
    chance = random.Random(20240102)
    accepted = 0
    for body in (mutilated(chance) for _ in range(4000)):
        try:
            value = read_strictly(body)
        except ValueError:
            assert fits_outside(body) is False, body
        else:
            accepted += 1
            assert same(decode(check(body)), value), body
    assert 400 < accepted < 3600


def fits_outside(body: bytes) -> bool:
    try:
        check(body)
    except PayloadError:
        return False
    return True


# ------------------------------------------------------------------------------------------------- bearing


def test_pydantic_is_not_imported() -> None:
    uses = (
        "import sys, perdure.model.payload as p; p.schema_of(list[int]); p.decode(p.encode({'a': 1}), dict)"
    )
    assert printed(f"{uses}; print('pydantic' in sys.modules)") == "False"
