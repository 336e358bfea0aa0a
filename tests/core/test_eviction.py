"""An execution is a cache: putting it away runs the code's `finally:` blocks, and nothing they do counts."""

import pytest

from perdure.model import events as ev
from perdure.replay.decide import Code, Execution
from perdure.replay.environment import Identity
from perdure.testing.replaying import _Lenient

log: list[str] = []


def finally_yield(context):
    try:
        yield context.create_timer(60)
    finally:
        log.append("finally")
        context.call_activity("refund")
        log.append("not reached")


async def finally_async(context):
    try:
        await context.create_timer(60)
    finally:
        log.append("finally")
        context.call_activity("refund")
        log.append("not reached")


def waits_in_finally_yield(context):
    task = context.call_activity("a")
    try:
        yield task
    finally:
        log.append("finally")
        yield task


async def waits_in_finally_async(context):
    task = context.call_activity("a")
    try:
        await task
    finally:
        log.append("finally")
        await task


def in_branch_yield(context):
    context.spawn(finally_yield(context))
    yield context.create_timer(90)


async def in_branch_async(context):
    context.spawn(finally_async(context))
    await context.create_timer(90)


def alive(function) -> Execution:
    log.clear()
    execution = Execution(Code("o", function), Identity("i", "e"), _Lenient())
    execution.arrive(ev.ExecutionStarted(name="o"))
    return execution


@pytest.mark.parametrize("function", [finally_yield, finally_async, in_branch_yield, in_branch_async])
def test_a_finally_block_runs_and_its_call_reaches_nothing(function):
    execution = alive(function)

    execution.close()

    assert log == ["finally"]
    assert execution.context.actions == []


@pytest.mark.parametrize("function", [waits_in_finally_yield, waits_in_finally_async])
def test_waiting_in_a_finally_block_does_no_harm(function):
    execution = alive(function)

    execution.close()

    assert log == ["finally"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_code_that_refuses_to_end_is_left_behind():
    def generator(context):
        task = context.create_timer(60)
        while True:
            try:
                yield task
            except GeneratorExit:
                log.append("refused")

    execution = alive(generator)

    execution.close()

    assert "refused" in log


def test_a_closed_execution_takes_nothing_more():
    execution = alive(finally_yield)
    execution.close()

    assert execution.arrive(ev.TimerFired(timer_id=0)) == []
    execution.close()
