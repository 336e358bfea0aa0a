"""A user's program with entities. Lines with an `E:` comment are mistakes to be found."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, assert_type

import perdure as df

app = df.App("typed")


@dataclass
class Account:
    balance: int = 0


@app.entity_trigger(context_name="context", entity_name="Counter")
def counter(context: df.DurableEntityContext) -> None:
    value = context.get_state(lambda: 0)
    assert_type(value, int)
    assert_type(context.get_state(int), int)
    assert_type(context.get_state(lambda: Account(), Account), Account)
    assert_type(context.get_state(expected_type=Account), Account | None)
    assert_type(context.get_state(), Any)
    assert_type(context.get_input(int), int)
    assert_type(context.get_input(), Any)
    assert_type(context.operation_name, str)
    context.set_state(value + context.get_input(int))
    context.set_result(value)
    wrong: str = context.get_state(lambda: 0)  # E: its state is a number
    context.signal_entity("Counter", 5)  # E: an operation has a name
    print(wrong)


@app.entity
class Wallet:
    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance


assert_type(Wallet().add(1), int)


@app.orchestrator
async def moving(context: df.OrchestrationContext) -> int:
    one, other = df.EntityId("Wallet", "a"), df.EntityId("Wallet", "b")
    async with context.lock(one, other):
        assert_type(await context.call_entity(one, "add", 5, int), int)
        assert_type(await context.call_entity(one, "add", 5), Any)
    context.signal_entity(one, "add", 1)
    await context.signal_entity(one, "add", 1)  # E: a signal cannot be waited for
    await context.call_entity(5, "add")  # E: a number is no entity
    df.EntityId("Wallet")  # E: the key is missing
    return 1


@app.orchestrator
def stepwise(context: df.DurableOrchestrationContext) -> Generator[Any, Any, int]:
    entity = df.EntityId("Wallet", "a")
    balance = yield from context.call_entity(entity, "add", 5, int)
    assert_type(balance, int)
    return balance


async def clients(client: df.Client) -> None:
    state = await client.read_entity_state(df.EntityId("Wallet", "a"))
    assert_type(state.entity_exists, bool)
    assert_type(state.exists, bool)
    await client.signal_entity("@wallet@a", "add", 5)
    await client.signal_entity("@wallet@a")  # E: which operation?
