"""What comes out the same in replay, and what is said when something does not."""

import random
import uuid
from datetime import UTC, datetime

import pytest

from perdure.errors import NonDeterminismError
from perdure.replay.context import OrchestrationContext
from perdure.testing import START, HistoryBuilder, check_history, replay
from tests.core.styles import both


def started() -> HistoryBuilder:
    return HistoryBuilder().started()


def disagreement(orchestrator, history) -> NonDeterminismError:
    error = check_history(orchestrator, history)
    assert error is not None
    return error


def assess_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("assess")
        yield context.create_timer(10)
        yield context.wait_for_external_event("Go")
    except BaseException:
        return "swallowed"


async def assess_async(context: OrchestrationContext):
    try:
        await context.call_activity("assess")
        await context.create_timer(10)
        await context.wait_for_external_event("Go")
    except Exception:
        return "swallowed"


@both(assess_yield, assess_async)
def test_the_same_code_agrees_with_its_history(orchestrator):
    assert check_history(orchestrator, started().scheduled("assess").completed(0).timer(10)) is None


@both(assess_yield, assess_async)
def test_a_renamed_activity_is_explained_with_expected_found_and_line(orchestrator):
    error = disagreement(orchestrator, started().scheduled("evaluate"))

    assert error.expected == "call the activity 'evaluate' (id 0)"
    assert error.found == "call the activity 'assess' (id 0)"
    assert error.where.startswith(f"{__file__}:")
    assert f"in {orchestrator.__name__}" in error.where
    assert "renamed" in str(error)
    assert "resume" in str(error)


@both(assess_yield, assess_async)
def test_another_kind_of_call_is_found(orchestrator):
    error = disagreement(orchestrator, started().timer(10))

    assert (error.expected, error.found) == ("create a timer (id 0)", "call the activity 'assess' (id 0)")


@both(assess_yield, assess_async)
def test_an_added_call_is_found_where_history_has_nothing(orchestrator):
    error = disagreement(orchestrator, started().scheduled("assess").completed(0).completed(7))

    assert error.expected == "nothing more before the next event arrived"
    assert error.found == "create a timer (id 1)"


@both(assess_yield, assess_async)
def test_a_removed_call_is_found_when_the_code_does_nothing_more(orchestrator):
    error = disagreement(orchestrator, started().scheduled("assess").scheduled("notify"))

    assert error.expected == "call the activity 'notify' (id 1)"
    assert error.found == "it did nothing more"


@both(assess_yield, assess_async)
def test_code_that_fails_where_history_went_on_is_found_and_not_recorded_as_a_failure(orchestrator):
    error = disagreement(orchestrator, started().scheduled("assess").completed(0).awaited("Go"))

    assert error.expected == "wait for the event 'Go' (id 1)"


def inputs_yield(context: OrchestrationContext):
    yield context.call_activity("a", {"another": "input"}, timeout=7)
    yield context.create_timer(999)


async def inputs_async(context: OrchestrationContext):
    await context.call_activity("a", {"another": "input"}, timeout=7)
    await context.create_timer(999)


@both(inputs_yield, inputs_async)
def test_inputs_and_durations_may_change_with_a_deploy(orchestrator):
    history = started().scheduled("a", "the old input").completed(0).timer(1)

    assert check_history(orchestrator, history) is None


def instants_yield(context: OrchestrationContext):
    before = context.current_utc_datetime
    yield context.call_activity("a")
    return [before, context.current_utc_datetime, context.is_replaying]


async def instants_async(context: OrchestrationContext):
    before = context.current_utc_datetime
    await context.call_activity("a")
    return [before, context.current_utc_datetime, context.is_replaying]


@both(instants_yield, instants_async)
def test_the_time_is_that_of_the_episode_also_in_replay(orchestrator):
    history = started().scheduled("a").later(90).completed(0)

    assert replay(orchestrator, history).output == ["2026-01-01T09:00:00Z", "2026-01-01T09:01:30Z", False]


