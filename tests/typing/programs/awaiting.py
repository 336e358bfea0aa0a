"""A user's program with `async def` orchestrators. Lines with an `E:` comment are mistakes to be found."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

import perdure as df

app = df.App("typed")


@dataclass
class Claim:
    id: str
    amount: int


@dataclass
class Payment:
    number: int


class Ledger:
    """A resource of the application's lifespan."""


# --------------------------------------------------------------------------- activities of every shape


@app.activity
async def pay(claim: Claim) -> Payment:
    return Payment(claim.amount)


@app.activity(retry=df.RetryPolicy(max_attempts=3), timeout=30)
async def pay_once(claim: Claim, context: df.ActivityContext) -> Payment:
    return Payment(len(context.idempotency_key))


@app.activity(name="assess")
def assess(context: df.ActivityContext, claim: Claim) -> float:
    return claim.amount / 2


@app.activity
def describe(context: df.ActivityContext) -> str:
    claim = context.get_input(Claim)
    return claim.id


@app.activity
async def heartbeat() -> None: ...


@app.activity
def today() -> str:
    return "2026-01-01"


@app.activity
def total(amounts: list[int], ledger: Ledger) -> int:
    return sum(amounts)


@app.activity
def greet(name: str = "you", *, ledger: Ledger) -> str:
    return f"hello {name}"


@app.activity_trigger(input_name="value")
def shout(value: str) -> str:
    return value.upper()


def by_hand(value: int) -> str:
    return str(value)


registered: Callable[[int], str] = app.activity(by_hand)


# ------------------------------------------------------------------------------------- orchestrators


@app.orchestrator
async def alone(context: df.OrchestrationContext) -> int:
    return context.get_input(int)


@app.orchestrator(version="2", events={"go": bool})
async def with_input(context: df.OrchestrationContext, claim: Claim) -> Payment:
    return await context.call_activity(pay, claim)


@app.orchestration_trigger(context_name="context")
async def azures(context: df.DurableOrchestrationContext) -> list[str]:
    return ["a"]


@app.orchestrator
async def results(context: df.OrchestrationContext, claim: Claim) -> None:
    policy = df.RetryPolicy(max_attempts=2)
    assert_type(context.call_activity(pay, claim), df.Task[Payment])
    assert_type(await context.call_activity(pay, claim), Payment)
    assert_type(await context.call_activity(pay, claim, retry=policy, timeout=timedelta(minutes=1)), Payment)
    assert_type(await context.call_activity(pay_once, claim), Payment)
    assert_type(await context.call_activity(assess, claim), float)
    assert_type(await context.call_activity(describe, claim), str)
    assert_type(await context.call_activity(describe), str)
    await context.call_activity(heartbeat)
    assert_type(await context.call_activity(today), str)
    assert_type(await context.call_activity(total, [1, 2]), int)
    assert_type(await context.call_activity(greet, "Ann"), str)
    assert_type(await context.call_activity(shout, "a"), str)
    assert_type(await context.call_activity("pay", claim), Any)
    assert_type(await context.call_activity("pay", claim, Payment), Payment)
    assert_type(await context.call_activity("names", expected_type=list[str]), list[str])
    perhaps: Payment | None = await context.call_activity("perhaps", claim, Payment | None)
    assert_type(await context.call_activity_with_retry(pay, policy, claim), Payment)
    assert_type(await context.call_activity_with_retry(today, df.RetryOptions(1000, 3)), str)
    assert_type(await context.call_activity_with_retry("pay", policy, claim, Payment), Payment)
    print(perhaps)

    assert_type(await context.call_sub_orchestrator(alone), int)
    assert_type(await context.call_sub_orchestrator(with_input, claim), Payment)
    assert_type(await context.call_sub_orchestrator(with_input, claim, "child-1", retry=policy), Payment)
    assert_type(await context.call_sub_orchestrator(azures, {"any": "input"}), list[str])
    assert_type(await context.call_sub_orchestrator("alone", 1), Any)
    assert_type(await context.call_sub_orchestrator("alone", 1, expected_type=int), int)
    assert_type(await context.call_sub_orchestrator_with_retry(with_input, policy, claim), Payment)


@app.orchestrator
async def wrong_inputs(context: df.OrchestrationContext, claim: Claim) -> None:
    policy = df.RetryPolicy(max_attempts=2)
    await context.call_activity(pay, "C-1")  # E: it takes a Claim
    await context.call_activity(pay)  # E: no input at all
    await context.call_activity(pay, None)  # E: wrong
    await context.call_activity(pay_once, 5)  # E: it takes a Claim
    await context.call_activity(assess, 5)  # E: also where the context comes first
    await context.call_activity(heartbeat, claim)  # E: it takes none
    await context.call_activity(today, claim)  # E: wrong
    await context.call_activity(total, ["1"])  # E: wrong
    await context.call_activity(greet, 5)  # E: wrong
    await context.call_activity(shout, 5)  # E: Azure's decorators keep the type too
    await context.call_activity(pay, claim, retry=3)  # E: a number is no policy
    await context.call_activity(pay, claim, timeout="30s")  # E: wrong
    await context.call_activity(pay, claim, tiemout=30)  # E: wrong
    await context.call_activity_with_retry(pay, policy, "C-1")  # E: it takes a Claim
    await context.call_activity_with_retry(pay, 3, claim)  # E: wrong
    await context.call_activity(5, claim)  # E: wrong
    await context.call_sub_orchestrator(with_input, "C-1")  # E: it takes a Claim
    await context.call_sub_orchestrator(with_input)  # E: wrong
    await context.call_sub_orchestrator_with_retry(with_input, policy, 5)  # E: wrong
    await context.call_sub_orchestrator(pay, claim)  # E: an activity is no orchestrator
    payment: str = await context.call_activity(pay, claim)  # E: what comes out is checked as well
    (await context.call_activity(pay, claim)).numbr  # E: wrong
    context.call_activity(pay, claim).result.numbr  # E: wrong
    print(payment)


