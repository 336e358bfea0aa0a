"""Tasks: what task_all, task_any, spawn and cancel mean, event by event."""

import pytest

from perdure import RetryPolicy, TaskCancelled
from perdure.model import events as ev
from perdure.replay.context import OrchestrationContext
from perdure.testing import HistoryBuilder, check_history, replay
from tests.core.styles import both


def fan_out_yield(context: OrchestrationContext):
    return (yield context.task_all([context.call_activity("work", n) for n in range(3)]))


async def fan_out_async(context: OrchestrationContext):
    return await context.task_all([context.call_activity("work", n) for n in range(3)])


def three() -> HistoryBuilder:
    return HistoryBuilder().started().scheduled("work").scheduled("work").scheduled("work")


@both(fan_out_yield, fan_out_async)
def test_activities_are_scheduled_when_they_are_called(orchestrator):
    done = replay(orchestrator, HistoryBuilder().started())

    assert [(d.id, d.name, bytes(d.input)) for d in done.decisions] == [
        (0, "work", b"0"),
        (1, "work", b"1"),
        (2, "work", b"2"),
    ]


@both(fan_out_yield, fan_out_async)
def test_results_of_task_all_come_in_argument_order(orchestrator):
    history = three().completed(2, "third").completed(0, "first").completed(1, "second")

    assert replay(orchestrator, history).output == ["first", "second", "third"]


@both(fan_out_yield, fan_out_async)
def test_task_all_fails_at_the_first_failure_of_history(orchestrator):
    history = three().completed(0, "first").failed(2, "IndexError", "third")

    failure = replay(orchestrator, history).failure

    assert failure.type == "perdure.errors.TaskFailedError"
    assert (failure.cause.type, failure.cause.message) == ("IndexError", "third")


def all_late_yield(context: OrchestrationContext):
    first, second = context.call_activity("work"), context.call_activity("work")
    yield context.wait_for_external_event("Go")
    yield context.task_all(first, second)


async def all_late_async(context: OrchestrationContext):
    first, second = context.call_activity("work"), context.call_activity("work")
    await context.wait_for_external_event("Go")
    await context.task_all(first, second)


@both(all_late_yield, all_late_async)
def test_of_several_failures_that_are_there_already_the_first_argument_counts(orchestrator):
    history = HistoryBuilder().started().scheduled("work").scheduled("work").awaited("Go")
    history.failed(1, "IndexError", "later argument").failed(0, "KeyError", "first argument").raised("Go")

    assert replay(orchestrator, history).failure.cause.message == "first argument"


def shapes_yield(context: OrchestrationContext):
    empty = yield context.task_all([])
    several = yield context.task_all(context.create_timer(1), context.wait_for_external_event("Go"))
    return [empty, type(several).__name__]


async def shapes_async(context: OrchestrationContext):
    empty = await context.task_all([])
    several = await context.task_all(context.create_timer(1), context.wait_for_external_event("Go"))
    return [empty, type(several).__name__]


@both(shapes_yield, shapes_async)
def test_a_list_gives_a_list_and_several_arguments_a_tuple(orchestrator):
    history = HistoryBuilder().started().timer(1).awaited("Go").raised("Go").fired(0)

    assert replay(orchestrator, history).output == [[], "tuple"]


def race_yield(context: OrchestrationContext):
    work, deadline = context.call_activity("work"), context.create_timer(60)
    winner = yield context.task_any([work, deadline])
    if winner is work:
        deadline.cancel()
        return winner.result
    return "late"


async def race_async(context: OrchestrationContext):
    work, deadline = context.call_activity("work"), context.create_timer(60)
    winner = await context.task_any([work, deadline])
    if winner is work:
        deadline.cancel()
        return winner.result
    return "late"


def race() -> HistoryBuilder:
    return HistoryBuilder().started().scheduled("work").timer(60)