@both(instants_yield, instants_async)
def test_the_time_never_goes_back(orchestrator):
    history = started().scheduled("a").later(-90).completed(0)

    assert replay(orchestrator, history).output[1] == "2026-01-01T09:00:00Z"


def replaying_yield(context: OrchestrationContext):
    flags = [context.is_replaying]
    yield context.call_activity("a")
    flags.append(context.is_replaying)
    yield context.call_activity("b")
    return [*flags, context.is_replaying]


async def replaying_async(context: OrchestrationContext):
    flags = [context.is_replaying]
    await context.call_activity("a")
    flags.append(context.is_replaying)
    await context.call_activity("b")
    return [*flags, context.is_replaying]


@both(replaying_yield, replaying_async)
def test_is_replaying_is_true_for_all_but_the_last_arrival(orchestrator):
    history = started().scheduled("a").completed(0).scheduled("b").completed(1)

    assert replay(orchestrator, history).output == [True, True, False]


def chance_yield(context: OrchestrationContext):
    drawn = [context.random().random(), context.new_uuid(), str(context.new_guid())]
    yield context.call_activity("a")
    return [*drawn, context.random().random(), context.new_uuid(), str(context.new_guid())]


async def chance_async(context: OrchestrationContext):
    drawn = [context.random().random(), context.new_uuid(), str(context.new_guid())]
    await context.call_activity("a")
    return [*drawn, context.random().random(), context.new_uuid(), str(context.new_guid())]


@both(chance_yield, chance_async)
def test_random_numbers_and_uuids_are_the_same_again_and_all_different(orchestrator):
    history = started().scheduled("a").completed(0)

    first, second = replay(orchestrator, history).output, replay(orchestrator, history).output

    assert first == second
    assert len(set(first)) == 6
    assert uuid.UUID(first[1]).version == 5


@both(chance_yield, chance_async)
def test_another_execution_draws_other_numbers(orchestrator):
    history = started().scheduled("a").completed(0)

    here = replay(orchestrator, history, execution_id="1").output
    there = replay(orchestrator, history, execution_id="2").output

    assert here[0] != there[0]


def unstable_yield(context: OrchestrationContext):
    yield context.call_activity(random.choice(["a", "b"]) if context.is_replaying else "c")


async def unstable_async(context: OrchestrationContext):
    await context.call_activity(random.choice(["a", "b"]) if context.is_replaying else "c")


@both(unstable_yield, unstable_async)
def test_code_that_depends_on_chance_is_told_what_to_use_instead(orchestrator):
    error = disagreement(orchestrator, started().timer(1))

    assert "context.random()" in str(error)


def naive_yield(context: OrchestrationContext):
    yield context.create_timer(datetime(2026, 1, 1))


async def naive_async(context: OrchestrationContext):
    await context.create_timer(datetime(2026, 1, 1))


@both(naive_yield, naive_async)
def test_a_naive_datetime_is_refused_with_what_to_write(orchestrator):
    assert "current_utc_datetime + timedelta" in replay(orchestrator, started()).failure.message


@pytest.mark.parametrize("duration", [float("nan"), float("inf"), 1e12])
def test_a_duration_that_is_none_is_refused(duration):
    def orchestrator(context: OrchestrationContext):
        yield context.create_timer(duration)

    assert "finite number of seconds" in replay(orchestrator, started()).failure.message


def test_a_timer_may_name_an_instant_in_any_zone():
    def orchestrator(context: OrchestrationContext):
        yield context.create_timer(datetime.fromisoformat("2026-01-01T12:00:00+02:00"))

    (timer,) = replay(orchestrator, started()).decisions

    assert timer.fire_at == int(datetime(2026, 1, 1, 10, tzinfo=UTC).timestamp()) * 1_000_000
    assert timer.fire_at > int(START.timestamp()) * 1_000_000
