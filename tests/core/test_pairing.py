"""Which wait takes an event when several are open: one that the code still awaits, before those it has left."""

import pytest

from perdure.model import events as ev
from perdure.replay.context import OrchestrationContext
from perdure.replay.state import fold
from perdure.testing import HistoryBuilder, replay
from tests.core.styles import both


def started(pairing: int = ev.AWAITED) -> HistoryBuilder:
    return HistoryBuilder().started(pairing=pairing)


def rounds_yield(context: OrchestrationContext):
    for number in range(5):
        stop = context.wait_for_external_event("Stop", int)
        timer = context.create_timer(60)
        if (yield context.task_any([stop, timer])) is stop:
            return [number, stop.result]
        yield context.call_activity("check")


async def rounds_async(context: OrchestrationContext):
    for number in range(5):
        stop = context.wait_for_external_event("Stop", int)
        timer = context.create_timer(60)
        if await context.task_any([stop, timer]) is stop:
            return [number, stop.result]
        await context.call_activity("check")


def second_round(pairing: int = ev.AWAITED) -> HistoryBuilder:
    first = started(pairing).awaited("Stop").timer(60).fired(1).scheduled("check").completed(2)
    return first.awaited("Stop").timer(60)


@both(rounds_yield, rounds_async)
def test_the_wait_that_the_code_awaits_takes_the_event(orchestrator):
    done = replay(orchestrator, second_round().raised("stop", 7))

    assert done.output == [1, 7]
    assert done.decisions[0] == ev.EventTaken(wait_id=3, event=0)


@both(rounds_yield, rounds_async)
def test_histories_of_the_older_rule_give_the_oldest_wait_the_event(orchestrator):
    done = replay(orchestrator, second_round(ev.OLDEST).raised("Stop", 7))

    assert done.ending is None
    assert done.decisions == ()


@both(rounds_yield, rounds_async)
def test_an_event_that_came_between_two_rounds_is_passed_on(orchestrator):
    between = started().awaited("Stop").timer(60).fired(1).scheduled("check").raised("Stop", 7)

    done = replay(orchestrator, between.completed(2))

    assert done.output == [1, 7]
    assert done.decisions[:2] == (ev.EventAwaited(id=3, name="Stop"), ev.WaitCanceled(wait_id=0))


@both(rounds_yield, rounds_async)
def test_history_alone_tells_which_wait_took_it(orchestrator):
    history = second_round().raised("Stop", 7)
    before = fold(history.episodes)
    after = fold(history.taken(3, 0).episodes)

    assert (set(before.waits), len(before.buffered)) == ({0, 3}, 1)  # until the decision behind it
    assert (set(after.waits), after.buffered, after.problems) == ({0}, [], [])


def looks_later_yield(context: OrchestrationContext):
    stop = context.wait_for_external_event("Stop")
    yield context.task_any([stop, context.create_timer(60)])
    yield context.call_activity("check")
    return stop.result if stop.is_completed else "none"


async def looks_later_async(context: OrchestrationContext):
    stop = context.wait_for_external_event("Stop")
    await context.task_any([stop, context.create_timer(60)])
    await context.call_activity("check")
    return stop.result if stop.is_completed else "none"


@both(looks_later_yield, looks_later_async)
def test_a_wait_that_lost_has_its_event_when_it_is_looked_at_later(orchestrator):
    history = started().awaited("Stop").timer(60).fired(1).scheduled("check").raised("Stop", 7).completed(2)

    assert replay(orchestrator, history).output == 7


def timed_rounds_yield(context: OrchestrationContext):
    for number in range(5):
        go = context.wait_for_external_event("Go", int, timeout=600, default=-1)
        if (yield context.task_any([go, context.create_timer(60)])) is go:
            return [number, go.result]
        yield context.call_activity("check")


async def timed_rounds_async(context: OrchestrationContext):
    for number in range(5):
        go = context.wait_for_external_event("Go", int, timeout=600, default=-1)
        if await context.task_any([go, context.create_timer(60)]) is go:
            return [number, go.result]
        await context.call_activity("check")


@both(timed_rounds_yield, timed_rounds_async)
@pytest.mark.parametrize("comes_between", [True, False])
def test_waits_with_a_deadline_are_left_behind_alike(orchestrator, comes_between):
    first = started().awaited("Go", timeout=600).timer(60).fired(2).scheduled("check")
    if comes_between:
        history = first.raised("Go", 7).timer_cancelled(1).completed(3)
    else:
        history = first.completed(3).awaited("Go", timeout=600).timer(60).raised("Go", 7)

    assert replay(orchestrator, history).output == [1, 7]


def branch_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go"))


async def branch_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go")


def branches_yield(context: OrchestrationContext):
    for number in range(5):
        branch = context.spawn(branch_yield(context))
        if (yield context.task_any([context.task_all([branch]), context.create_timer(60)])) is not None:
            if branch.is_completed:
                return [number, branch.result]


async def branches_async(context: OrchestrationContext):
    for number in range(5):
        branch = context.spawn(branch_async(context))
        if await context.task_any([context.task_all([branch]), context.create_timer(60)]) is not None:
            if branch.is_completed:
                return [number, branch.result]


@both(branches_yield, branches_async)
def test_a_branch_that_lost_waits_behind_one_that_is_awaited(orchestrator):
    history = started().awaited("Go").timer(60).fired(1).awaited("Go").timer(60).raised("Go", 7)

    assert replay(orchestrator, history).output == [1, 7]


def two_shapes_yield(context: OrchestrationContext):
    number = context.wait_for_external_event("Go", int)
    text = context.wait_for_external_event("Go", str)
    return (yield context.task_all([number, text]))


async def two_shapes_async(context: OrchestrationContext):
    number = context.wait_for_external_event("Go", int)
    text = context.wait_for_external_event("Go", str)
    return await context.task_all([number, text])


@both(two_shapes_yield, two_shapes_async)
def test_the_oldest_wait_that_an_event_fits_takes_it(orchestrator):
    history = started().awaited("Go").awaited("Go").raised("Go", "five").taken(1, 0).raised("Go", 5)

    assert replay(orchestrator, history).output == [5, "five"]


@both(two_shapes_yield, two_shapes_async)
def test_an_event_that_fits_no_wait_is_rejected_once(orchestrator):
    done = replay(orchestrator, started().awaited("Go").awaited("Go").raised("Go", [1]))

    (rejected,) = done.decisions
    assert isinstance(rejected, ev.EventRejected)
    assert (rejected.wait_id, rejected.event) == (0, 0)
    assert "does not fit" in rejected.reason


@both(two_shapes_yield, two_shapes_async)
def test_two_waits_that_are_awaited_take_events_in_their_order(orchestrator):
    history = HistoryBuilder().started(pairing=ev.AWAITED, carried=(("Go", 1),)).awaited("Go").awaited("Go")

    assert replay(orchestrator, history.raised("Go", "b")).output == [1, "b"]