@both(race_yield, race_async)
def test_task_any_gives_the_winner_and_a_cancelled_timer_is_in_history(orchestrator):
    done = replay(orchestrator, race().completed(0, "quick"))

    assert done.decisions[0] == ev.TimerCanceled(timer_id=1)
    assert done.output == "quick"


@both(race_yield, race_async)
def test_the_timer_wins_when_it_fires_first(orchestrator):
    assert replay(orchestrator, race().fired(1)).output == "late"


@both(race_yield, race_async)
def test_task_any_never_raises_and_the_result_of_a_failed_winner_does(orchestrator):
    done = replay(orchestrator, race().failed(0, "ValueError", "no"))

    assert done.decisions[0] == ev.TimerCanceled(timer_id=1)
    assert done.failure.cause.message == "no"


def any_of_none_yield(context: OrchestrationContext):
    yield context.task_any([])


async def any_of_none_async(context: OrchestrationContext):
    await context.task_any([])


@both(any_of_none_yield, any_of_none_async)
def test_task_any_of_nothing_is_refused_because_nothing_could_complete_it(orchestrator):
    assert "at least one task" in replay(orchestrator, HistoryBuilder().started()).failure.message


def pending_result_yield(context: OrchestrationContext):
    task = context.call_activity("work")
    yield context.create_timer(0)
    return task.result


async def pending_result_async(context: OrchestrationContext):
    task = context.call_activity("work")
    await context.create_timer(0)
    return task.result


@both(pending_result_yield, pending_result_async)
def test_the_result_of_a_pending_task_says_to_wait_for_it(orchestrator):
    history = HistoryBuilder().started().scheduled("work").timer(0).fired(1)

    failure = replay(orchestrator, history).failure

    assert failure.type == "perdure.errors.OrchestratorError"
    assert "not completed yet" in failure.message


def cancel_child_yield(context: OrchestrationContext):
    context.call_sub_orchestrator("ship").cancel()
    yield context.create_timer(0)


async def cancel_child_async(context: OrchestrationContext):
    context.call_sub_orchestrator("ship").cancel()
    await context.create_timer(0)


@both(cancel_child_yield, cancel_child_async)
def test_a_sub_orchestration_cannot_be_cancelled_and_the_error_names_it(orchestrator):
    assert "'ship' cannot be cancelled" in replay(orchestrator, HistoryBuilder().started()).failure.message


def cancel_activity_yield(context: OrchestrationContext):
    task = context.call_activity("work")
    yield context.create_timer(60)
    task.cancel()
    task.cancel()
    try:
        yield task
    except TaskCancelled as error:
        return [task.is_cancelled, str(error)]


async def cancel_activity_async(context: OrchestrationContext):
    task = context.call_activity("work")
    await context.create_timer(60)
    task.cancel()
    task.cancel()
    try:
        await task
    except TaskCancelled as error:
        return [task.is_cancelled, str(error)]


@both(cancel_activity_yield, cancel_activity_async)
def test_a_cancelled_activity_is_recorded_once_and_waiting_for_it_says_so(orchestrator):
    history = HistoryBuilder().started().scheduled("work").timer(60).fired(1)

    done = replay(orchestrator, history)

    assert done.decisions[0] == ev.TaskCanceled(task_id=0)
    assert done.output == [True, "Activity function 'work' was cancelled"]


@both(cancel_activity_yield, cancel_activity_async)
def test_code_that_cancels_where_history_did_not_disagrees(orchestrator):
    history = (
        HistoryBuilder().started().scheduled("work").timer(60).fired(1).scheduled("work").completed(2, 1)
    )

    error = check_history(orchestrator, history)

    assert "the code now does: cancel an activity" in str(error)


def cancel_retry_yield(context: OrchestrationContext):
    task = context.call_activity("work", retry=RetryPolicy(first_interval=5, max_attempts=3))
    yield context.wait_for_external_event("Stop")
    task.cancel()
    return task.is_cancelled


async def cancel_retry_async(context: OrchestrationContext):
    task = context.call_activity("work", retry=RetryPolicy(first_interval=5, max_attempts=3))
    await context.wait_for_external_event("Stop")
    task.cancel()
    return task.is_cancelled


