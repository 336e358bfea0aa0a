"""Retries as history shows them: a failure, a timer, the call again, under one logical call."""

from perdure import RetryPolicy
from perdure.failure import Failure
from perdure.model import events as ev
from perdure.replay.context import OrchestrationContext
from perdure.testing import HistoryBuilder, replay
from tests.core.styles import both

POLICY = RetryPolicy(first_interval=10, backoff=2, max_attempts=3, non_retryable=("Declined",))
JITTERED = RetryPolicy(first_interval=100, jitter=0.5, max_attempts=3)


def pay_yield(context: OrchestrationContext):
    return (yield context.call_activity("pay", 5, retry=POLICY, timeout=30))


async def pay_async(context: OrchestrationContext):
    return await context.call_activity("pay", 5, retry=POLICY, timeout=30)


def failed_once() -> HistoryBuilder:
    return HistoryBuilder().started().scheduled("pay", 5).failed(0, "ValueError", "down")


@both(pay_yield, pay_async)
def test_a_failure_creates_a_timer_for_the_next_attempt(orchestrator):
    history = failed_once()

    (timer,) = replay(orchestrator, history).decisions

    assert timer == ev.TimerCreated(id=1, fire_at=history.episodes[-1][0] + 10_000_000, purpose="retry", of=0)


@both(pay_yield, pay_async)
def test_the_next_attempt_names_the_first_as_its_call(orchestrator):
    history = failed_once().timer(10, purpose="retry", of=0).fired(1)

    (again,) = replay(orchestrator, history).decisions

    assert (again.id, again.call, again.attempt) == (2, 0, 2)
    assert (again.name, bytes(again.input), again.timeout) == ("pay", b"5", 30_000_000)


@both(pay_yield, pay_async)
def test_the_second_pause_is_longer(orchestrator):
    history = failed_once().timer(10, purpose="retry", of=0).fired(1)
    history.scheduled("pay", 5, call=0, attempt=2).failed(2)

    (timer,) = replay(orchestrator, history).decisions

    assert timer.fire_at - history.episodes[-1][0] == 20_000_000


@both(pay_yield, pay_async)
def test_after_the_last_attempt_its_failure_is_raised(orchestrator):
    history = failed_once().timer(10, purpose="retry", of=0).fired(1)
    history.scheduled("pay", 5, call=0, attempt=2).failed(2).timer(20, purpose="retry", of=0).fired(3)
    history.scheduled("pay", 5, call=0, attempt=3).failed(4, "ValueError", "for the third time")

    assert replay(orchestrator, history).failure.cause.message == "for the third time"


@both(pay_yield, pay_async)
def test_an_error_not_to_retry_is_raised_at_once(orchestrator):
    history = HistoryBuilder().started().scheduled("pay", 5).failed(0, "bank.Declined", "no cover")

    assert replay(orchestrator, history).failure.cause.type == "bank.Declined"


@both(pay_yield, pay_async)
def test_what_history_did_about_a_failure_counts_and_not_todays_policy(orchestrator):
    history = failed_once().timer(77, purpose="retry", of=0).fired(1)

    (again,) = replay(orchestrator, history).decisions

    assert again.attempt == 2
    assert history.episodes[-1][0] - history.episodes[0][0] == 77_000_000


def gives_up_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("pay", retry=RetryPolicy(max_attempts=9))
    except Exception:
        return (yield context.call_activity("refund"))


async def gives_up_async(context: OrchestrationContext):
    try:
        await context.call_activity("pay", retry=RetryPolicy(max_attempts=9))
    except Exception:
        return await context.call_activity("refund")


@both(gives_up_yield, gives_up_async)
def test_a_call_that_history_gave_up_stays_given_up_under_a_more_patient_policy(orchestrator):
    history = HistoryBuilder().started().scheduled("pay").failed(0).scheduled("refund").completed(1, "ok")

    assert replay(orchestrator, history).output == "ok"


def jitter_yield(context: OrchestrationContext):
    yield context.call_activity("pay", retry=JITTERED)


async def jitter_async(context: OrchestrationContext):
    await context.call_activity("pay", retry=JITTERED)


@both(jitter_yield, jitter_async)
def test_jitter_is_drawn_from_the_instance_and_recorded_as_the_timers_due_time(orchestrator):
    history = HistoryBuilder().started().scheduled("pay").failed(0)

    drawn = {replay(orchestrator, history, instance_id=name).decisions[0].fire_at for name in "abc"}
    again = {replay(orchestrator, history, instance_id=name).decisions[0].fire_at for name in "abc"}

    assert drawn == again
    assert len(drawn) == 3


def child_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("child", retry=POLICY))


async def child_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("child", retry=POLICY)


@both(child_yield, child_async)
def test_a_sub_orchestration_is_retried_as_a_new_run(orchestrator):
    history = HistoryBuilder().started().child("child").child_failed(0, Failure("ValueError"))
    history.timer(10, purpose="retry", of=0).fired(1)

    (again,) = replay(orchestrator, history).decisions

    assert isinstance(again, ev.SubOrchestrationCreated)
    assert (again.call, again.attempt) == (0, 2)
    assert again.instance_id.endswith(".2")
