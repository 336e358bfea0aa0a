"""Activities: both kinds, typed by annotation, with time-outs, limits and resources."""

import asyncio
import threading
from dataclasses import dataclass

import pytest

from perdure import (
    ActivityContext,
    App,
    Concurrency,
    OrchestrationContext,
    RegistrationError,
    RuntimeStatus,
    Settings,
)
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with, until


@dataclass
class Claim:
    amount: int


def call_yield(context: OrchestrationContext):
    return (yield context.call_activity("work", context.get_input()))


async def call_async(context: OrchestrationContext):
    return await context.call_activity("work", context.get_input())


@both(call_yield, call_async)
async def test_a_plain_function_runs_on_a_thread_of_its_own(orchestrator):
    def work(claim: Claim) -> str:
        return f"{claim.amount} on {threading.current_thread().name}"

    async with environment(app_with(orchestrator, work)) as env:
        assert (await env.run("main", {"amount": 5})).output == "5 on perdure-activity"


@both(call_yield, call_async)
async def test_an_async_function_runs_on_the_hosts_event_loop(orchestrator):
    host = asyncio.get_running_loop()

    async def work(claim: Claim) -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is host

    async with environment(app_with(orchestrator, work)) as env:
        assert (await env.run("main", {"amount": 5})).output is True


@both(call_yield, call_async)
async def test_an_activity_may_take_its_context_alone_as_in_azure(orchestrator):
    def work(context: ActivityContext) -> list:
        claim = context.get_input(Claim)
        return [claim.amount, context.activity_name, context.instance_id, context.attempt]

    async with environment(app_with(orchestrator, work)) as env:
        assert (await env.run("main", {"amount": 5}, "c1")).output == [5, "work", "c1", 1]


@both(call_yield, call_async)
async def test_the_idempotency_key_names_instance_execution_and_call(orchestrator):
    def work(context: ActivityContext) -> str:
        return context.idempotency_key

    async with environment(app_with(orchestrator, work)) as env:
        status = await env.run("main", None, "c1")

    assert status.output == f"c1:{status.execution_id}:0"


@both(call_yield, call_async)
async def test_an_input_that_does_not_fit_fails_the_activity_with_a_pointer(orchestrator):
    def work(claim: Claim): ...

    async with environment(app_with(orchestrator, work)) as env:
        status = await env.run("main", {"amount": "much"})

    assert status.failure.cause.type == "perdure.errors.PayloadError"
    assert "/amount" in status.failure.cause.message


def typed_result_yield(context: OrchestrationContext):
    claim = yield context.call_activity(work_here)
    return type(claim).__name__


async def typed_result_async(context: OrchestrationContext):
    claim = await context.call_activity(work_here)
    return type(claim).__name__


def work_here() -> Claim:
    return Claim(7)


@both(typed_result_yield, typed_result_async)
async def test_a_call_by_reference_gives_the_annotated_type(orchestrator):
    async with environment(app_with(orchestrator, work_here)) as env:
        assert (await env.run("main")).output == "Claim"


class CardDeclined(Exception):
    pass


@both(call_yield, call_async)
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_failure_carries_type_message_stack_and_cause(orchestrator, kind):
    def fail():
        try:
            raise KeyError("account")
        except KeyError as error:
            raise CardDeclined("no cover") from error

    def work():
        fail()

    async def work_async():
        fail()

    app = app_with(orchestrator)
    app.activity(name="work")(work if kind == "def" else work_async)
    async with environment(app) as env:
        status = await env.run("main")

    assert status.runtime_status is RuntimeStatus.Failed
    assert status.failure.type == "perdure.errors.TaskFailedError"
    assert "Activity function 'work' failed" in status.failure.message
    recorded = status.failure.cause
    assert recorded.type.endswith(".CardDeclined")
    assert recorded.message == "no cover"
    assert 'raise CardDeclined("no cover") from error' in recorded.stack
    assert recorded.cause.type == "KeyError"


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@both(call_yield, call_async)
async def test_an_exception_that_cannot_be_printed_is_a_failure_like_any_other(orchestrator):
    def work():
        raise Unspeakable

    async with environment(app_with(orchestrator, work)) as env:
        assert (await env.run("main")).failure.cause.type.endswith("Unspeakable")


@both(call_yield, call_async)
@pytest.mark.parametrize(
    "result", [{1, object()}, object(), float("nan"), "a\0b", "\ud800", {"a": {"b": 1j}}]
)
async def test_a_result_that_json_cannot_carry_fails_the_activity(orchestrator, result):
    def work():
        return result

    async with environment(app_with(orchestrator, work)) as env:
        status = await env.run("main")

    assert status.failure.cause.type == "perdure.errors.PayloadError"


