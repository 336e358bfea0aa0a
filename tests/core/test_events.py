"""External events in the core: kept before the wait, oldest first, once each, typed, with deadlines."""

from dataclasses import dataclass
from datetime import timedelta

from perdure.model import events as ev
from perdure.replay.context import OrchestrationContext
from perdure.replay.decide import Code, Execution
from perdure.replay.environment import Identity
from perdure.testing import HistoryBuilder, replay
from perdure.testing.replaying import _Lenient
from tests.core.styles import both


@dataclass
class Decision:
    approved: bool


def started() -> HistoryBuilder:
    return HistoryBuilder().started()


def two_waits_yield(context: OrchestrationContext):
    first, second = context.wait_for_external_event("Go"), context.wait_for_external_event("Go")
    return (yield context.task_all([first, second]))


async def two_waits_async(context: OrchestrationContext):
    first, second = context.wait_for_external_event("Go"), context.wait_for_external_event("Go")
    return await context.task_all([first, second])


@both(two_waits_yield, two_waits_async)
def test_the_oldest_waiter_gets_the_oldest_event(orchestrator):
    history = started().awaited("Go").awaited("Go").raised("Go", 1).raised("Go", 2)

    assert replay(orchestrator, history).output == [1, 2]


def late_wait_yield(context: OrchestrationContext):
    yield context.create_timer(60)
    first = yield context.wait_for_external_event("Go")
    second = yield context.wait_for_external_event("Go")
    return [first, second]


async def late_wait_async(context: OrchestrationContext):
    await context.create_timer(60)
    first = await context.wait_for_external_event("Go")
    second = await context.wait_for_external_event("Go")
    return [first, second]


@both(late_wait_yield, late_wait_async)
def test_events_raised_before_the_wait_are_kept_in_order(orchestrator):
    history = started().timer(60).raised("Go", 1).raised("Other").raised("Go", 2).fired(0)

    assert replay(orchestrator, history).output == [1, 2]


@both(late_wait_yield, late_wait_async)
def test_names_of_events_match_without_regard_to_case(orchestrator):
    history = started().timer(60).raised("go", 1).raised("GO", 2).fired(0)

    assert replay(orchestrator, history).output == [1, 2]


def deadline_yield(context: OrchestrationContext):
    try:
        return (yield context.wait_for_external_event("Go", timeout=timedelta(hours=72)))
    except TimeoutError as error:
        return str(error)


async def deadline_async(context: OrchestrationContext):
    try:
        return await context.wait_for_external_event("Go", timeout=timedelta(hours=72))
    except TimeoutError as error:
        return str(error)


@both(deadline_yield, deadline_async)
def test_a_wait_with_a_timeout_is_a_wait_and_a_timer(orchestrator):
    done = replay(orchestrator, started())

    wait, timer = done.decisions
    assert (wait.name, timer.purpose, timer.of) == ("Go", "timeout", wait.id)
    assert wait.deadline == timer.fire_at


@both(deadline_yield, deadline_async)
def test_an_event_in_time_cancels_the_timer(orchestrator):
    done = replay(orchestrator, started().awaited("Go", timeout=60).raised("Go", "yes"))

    assert done.decisions[0] == ev.TimerCanceled(timer_id=1)
    assert done.output == "yes"


@both(deadline_yield, deadline_async)
def test_a_deadline_raises_timeout_error_and_closes_the_wait(orchestrator):
    done = replay(orchestrator, started().awaited("Go", timeout=60).fired(1))

    assert done.decisions[0] == ev.WaitCanceled(wait_id=0)
    assert done.output == "the event 'Go' did not come before its deadline"


def default_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go", timeout=60, default=None))


async def default_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go", timeout=60, default=None)


@both(default_yield, default_async)
def test_a_default_of_none_is_a_default(orchestrator):
    done = replay(orchestrator, started().awaited("Go", timeout=60).fired(1))

    assert done.failure is None
    assert isinstance(done.ending, ev.ExecutionCompleted)


def typed_yield(context: OrchestrationContext):
    decision = yield context.wait_for_external_event("Decision", Decision)
    return [type(decision).__name__, decision.approved]


async def typed_async(context: OrchestrationContext):
    decision = await context.wait_for_external_event("Decision", Decision)
    return [type(decision).__name__, decision.approved]


@both(typed_yield, typed_async)
def test_an_event_arrives_as_the_type_it_is_waited_for(orchestrator):
    history = started().awaited("Decision").raised("Decision", {"approved": True})

    assert replay(orchestrator, history).output == ["Decision", True]


