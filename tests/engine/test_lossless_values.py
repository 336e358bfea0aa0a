"""A value arrives whole and equal, or is refused where it is handed over, with advice: nothing in between."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import typing
import uuid
from collections import OrderedDict, defaultdict, deque, namedtuple
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Required, TypedDict

import attrs
import msgspec
import pydantic
import pytest

import perdure as df
from perdure import App, PayloadError
from perdure.testing import environment

T = typing.TypeVar("T")
UserId = NewType("UserId", int)
NAN = float("nan")


class Total(TypedDict):
    amount: int
    note: NotRequired[str]


class Partial(TypedDict, total=False):
    amount: Required[int]
    note: str


@dataclasses.dataclass
class Animal:
    name: str


@dataclasses.dataclass
class Dog(Animal):
    bark: int = 0


@dataclasses.dataclass
class Zoo:
    best: Animal
    all: list[Animal] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    at: dt.datetime
    price: decimal.Decimal
    key: uuid.UUID


@dataclasses.dataclass
class Computed:
    net: int
    gross: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.gross = self.net * 2


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


@dataclasses.dataclass
class Tree:
    value: int
    children: list[Tree] = dataclasses.field(default_factory=list)


class Point(NamedTuple):
    x: int
    y: int = 0


Loose = namedtuple("Loose", "x y")


class Beast(msgspec.Struct, tag=True):
    name: str


class Cat(Beast, tag=True):
    lives: int = 9


class Bird(msgspec.Struct, tag=True):
    wings: int


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str


@attrs.define
class Attrs:
    a: int
    b: str = "b"


@attrs.define
class Hidden:
    a: int
    _b: int = 0


class Colour(enum.Enum):
    RED = "red"


class Rank(enum.IntEnum):
    FIRST = 1


class Word(enum.StrEnum):
    YES = "yes"


class Bits(enum.Flag):
    A = 1
    B = 2


class Model(pydantic.BaseModel):
    name: str
    at: dt.datetime | None = None
    tags: set[str] = set()
    meta: dict[str, Any] = {}


class SubModel(Model):
    extra: int = 0


class Holder(pydantic.BaseModel):
    model: Model
    several: list[Model] = []


class Secret(pydantic.BaseModel):
    password: pydantic.SecretStr


class SecretRaw(pydantic.BaseModel):
    password: pydantic.SecretBytes = pydantic.SecretBytes(b"")
    inner: Secret | None = None


class Private(pydantic.BaseModel):
    owner: str
    _seen: int = pydantic.PrivateAttr(default=0)


class HoldsPrivate(pydantic.BaseModel):
    one: Private


class Derived(pydantic.BaseModel):
    owner: str
    _upper: str = pydantic.PrivateAttr(default="")

    def model_post_init(self, context: Any) -> None:
        self._upper = self.owner.upper()


def with_private(seen: int) -> Private:
    made = Private(owner="o")
    made._seen = seen
    return made


class Excluded(pydantic.BaseModel):
    owner: str
    number: str = pydantic.Field(default="", exclude=True)


class Aliased(pydantic.BaseModel):
    name: str = pydantic.Field(alias="theName")


class TwoAliases(pydantic.BaseModel):
    name: str = pydantic.Field(default="", validation_alias="in", serialization_alias="out")


class WithComputed(pydantic.BaseModel):
    side: int

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def area(self) -> int:
        return self.side**2


class Doubling(pydantic.BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def double(cls, n: int) -> int:
        return n * 2


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    a: int


class Roots(pydantic.RootModel[list[int]]):
    pass


class Kitten(pydantic.BaseModel):
    kind: Literal["kitten"] = "kitten"
    name: str = ""


class Puppy(pydantic.BaseModel):
    kind: Literal["puppy"] = "puppy"
    name: str = ""


class One(pydantic.BaseModel):
    name: str = ""


class Other(pydantic.BaseModel):
    name: str = ""


class EitherDate(pydantic.BaseModel):
    at: dt.datetime | str


class EitherModel(pydantic.BaseModel):
    one: One | Other


class Nested(pydantic.BaseModel):
    by_name: dict[str, list[Model]] = {}
    pair: tuple[Model, int] | None = None


class GenericModel(pydantic.BaseModel, Generic[T]):
    content: T


Pet = Annotated[Kitten | Puppy, pydantic.Field(discriminator="kind")]


class Email(str):
    pass


class Cents(int):
    pass


class Stamp(dt.datetime):
    pass


class Day(dt.date):
    pass


class Span(dt.timedelta):
    pass


class Clock(dt.time):
    pass


class Price(decimal.Decimal):
    pass


class Key(uuid.UUID):
    pass


class Bytes(bytes):
    pass


class Names(list):  # type: ignore[type-arg]
    pass


class Map(dict):  # type: ignore[type-arg]
    pass


NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC)

ARRIVES: dict[str, tuple[Any, Any]] = {
    "TypedDict": (Total, {"amount": 1, "note": "n"}),
    "TypedDict, left out": (Partial, {"amount": 1}),
    "dataclass": (Animal, Animal("a")),
    "subclass as itself": (Dog, Dog("a", 3)),
    "dataclass inside": (Zoo, Zoo(Animal("a"), [Animal("b")])),
    "frozen slots kw_only": (Frozen, Frozen(at=NOW, price=decimal.Decimal("1.10"), key=uuid.UUID(int=1))),
    "init=False computed": (Computed, Computed(2)),
    "generic": (Box[Animal], Box(Animal("a"))),
    "generic of int": (Box[int], Box(1)),
    "self-reference": (Tree, Tree(1, [Tree(2)])),
    "NamedTuple": (Point, Point(1, 2)),
    "namedtuple": (Loose, Loose(1, "a")),
    "Struct union": (Cat | Bird, Cat("c", lives=3)),
    "Struct union with base": (Beast | Cat, Cat("c", lives=3)),
    "Struct array": (Row, Row(1, "b")),
    "attrs": (Attrs, Attrs(1, "c")),
    "attrs, hidden at its default": (Hidden, Hidden(1)),
    "Optional dataclass": (Animal | None, Animal("a")),
    "dict of dataclass": (dict[str, Animal], {"x": Animal("a")}),
    "tuple of two": (tuple[Animal, int], (Animal("a"), 1)),
    "frozenset": (frozenset[int], frozenset({1, 2})),
    "set of frozen": (set[Point], {Point(1, 2), Point(0, 2)}),
    "Enum": (Colour, Colour.RED),
    "IntEnum": (Rank, Rank.FIRST),
    "StrEnum": (Word, Word.YES),
    "Flag": (Bits, Bits.A | Bits.B),
    "Literal": (Literal["a", 1], "a"),
    "NewType": (UserId, UserId(3)),
    "Annotated": (Annotated[int, msgspec.Meta(gt=0)], 3),
    "TypeVar": (T, 3),
    "int or float, float": (int | float, 1.5),
    "int or float, int": (int | float, 2**70),
    "bytes": (bytes, b"\xff\x00"),
    "timedelta": (dt.timedelta, dt.timedelta(days=-1, microseconds=1)),
    "time": (dt.time, dt.time(1, 2, 3)),
    "date": (dt.date, dt.date(2026, 1, 2)),
    "very large int": (int, 10**4000),
    "keys of UUID": (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    "keys of date": (dict[dt.date, int], {dt.date(2026, 1, 2): 1}),
    "model": (Model, Model(name="m", at=NOW, tags={"a", "b"}, meta={"a": [1]})),
    "model inside": (Holder, Holder(model=Model(name="m"), several=[Model(name="n")])),
    "models in a list": (list[Model], [Model(name="m")]),
    "private at its default": (Private, Private(owner="o")),
    "private, made from its fields": (Derived, Derived(owner="o")),
    "excluded at its default": (Excluded, Excluded(owner="o")),
    "alias": (Aliased, Aliased(theName="n")),
    "computed field": (WithComputed, WithComputed(side=3)),
    "extra allowed": (Open, Open(a=1, b=2)),
    "RootModel": (Roots, Roots([1, 2])),
    "discriminated": (Pet, Puppy(name="p")),
    "discriminated in a list": (list[Pet], [Kitten(name="k"), Puppy(name="p")]),
    "models told apart by a Literal": (Kitten | Puppy, Puppy(name="p")),
    "models nested": (Nested, Nested(by_name={"a": [Model(name="m")]}, pair=(Model(name="n"), 1))),
    "a text that is no date": (EitherDate, EitherDate(at="soon")),
    "generic model": (GenericModel[int], GenericModel[int](content=3)),
    "Any of builtins": (Any, {"a": [1, None, "x"]}),
    "object": (object, [1]),
    "None": (None, None),
}

AS_THEIR_BASE: dict[str, tuple[Any, Any]] = {
    "str": (str, Email("a@b")),
    "int": (int, Cents(5)),
    "datetime": (dt.datetime, Stamp(2026, 1, 2, 3, 4, 5, 6, dt.UTC, fold=1)),
    "date": (dt.date, Day(2026, 1, 2)),
    "timedelta": (dt.timedelta, Span(days=1, seconds=2)),
    "time": (dt.time, Clock(1, 2, 3, 4)),
    "Decimal": (decimal.Decimal, Price("1.10")),
    "UUID": (uuid.UUID, Key(int=5)),
    "bytes": (bytes, Bytes(b"\xff")),
    "list": (list[int], Names([1, 2])),
    "dict": (dict[str, int], Map(a=1)),
    "OrderedDict": (dict[str, int], OrderedDict(a=1)),
    "defaultdict": (dict[str, int], defaultdict(int, a=1)),
    "inside": (list[dt.datetime], [Stamp(2026, 1, 2)]),
    "in a dataclass": (Box[decimal.Decimal], Box(Price("1.10"))),
}

REFUSED: dict[str, tuple[Any, Any, str]] = {
    "TypedDict, a key too many": (Total, {"amount": 1, "more": 2}, "Total has no key 'more'"),
    "subclass of a dataclass": (Animal, Dog("a", 3), "Dog.*Animal.*lose 'bark'"),
    "subclass inside": (Zoo, Zoo(Dog("a", 3)), "lose 'bark'"),
    "subclass in a list": (list[Animal], [Animal("a"), Dog("b")], "lose 'bark'"),
    "subclass in a dict": (dict[str, Animal], {"a": Dog("b")}, "lose 'bark'"),
    "subclass or None": (Animal | None, Dog("b"), "lose 'bark'"),
    "subclass in a tuple": (tuple[int, Animal], (1, Dog("b")), "lose 'bark'"),
    "subclass of a Struct": (Beast, Cat("c"), "lose 'lives'"),
    "subclass of a model": (Model, SubModel(name="m", extra=1), "lose 'extra'"),
    "subclass of a model inside": (Holder, Holder(model=SubModel(name="m", extra=1)), r"Holder\.model"),
    "subclass of a model in a list inside": (
        Holder,
        Holder(model=Model(name="m"), several=[SubModel(name="m")]),
        r"Holder\.several\.0",
    ),
    "SecretStr": (Secret, Secret(password="hunter2"), r"Secret\.password is a SecretStr.*a name to look"),
    "SecretBytes": (SecretRaw, SecretRaw(password=b"hunter2"), "SecretBytes"),
    "SecretStr inside": (SecretRaw, SecretRaw(inner=Secret(password="x")), "SecretStr"),
    "SecretStr alone": (Any, pydantic.SecretStr("x"), "a name to look the secret up"),
    "private": (Private, with_private(7), r"Private\._seen.*private"),
    "private in a list": (list[Private], [with_private(7)], r"Private\._seen"),
    "private in a dataclass": (Box[Private], Box(with_private(7)), r"Private\._seen"),
    "private in a model": (HoldsPrivate, HoldsPrivate(one=with_private(7)), r"HoldsPrivate\.one\._seen"),
    "excluded": (Excluded, Excluded(owner="o", number="4711"), r"Excluded\.number.*excluded"),
    "excluded in a list": (list[Excluded], [Excluded(owner="o", number="4711")], r"Excluded\.number"),
    "excluded in a dataclass": (Box[Excluded], Box(Excluded(owner="o", number="1")), r"Excluded\.number"),
    "two aliases": (TwoAliases, TwoAliases(**{"in": "n"}), r"TwoAliases\.name"),
    "changed while reading": (Doubling, Doubling(n=2), r"Doubling\.n.*changed"),
    "computed, then set": (Computed, dataclasses.replace(Computed(2)), "")
    if False
    else (Any, NAN, "no JSON form"),
    "attrs, hidden": (Hidden, Hidden(1, b=2), "Hidden._b"),
    "a text that looks like a date": (EitherDate, EitherDate(at="2026-01-02T00:00:00"), r"EitherDate\.at"),
    "models that look alike inside": (EitherModel, EitherModel(one=Other(name="x")), r"EitherModel\.one"),
    "subclass of a model deep inside": (
        Nested,
        Nested(by_name={"a": [SubModel(name="m")]}),
        r"Nested\.by_name\.a\.0",
    ),
    "models that look alike": (One | Other, Other(name="x"), "Other would be read as One.*discriminator"),
    "NaN": (float, NAN, "has no JSON form"),
    "infinity": (list[float], [float("inf")], "has no JSON form"),
    "lone surrogate": (str, "\ud800", "surrogate"),
    "too large an int": (int, 10**5000, "digits"),
    "keys of int": (Any, {1: "a"}, r"str\(key\)"),
    "deque": (Any, deque([1]), r"list\(value\)"),
    "Path": (Any, Path("a"), r"str\(value\)"),
    "Fraction": (Any, Fraction(1, 2), "numerator"),
    "complex": (Any, 1j, "value.real"),
}


def computed_and_changed() -> Computed:
    changed = Computed(2)
    changed.gross = 7
    return changed


REFUSED["computed, then changed"] = (Computed, computed_and_changed(), r"Computed\.gross.*changed")
del REFUSED["computed, then set"]


def application(kind: Any, value: Any, seen: list[Any]) -> App:
    """An activity, orchestrators of both styles and an entity that take and give a value of this type."""
    app = App("values")

    def take(value):
        seen.append(value)
        return 1

    async def take_async(value):
        seen.append(value)
        return 1

    def give():
        return value

    async def child(context, value):
        seen.append(value)

    def child_yield(context, value):
        seen.append(value)
        return None
        yield

    async def child_giving(context):
        return value

    def child_giving_yield(context):
        return value
        yield

    for function in (take, take_async, child, child_yield):
        function.__annotations__ = {"value": kind}
    give.__annotations__ = child_giving.__annotations__ = {"return": kind}
    child_giving_yield.__annotations__ = {"return": typing.Generator[Any, Any, kind]}
    for activity in (take, take_async, give):
        app.activity(activity)
    for orchestrator in (child, child_yield, child_giving, child_giving_yield):
        app.orchestrator(orchestrator)

    class Keeper:
        def keep(self) -> None:
            self.value = value

        def tell(self) -> None:
            seen.append(self.value)

        def take(self, value):
            seen.append(value)

    Keeper.take.__annotations__["value"] = kind
    Keeper.__annotations__ = {"value": kind}
    app.entity(Keeper)

    @app.orchestrator
    async def passing(context: df.OrchestrationContext) -> None:
        await context.call_activity(take, value)
        await context.call_activity(take_async, value)
        await context.call_sub_orchestrator(child, value)
        await context.call_sub_orchestrator(child_yield, value)

    @app.orchestrator
    async def getting(context: df.OrchestrationContext) -> None:
        seen.append(await context.call_activity(give))
        seen.append(await context.call_sub_orchestrator(child_giving))
        seen.append(await context.call_sub_orchestrator(child_giving_yield))

    @app.orchestrator
    async def keeping(context: df.OrchestrationContext) -> None:
        await context.call_entity("@keeper@k", "keep")

    @app.orchestrator
    async def operating(context: df.OrchestrationContext) -> None:
        await context.call_entity("@keeper@o", "take", value)
        context.signal_entity("@keeper@o", "take", value)

    @app.orchestrator
    async def telling(context: df.OrchestrationContext) -> None:
        await context.call_entity("@keeper@k", "tell")

    @app.orchestrator
    async def waiting(context: df.OrchestrationContext) -> None:
        seen.append(await context.wait_for_external_event("it", kind))

    return app


async def arrivals(kind: Any, value: Any) -> list[Any]:
    seen: list[Any] = []
    app = application(kind, value, seen)
    async with environment(app) as env:
        for flow in ("passing", "getting", "keeping", "operating"):
            status = await env.run(flow)
            assert status.failure is None, (flow, status.failure)
        await env.evict()
        await env.run("telling")
        run = await env.client.start_new("waiting")
        await env.client.raise_event(run, "it", value)
        await env.client.wait_for_completion(run)
        child = next(one.function for one in app.registry.definitions() if one.name == "child")
        await env.run(child, value)
    return seen


@pytest.mark.parametrize("what", ARRIVES)
async def test_a_value_arrives_whole_and_equal(what: str) -> None:
    kind, value = ARRIVES[what]
    seen = await arrivals(kind, value)
    assert len(seen) == 12
    for one in seen:
        assert one == value
        assert type(one) is type(value)


@pytest.mark.parametrize("what", AS_THEIR_BASE)
async def test_a_subclass_of_a_builtin_arrives_as_its_base(what: str) -> None:
    kind, value = AS_THEIR_BASE[what]
    for one in await arrivals(kind, value):
        assert one == value


@pytest.mark.parametrize("what", REFUSED)
async def test_a_value_that_would_not_arrive_whole_is_refused_with_advice(what: str) -> None:
    kind, value, words = REFUSED[what]
    seen: list[Any] = []
    app = application(kind, value, seen)
    async with environment(app) as env:
        for flow in ("passing", "getting", "keeping", "operating"):
            status = await env.run(flow)
            assert status.runtime_status == "Failed", flow
            assert "PayloadError" in str(status.failure), flow
        child = next(one.function for one in app.registry.definitions() if one.name == "child")
        with pytest.raises(PayloadError, match=f"(?s){words}"):
            await env.client.signal_entity("@keeper@o", "take", value)
        with pytest.raises(PayloadError, match=f"(?s){words}"):
            await env.client.signal_entity("@keeper@o", "take", input=value)
        with pytest.raises(PayloadError, match=f"(?s){words}") as refused:
            await env.client.start_new(child, None, value)
    assert seen == []
    assert "hunter2" not in str(refused.value)


async def test_what_the_next_execution_would_not_get_whole_is_refused() -> None:
    app = App("generations")

    @app.orchestrator
    async def flow(context: df.OrchestrationContext, animal: Animal | None = None) -> str:
        if animal is None:
            context.continue_as_new(Dog("rex", 3))
            return ""
        return animal.name

    async with environment(app) as env:
        status = await env.run(flow)
        assert "lose 'bark'" in str(status.failure)


class Nanoseconds(dt.datetime):
    """A datetime that knows more than one, as those of pandas do."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and super().__eq__(other)

    __hash__ = dt.datetime.__hash__


async def test_a_subclass_that_holds_more_than_its_base_is_refused() -> None:
    from perdure.model.payload import encode

    with pytest.raises(PayloadError, match="does not fit a datetime"):
        encode(Nanoseconds(2026, 1, 2))


async def test_history_that_holds_what_would_be_refused_today_is_replayed_as_it_went() -> None:
    app = App("old")

    @app.activity
    def pay(animal: Animal) -> str:
        return animal.name

    @app.orchestrator
    async def flow(context: df.OrchestrationContext) -> str:
        value: Any = Dog("rex", 3) if modern else {"name": "rex", "bark": 3}
        first: str = await context.call_activity(pay, value)
        await context.create_timer(60)
        return first

    modern = False
    async with environment(app) as env:
        run = await env.client.start_new(flow)
        await env.settled()
        modern = True
        await env.evict()
        await env.advance(minutes=2)
        status = await env.client.get_status(run)
        assert status is not None
        assert status.output == "rex"
