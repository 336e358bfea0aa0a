"""Retries in a living engine: visible, patient, and under one idempotency key."""

import pytest

from perdure import ActivityContext, App, OrchestrationContext, RetryPolicy, RuntimeStatus
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


class Declined(Exception):
    pass


class Gateway:
    """A payment gateway that is down for the first so many calls."""

    def __init__(self, down_for: int, error: type[Exception] = ConnectionError) -> None:
        self.down_for = down_for
        self.error = error
        self.calls = 0

    def __call__(self, amount: int, context: ActivityContext) -> str:
        self.calls += 1
        if self.calls <= self.down_for:
            raise self.error(f"call {self.calls}")
        return f"paid {amount}"


def pay(amount: int) -> str: ...


PATIENT = RetryPolicy(first_interval=60, backoff=2, max_attempts=5, non_retryable=(Declined,))


def pay_yield(context: OrchestrationContext):
    return (yield context.call_activity("pay", 5, retry=PATIENT))


async def pay_async(context: OrchestrationContext):
    return await context.call_activity("pay", 5, retry=PATIENT)


@both(pay_yield, pay_async)
async def test_a_call_is_tried_again_after_growing_pauses(orchestrator):
    async with environment(app_with(orchestrator, pay), activities={"pay": Gateway(3)}) as env:
        began = env.now
        status = await env.run("main")

        assert status.output == "paid 5"
        assert (env.now - began).total_seconds() == 60 + 120 + 240
        assert [call.attempt for call in env.calls("pay")] == [1, 2, 3, 4]


@both(pay_yield, pay_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_retry_keeps_the_idempotency_key_also_across_a_restart(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator, pay), store=url, activities={"pay": Gateway(2)}) as env:
        instance = await env.client.start_new("main", "c1")
        await env.settled()
        await env.restart()
        await env.advance(minutes=1)
        await env.restart()
        status = await env.client.wait_for_completion(instance)

        assert status.output == "paid 5"
        assert len(env.calls("pay")) == 3
        assert {call.idempotency_key for call in env.calls("pay")} == {f"c1:{status.execution_id}:0"}


@both(pay_yield, pay_async)
async def test_an_error_not_to_retry_is_final(orchestrator):
    gateway = Gateway(1, Declined)
    async with environment(app_with(orchestrator, pay), activities={"pay": gateway}) as env:
        status = await env.run("main")

    assert status.runtime_status is RuntimeStatus.Failed
    assert gateway.calls == 1


@both(pay_yield, pay_async)
async def test_after_the_last_attempt_the_orchestration_fails_with_the_last_failure(orchestrator):
    async with environment(app_with(orchestrator, pay), activities={"pay": Gateway(99)}) as env:
        status = await env.run("main")

        assert status.failure.cause.message == "call 5"
        assert len(env.calls("pay")) == 5


