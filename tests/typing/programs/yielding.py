"""A user's program with generator orchestrators. Lines with an `E:` comment are mistakes to be found.

What `yield` gives is Any: the language types one kind of answer for a whole generator. Two ways are typed:
`result = yield from task`, and `task.result` after a plain `yield task`.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, assert_type

import perdure as df

app = df.App("typed")


@dataclass
class Order:
    number: int


@app.activity_trigger(input_name="order")
def ship(order: Order) -> str:
    return f"parcel {order.number}"


@app.activity
async def weigh(order: Order, context: df.ActivityContext) -> float:
    return 1.5


@app.orchestration_trigger(context_name="context")
def azures(context: df.DurableOrchestrationContext) -> Generator[Any, Any, str]:
    order = context.get_input(Order)
    assert_type((yield context.call_activity(ship, order)), Any)
    parcel = yield from context.call_activity(ship, order)
    assert_type(parcel, str)
    task = context.call_activity(weigh, order)
    yield task
    assert_type(task.result, float)
    both = yield from context.task_all(context.call_activity(ship, order), task)
    assert_type(both, tuple[str, float])
    winner = yield from context.task_any(context.create_timer(60), task)
    assert_type(winner.result, float | None)
    decision = yield from context.wait_for_external_event("decided", bool, timeout=60, default=None)
    assert_type(decision, bool | None)
    yield from context.call_activity(ship, 17)  # E: wrong
    yield context.call_activity(ship)  # E: wrong
    yield context.call_activity_with_retry(ship, df.RetryOptions(1000, 3), order)
    yield context.call_activity_with_retry(ship, df.RetryOptions(1000, 3), 17)  # E: wrong
    number: int = yield from context.call_activity(ship, order)  # E: wrong
    print(number)
    return parcel


@app.orchestrator
def with_input(context: df.OrchestrationContext, order: Order) -> Generator[Any, Any, float]:
    return (yield from context.call_activity(weigh, order))


def branch(context: df.OrchestrationContext, order: Order) -> Generator[Any, Any, int]:
    yield from context.call_activity(ship, order)
    return 1


@app.orchestrator
def parent(context: df.OrchestrationContext, order: Order) -> Generator[Any, Any, None]:
    assert_type((yield from context.call_sub_orchestrator(azures)), str)
    assert_type((yield from context.call_sub_orchestrator(with_input, order)), float)
    assert_type((yield from context.call_sub_orchestrator_with_retry(azures, df.RetryOptions(1, 3))), str)
    yield context.call_sub_orchestrator(with_input, 17)  # E: wrong
    yield context.call_sub_orchestrator(with_input)  # E: wrong
    running = context.spawn(branch(context, order))
    assert_type(running, df.Task[int])
    assert_type((yield from running), int)


async def clients(client: df.Client) -> None:
    await client.start_new(with_input, None, Order(1))
    await client.start_new(with_input, None, 17)  # E: wrong
    await client.start_new(azures, "a-1", {"number": 1})