@app.orchestrator
async def together(context: df.OrchestrationContext, claim: Claim) -> None:
    paid = context.call_activity(pay, claim)
    risk = context.call_activity(assess, claim)
    when = context.call_activity(today)
    assert_type(await context.task_all(paid), tuple[Payment])
    assert_type(await context.task_all(paid, risk), tuple[Payment, float])
    assert_type(await context.task_all(paid, risk, when), tuple[Payment, float, str])
    assert_type(await context.task_all(paid, risk, when, paid), tuple[Payment, float, str, Payment])
    assert_type(
        await context.task_all(paid, risk, when, paid, risk), tuple[Payment, float, str, Payment, float]
    )
    assert_type(
        await context.task_all(paid, risk, when, paid, risk, when),
        tuple[Payment, float, str, Payment, float, str],
    )
    assert_type(await context.task_all([context.call_activity(pay, claim) for _ in range(3)]), list[Payment])
    assert_type(await context.task_all(*[paid, paid]), tuple[Payment, ...])
    payment, chance = await context.task_all(paid, risk)
    assert_type(payment, Payment)
    assert_type(chance, float)
    one, two, three = await context.task_all(paid, risk)  # E: wrong
    assert_type(await context.task_any([paid, paid]), df.Task[Payment])
    first = await context.task_any(paid, risk)
    assert_type(first.result, Payment | float)
    assert_type((await context.task_any(paid, risk, when)).result, Payment | float | str)
    timer = context.create_timer(timedelta(hours=1))
    if await context.task_any(timer, paid) is timer:
        timer.cancel()
    context.task_all(claim)  # E: wrong
    context.task_any(paid, claim)  # E: wrong
    context.create_timer("tomorrow")  # E: wrong


async def branch(context: df.OrchestrationContext, claim: Claim) -> float:
    return await context.call_activity(assess, claim)


async def foreign() -> int:
    return 1


@app.orchestrator
async def events_and_input(context: df.OrchestrationContext) -> None:
    assert_type(context.get_input(Claim), Claim)
    assert_type(context.get_input(), Any)
    perhaps: Claim | None = context.get_input(Claim | None)
    assert_type(await context.wait_for_external_event("decided", Payment), Payment)
    assert_type(await context.wait_for_external_event("decided", Payment, timeout=60), Payment)
    assert_type(
        await context.wait_for_external_event("decided", Payment, timeout=60, default=None), Payment | None
    )
    assert_type(await context.wait_for_external_event("decided"), Any)
    context.wait_for_external_event("decided", Payment, timeout="an hour")  # E: wrong
    context.wait_for_external_event(5, Payment)  # E: wrong
    running = context.spawn(branch(context, context.get_input(Claim)))
    assert_type(running, df.Task[float])
    assert_type(await running, float)
    assert_type(await context.create_timer(5), None)
    print(perhaps)
    context.spawn(branch)  # E: the function is not called
    context.continue_as_new({"n": 1}, save_events=False)
    context.set_custom_status({"step": 1})
    context.instance_id = "other"  # E: wrong


# -------------------------------------------------------------------------------- clients and the surface


async def clients(client: df.Client, claim: Claim) -> None:
    assert_type(await client.start_new(with_input, None, claim), str)
    assert_type(await client.start_new(with_input, "c-1", claim, version="2", tags={"team": "a"}), str)
    assert_type(await client.start_new(with_input, client_input=claim), str)
    assert_type(await client.start_new(alone), str)
    assert_type(await client.start_new(alone, None, {"any": "thing"}), str)
    assert_type(await client.start_new("with_input", None, claim), str)
    await client.start_new(with_input, None, "C-1")  # E: it takes a Claim
    await client.start_new(with_input, client_input=5)  # E: wrong
    await client.start_new(with_input)  # E: wrong
    await client.start_new(with_input, None, claim, on_existing="overwrite")  # E: wrong
    await client.start_new(pay, None, claim)  # E: an activity is not started
    await client.raise_event("c-1", 5)  # E: wrong
    status = await client.get_status("c-1")
    status.output  # E: there may be none
    assert status is not None
    assert_type(status.runtime_status, df.RuntimeStatus)
    assert_type(status.waiting_for, str)
    assert_type(await client.wait_for_completion("c-1", timeout=5), df.OrchestrationStatus)
    assert_type(await client.get_status_all(), list[df.OrchestrationStatus])
    assert_type((await client.purge_instance_history("c-1")).instances_deleted, int)


# A decorator gives the function back with its type: it is called, tested and passed on as it was.
calls: Callable[[Claim], Awaitable[Payment]] = pay
plain: Callable[[str], str] = shout
not_that: Callable[[int], str] = shout  # E: wrong
app.activity(retry=3)  # E: wrong
app.orchestrator(events=["go"])  # E: wrong
df.RetryPolicy(first_interval="1s")  # E: wrong
df.RetryOptions("1000", 3)  # E: wrong