@both(call_yield, call_async)
async def test_a_call_of_an_unknown_activity_waits_for_a_worker_that_has_it(orchestrator):
    def other(): ...

    def work():
        return "done"

    async with environment(app_with(orchestrator, other)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        status = await env.client.get_status(instance)
        await env.restart(app_with(orchestrator, work))
        finished = await env.client.wait_for_completion(instance)

    assert not status.is_finished
    assert status.reason.startswith("no_worker: no activity named 'work'")
    assert "it has other" in status.reason
    assert finished.output == "done"


@both(call_yield, call_async)
async def test_one_that_still_waits_after_a_restart_is_looked_at_once(orchestrator, caplog):
    def other(): ...

    async with environment(app_with(orchestrator, other)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_with(orchestrator, other))
        await env.settled()
        caplog.clear()
        await env.restart(app_with(orchestrator, other))
        await env.settled()
        status = await env.client.get_status(instance)

    assert caplog.text.count("is parked") == 1
    assert status.reason.startswith("no_worker: no activity named 'work'")


# ---------------------------------------------------------------------------------------------- time-outs


def patient_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("work", timeout=0.02)
    except Exception as error:
        return error.failure.type, error.failure.message


async def patient_async(context: OrchestrationContext):
    try:
        await context.call_activity("work", timeout=0.02)
    except Exception as error:
        return error.failure.type, error.failure.message


@both(patient_yield, patient_async)
async def test_an_async_activity_that_takes_too_long_is_cancelled(orchestrator):
    cancelled = []

    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with environment(app_with(orchestrator, work)) as env:
        kind, message = (await env.run("main")).output

    assert (kind, cancelled) == ("TimeoutError", [True])
    assert "activity 'work' (attempt 1) exceeded its timeout of 0.02 s" in message


@both(patient_yield, patient_async)
async def test_a_thread_that_takes_too_long_is_abandoned_counted_and_replaced(orchestrator):
    released = threading.Event()

    def work():
        released.wait(30)
        return "too late"

    settings = Settings(concurrency=Concurrency(threads=1))
    async with environment(app_with(orchestrator, work, settings=settings)) as env:
        first, second = await env.run("main"), await env.run("main")
        health = env.engine.health()
        released.set()
        await until(lambda: env.engine.health()["activities_abandoned_threads"] == 0)

    assert first.output[0] == second.output[0] == "TimeoutError"
    assert health["activities_abandoned_threads"] == 2
    assert health["healthy"] is True


@both(patient_yield, patient_async)
async def test_beyond_the_limit_of_abandoned_threads_the_worker_calls_itself_unhealthy(orchestrator):
    released = threading.Event()

    def work():
        released.wait(30)

    settings = Settings(concurrency=Concurrency(threads=2, abandoned=1))
    async with environment(app_with(orchestrator, work, settings=settings)) as env:
        await asyncio.gather(env.run("main"), env.run("main"))
        unhealthy = env.engine.health()
        released.set()
        await until(lambda: env.engine.health()["healthy"])

    assert (unhealthy["healthy"], unhealthy["activities_abandoned_threads"]) == (False, 2)


async def test_the_result_of_an_abandoned_thread_is_dropped():
    released, finished = threading.Event(), threading.Event()

    def work():
        released.wait(30)
        finished.set()
        return "too late"

    def orchestrator(context: OrchestrationContext):
        winner = yield context.task_any([context.call_activity("work", timeout=0.02)])
        yield context.wait_for_external_event("Go")
        return winner.is_faulted

    async with environment(app_with(orchestrator, work)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        released.set()
        await until(finished.is_set)
        await env.client.raise_event(instance, "Go")
        status = await env.client.wait_for_completion(instance)

    assert status.output is True


async def test_a_timeout_on_the_decorator_is_overridden_by_the_call():
    app = App("claims")

    @app.activity(timeout=0.001)
    async def work():
        await asyncio.sleep(0.02)
        return "in time"

    @app.orchestrator
    async def main(context: OrchestrationContext):
        return await context.call_activity(work, timeout=20)

    async with environment(app) as env:
        assert (await env.run(main)).output == "in time"


async def test_an_activity_that_raises_timeout_error_itself_keeps_its_message():
    def work():
        raise TimeoutError("the gateway did not answer")

    async with environment(app_with(call_async, work)) as env:
        assert (await env.run("main")).failure.cause.message == "the gateway did not answer"


# ----------------------------------------------------------------------------------------------- limits


class Crowd:
    """Counts how many are inside at a time."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def __enter__(self):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_):
        with self.lock:
            self.inside -= 1


def fan_out_yield(context: OrchestrationContext):
    return (yield context.task_all([context.call_activity("work", n) for n in range(12)]))


async def fan_out_async(context: OrchestrationContext):
    return await context.task_all([context.call_activity("work", n) for n in range(12)])


@both(fan_out_yield, fan_out_async)
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_concurrency_limits_how_many_of_one_activity_run_at_a_time(orchestrator, kind):
    crowd = Crowd()

    def work(n: int) -> int:
        with crowd:
            threading.Event().wait(0.001)
            return n

    async def work_async(n: int) -> int:
        with crowd:
            await asyncio.sleep(0)
            return n

    app = app_with(orchestrator)
    app.activity(name="work", concurrency=2)(work if kind == "def" else work_async)
    async with environment(app) as env:
        status = await env.run("main")

    assert status.output == list(range(12))
    assert crowd.most == 2


@both(fan_out_yield, fan_out_async)
@pytest.mark.parametrize("limits", [Concurrency(threads=3), Concurrency(tasks=3)])
async def test_a_worker_runs_no_more_at_a_time_than_its_settings_say(orchestrator, limits):
    crowd = Crowd()

    def work(n: int) -> int:
        with crowd:
            threading.Event().wait(0.001)
            return n

    async def work_async(n: int) -> int:
        with crowd:
            await asyncio.sleep(0)
            return n

    app = app_with(orchestrator, settings=Settings(concurrency=limits))
    app.activity(name="work")(work if limits.threads == 3 else work_async)
    async with environment(app) as env:
        await env.run("main")

    assert crowd.most <= 3


async def test_a_slow_activity_of_limited_concurrency_does_not_hold_up_others():
    released = threading.Event()

    async def slow():
        await asyncio.to_thread(released.wait, 30)

    def quick() -> str:
        return "done"

    async def main(context: OrchestrationContext):
        slow_one, _ = context.call_activity("slow"), context.call_activity("slow")
        first = await context.task_any([slow_one, context.call_activity("quick")])
        return first.result

    app = App("claims")
    app.orchestrator(main)
    app.activity(concurrency=1)(slow)
    app.activity(quick)
    async with environment(app) as env:
        status = await env.run("main")
        released.set()

    assert status.output == "done"


# ---------------------------------------------------------------------------------------------- resources


class Ledger:
    def __init__(self) -> None:
        self.rows: list[int] = []


@both(call_yield, call_async)
async def test_lifespan_resources_are_given_by_type_and_cleaned_up(orchestrator):
    life: list[str] = []
    ledger = Ledger()

    def work(amount: int, book: Ledger, context: ActivityContext) -> int:
        book.rows.append(amount)
        return len(book.rows)

    app = app_with(orchestrator, work)

    @app.lifespan
    async def resources():
        life.append("open")
        yield ledger
        life.append("closed")

    async with environment(app) as env:
        await env.run("main", 5)
        assert (await env.run("main", 7)).output == 2
        assert life == ["open"]

    assert ledger.rows == [5, 7]
    assert life == ["open", "closed"]


async def test_an_activity_with_parameters_that_nothing_fills_stops_the_start():
    def work(claim, receipt): ...

    with pytest.raises(RegistrationError, match="claim, receipt"):
        async with environment(app_with(call_async, work)):
            pass


async def test_an_annotation_that_names_nothing_stops_the_start():
    def work(claim: "Nowhere"): ...  # noqa: F821

    with pytest.raises(RegistrationError, match="Nowhere"):
        async with environment(app_with(call_async, work)):
            pass


# ---------------------------------------------------------------------------------------------- recovery


@both(call_yield, call_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_an_activity_cut_short_by_a_restart_runs_again_under_the_same_key(
    orchestrator, store, tmp_path
):
    let_through = asyncio.Event()

    async def work(claim: str) -> str:
        await let_through.wait()
        return claim

    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator, work), store=url) as env:
        instance = await env.client.start_new("main", None, "x")
        await until(lambda: env.calls("work"))
        await env.restart()
        await until(lambda: len(env.calls("work")) == 2)
        let_through.set()
        status = await env.client.wait_for_completion(instance)
        keys = [(call.idempotency_key, call.attempt) for call in env.calls("work")]

    assert status.output == "x"
    assert keys[0] == keys[1]