@both(typed_yield, typed_async)
def test_a_misfit_is_rejected_with_its_reason_and_the_wait_goes_on(orchestrator):
    history = started().awaited("Decision").raised("Decision", {"approved": "perhaps"})

    rejected = replay(orchestrator, history)

    (rejection,) = rejected.decisions
    assert (rejection.wait_id, rejection.name) == (0, "Decision")
    assert "approved" in rejection.reason
    history.rejected(0, "Decision").raised("Decision", {"approved": False})
    assert replay(orchestrator, history).output == ["Decision", False]


def cancelled_wait_yield(context: OrchestrationContext):
    first = context.wait_for_external_event("Go")
    yield context.create_timer(60)
    first.cancel()
    return (yield context.wait_for_external_event("Go"))


async def cancelled_wait_async(context: OrchestrationContext):
    first = context.wait_for_external_event("Go")
    await context.create_timer(60)
    first.cancel()
    return await context.wait_for_external_event("Go")


@both(cancelled_wait_yield, cancelled_wait_async)
def test_an_event_taken_by_a_wait_that_is_cancelled_unseen_goes_to_the_next(orchestrator):
    history = started().awaited("Go").timer(60).raised("Go", "kept").fired(1)

    done = replay(orchestrator, history)

    assert done.output == "kept"
    assert isinstance(done.decisions[0], ev.WaitCanceled)


@both(cancelled_wait_yield, cancelled_wait_async)
def test_a_cancelled_wait_takes_no_event_any_more(orchestrator):
    history = (
        started().awaited("Go").timer(60).fired(1).wait_cancelled(0).awaited("Go").raised("Go", "second")
    )

    assert replay(orchestrator, history).output == "second"


def race_of_waits_yield(context: OrchestrationContext):
    yes = context.wait_for_external_event("Yes")
    no = context.wait_for_external_event("No")
    winner = yield context.task_any([yes, no])
    loser = no if winner is yes else yes
    loser.cancel()
    context.continue_as_new("next")


async def race_of_waits_async(context: OrchestrationContext):
    yes = context.wait_for_external_event("Yes")
    no = context.wait_for_external_event("No")
    winner = await context.task_any([yes, no])
    loser = no if winner is yes else yes
    loser.cancel()
    context.continue_as_new("next")


@both(race_of_waits_yield, race_of_waits_async)
def test_continue_as_new_ends_the_execution_with_the_next_input(orchestrator):
    done = replay(orchestrator, started().awaited("Yes").awaited("No").raised("No"))

    assert done.decisions == (ev.WaitCanceled(wait_id=0), ev.ContinuedAsNew(input=done.ending.input))
    assert bytes(done.ending.input) == b'"next"'


def carried_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go"))


async def carried_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go")


@both(carried_yield, carried_async)
def test_events_carried_over_from_the_last_execution_are_there_at_once(orchestrator):
    history = HistoryBuilder().started(carried=(("Other", 0), ("Go", 1), ("Go", 2)))

    assert replay(orchestrator, history).output == 1


def nameless_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("")


async def nameless_async(context: OrchestrationContext):
    await context.wait_for_external_event("")


@both(nameless_yield, nameless_async)
def test_a_wait_needs_a_name(orchestrator):
    assert "1 to 200 printable characters" in replay(orchestrator, started()).failure.message


def waits_after_the_end_yield(context: OrchestrationContext):
    yield context.create_timer(60)
    context.continue_as_new(1)
    yield context.wait_for_external_event("Go")


async def waits_after_the_end_async(context: OrchestrationContext):
    await context.create_timer(60)
    context.continue_as_new(1)
    await context.wait_for_external_event("Go")


@both(waits_after_the_end_yield, waits_after_the_end_async)
def test_a_wait_begun_after_continue_as_new_takes_no_event_from_the_next_execution(orchestrator):
    execution = Execution(Code("o", orchestrator), Identity("i", "e"), _Lenient())
    history = started().timer(60).raised("Go", "for the next").fired(0)
    for event in (arrival for _, (arrival, *_) in history.episodes):
        execution.arrive(event)

    assert execution.is_finished
    assert [bytes(event.input) for event in execution.context._unconsumed()] == [b'"for the next"']
    execution.close()


def gives_back_yield(context: OrchestrationContext):
    first = context.wait_for_external_event("Go")
    yield context.create_timer(60)
    first.cancel()
    one = yield context.wait_for_external_event("Go")
    two = yield context.wait_for_external_event("Go")
    return [one, two]


async def gives_back_async(context: OrchestrationContext):
    first = context.wait_for_external_event("Go")
    await context.create_timer(60)
    first.cancel()
    one = await context.wait_for_external_event("Go")
    two = await context.wait_for_external_event("Go")
    return [one, two]


@both(gives_back_yield, gives_back_async)
def test_an_event_given_back_keeps_its_place_before_later_ones(orchestrator):
    history = started().awaited("Go").timer(60).raised("Go", 1).raised("Go", 2).fired(1)

    assert replay(orchestrator, history).output == [1, 2]
