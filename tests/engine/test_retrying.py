"""Retries in a living engine: visible, patient, and under one idempotency key."""

import pytest

from perdure import (
    ActivityContext,
    App,
    EntityId,
    OrchestrationContext,
    RetryPolicy,
    RuntimeStatus,
    TaskFailedError,
)
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

    assert waiting == (
        "waiting for attempt 2 of 'pay' at 2026-01-01 09:01:00 UTC (it failed with ConnectionError: call 1)"
    )
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


# ------------------------------------------------------------------- what the next attempt would meet again


class Receipt:
    """No dataclass: JSON cannot carry it."""


def final_yield(context: OrchestrationContext):
    return (yield context.call_activity("work", context.get_input(), retry=PATIENT))


async def final_async(context: OrchestrationContext):
    return await context.call_activity("work", context.get_input(), retry=PATIENT)


@pytest.mark.parametrize("is_async", [True, False])
@both(final_yield, final_async)
async def test_a_result_that_cannot_be_recorded_is_not_asked_for_again(orchestrator, is_async):
    calls = []

    def plain():
        calls.append(1)
        return {"receipt": Receipt()}

    async def waiting():
        return plain()

    app = app_with(orchestrator)
    app.activity(name="work")(waiting if is_async else plain)
    async with environment(app) as env:
        began = env.now
        status = await env.run("main")

        assert len(calls) == 1
        assert env.now == began
    cause = status.failure.cause
    assert cause.type == "perdure.errors.PayloadError"
    for told in ("'work' has finished", "not run again", "Receipt", "/receipt", "PDR-010"):
        assert told in cause.message


@both(final_yield, final_async)
async def test_an_input_that_cannot_fit_does_not_use_up_the_policy(orchestrator):
    ran = []

    def work(amount: int) -> None:
        ran.append(amount)

    async with environment(app_with(orchestrator, work)) as env:
        began = env.now
        status = await env.run("main", "five")

        assert env.now == began
    assert ran == []
    for told in ("'work'", "'amount'", "did not run", "not retried"):
        assert told in status.failure.cause.message


def parent_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("child", "five", retry=PATIENT))


async def parent_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("child", "five", retry=PATIENT)


def no_output(context: OrchestrationContext):
    return Receipt()


def no_input(context: OrchestrationContext, amount: int):
    return amount


async def unrecorded(context: OrchestrationContext):
    await context.call_activity("work")


@pytest.mark.parametrize("child", [no_output, no_input, unrecorded])
@both(parent_yield, parent_async)
async def test_a_child_whose_payload_cannot_be_carried_is_not_started_again(orchestrator, child):
    calls = []

    def work():
        calls.append(1)
        return Receipt()

    app = app_with(orchestrator, work)
    app.orchestrator(name="child")(child)
    async with environment(app) as env:
        began = env.now
        status = await env.run("main")

        assert env.now == began
        assert len(calls) == (child is unrecorded)
    assert status.runtime_status == RuntimeStatus.Failed
    assert status.failure.is_a("PayloadError")


class Refused(Exception):
    pass


class Suspicious(Refused):
    pass


def asks_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("work", retry=RetryPolicy(max_attempts=3, non_retryable=(Refused,)))
    except TaskFailedError as error:
        return [error.is_a(Refused), error.is_a("Suspicious"), error.is_a(KeyError)]


async def asks_async(context: OrchestrationContext):
    try:
        await context.call_activity("work", retry=RetryPolicy(max_attempts=3, non_retryable=(Refused,)))
    except TaskFailedError as error:
        return [error.is_a(Refused), error.is_a("Suspicious"), error.is_a(KeyError)]


def raises_it():
    raise Suspicious("no")


def raises_from_it():
    raise RuntimeError("payment") from Suspicious("no")


async def raises_it_in_groups():
    raise ExceptionGroup("outer", [ValueError(), ExceptionGroup("inner", [Suspicious("no")])])


@pytest.mark.parametrize("body", [raises_it, raises_from_it, raises_it_in_groups])
@both(asks_yield, asks_async)
async def test_what_is_final_and_what_a_handler_asks_for_goes_by_class(orchestrator, body):
    app = app_with(orchestrator)
    app.activity(name="work")(body)
    async with environment(app) as env:
        assert (await env.run("main")).output == [True, True, False]
        assert len(env.calls("work")) == 1


@both(asks_yield, asks_async)
async def test_what_was_merely_being_handled_ends_no_retrying(orchestrator):
    def work():
        try:
            raise Suspicious("no")
        except Suspicious:
            raise ConnectionError("and then the ledger was away")  # noqa: B904

    async with environment(app_with(orchestrator, work)) as env:
        assert (await env.run("main")).output == [False, False, False]
        assert len(env.calls("work")) == 3


@both(asks_yield, asks_async)
async def test_a_class_is_known_through_a_sub_orchestration_and_an_entity(orchestrator):
    class Till:
        def close(self) -> None:
            raise Suspicious("no")

    async def child(context: OrchestrationContext):
        await context.call_activity("inner")

    async def outer(context: OrchestrationContext):
        told = []
        for call in (
            lambda: context.call_sub_orchestrator("child", retry=RetryPolicy(non_retryable=(Refused,))),
            lambda: context.call_entity(EntityId("Till", "1"), "close"),
        ):
            try:
                await call()
            except TaskFailedError as error:
                told.append([error.is_a(Refused), error.is_a(KeyError)])
        return told

    app = app_with(outer, raises_it)
    app.activity(name="inner")(raises_it)
    app.orchestrator(name="child")(child)
    app.entity(Till)
    async with environment(app) as env:
        assert (await env.run("main")).output == [[True, False], [True, False]]
        assert len(env.calls("inner")) == 1
