"""What may be registered besides plain functions, and which parameters a function may have.

Each row works, or is refused with its place when it is decorated or when the application starts: never later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict
from unittest.mock import AsyncMock, Mock

import pytest

import perdure as df
from perdure import ActivityContext, App, RegistrationError
from perdure.testing import environment


def send(kind: str, to: str) -> str:
    return f"{kind} to {to}"


async def send_async(kind: str, to: str) -> str:
    return f"{kind} to {to}"


class Sender:
    def __init__(self, kind: str = "sms") -> None:
        self.kind = kind

    def __call__(self, to: str) -> str:
        return f"{self.kind} to {to}"

    def send(self, to: str) -> str:
        return f"{self.kind} to {to}"

    async def send_async(self, to: str) -> str:
        return f"{self.kind} to {to}"

    @classmethod
    def of_class(cls, to: str) -> str:
        return f"sms to {to}"

    @staticmethod
    def static(to: str) -> str:
        return f"sms to {to}"


class AsyncSender:
    __slots__ = ()

    async def __call__(self, to: str) -> str:
        return f"sms to {to}"


@dataclass
class Unhashable:
    kind: str

    def __call__(self, to: str) -> str:
        return f"{self.kind} to {to}"


@dataclass(frozen=True)
class Frozen:
    kind: str

    def __call__(self, to: str, context: ActivityContext) -> str:
        assert context.attempt == 1
        return f"{self.kind} to {to}"


def loud(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@loud
def wrapped(to: str) -> str:
    return f"sms to {to}"


CALLABLES: dict[str, Any] = {
    "partial": functools.partial(send, "sms"),
    "partial by name": functools.partial(send, kind="sms"),
    "partial of a partial": functools.partial(functools.partial(send), "sms"),
    "async partial": functools.partial(send_async, "sms"),
    "partial of a method": functools.partial(Sender().send),
    "bound method": Sender().send,
    "async bound method": Sender().send_async,
    "class method": Sender.of_class,
    "static method": Sender.static,
    "object": Sender(),
    "async object with slots": AsyncSender(),
    "unhashable object": Unhashable("sms"),
    "frozen object": Frozen("sms"),
    "lambda": lambda to: f"sms to {to}",
    "wrapped": wrapped,
    "builtin": str.strip,
}


async def outcome(app: App, activity: Any, *given: Any) -> Any:
    @app.orchestrator
    async def in_async(context: df.OrchestrationContext) -> Any:
        return await context.call_activity(activity, *given)

    @app.orchestrator
    def in_yield(context: df.OrchestrationContext) -> Any:
        return (yield context.call_activity(activity, *given))

    async with environment(app) as env:
        first, second = await env.run(in_async), await env.run(in_yield)
        assert first.failure is None, first.failure
        assert second.output == first.output
        assert len(env.calls(activity)) == 2
        return first.output


@pytest.mark.parametrize("what", CALLABLES)
async def test_a_callable_is_an_activity(what: str) -> None:
    app = App("callables")
    activity = CALLABLES[what]
    assert app.activity(name="send")(activity) is activity
    assert await outcome(app, activity, " sms to Ada " if what == "builtin" else "Ada") == "sms to Ada"


async def test_a_static_method_is_registered_inside_its_class() -> None:
    app = App("callables")

    class Group:
        @app.activity
        @staticmethod
        def below(to: str) -> str:
            return f"sms to {to}"

        @staticmethod
        @app.activity
        def above(to: str) -> str:
            return f"sms to {to}"

    assert Group().below("Ada") == "sms to Ada"
    assert await outcome(app, Group.below, "Ada") == "sms to Ada"
    assert sorted(app.registry.activities) == ["above", "below"]


def test_a_class_method_is_refused_inside_its_class_and_told_where_it_can_be_registered() -> None:
    app = App("callables")
    with pytest.raises(RegistrationError, match=r"app\.activity\(TheClass\.send\)"):

        class Group:
            @app.activity  # type: ignore[type-var]
            @classmethod
            def send(cls, to: str) -> str:
                return to


def test_names_come_from_the_function_behind_and_from_the_class_of_an_object() -> None:
    app = App("callables")
    app.activity(functools.partial(send, "sms"))
    app.activity(Sender())
    app.activity(Sender().of_class)
    assert sorted(app.registry.activities) == ["Sender", "of_class", "send"]
    with pytest.raises(
        RegistrationError, match=r"'send' is already taken by .*test_callables\.py:\d+.*name="
    ):
        app.activity(functools.partial(send, "mail"))


async def test_two_objects_of_a_class_are_two_activities() -> None:
    app = App("callables")
    sms, mail = Sender("sms"), Sender("mail")
    app.activity(name="sms")(sms.send)
    app.activity(name="mail")(mail.send)
    app.activity(name="equal")(Frozen("a"))
    twin = Frozen("a")
    app.activity(name="twin")(twin)

    @app.orchestrator
    async def flow(context: df.OrchestrationContext) -> Any:
        return [
            await context.call_activity(sms.send, "Ada"),
            await context.call_activity(mail.send, "Ada"),
            await context.call_activity(twin, "Ada"),
        ]

    async with environment(app) as env:
        assert (await env.run(flow)).output == ["sms to Ada", "mail to Ada", "a to Ada"]
        assert [call.activity for call in env.calls()] == ["sms", "mail", "twin"]


async def test_a_partial_of_a_registered_function_is_not_that_function() -> None:
    app = App("callables")
    app.activity(send_one := lambda to: to)
    with pytest.raises(df.FunctionNotFound):
        app.registry.name_of(functools.partial(send_one))


def test_a_class_is_no_activity() -> None:
    with pytest.raises(RegistrationError, match="Sender is not a function"):
        App("callables").activity(Sender)


@pytest.mark.parametrize("style", ["activity", "orchestrator"])
def test_a_method_without_its_object_is_refused_and_told_how_it_can_be_registered(style: str) -> None:
    class Office:
        def send(self, to: str = "all") -> str:
            return to

    with pytest.raises(
        RegistrationError, match=r"Office\.send .*is a method without an object.*@staticmethod"
    ):
        getattr(App("methods"), style)(Office.send)


async def test_bound_methods_are_orchestrators_too() -> None:
    app = App("callables")

    class Flows:
        def __init__(self, word: str) -> None:
            self.word = word

        async def run(self, context: df.OrchestrationContext, to: str = "all") -> str:
            return f"{self.word} {to}"

        def stepwise(self, context: df.OrchestrationContext, to: str = "all") -> Any:
            return f"{self.word} {to}"
            yield

    flows = Flows("hello")
    app.orchestrator(flows.run)
    app.orchestrator(name="partial")(functools.partial(Flows.stepwise, flows))
    async with environment(app) as env:
        assert (await env.run(flows.run, "Ada")).output == "hello Ada"
        assert (await env.run("partial")).output == "hello all"


# ------------------------------------------------------------------------------------------------- parameters


def positional(n: int, /) -> int:
    return n


def positional_with_context(context: ActivityContext, n: int, /) -> int:
    return n


def positional_behind_defaults(a: int = 1, /, n: int = 2) -> int:
    return 10 * a + n


def by_name(*, n: int) -> int:
    return n


def by_name_with_default(*, n: int = 7) -> int:
    return n


def an_option_beside(n: int, *, retries: int = 3) -> int:
    return n if retries == 3 else 0


def a_double_for_tests(n: int, *, clock: Callable[[], float] = lambda: 0.0) -> int:
    return n


def the_rest_unused(n: int, *args: int, **kwargs: int) -> int:
    return n if not args and not kwargs else 0


KINDS: dict[str, tuple[Any, Any]] = {
    "positional-only": (positional, 5),
    "positional-only, with context": (positional_with_context, 5),
    "positional-only with default": (positional_behind_defaults, 52),
    "keyword-only": (by_name, 5),
    "keyword-only with default": (by_name_with_default, 5),
    "an option beside": (an_option_beside, 5),
    "an option that JSON cannot be": (a_double_for_tests, 5),
    "*args and **kwargs beside": (the_rest_unused, 5),
}


@pytest.mark.parametrize("what", KINDS)
async def test_a_kind_of_parameter_takes_the_input(what: str) -> None:
    function, expected = KINDS[what]
    app = App("kinds")
    app.activity(function)
    assert await outcome(app, function, 5) == expected


def test_the_first_of_several_defaults_takes_the_input() -> None:
    assert positional_behind_defaults(5) == 52


REFUSED: dict[str, Any] = {
    "*args alone": lambda *args: args,
    "**kwargs alone": lambda **kwargs: kwargs,
    "both alone": lambda *args, **kwargs: args,
    "two required": lambda a, b: a,
    "a builtin without a signature": max,
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_parameter_that_nothing_fills_is_refused_at_the_start_with_its_place(what: str) -> None:
    app = App("kinds")

    async def run() -> None:
        app.activity(name="it")(REFUSED[what])
        async with environment(app):
            pass

    with pytest.raises(RegistrationError) as refused:
        await run()
    if what != "a builtin without a signature":
        assert "test_callables.py" in str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda app: app.orchestrator(lambda context, *args: None),
        lambda app: app.orchestrator(lambda context, *, n=5: None),
        lambda app: app.orchestrator(lambda context, *, n: None),
        lambda app: app.entity(name="e")(lambda context, *args: None),
        lambda app: app.entity(name="e")(lambda context, *, n=5: None),
        lambda app: app.entity(name="e")(lambda context, n, *, m: None),
    ],
)
def test_orchestrators_and_entities_are_refused_while_decorating(make: Any) -> None:
    with pytest.raises(RegistrationError, match=r"test_callables\.py"):
        make(App("kinds"))


@pytest.mark.parametrize("kind", ["*n", "*, n=1", "*, n", "**n"])
def test_operations_of_a_class_are_refused_while_decorating(kind: str) -> None:
    space: dict[str, Any] = {"__name__": __name__}
    exec(f"class Counter:\n    def add(self, {kind}): ...", space)
    with pytest.raises(RegistrationError, match="add"):
        App("kinds").entity(space["Counter"])


# ------------------------------------------------------------------------------------- TypedDict and Protocol


class Order(TypedDict):
    amount: int


class Mailer(Protocol):
    def send(self, to: str) -> None: ...


async def test_a_typeddict_is_an_input_beside_resources() -> None:
    app = App("typed")

    @app.lifespan
    async def resources():
        yield Sender()

    @app.activity
    def charge(order: Order, sender: Sender) -> str:
        return sender.send(str(order["amount"]))

    assert await outcome(app, charge, {"amount": 5}) == "sms to 5"


@pytest.mark.parametrize("input_first", [True, False])
async def test_a_protocol_is_filled_by_nothing_and_refused_by_name(input_first: bool) -> None:
    app = App("typed")

    def alone(mailer: Mailer) -> None: ...
    def beside(to: str, mailer: Mailer) -> None: ...

    app.activity(beside if input_first else alone)
    with pytest.raises(RegistrationError, match=r"(beside|alone) \(.*test_callables\.py:\d+\)"):
        async with environment(app):
            pass


# ------------------------------------------------------------------------------------------------------ stubs


@pytest.mark.parametrize(
    "stub",
    [
        Mock(return_value="sms to Ada"),
        AsyncMock(return_value="sms to Ada"),
        lambda *args: f"sms to {args[0]}",
        lambda to, /: f"sms to {to}",
        lambda **_: "sms to Ada",
        Sender(),
        Sender().send_async,
        functools.partial(send, "sms"),
    ],
    ids=["Mock", "AsyncMock", "starred", "positional", "kwargs", "object", "method", "partial"],
)
async def test_a_stub_may_be_any_callable(stub: Any) -> None:
    app = App("stubs")

    @app.activity
    def notify(to: str) -> str:
        raise AssertionError

    @app.orchestrator
    async def flow(context: df.OrchestrationContext) -> Any:
        return await context.call_activity(notify, "Ada")

    async with environment(app, activities={notify: stub}) as env:
        status = await env.run(flow)
        assert status.output == "sms to Ada", status.failure
        assert [call.input for call in env.calls(notify)] == ["Ada"]


@pytest.mark.parametrize("stubbed", [True, False])
async def test_a_refusal_under_the_testing_kit_names_the_users_line(stubbed: bool) -> None:
    app = App("stubs")

    @app.activity(name="pay")
    def wrong(a: int, b: int) -> None: ...

    with pytest.raises(RegistrationError) as refused:
        async with environment(app, activities={wrong: lambda a, b: None} if stubbed else {}):
            pass
    assert "test_callables.py:" in str(refused.value)
    assert "stubs.py" not in str(refused.value)
