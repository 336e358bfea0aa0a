"""What an orchestrator may wait for, and the advice it gets when it waits for something else."""

import asyncio

import pytest

from perdure.errors import ForeignAwaitError
from perdure.replay.context import OrchestrationContext
from perdure.testing import HistoryBuilder, replay
from tests.core.styles import both


def started() -> HistoryBuilder:
    return HistoryBuilder().started()


def failure_of(orchestrator):
    return replay(orchestrator, started()).failure


@pytest.mark.parametrize("rubbish", [None, 5, "text", object(), {}, 1.5])
def test_a_generator_yielding_rubbish_fails_with_advice(rubbish):
    def orchestrator(context: OrchestrationContext):
        yield rubbish

    failure = failure_of(orchestrator)

    assert failure.type == "perdure.errors.ForeignAwaitError"
    assert f"not for {type(rubbish).__name__}" in failure.message


def test_a_generator_yielding_a_list_is_told_of_task_all():
    def orchestrator(context: OrchestrationContext):
        yield [context.call_activity("a"), context.call_activity("b")]

    assert "context.task_all" in failure_of(orchestrator).message


def test_a_bare_yield_in_a_loop_ends_because_each_one_raises():
    def orchestrator(context: OrchestrationContext):
        for _ in range(3):
            try:
                yield None
            except ForeignAwaitError:
                continue
        return "went on"

    assert replay(orchestrator, started()).output == "went on"


def test_awaiting_asyncio_sleep_is_told_of_timers():
    async def orchestrator(context: OrchestrationContext):
        await asyncio.sleep(1)

    failure = failure_of(orchestrator)

    assert failure.type == "perdure.errors.ForeignAwaitError"
    assert "context.create_timer" in failure.message


def test_awaiting_a_future_of_an_event_loop_is_refused():
    loop = asyncio.new_event_loop()

    async def orchestrator(context: OrchestrationContext):
        await loop.create_future()

    failure = failure_of(orchestrator)
    loop.close()

    assert failure.type == "perdure.errors.ForeignAwaitError"


def test_awaiting_sleep_zero_is_refused_too_since_it_yields_nothing():
    async def orchestrator(context: OrchestrationContext):
        await asyncio.sleep(0)

    assert failure_of(orchestrator).type == "perdure.errors.ForeignAwaitError"


def test_a_task_of_another_instance_is_refused():
    kept = []

    def first(context: OrchestrationContext):
        kept.append(context.call_activity("a"))
        yield kept[0]

    def second(context: OrchestrationContext):
        yield kept[0]

    replay(first, started())

    assert "belongs to another instance" in failure_of(second).message


def spawn_function_yield(context: OrchestrationContext):
    yield context.spawn(lambda: None)


async def spawn_function_async(context: OrchestrationContext):
    await context.spawn(lambda: None)


@both(spawn_function_yield, spawn_function_async)
def test_spawn_takes_a_running_body_and_not_a_function(orchestrator):
    assert "call the function" in failure_of(orchestrator).message


def all_of_coroutines_yield(context: OrchestrationContext):
    yield context.task_all([1, 2])


async def all_of_coroutines_async(context: OrchestrationContext):
    await context.task_all(1, 2)


@both(all_of_coroutines_yield, all_of_coroutines_async)
def test_task_all_of_other_things_says_to_spawn_them(orchestrator):
    assert "context.spawn" in failure_of(orchestrator).message


def test_a_plain_function_may_return_at_once():
    def orchestrator(context: OrchestrationContext, n: int):
        return n + 1

    assert replay(orchestrator, HistoryBuilder().started(4)).output == 5


def catches_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("a")
    except Exception as error:
        return str(error)


async def catches_async(context: OrchestrationContext):
    try:
        await context.call_activity("a")
    except Exception as error:
        return str(error)


@both(catches_yield, catches_async)
def test_a_failed_activity_raises_where_it_is_awaited(orchestrator):
    history = started().scheduled("a").failed(0, "ValueError", "no")

    assert replay(orchestrator, history).output == "Activity function 'a' failed: ValueError: no"


def await_twice_yield(context: OrchestrationContext):
    task = context.call_activity("a")
    return [(yield task), (yield task)]


async def await_twice_async(context: OrchestrationContext):
    task = context.call_activity("a")
    return [await task, await task]


@both(await_twice_yield, await_twice_async)
def test_a_task_can_be_awaited_more_than_once(orchestrator):
    assert replay(orchestrator, started().scheduled("a").completed(0, 3)).output == [3, 3]


def system_exit_yield(context: OrchestrationContext):
    yield context.create_timer(0)
    raise SystemExit(3)


async def system_exit_async(context: OrchestrationContext):
    await context.create_timer(0)
    raise SystemExit(3)


@both(system_exit_yield, system_exit_async)
def test_even_system_exit_fails_only_the_orchestration(orchestrator):
    assert replay(orchestrator, started().timer(0).fired(0)).failure.type == "SystemExit"