@both(pay_yield, pay_async)
async def test_each_attempt_and_pause_is_in_history_and_in_the_waiting_sentence(orchestrator):
    async with environment(app_with(orchestrator, pay), activities={"pay": Gateway(1)}) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        waiting = (await env.client.get_status(instance)).waiting_for
        await env.client.wait_for_completion(instance)
        history = (await env.client.get_status(instance, show_history=True)).history

    assert waiting == "waiting for attempt 2 of 'pay' at 2026-01-01 09:01:00 UTC"
    assert [event["type"] for event in history] == [
        "ExecutionStarted",
        "TaskScheduled",
        "TaskFailed",
        "TimerCreated",
        "TimerFired",
        "TaskScheduled",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    assert (history[3]["purpose"], history[3]["of"]) == ("retry", 0)
    assert (history[5]["call"], history[5]["attempt"]) == (0, 2)


def by_decorator_yield(context: OrchestrationContext):
    return (yield context.call_activity("pay", 5))


async def by_decorator_async(context: OrchestrationContext):
    return await context.call_activity("pay", 5)


@both(by_decorator_yield, by_decorator_async)
async def test_the_policy_of_the_decorator_applies_to_calls_without_one(orchestrator):
    app = app_with(orchestrator)
    app.activity(retry=RetryPolicy(first_interval=1, max_attempts=2))(pay)
    async with environment(app, activities={"pay": Gateway(1)}) as env:
        assert (await env.run("main")).output == "paid 5"


def azure_yield(context: OrchestrationContext):
    return (yield context.call_activity_with_retry("pay", RetryPolicy(first_interval=1), 5))


async def azure_async(context: OrchestrationContext):
    return await context.call_activity_with_retry("pay", RetryPolicy(first_interval=1), 5)


@both(azure_yield, azure_async)
async def test_azures_spelling_does_the_same(orchestrator):
    async with environment(app_with(orchestrator, pay), activities={"pay": Gateway(2)}) as env:
        assert (await env.run("main")).output == "paid 5"


def total_time_yield(context: OrchestrationContext):
    policy = RetryPolicy(first_interval=60, max_attempts=0, max_elapsed=200)
    return (yield context.call_activity("pay", 5, retry=policy))


async def total_time_async(context: OrchestrationContext):
    policy = RetryPolicy(first_interval=60, max_attempts=0, max_elapsed=200)
    return await context.call_activity("pay", 5, retry=policy)


@both(total_time_yield, total_time_async)
async def test_the_total_time_bounds_the_attempts(orchestrator):
    async with environment(app_with(orchestrator, pay), activities={"pay": Gateway(99)}) as env:
        await env.run("main")

        assert len(env.calls("pay")) == 4


def claim_yield(context: OrchestrationContext):
    yield context.task_all([context.call_activity("fraud"), context.call_activity("damage")])
    decision = yield context.wait_for_external_event("Decision")
    if not decision:
        return "denied"
    return (yield context.call_activity("pay", 5, retry=PATIENT))


async def claim_async(context: OrchestrationContext):
    await context.task_all([context.call_activity("fraud"), context.call_activity("damage")])
    decision = await context.wait_for_external_event("Decision")
    if not decision:
        return "denied"
    return await context.call_activity("pay", 5, retry=PATIENT)


@both(claim_yield, claim_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_while_the_gateway_is_down_only_the_payment_runs_again(orchestrator, store, tmp_path):
    def fraud(): ...
    def damage(): ...

    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    app = app_with(orchestrator, fraud, damage, pay)
    async with environment(app, store=url, activities={"pay": Gateway(3)}) as env:
        approved = await env.client.start_new("main", "approved")
        undecided = await env.client.start_new("main", "undecided")
        await env.settled()
        assert env.calls("pay") == []
        await env.client.raise_event(approved, "Decision", True)
        await env.settled()
        await env.restart()
        status = await env.client.wait_for_completion(approved)

        assert status.output == "paid 5"
        runs = {name: [c.instance_id for c in env.calls(name)] for name in ("fraud", "damage", "pay")}
        assert runs["fraud"].count("approved") == runs["damage"].count("approved") == 1
        assert runs["pay"] == ["approved"] * 4
        assert (await env.client.get_status(undecided)).runtime_status is RuntimeStatus.Running


async def test_a_child_is_retried_as_a_new_run_of_its_own():
    runs: list[str] = []
    app = App("claims")

    @app.orchestrator
    def child(context: OrchestrationContext):
        runs.append(context.instance_id)
        yield context.create_timer(1)
        if len(set(runs)) < 3:
            raise ConnectionError("down")
        return "done"

    @app.orchestrator
    def main(context: OrchestrationContext):
        return (yield context.call_sub_orchestrator_with_retry(child, RetryPolicy(first_interval=5)))

    async with environment(app) as env:
        assert (await env.run(main)).output == "done"

    assert len(set(runs)) == 3


async def test_a_child_with_an_id_of_its_own_is_retried_under_that_id():
    failures = iter([True, True, False])
    app = App("claims")

    @app.orchestrator
    async def child(context: OrchestrationContext):
        if next(failures):
            raise ConnectionError("down")
        return context.instance_id

    @app.orchestrator
    async def main(context: OrchestrationContext):
        return await context.call_sub_orchestrator(child, None, "kid", retry=RetryPolicy(first_interval=5))

    async with environment(app) as env:
        assert (await env.run(main)).output == "kid"
