"""task_any in loops: nothing is kept of rounds that are over, and each round costs what is new in it."""

import gc
import json

import pytest

from perdure.model import events as ev
from perdure.replay.context import OrchestrationContext
from perdure.replay.decide import Code, Execution
from perdure.replay.environment import Identity
from perdure.replay.relay import Relay
from perdure.replay.task import WhenAny
from perdure.testing import HistoryBuilder
from perdure.testing.replaying import _Lenient
from tests.core.styles import both

WIDTH = 60


def _living(orchestrator) -> Execution:
    execution = Execution(Code("o", orchestrator), Identity("i", "e-1"), _Lenient())
    execution.begin_episode(1_000_000)
    execution.arrive(ev.ExecutionStarted(name="o", pairing=ev.AWAITED))
    return execution


def _output(actions):
    return bytes(actions[-1].output).decode()


LOOPS = {
    "removed": lambda pending, winner, context: [task for task in pending if task is not winner],
    "reversed": lambda pending, winner, context: [task for task in pending if task is not winner][::-1],
    "unfinished": lambda pending, winner, context: [task for task in pending if not task.is_completed],
    "one fewer": lambda pending, winner, context: [task for task in pending if task is not winner][:-1] or [],
}


def _loop_yield(shrink):
    def loop(context: OrchestrationContext):
        pending = [context.call_activity("work") for _ in range(WIDTH)]
        seen = []
        while pending:
            winner = yield context.task_any(pending)
            seen.append(winner.id)
            pending = shrink(pending, winner, context)
        return seen

    return loop


def _loop_async(shrink):
    async def loop(context: OrchestrationContext):
        pending = [context.call_activity("work") for _ in range(WIDTH)]
        seen = []
        while pending:
            winner = await context.task_any(pending)
            seen.append(winner.id)
            pending = shrink(pending, winner, context)
        return seen

    return loop


@pytest.mark.parametrize("styled", [_loop_yield, _loop_async], ids=["yield", "async"])
@pytest.mark.parametrize("form", LOOPS)
def test_results_are_taken_one_by_one_in_the_order_in_which_they_came(styled, form):
    execution = _living(styled(LOOPS[form]))
    order = [(7 * n) % WIDTH for n in range(WIDTH)]
    actions = []
    for task_id in order:
        if task_id in execution.context._calls and not execution.is_finished:
            actions = execution.arrive(ev.TaskCompleted(task_id=task_id)) or actions

    seen = _output(actions)
    if form == "one fewer":  # those that were left out do not win
        assert len(json.loads(seen)) < WIDTH
    else:
        assert seen == str(order).replace(" ", "")


def window_yield(context: OrchestrationContext):
    stop = context.wait_for_external_event("Stop")
    pending = [context.call_activity("work") for _ in range(WIDTH)]
    won = 0
    while True:
        timer = context.create_timer(3600)
        winner = yield context.task_any([stop, timer, *pending])
        if winner is stop:
            return [won, stop.result]
        timer.cancel()
        won += 1
        pending.remove(winner)
        pending.append(context.call_activity("work"))


async def window_async(context: OrchestrationContext):
    stop = context.wait_for_external_event("Stop")
    pending = [context.call_activity("work") for _ in range(WIDTH)]
    won = 0
    while True:
        timer = context.create_timer(3600)
        winner = await context.task_any([stop, timer, *pending])
        if winner is stop:
            return [won, stop.result]
        timer.cancel()
        won += 1
        pending.remove(winner)
        pending.append(context.call_activity("work"))


@both(window_yield, window_async)
def test_a_window_that_slides_goes_by_one_relay_and_keeps_nothing(orchestrator):
    execution = _living(orchestrator)
    calls = execution.context._calls
    for _ in range(300):
        execution.arrive(ev.TaskCompleted(task_id=next(iter(calls))))
    gc.collect()
    races = [
        one for one in gc.get_objects() if isinstance(one, WhenAny) and one._context is execution.context
    ]
    relays = {id(task._waiters) for task in calls.values()}

    assert len(calls) == WIDTH
    assert len(races) == 1
    assert len(relays) == 1
    done = execution.arrive(ev.EventRaised(name="Stop", input=HistoryBuilder().started(7).events[0].input))
    assert _output(done) == "[300,7]"


