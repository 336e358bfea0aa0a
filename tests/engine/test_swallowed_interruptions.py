"""Code that swallows its end, with a bare `except:` or in `finally:`: others go on, and the log names it."""

# ruff: noqa: B012, E722

import asyncio
import gc
import sys
import threading
import warnings

import pytest

from perdure import (
    App,
    EntityId,
    OrchestrationContext,
    OutcomeUnknown,
    Overloaded,
    RuntimeStatus,
    Settings,
)
from perdure.testing import HistoryBuilder, check_history, environment
from tests.core.styles import both
from tests.engine.programs import app_with

S = RuntimeStatus
QUICK = Settings(interrupt_after=0.2)


@pytest.fixture(autouse=True)
def unheard(monkeypatch):
    """What a generator says that is thrown away while it is suspended: nobody has put it away properly."""
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    yield
    gc.collect()
    assert said == []


def polls_yield(context: OrchestrationContext):
    while True:
        try:
            yield context.wait_for_external_event("tick")
        except:
            continue


async def polls_async(context: OrchestrationContext):
    while True:
        try:
            await context.wait_for_external_event("tick")
        except:
            continue


def waits_again_yield(context: OrchestrationContext):
    wait = context.wait_for_external_event("never")
    while True:
        try:
            yield wait
        finally:
            continue


async def waits_again_async(context: OrchestrationContext):
    wait = context.wait_for_external_event("never")
    while True:
        try:
            await wait
        finally:
            continue


def nested_yield(context: OrchestrationContext):
    while True:
        try:
            yield from polls_yield(context)
        except:
            context.set_custom_status("again")
            yield context.create_timer(1)


async def nested_async(context: OrchestrationContext):
    while True:
        try:
            await polls_async(context)
        except:
            context.set_custom_status("again")
            await context.create_timer(1)


def branches_yield(context: OrchestrationContext):
    context.spawn(polls_yield(context))
    yield from waits_again_yield(context)


async def branches_async(context: OrchestrationContext):
    context.spawn(polls_async(context))
    await waits_again_async(context)


def locks_yield(context: OrchestrationContext):
    with (yield context.lock(EntityId("desk", "a"))):
        yield from polls_yield(context)


async def locks_async(context: OrchestrationContext):
    async with context.lock(EntityId("desk", "a")):
        await polls_async(context)


STUBBORN = [
    pytest.param(polls_yield, id="polls-yield"),
    pytest.param(polls_async, id="polls-async"),
    pytest.param(waits_again_yield, id="waits-again-yield"),
    pytest.param(waits_again_async, id="waits-again-async"),
    pytest.param(nested_yield, id="nested-yield"),
    pytest.param(nested_async, id="nested-async"),
    pytest.param(branches_yield, id="branches-yield"),
    pytest.param(branches_async, id="branches-async"),
    pytest.param(locks_yield, id="locks-yield"),
    pytest.param(locks_async, id="locks-async"),
]


def with_desk(orchestrator, settings=None) -> App:
    app = app_with(orchestrator, settings=settings)
    app.entity(name="desk")(lambda context: None)
    app.orchestrator(name="fine")(lambda context: "fine")
    return app


@pytest.mark.parametrize("orchestrator", STUBBORN)
async def test_terminated_it_is_gone_and_others_go_on(orchestrator):
    async with environment(with_desk(orchestrator)) as env:
        await env.client.start_new("main", "stubborn")
        await env.settled()
        await env.client.terminate("stubborn", "enough")
        assert (await env.client.get_status("stubborn")).runtime_status is S.Terminated
        assert (await env.run("fine")).output == "fine"


@pytest.mark.parametrize("orchestrator", STUBBORN)
async def test_evicted_suspended_and_parked_it_comes_back(orchestrator):
    async with environment(with_desk(orchestrator)) as env:
        await env.client.start_new("main", "stubborn")
        await env.settled()
        await env.evict()
        await env.client.raise_event("stubborn", "tick")
        await env.client.suspend("stubborn", "for a while")
        await env.evict()
        await env.client.resume("stubborn", "on")
        await env.client.raise_event("stubborn", "tick")
        await env.settled()
        assert (await env.client.get_status("stubborn")).runtime_status is S.Running
        await env.restart()
        assert (await env.run("fine")).output == "fine"


def asks_yield(context: OrchestrationContext):
    while True:
        try:
            yield context.call_activity("first")
            yield context.wait_for_external_event("tick")
        except:
            continue


async def asks_async(context: OrchestrationContext):
    while True:
        try:
            await context.call_activity("first")
            await context.wait_for_external_event("tick")
        except:
            continue


def first() -> None: ...


def second() -> None: ...


@both(asks_yield, asks_async)
async def test_code_that_swallows_a_mismatch_is_parked_for_it(orchestrator):
    def other(context: OrchestrationContext):
        yield context.call_activity("second")
        yield context.wait_for_external_event("tick")

    before = app_with(other, first, second)
    async with environment(before) as env:
        await env.client.start_new("main", "changed")
        await env.settled()
        await env.restart(app_with(orchestrator, first, second))
        await env.client.raise_event("changed", "tick")
        await env.settled()
        status = await env.client.get_status("changed")

    assert status.reason.startswith("nondeterminism: ")
    history = HistoryBuilder().started().scheduled("second")
    assert check_history(orchestrator, history) is not None


@both(asks_yield, asks_async)
async def test_code_that_swallows_a_missing_function_waits_for_a_worker(orchestrator):
    async with environment(app_with(orchestrator, second)) as env:
        await env.client.start_new("main", "missing")
        await env.settled()
        waiting = await env.client.get_status("missing")
        await env.restart(app_with(orchestrator, first))
        await env.settled()
        status = await env.client.get_status("missing")

    assert waiting.reason.startswith("no_worker: no activity named 'first'")
    assert status.waiting_for.startswith("waiting for the event 'tick'")


