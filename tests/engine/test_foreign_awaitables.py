"""What an orchestrator must not wait for, in a living engine: it fails with advice, and nobody else notices."""

import asyncio
import gc

import pytest

from perdure import OrchestrationContext, RuntimeStatus
from perdure.testing import environment
from tests.engine.programs import app_with


async def sleeps(context: OrchestrationContext):
    await asyncio.sleep(1)


async def gathers(context: OrchestrationContext):
    await asyncio.gather(context.create_timer(1), context.create_timer(2))


async def awaits_a_lock(context: OrchestrationContext):
    async with asyncio.Lock():
        await asyncio.to_thread(print)


def yields_a_number(context: OrchestrationContext):
    yield 5


def yields_a_list(context: OrchestrationContext):
    yield [context.create_timer(1)]


def yields_a_generator(context: OrchestrationContext):
    def branch():
        yield context.create_timer(1)

    yield branch()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("orchestrator", "advice"),
    [
        (sleeps, "context.create_timer"),
        (gathers, "context.task_all"),
        (awaits_a_lock, "an activity"),
        (yields_a_number, "context.create_timer"),
        (yields_a_list, "context.task_all"),
        (yields_a_generator, "context.spawn"),
    ],
)
async def test_the_failure_says_what_to_write_instead(orchestrator, advice):
    async with environment(app_with(orchestrator)) as env:
        status = await env.run("main")

    assert status.runtime_status is RuntimeStatus.Failed
    assert status.failure.type == "perdure.errors.ForeignAwaitError"
    assert advice in status.failure.message
    gc.collect()  # what Python says of a coroutine that was thrown away belongs to this test, whose marks silence it


async def test_a_plain_function_without_yield_is_an_orchestrator_that_returns_at_once():
    def main(context: OrchestrationContext):
        return context.get_input()

    async with environment(app_with(main)) as env:
        assert (await env.run("main", 5)).output == 5


async def test_an_orchestrator_may_call_recursively_deep_sub_generators():
    def main(context: OrchestrationContext):
        def down(n):
            if not n:
                return (yield context.create_timer(1)) or "bottom"
            return (yield from down(n - 1))

        return (yield from down(50))

    async with environment(app_with(main)) as env:
        assert (await env.run("main")).output == "bottom"