def narrow_yield(context: OrchestrationContext):
    stop = context.wait_for_external_event("Stop")
    while True:
        winner = yield context.task_any([stop, context.call_activity("work")])
        if winner is stop:
            return stop.result


async def narrow_async(context: OrchestrationContext):
    stop = context.wait_for_external_event("Stop")
    while True:
        winner = await context.task_any([stop, context.call_activity("work")])
        if winner is stop:
            return stop.result


@both(narrow_yield, narrow_async)
def test_a_task_that_loses_three_hundred_times_holds_nothing_of_it(orchestrator):
    execution = _living(orchestrator)
    for n in range(300):
        execution.arrive(ev.TaskCompleted(task_id=n + 1))
    gc.collect()
    races = [
        one for one in gc.get_objects() if isinstance(one, WhenAny) and one._context is execution.context
    ]

    assert len(races) == 1


def crowd_yield(context: OrchestrationContext):
    """Other waiters beside a wide task_any are told in the order in which they began to wait."""
    tasks = [context.call_activity("work") for _ in range(WIDTH)]
    told = []

    def waiting(name, task):
        yield task
        told.append(name)

    context.spawn(waiting("before", tasks[0]))
    race = context.task_any(tasks)
    context.spawn(waiting("race", race))
    context.spawn(waiting("after", tasks[0]))
    context.spawn(waiting("both", context.task_all(tasks[:2])))
    yield context.task_all([race, *tasks])
    return told


async def crowd_async(context: OrchestrationContext):
    tasks = [context.call_activity("work") for _ in range(WIDTH)]
    told = []

    async def waiting(name, task):
        await task
        told.append(name)

    context.spawn(waiting("before", tasks[0]))
    race = context.task_any(tasks)
    context.spawn(waiting("race", race))
    context.spawn(waiting("after", tasks[0]))
    context.spawn(waiting("both", context.task_all(tasks[:2])))
    await context.task_all([race, *tasks])
    return told


@both(crowd_yield, crowd_async)
def test_waiters_are_told_in_the_order_in_which_they_began(orchestrator):
    execution = _living(orchestrator)
    done = [execution.arrive(ev.TaskCompleted(task_id=n)) for n in range(WIDTH)][-1]

    assert _output(done) == '["before","race","after","both"]'


def twice_yield(context: OrchestrationContext):
    tasks = [context.call_activity("work") for _ in range(WIDTH)]
    first = yield context.task_any([*tasks, tasks[0]])
    second = yield context.task_any([*tasks, tasks[0]])
    return [first.id, second.id]


async def twice_async(context: OrchestrationContext):
    tasks = [context.call_activity("work") for _ in range(WIDTH)]
    first = await context.task_any([*tasks, tasks[0]])
    second = await context.task_any([*tasks, tasks[0]])
    return [first.id, second.id]


@both(twice_yield, twice_async)
def test_a_task_that_is_done_wins_at_once_also_where_it_is_given_twice(orchestrator):
    execution = _living(orchestrator)

    assert _output(execution.arrive(ev.TaskCompleted(task_id=0))) == "[0,0]"


def branches_yield(context: OrchestrationContext):
    def work():
        return (yield context.call_activity("work"))

    for _ in range(300):
        yield context.spawn(work())
    yield context.create_timer(60)


async def branches_async(context: OrchestrationContext):
    async def work():
        return await context.call_activity("work")

    for _ in range(300):
        await context.spawn(work())
    await context.create_timer(60)


@both(branches_yield, branches_async)
def test_branches_that_ended_well_are_not_kept(orchestrator):
    execution = _living(orchestrator)
    for n in range(300):
        execution.arrive(ev.TaskCompleted(task_id=n))

    assert not execution.context._fibers


def test_a_relay_without_a_race_is_nobodys_waiter():
    relay = Relay([])

    relay.on_done(object())  # type: ignore[arg-type]

    assert relay.race is None
