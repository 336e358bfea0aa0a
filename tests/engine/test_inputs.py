"""What a parameter receives: the input, its own default where none came, and never a None it does not take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure import App, Queues
from perdure.testing import environment
from tests.http.conftest import LOCAL, M

app = df.App("defaults")
taken: list[Any] = []


@app.activity
def greet(name: str = "world") -> str:
    return f"hello {name}"


@app.activity
async def greet_async(name: str = "world") -> str:
    return f"hello {name}"


@app.activity
def greet_perhaps(name: str | None = "world") -> str:
    return f"hello {name}"


@app.activity
def greet_anything(name="world"):
    return f"hello {name}"


@app.activity
def needs(name: str) -> str:
    return f"hello {name}"


@app.activity
def perhaps(name: str | None) -> str:
    return f"hello {name}"


@app.orchestrator
async def child(context: df.OrchestrationContext, name: str = "world") -> str:
    return f"hello {name}"


@app.orchestrator
def child_yield(context: df.OrchestrationContext, name: str = "world") -> Any:
    return f"hello {name}"
    yield


@app.orchestrator
async def child_needs(context: df.OrchestrationContext, name: str) -> str:
    return f"hello {name}"


@app.orchestrator
async def again(context: df.OrchestrationContext, left: int = 0) -> int:
    if left:
        context.continue_as_new()
    return left


@app.entity
class Counter:
    n: int = 0

    def add(self, amount: int = 5) -> int:
        self.n += amount
        return self.n

    def need(self, amount: int) -> int:
        return amount


@app.entity(offload=True)
class Offloaded:
    n: int = 0

    def add(self, amount: int = 5) -> int:
        self.n += amount
        return self.n


@app.entity
def tally(context: df.EntityContext, amount: int = 5) -> int:
    context.set_state(context.get_state(0, int) + amount)
    return context.get_state(0, int)


@app.queue("letters")
def read_letter(text: str = "empty") -> None:
    taken.append(text)


@app.queue("wishes")
def read_wish(text: str | None = "empty") -> None:
    taken.append(text)


@app.route("/greet", methods=["POST"], auth="anonymous")
async def greet_over_http(name: list[str] = ["world"]) -> dict[str, Any]:  # noqa: B006
    return {"said": name}


@app.route("/need", methods=["POST"], auth="anonymous")
async def need_over_http(name: list[str]) -> dict[str, Any]:
    return {"said": name}


@app.orchestrator
async def activity_without(context: df.OrchestrationContext) -> Any:
    name: str = context.get_input()
    return await context.call_activity(name)


@app.orchestrator
def activity_without_yield(context: df.OrchestrationContext) -> Any:
    return (yield context.call_activity(context.get_input()))


@app.orchestrator
async def activity_with_none(context: df.OrchestrationContext) -> Any:
    name: str = context.get_input()
    return await context.call_activity(name, None)


@app.orchestrator
async def child_without(context: df.OrchestrationContext) -> Any:
    name: str = context.get_input()
    return await context.call_sub_orchestrator(name)


@app.orchestrator
async def operation(context: df.OrchestrationContext) -> Any:
    entity, *more = context.get_input()
    return await context.call_entity(entity, *more)


@pytest.mark.parametrize("style", [activity_without, activity_without_yield])
@pytest.mark.parametrize("name", ["greet", "greet_async", "greet_perhaps", "greet_anything"])
async def test_an_activity_called_without_input_uses_its_own_default(style: Any, name: str) -> None:
    async with environment(app) as env:
        assert (await env.run(style, name)).output == "hello world"
        assert [call.input for call in env.calls(name)] == [None]


async def test_none_is_passed_on_where_the_parameter_takes_it_and_is_no_input_elsewhere() -> None:
    async with environment(app) as env:
        assert (await env.run(activity_with_none, "greet_perhaps")).output == "hello None"
        assert (await env.run(activity_with_none, "greet_anything")).output == "hello None"
        assert (await env.run(activity_with_none, "perhaps")).output == "hello None"
        assert (await env.run(activity_without, "perhaps")).output == "hello None"
        assert (await env.run(activity_with_none, "greet")).output == "hello world"


@pytest.mark.parametrize("name", ["child", "child_yield"])
async def test_an_orchestrator_uses_its_own_default(name: str) -> None:
    async with environment(app) as env:
        assert (await env.run(name)).output == "hello world"
        assert (await env.run(name, "Ada")).output == "hello Ada"
        assert (await env.run(child_without, name)).output == "hello world"


async def test_continue_as_new_without_an_input_is_a_start_without_one() -> None:
    async with environment(app) as env:
        assert (await env.run(again, 1)).output == 0


@pytest.mark.parametrize("entity", ["@counter@a", "@offloaded@a", "@tally@a"])
async def test_an_operation_uses_its_own_default(entity: str) -> None:
    async with environment(app) as env:
        assert (await env.run(operation, [entity, "add"])).output == 5
        assert (await env.run(operation, [entity, "add", 2])).output == 7
        await env.client.signal_entity(entity, "add")
        await env.settled()
        assert (await env.run(operation, [entity, "add", 0])).output == 12


async def test_an_empty_message_of_a_queue_uses_the_default() -> None:
    taken.clear()
    async with environment(app) as env:
        for queue in ("letters", "wishes"):
            await Queues(env.client).send(queue)
            await Queues(env.client).send(queue, "dear")
        await Queues(env.client).send("wishes", None)
        await env.settled()
    assert sorted(taken, key=str) == [None, "dear", "dear", "empty", "empty"]


@pytest.mark.parametrize("given", [(), (None,)])
async def test_what_a_parameter_does_not_take_names_function_and_parameter(given: tuple[Any, ...]) -> None:
    async with environment(app) as env:
        style = activity_with_none if given else activity_without
        words = f"'name': it takes str, but got {'None' if given else 'no input'}"
        failed = await env.run(style, "needs")
        assert f"the activity 'needs' does not fit its parameter {words}" in str(failed.failure)
        failed = await env.run("child_needs", *given)
        assert f"does not fit 'child_needs', parameter {words}" in str(failed.failure)
        failed = await env.run(operation, ["@counter@a", "need", *given])
        words = words.replace("'name': it takes str", "'amount': it takes int")
        assert f"operation 'need' of @counter@a does not fit its parameter {words}" in str(failed.failure)


async def test_a_misfit_names_function_and_parameter() -> None:
    async with environment(app) as env:
        failed = await env.run("child_needs", 5)
        assert "the input does not fit 'child_needs', parameter 'name': the value does not fit str" in str(
            failed.failure
        )


def test_the_body_of_a_route_and_of_a_start_over_http_may_be_left_out() -> None:
    with TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL) as http:
        assert http.post("/api/greet").json() == {"said": ["world"]}
        assert http.post("/api/greet", json=["Ada"]).json() == {"said": ["Ada"]}
        refused = http.post("/api/need")
        assert refused.status_code == 400
        assert "parameter 'name': it takes list[str], but got no input" in refused.json()["detail"]
        started = http.post(f"{M}/orchestrators/child?timeout=30")
        assert started.json() == "hello world"


@dataclass
class Order:
    amount: int = 5


async def test_a_default_that_no_json_could_carry_is_used_as_it_is() -> None:
    marker = Order(7)
    other = App("objects")

    @other.activity
    def charge(order: Order = marker) -> bool:
        return order is marker

    @other.orchestrator
    async def flow(context: df.OrchestrationContext) -> Any:
        return await context.call_activity(charge), await context.call_activity(charge, Order(7))

    async with environment(other) as env:
        assert (await env.run(flow)).output == [True, False]