@both(cancel_retry_yield, cancel_retry_async)
@pytest.mark.parametrize("phase", ["first attempt", "pause", "second attempt"])
def test_cancelling_a_retried_call_cancels_what_it_is_at(orchestrator, phase):
    history = HistoryBuilder().started().scheduled("work").awaited("Stop")
    expected = ev.TaskCanceled(task_id=0)
    if phase != "first attempt":
        history = history.failed(0, "ValueError").timer(5, purpose="retry", of=0)
        expected = ev.TimerCanceled(timer_id=2)
    if phase == "second attempt":
        history = history.fired(2).scheduled("work", call=0, attempt=2)
        expected = ev.TaskCanceled(task_id=3)

    done = replay(orchestrator, history.raised("Stop"))

    assert done.decisions[0] == expected
    assert done.output is True


def await_cancelled_yield(context: OrchestrationContext):
    timer = context.create_timer(60)
    timer.cancel()
    yield timer


async def await_cancelled_async(context: OrchestrationContext):
    timer = context.create_timer(60)
    timer.cancel()
    await timer


@both(await_cancelled_yield, await_cancelled_async)
def test_waiting_for_a_cancelled_timer_fails(orchestrator):
    assert "was cancelled" in replay(orchestrator, HistoryBuilder().started()).failure.message


def branch_yield(context, name):
    first = yield context.call_activity(name, 1)
    second = yield context.call_activity(name, first)
    return second


async def branch_async(context, name):
    first = await context.call_activity(name, 1)
    second = await context.call_activity(name, first)
    return second


def spawn_yield(context: OrchestrationContext):
    a, b = context.spawn(branch_yield(context, "left")), context.spawn(branch_yield(context, "right"))
    return (yield context.task_all(a, b))


async def spawn_async(context: OrchestrationContext):
    a, b = context.spawn(branch_async(context, "left")), context.spawn(branch_async(context, "right"))
    return await context.task_all(a, b)


@both(spawn_yield, spawn_async)
def test_spawned_branches_advance_independently_of_each_other(orchestrator):
    history = HistoryBuilder().started().scheduled("left").scheduled("right")
    history.completed(1, 10).scheduled("right").completed(2, 20).completed(0, 1).scheduled("left")

    assert replay(orchestrator, history.completed(3, 2)).output == [2, 20]


def fire_and_forget_yield(context: OrchestrationContext):
    context.spawn(branch_yield(context, "left"))
    yield context.create_timer(60)
    return "done"


async def fire_and_forget_async(context: OrchestrationContext):
    context.spawn(branch_async(context, "left"))
    await context.create_timer(60)
    return "done"


@both(fire_and_forget_yield, fire_and_forget_async)
def test_a_branch_still_running_at_the_end_is_given_up(orchestrator):
    history = HistoryBuilder().started().scheduled("left").timer(60).fired(1)

    assert replay(orchestrator, history).output == "done"


@both(fire_and_forget_yield, fire_and_forget_async)
def test_a_failed_branch_nobody_awaits_fails_the_orchestration(orchestrator):
    history = HistoryBuilder().started().scheduled("left").timer(60).failed(0, "ValueError", "lost?").fired(1)

    failure = replay(orchestrator, history).failure

    assert failure.cause.message == "lost?"


def observed_failure_yield(context: OrchestrationContext):
    branch = context.spawn(branch_yield(context, "left"))
    winner = yield context.task_any([branch])
    return ["failed", winner.is_faulted]


async def observed_failure_async(context: OrchestrationContext):
    branch = context.spawn(branch_async(context, "left"))
    winner = await context.task_any([branch])
    return ["failed", winner.is_faulted]


@both(observed_failure_yield, observed_failure_async)
def test_a_failed_branch_that_won_task_any_counts_as_looked_at(orchestrator):
    history = HistoryBuilder().started().scheduled("left").failed(0)

    assert replay(orchestrator, history).output == ["failed", True]