# ------------------------------------------------------------------------------------- code that never blocks

on = {"spinning": True}


def busy() -> int:
    return sum(range(100))


def spins(context: OrchestrationContext):
    while on["spinning"]:
        try:
            busy()
        except:
            pass
    return "let go"
    yield


def spins_deeper(context: OrchestrationContext):
    while on["spinning"]:
        try:
            while on["spinning"]:
                try:
                    busy()
                finally:
                    continue
        except:
            try:
                busy()
            except:
                continue
    return "let go"
    yield


def spins_at_its_end(context: OrchestrationContext):
    try:
        yield context.wait_for_external_event("Never")
    finally:
        yield from spins(context)


@pytest.mark.parametrize("orchestrator", [spins, spins_deeper])
async def test_a_loop_that_swallows_every_interruption_is_parked(orchestrator, caplog):
    on["spinning"] = True
    async with environment(with_desk(orchestrator, QUICK)) as env:
        await env.client.start_new("main", "spinning")
        assert (await env.run("fine")).output == "fine"
        await env.settled()
        parked = await env.client.get_status("spinning")
        on["spinning"] = False
        await env.client.resume("spinning", "let go")
        assert (await env.client.wait_for_completion("spinning")).output == "let go"

    assert (parked.runtime_status, parked.reason.partition(":")[0]) == (S.Suspended, "poison")
    assert __file__ in parked.reason
    assert "spinning" in caplog.text


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
async def test_an_interruption_leaves_no_monitoring_behind():
    on["spinning"] = True
    async with environment(with_desk(spins_deeper, QUICK)) as env:
        await env.client.start_new("main", "spinning")
        assert (await env.run("fine")).output == "fine"
        on["spinning"] = False

    assert [sys.monitoring.get_tool(number) for number in (3, 4)] == [None, None]
    assert sys.monitoring.use_tool_id(4, "this test") is None
    assert sys.monitoring.get_local_events(4, spins_deeper.__code__) == 0
    sys.monitoring.free_tool_id(4)


@pytest.mark.parametrize("end", ["terminate", "evict", "stop"])
async def test_closing_code_that_does_not_end_is_interrupted_and_named(end, caplog):
    on["spinning"] = True
    async with environment(with_desk(spins_at_its_end, QUICK)) as env:
        await env.client.start_new("main", "spinning")
        await env.settled()
        if end == "terminate":
            await env.client.terminate("spinning", "enough")
        elif end == "evict":
            await env.evict()
        else:
            await env.restart()
        assert (await env.run("fine")).output == "fine"
        on["spinning"] = False

    assert "the code of instance spinning did not end when it was closed" in caplog.text


async def test_an_operation_that_swallows_every_interruption_is_undone():
    def desk(context):
        spins_deeper_plain()

    def spins_deeper_plain():
        for _ in spins(None):
            pass

    async def asks(context: OrchestrationContext):
        try:
            await context.call_entity(EntityId("desk", "a"), "any")
        except Exception as error:
            return error.failure.type

    on["spinning"] = True
    app = app_with(asks, settings=QUICK)
    app.entity(name="desk")(desk)
    async with environment(app) as env:
        assert (await env.run("main")).output == "TimeoutError"
        on["spinning"] = False


def spins_later(context: OrchestrationContext):
    yield context.create_timer(5)
    return (yield from spins(context))


async def test_a_held_loop_is_not_healthy_and_code_cut_short_by_a_stop_is_not_parked(tmp_path, caplog):
    on["spinning"] = True
    app = with_desk(spins_later, Settings(interrupt_after=1_000))
    store = f"sqlite:///{tmp_path}/hub.db"
    async with environment(app, store=store) as env:
        await env.client.start_new("main", "spinning")
        moving = asyncio.create_task(env.advance(seconds=6))
        while env.engine.health()["alive"]:
            await asyncio.sleep(0)
        health = env.engine.health()
        moving.cancel()
    on["spinning"] = False
    async with environment(app, store=store) as env:
        assert (await env.client.wait_for_completion("spinning")).output == "let go"

    assert (health["healthy"], health["held_by"]) == (False, "spinning")
    assert "interrupting the code of instance spinning" in caplog.text


async def test_a_call_on_the_context_of_one_that_is_put_away_fails_the_caller():
    kept = []

    async def keeps(context: OrchestrationContext):
        kept.append(context)

    async def borrows(context: OrchestrationContext):
        kept[0].call_activity("any")

    app = app_with(keeps)
    app.orchestrator(borrows)
    async with environment(app) as env:
        await env.run("main")
        status = await env.run("borrows")

    assert (status.runtime_status, status.failure.type) == (S.Failed, "perdure.errors.Evicted")


@pytest.mark.parametrize("orchestrator", STUBBORN)
def test_a_history_is_checked_without_leaving_suspended_code_behind(orchestrator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_history(orchestrator, HistoryBuilder().started())


async def test_clients_are_told_of_a_call_that_cannot_be_interrupted():
    let_go = threading.Event()

    def sleeps(context: OrchestrationContext):
        yield context.create_timer(5)
        let_go.wait()  # a call into C: no exception gets through

    async with environment(with_desk(sleeps, Settings(interrupt_after=0.1))) as env:
        await env.client.start_new("main", "asleep")
        moving = asyncio.create_task(env.advance(seconds=6))
        while not env.engine.health().get("held_by"):
            await asyncio.sleep(0)
        with pytest.raises(OutcomeUnknown, match="asleep"):
            await env.client.start_new("fine")
        with pytest.raises(Overloaded, match="asleep"):
            await env.client.start_new("fine")
        let_go.set()
        await moving
        assert (await env.run("fine")).output == "fine"
