"""Types that no JSON can be read as are refused when the application starts, with the place and what to write."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import pydantic
import pytest

import perdure as df
from perdure import App, RegistrationError
from perdure.testing import environment


@dataclasses.dataclass
class Cat:
    name: str


@dataclasses.dataclass
class Dog:
    name: str


@dataclasses.dataclass
class WithInitVar:
    net: int
    rate: dataclasses.InitVar[int] = 19


@dataclasses.dataclass
class WithPath:
    path: pathlib.Path


class Untagged(msgspec.Struct):
    name: str


class AlsoUntagged(msgspec.Struct):
    name: str


class Tuples(enum.Enum):
    A = (1, 2)


class Floats(enum.Enum):
    A = 1.5


class Mixed(enum.Enum):
    A = "a"
    B = 1


class Model(pydantic.BaseModel):
    name: str


class Stamp(dt.datetime):
    pass


class Price(decimal.Decimal):
    pass


class Names(list[str]):
    pass


class Plain:
    def __init__(self) -> None:
        self.name = ""


class Mailer(typing.Protocol):
    def send(self) -> None: ...


P = typing.ParamSpec("P")


def local_self_reference() -> Any:
    @dataclasses.dataclass
    class Node:
        value: int
        children: list[Node] = dataclasses.field(default_factory=list)

    return Node


def local_with_a_local_type() -> Any:
    @dataclasses.dataclass
    class Inner:
        value: int

    @dataclasses.dataclass
    class Outer:
        inner: Inner

    return Outer


REFUSED: dict[str, tuple[Any, str]] = {
    "dataclasses untagged": (Cat | Dog, "Cat | Dog.*tag=True"),
    "Structs untagged": (Untagged | AlsoUntagged, "tag=True"),
    "InitVar": (WithInitVar, "WithInitVar.*a field"),
    "two dates": (dt.datetime | dt.date, r"datetime \| date.*one of them"),
    "str or bytes": (str | bytes, "one of them"),
    "str or Enum in a dict": (dict[str, str | uuid.UUID], "one of them"),
    "Enum of tuples": (Tuples, "texts or integers"),
    "Enum of floats": (Floats, "texts or integers"),
    "Enum mixed": (Mixed, "texts or integers"),
    "local self-reference": (local_self_reference(), "Node.*top level"),
    "local in a local": (local_with_a_local_type(), "Inner.*top level"),
    "Path": (pathlib.Path, "with str"),
    "Path inside": (list[WithPath], r"Path in WithPath\.path.*with str"),
    "deque": (collections.deque[int], "with list"),
    "OrderedDict": (collections.OrderedDict[str, int], "written as dict"),
    "Iterable": (Iterable[int], "with list"),
    "Iterator": (Iterator[int], "with list"),
    "Callable": (Callable[[int], int], "dataclass"),
    "ParamSpec": (Callable[P, int], "dataclass"),
    "complex": (complex, r"tuple\[float, float\]"),
    "Fraction": (fractions.Fraction, r"tuple\[int, int\]"),
    "Self": (typing.Self, "Self is not supported.*dataclass"),
    "Protocol": (Mailer, "Mailer.*dataclass"),
    "plain class": (Plain, "Plain.*dataclass"),
    "type": (type, "dataclass"),
    "exception": (list[ValueError], "ValueError"),
    "subclass of datetime": (Stamp, "Stamp.*written as datetime"),
    "subclass of Decimal": (Price | None, "Price.*written as Decimal"),
    "subclass of list": (Names, "Names.*written as list"),
    "keys of int": (dict[int, str], r"dict\[str, \.\.\.\]"),
    "keys of tuple": (dict[tuple[int, int], str], r"dict\[str, \.\.\.\]"),
    "keys inside": (list[dict[str, dict[bool, int]]], r"dict\[str, \.\.\.\]"),
}


async def start(app: App) -> None:
    async with environment(app):
        pass


def as_activity_input(app: App, kind: Any) -> None:
    def it(value): ...

    it.__annotations__ = {"value": kind}
    app.activity(it)


def as_activity_result(app: App, kind: Any) -> None:
    async def it(value): ...

    it.__annotations__ = {"return": kind}
    app.activity(it)


def as_orchestrator_input(app: App, kind: Any) -> None:
    async def it(context, value): ...

    it.__annotations__ = {"value": kind}
    app.orchestrator(it)


def as_orchestrator_input_type(app: App, kind: Any) -> None:
    def it(context): ...

    app.orchestrator(input_type=kind)(it)


def as_orchestrator_output(app: App, kind: Any) -> None:
    async def it(context): ...

    it.__annotations__ = {"return": kind}
    app.orchestrator(it)


def as_generator_output(app: App, kind: Any) -> None:
    def it(context):
        yield

    it.__annotations__ = {"return": typing.Generator[Any, Any, kind]}
    app.orchestrator(it)


def as_event(app: App, kind: Any) -> None:
    def it(context): ...

    app.orchestrator(events={"Happened": kind})(it)


def as_state(app: App, kind: Any) -> None:
    class It: ...

    It.__annotations__ = {"value": kind}
    app.entity(It)


def as_whole_state(app: App, kind: Any) -> None:
    @dataclasses.dataclass
    class It:
        value: Any = None

    It.__annotations__ = {"value": kind}
    It.__dataclass_fields__["value"].type = kind  # type: ignore[attr-defined]
    app.entity(It)


def as_operation_input(app: App, kind: Any) -> None:
    def it(self, value): ...

    it.__annotations__ = {"value": kind}
    app.entity(type("It", (), {"__module__": __name__, "it": it}))


def as_entity_function_input(app: App, kind: Any) -> None:
    def it(context, value): ...

    it.__annotations__ = {"value": kind}
    app.entity(it)


def as_message(app: App, kind: Any) -> None:
    def it(value): ...

    it.__annotations__ = {"value": kind}
    app.queue("letters")(it)


PLACES = [
    as_activity_input,
    as_activity_result,
    as_orchestrator_input,
    as_orchestrator_input_type,
    as_orchestrator_output,
    as_generator_output,
    as_event,
    as_state,
    as_whole_state,
    as_operation_input,
    as_entity_function_input,
    as_message,
]


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("register", PLACES)
async def test_a_type_that_cannot_be_read_is_refused_at_the_start(register: Any, what: str) -> None:
    kind, words = REFUSED[what]
    app = App("types")
    register(app, kind)
    if register is as_orchestrator_output and what in ("Iterable", "Iterator"):
        return  # how a generator may be annotated
    if what == "plain class" and register in (
        as_activity_result,
        as_orchestrator_output,
        as_generator_output,
    ):
        await start(app)  # the value that is returned is refused: see test_retrying
        return
    words = words.rpartition(".*")[2] if register is as_whole_state else words
    with pytest.raises(RegistrationError, match=f"(?s){words}") as refused:
        await start(app)
    assert "test_types_at_the_start.py:" in str(refused.value) or "It: its" in str(refused.value)
    assert "<class" not in str(refused.value)


@pytest.mark.parametrize("what", REFUSED)
def test_the_body_of_a_route_is_refused_at_the_start(what: str) -> None:
    from perdure.engine.functions.registry import plan_of

    app = App("types")

    def it(value): ...

    it.__annotations__ = {"value": REFUSED[what][0]}
    app.route("/it", methods=["POST"])(it)
    with pytest.raises(RegistrationError, match=f"(?s){REFUSED[what][1]}"):
        plan_of(app.registry.routes[0], ())


@pytest.mark.parametrize("kind", [typing.NoReturn, typing.Never, None, Any, object, list[object]])
async def test_what_never_returns_or_is_not_typed_needs_no_reader(kind: Any) -> None:
    for place in (as_activity_result, as_orchestrator_output, as_generator_output):
        app = App("types")
        place(app, kind)
        await start(app)


# ------------------------------------------------------------------------------------- types said while running


@pytest.mark.parametrize("kind", [pathlib.Path, Cat | Dog, dict[int, str]])
@pytest.mark.parametrize("what", ["wait", "activity", "child", "entity"])
async def test_an_expected_type_that_cannot_be_read_is_refused_where_it_is_said(kind: Any, what: str) -> None:
    app = App("types")

    @app.activity
    def give() -> Any:
        raise AssertionError

    @app.orchestrator
    async def flow(context: df.OrchestrationContext) -> str:
        asks = {
            "wait": lambda: context.wait_for_external_event("e", kind),
            "activity": lambda: context.call_activity(give, None, kind),
            "child": lambda: context.call_sub_orchestrator("flow", expected_type=kind),
            "entity": lambda: context.call_entity("@a@b", "get", None, kind),
        }
        try:
            await asks[what]()
        except df.PayloadError as error:
            said = str(error)
        await context.create_timer(60)
        return said

    async with environment(app) as env:
        run = await env.client.start_new(flow)
        await env.settled()
        await env.evict()
        status = await env.client.wait_for_completion(run) if not await env.advance(minutes=2) else None
        assert status is not None
        assert "annotate with" in status.output or "tag=True" in status.output


def test_types_are_named_as_they_are_written() -> None:
    from perdure.model.payload import title

    assert title(int) == "int"
    assert title(int | None) == "int | None"
    assert title(list[Cat] | None) == "list[Cat] | None"
    assert title(dict[str, tuple[int, ...]]) == "dict[str, tuple[int, ...]]"
    assert title(typing.Literal["a", 1]) == "Literal['a', 1]"
    assert title(typing.Annotated[int, 5]) == "int"
    assert title(Callable[[int], str]) == "Callable[[int], str]"
    assert title(local_self_reference()) == "Node"
    assert title(Any) == "Any"
    assert title(typing.NewType("Id", int)) == "Id"


async def test_an_attribute_of_an_entity_that_names_nothing_is_refused_by_name() -> None:
    app = App("types")

    @app.entity
    class Counter:
        n: "Nowhere"  # type: ignore[name-defined]  # noqa: F821, UP037

    with pytest.raises(RegistrationError, match=r"Counter.*'Nowhere'"):
        await start(app)
