"""External events in a living engine: accepted is kept, each is taken once, the door refuses what does not fit."""

from dataclasses import dataclass

import pytest

from perdure import (
    EventRefused,
    InstanceFinished,
    InstanceNotFound,
    Limits,
    OrchestrationContext,
    OrchestratorError,
    Overloaded,
    PayloadError,
    RuntimeStatus,
    Settings,
)
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


@dataclass
class Decision:
    approved: bool


def wait_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go"))


async def wait_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go")


@both(wait_yield, wait_async)
async def test_an_event_completes_the_wait_with_its_data(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go", {"by": "Ann"})

        assert (await env.client.wait_for_completion(instance)).output == {"by": "Ann"}


def late_yield(context: OrchestrationContext):
    yield context.create_timer(3600)
    first = yield context.wait_for_external_event("Go")
    second = yield context.wait_for_external_event("Go")
    return [first, second]


async def late_async(context: OrchestrationContext):
    await context.create_timer(3600)
    first = await context.wait_for_external_event("Go")
    second = await context.wait_for_external_event("Go")
    return [first, second]


@both(late_yield, late_async)
@pytest.mark.parametrize("between", ["nothing", "eviction", "restart"])
async def test_event_raised_before_the_wait_is_kept(orchestrator, between):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        for n in (1, 2, 3):
            await env.client.raise_event(instance, "Go", n)
        if between == "eviction":
            await env.evict()
        elif between == "restart":
            await env.restart()

        assert (await env.client.wait_for_completion(instance)).output == [1, 2]
        assert [row.body for row in env.store.dropped(instance, 10)] == [b"3"]


def deadline_yield(context: OrchestrationContext):
    try:
        return (yield context.wait_for_external_event("Go", timeout=259_200))
    except TimeoutError:
        return "expired"


async def deadline_async(context: OrchestrationContext):
    try:
        return await context.wait_for_external_event("Go", timeout=259_200)
    except TimeoutError:
        return "expired"


@both(deadline_yield, deadline_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_a_wait_of_72_hours_expires_to_the_second(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        instance = await env.client.start_new("main")
        await env.advance(hours=72, seconds=-1)
        waiting = await env.client.get_status(instance)
        await env.advance(seconds=1)
        expired = await env.client.get_status(instance)

    assert waiting.runtime_status is RuntimeStatus.Running
    assert waiting.waiting_for == (
        "waiting for the event 'Go' since 2026-01-01 09:00:00 UTC, until 2026-01-04 09:00:00 UTC"
    )
    assert expired.output == "expired"


@both(deadline_yield, deadline_async)
async def test_an_event_in_time_wins_over_the_deadline(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.advance(hours=71)
        await env.client.raise_event(instance, "Go", "yes")
        status = await env.client.wait_for_completion(instance)
        await env.advance(hours=10)

        assert status.output == "yes"
        assert (env.now - status.completed_time).total_seconds() == 36_000


def default_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go", timeout=1, default="nobody"))


async def default_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go", timeout=1, default="nobody")


@both(default_yield, default_async)
async def test_a_default_is_given_instead_of_an_error(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        assert (await env.run("main")).output == "nobody"


# ------------------------------------------------------------------------------------------------ the door


@both(wait_yield, wait_async)
async def test_the_door_refuses_names_that_were_not_declared(orchestrator):
    async with environment(app_with(orchestrator, events={"Go": int})) as env:
        instance = await env.client.start_new("main")

        with pytest.raises(EventRefused, match=r"'main' admits 'Go'; 'Stop' is not among them"):
            await env.client.raise_event(instance, "Stop", 1)
        await env.client.raise_event(instance, "go", 1)

        assert (await env.client.wait_for_completion(instance)).output == 1


@both(wait_yield, wait_async)
async def test_the_door_refuses_a_wrong_shape_and_names_the_pointer(orchestrator):
    async with environment(app_with(orchestrator, events={"Go": Decision})) as env:
        instance = await env.client.start_new("main")

        with pytest.raises(EventRefused, match="declared shape") as refused:
            await env.client.raise_event(instance, "Go", {"approved": "perhaps"})

        assert refused.value.pointer == "/approved"
        assert (await env.client.get_status(instance)).runtime_status is RuntimeStatus.Running
        assert env.store.dropped(instance, 10) == []


def approvals_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event(f"Approval-{context.instance_id}"))


async def approvals_async(context: OrchestrationContext):
    return await context.wait_for_external_event(f"Approval-{context.instance_id}")


@both(approvals_yield, approvals_async)
async def test_a_star_at_the_end_admits_names_made_for_one_instance(orchestrator):
    async with environment(app_with(orchestrator, events={"Approval-*": bool})) as env:
        await env.client.start_new("main", "c[1]")
        with pytest.raises(EventRefused):
            await env.client.raise_event("c[1]", "Rejection-c[1]", True)
        with pytest.raises(EventRefused):
            await env.client.raise_event("c[1]", "Approval-c[1]", "yes")
        await env.client.raise_event("c[1]", "Approval-c[1]", True)

        assert (await env.client.wait_for_completion("c[1]")).output is True


def sleep_yield(context: OrchestrationContext):
    yield context.create_timer(60)


async def sleep_async(context: OrchestrationContext):
    await context.create_timer(60)


@both(sleep_yield, sleep_async)
async def test_an_empty_door_admits_nothing(orchestrator):
    async with environment(app_with(orchestrator, events={})) as env:
        instance = await env.client.start_new("main")

        with pytest.raises(EventRefused, match="admits no events at all"):
            await env.client.raise_event(instance, "Go")


@both(wait_yield, wait_async)
@pytest.mark.parametrize("events", [{}, {"Goo": int}, {"Go-*": int}])
async def test_a_wait_for_a_name_that_the_door_refuses_fails_where_it_is_written(orchestrator, events):
    async with environment(app_with(orchestrator, events=events)) as env:
        failure = (await env.run("main")).failure

    assert failure.type.endswith("OrchestratorError")
    assert failure.message.startswith("waiting for the event 'Go' would never end: 'main' admits ")


def stubborn_yield(context: OrchestrationContext):
    try:
        yield context.wait_for_external_event("Goo")
    except OrchestratorError as error:
        told = str(error)
    return [told[:27], (yield context.wait_for_external_event("go"))]


async def stubborn_async(context: OrchestrationContext):
    try:
        await context.wait_for_external_event("Goo")
    except OrchestratorError as error:
        told = str(error)
    return [told[:27], await context.wait_for_external_event("go")]


@both(stubborn_yield, stubborn_async)
async def test_code_that_handled_such_a_refusal_is_replayed(orchestrator):
    async with environment(app_with(orchestrator, events={"Go": int})) as env:
        await env.client.start_new("main", "m")
        await env.evict()
        await env.restart()
        await env.client.raise_event("m", "GO", 5)

        assert (await env.client.wait_for_completion("m")).output == ["waiting for the event 'Goo'", 5]


def later_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("Other")
    return (yield context.wait_for_external_event("Go"))


async def later_async(context: OrchestrationContext):
    await context.wait_for_external_event("Other")
    return await context.wait_for_external_event("Go")


@both(later_yield, later_async)
async def test_an_event_that_came_before_a_door_was_declared_is_taken(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "m")
        await env.client.raise_event("m", "Go", 5)
        await env.restart(app_with(orchestrator, events={"Other": int}))
        await env.client.raise_event("m", "Other", 1)

        assert (await env.client.wait_for_completion("m")).output == 5


@both(wait_yield, wait_async)
async def test_a_wait_of_before_a_door_was_declared_is_replayed(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "m")
        await env.restart(app_with(orchestrator, events={"Other": int}))
        await env.client.raise_event("m", "Other", 5)
        await env.settled()

        assert (await env.client.get_status("m")).runtime_status == "Running"


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, None])
async def test_a_name_no_wait_could_have_is_refused(name):
    async with environment(app_with(wait_async)) as env:
        instance = await env.client.start_new("main")

        with pytest.raises(PayloadError, match="event name"):
            await env.client.raise_event(instance, name)


def typed_yield(context: OrchestrationContext):
    yield context.create_timer(3600)
    decision = yield context.wait_for_external_event("Decision", Decision)
    return decision.approved


async def typed_async(context: OrchestrationContext):
    await context.create_timer(3600)
    decision = await context.wait_for_external_event("Decision", Decision)
    return decision.approved


@both(typed_yield, typed_async)
async def test_a_misfit_that_came_early_goes_to_dropped_with_its_reason_and_the_wait_goes_on(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Decision", {"approved": "perhaps"}, event_id="e1")
        await env.advance(hours=2)
        (dropped,) = env.store.dropped(instance, 10)
        waiting = await env.client.get_status(instance)
        await env.client.raise_event(instance, "Decision", {"approved": True})
        status = await env.client.wait_for_completion(instance)

    assert (dropped.name, dropped.operation_id) == ("Decision", "e1")
    assert dropped.body == b'{"approved":"perhaps"}'
    assert "does not fit" in dropped.reason
    assert "/approved" in dropped.reason or "approved" in dropped.reason
    assert "the event 'Decision'" in waiting.waiting_for
    assert status.output is True


# -------------------------------------------------------------------------------------- unknown, finished, full


async def test_an_unknown_instance_takes_no_event():
    async with environment(app_with(wait_async)) as env:
        with pytest.raises(InstanceNotFound, match="'nobody' in this hub"):
            await env.client.raise_event("nobody", "Go")


async def test_a_finished_instance_takes_no_event():
    async with environment(app_with(wait_async)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go")
        await env.client.wait_for_completion(instance)

        with pytest.raises(InstanceFinished, match="is Completed"):
            await env.client.raise_event(instance, "Go")


def only_one_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("Wanted")


async def only_one_async(context: OrchestrationContext):
    await context.wait_for_external_event("Wanted")


@both(only_one_yield, only_one_async)
@pytest.mark.parametrize("suspended", [False, True])
async def test_an_instance_keeps_only_so_many_events_that_nobody_takes(orchestrator, suspended):
    settings = Settings(limits=Limits(buffered_events=3))
    async with environment(app_with(orchestrator, settings=settings)) as env:
        instance = await env.client.start_new("main")
        if suspended:
            await env.client.suspend(instance)
        for _ in range(3):
            await env.client.raise_event(instance, "Other")

        with pytest.raises(Overloaded, match="already keeps 3 events"):
            await env.client.raise_event(instance, "Other")


@both(only_one_yield, only_one_async)
async def test_a_full_instance_still_takes_the_event_it_waits_for(orchestrator):
    settings = Settings(limits=Limits(buffered_events=3))
    async with environment(app_with(orchestrator, settings=settings)) as env:
        instance = await env.client.start_new("main")
        for _ in range(3):
            await env.client.raise_event(instance, "Other")

        await env.client.raise_event(instance, "Wanted")

        status = await env.client.wait_for_completion(instance)
        assert status.runtime_status is RuntimeStatus.Completed
        assert len(env.store.dropped(instance, 10)) == 3


# ------------------------------------------------------------------------------------------- repeated requests


def two_yield(context: OrchestrationContext):
    first = yield context.wait_for_external_event("Go")
    second = yield context.wait_for_external_event("Go", timeout=60, default="nothing more")
    return [first, second]


async def two_async(context: OrchestrationContext):
    first = await context.wait_for_external_event("Go")
    second = await context.wait_for_external_event("Go", timeout=60, default="nothing more")
    return [first, second]


@both(two_yield, two_async)
@pytest.mark.parametrize("between", ["nothing", "restart", "suspended"])
async def test_an_event_repeated_under_its_id_is_the_same_event(orchestrator, between):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        if between == "suspended":
            await env.client.suspend(instance)
        await env.client.raise_event(instance, "Go", 1, event_id="e1")
        if between == "restart":
            await env.restart()
        await env.client.raise_event(instance, "Go", 1, event_id="e1")
        if between == "suspended":
            await env.client.resume(instance)

        assert (await env.client.wait_for_completion(instance)).output == [1, "nothing more"]


@both(two_yield, two_async)
async def test_after_a_day_an_id_is_new_again(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        other = await env.client.start_new("main")
        await env.client.raise_event(other, "Go", 1, event_id="e1")
        await env.advance(hours=25)
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go", 2, event_id="e1")

        assert (await env.client.wait_for_completion(instance)).output == [2, "nothing more"]


READ: list[int] = []


@dataclass
class Counted:
    """A body that tells each time it is read as this type."""

    number: int
    notes: list[str] | None = None

    def __post_init__(self) -> None:
        READ.append(self.number)


def counted_yield(context: OrchestrationContext):
    if context.get_input():
        yield context.create_timer(3600)
    taken = yield context.wait_for_external_event("Go", Counted)
    taken.notes = ["changed by the code"]
    again = yield context.wait_for_external_event("Go", Counted)
    return [taken.number, again.number, again.notes]


async def counted_async(context: OrchestrationContext):
    if context.get_input():
        await context.create_timer(3600)
    taken = await context.wait_for_external_event("Go", Counted)
    taken.notes = ["changed by the code"]
    again = await context.wait_for_external_event("Go", Counted)
    return [taken.number, again.number, again.notes]


@both(counted_yield, counted_async)
@pytest.mark.parametrize("when", ["awaited", "buffered", "suspended"])
async def test_an_event_is_read_once_as_the_type_that_is_declared_and_awaited(orchestrator, when):
    READ.clear()
    async with environment(app_with(orchestrator, events={"Go": Counted})) as env:
        instance = await env.client.start_new("main", client_input=when == "buffered")
        if when == "suspended":
            await env.client.suspend(instance)
        for number in (1, 2):
            await env.client.raise_event(instance, "Go", {"number": number})
        if when == "suspended":
            await env.client.resume(instance)
        await env.advance(hours=2)

        assert (await env.client.wait_for_completion(instance)).output == [1, 2, None]
    assert READ == [1, 2]


def other_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go", dict))


async def other_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go", dict)


@both(other_yield, other_async)
async def test_a_wait_for_another_type_than_the_declared_one_gets_its_own(orchestrator):
    async with environment(app_with(orchestrator, events={"Go": Counted})) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go", {"number": 1})

        assert (await env.client.wait_for_completion(instance)).output == {"number": 1}


def typed_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Amount", int))


async def typed_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Amount", int)


@both(typed_yield, typed_async)
async def test_the_status_tells_of_an_event_that_did_not_fit_until_one_does(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Amount", "5")
        await env.settled()
        status = await env.client.get_status(instance)
        assert "(rejected the event that came at 2026-01-01 09:00:00 UTC: does not fit" in status.waiting_for
        await env.client.raise_event(instance, "Amount", 5)
        assert (await env.client.wait_for_completion(instance)).output == 5


@both(typed_yield, typed_async)
async def test_the_status_names_events_that_no_wait_has_taken(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Amuont", 5)
        await env.settled()
        status = await env.client.get_status(instance)

    assert status.waiting_for.endswith("; it keeps 1 event(s) that no wait has taken: 'Amuont'")


def monitor_yield(context: OrchestrationContext):
    for number in range(300):
        stop = context.wait_for_external_event("Stop")
        if (yield context.task_any([stop, context.create_timer(60)])) is stop:
            return number
    return "never"


async def monitor_async(context: OrchestrationContext):
    for number in range(300):
        stop = context.wait_for_external_event("Stop")
        if await context.task_any([stop, context.create_timer(60)]) is stop:
            return number
    return "never"


@both(monitor_yield, monitor_async)
@pytest.mark.parametrize("evicted", [False, True])
async def test_a_monitor_that_begins_its_wait_anew_is_stopped(orchestrator, evicted):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.advance(minutes=20.5)
        if evicted:
            await env.evict()
        status = await env.client.get_status(instance)
        assert status.waiting_for.count("'Stop'") == 1
        await env.client.raise_event(instance, "Stop")
        assert (await env.client.wait_for_completion(instance)).output == 20


def deadline_yield(context: OrchestrationContext):
    try:
        return (yield context.wait_for_external_event("Go", str, timeout=60))
    except TimeoutError:
        return "expired"


async def deadline_async(context: OrchestrationContext):
    try:
        return await context.wait_for_external_event("Go", str, timeout=60)
    except TimeoutError:
        return "expired"


def race_yield(context: OrchestrationContext):
    go = context.wait_for_external_event("Go", str)
    winner = yield context.task_any([go, context.create_timer(60)])
    return go.result if winner is go else "expired"


async def race_async(context: OrchestrationContext):
    go = context.wait_for_external_event("Go", str)
    winner = await context.task_any([go, context.create_timer(60)])
    return go.result if winner is go else "expired"


def branch_yield(context: OrchestrationContext):
    return (yield context.spawn(deadline_yield(context)))


async def branch_async(context: OrchestrationContext):
    return await context.spawn(deadline_async(context))


DEADLINES = pytest.mark.parametrize(
    "orchestrator", [deadline_yield, deadline_async, race_yield, race_async, branch_yield, branch_async]
)


@DEADLINES
@pytest.mark.parametrize(("seconds", "output"), [(59, "in time"), (60, "expired"), (61, "expired")])
@pytest.mark.parametrize("restarted", [False, True])
async def test_the_deadline_decides_also_while_the_instance_is_suspended(
    orchestrator, seconds, output, restarted
):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.client.suspend(instance)
        await env.advance(seconds=seconds)
        await env.client.raise_event(instance, "Go", "in time")
        await env.advance(hours=1)
        if restarted:
            await env.restart()
        await env.client.resume(instance)
        assert (await env.client.wait_for_completion(instance)).output == output


@DEADLINES
async def test_each_event_of_a_suspended_instance_is_held_against_the_deadline(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.client.suspend(instance)
        await env.client.raise_event(instance, "Other", "early")
        await env.advance(seconds=30)
        await env.client.raise_event(instance, "Go", "in time")
        await env.advance(seconds=90)
        await env.client.raise_event(instance, "Go", "late")
        await env.client.resume(instance)
        assert (await env.client.wait_for_completion(instance)).output == "in time"


@DEADLINES
async def test_what_comes_in_the_same_batch_as_the_deadline_is_too_late(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        env.clock.move(env.clock.now() + 61_000_000)  # nothing has looked at the clock when the event comes
        with pytest.raises(InstanceFinished):
            await env.client.raise_event(instance, "Go", "late")
        assert (await env.client.wait_for_completion(instance)).output == "expired"


def child_yield(context: OrchestrationContext):
    call = context.call_sub_orchestrator("child")
    winner = yield context.task_any([call, context.create_timer(60)])
    return call.result if winner is call else "expired"


async def child_async(context: OrchestrationContext):
    call = context.call_sub_orchestrator("child")
    winner = await context.task_any([call, context.create_timer(60)])
    return call.result if winner is call else "expired"


@both(child_yield, child_async)
@pytest.mark.parametrize(("seconds", "output"), [(59, "in time"), (60, "expired")])
async def test_a_child_that_ends_while_its_parent_is_suspended_is_held_against_the_deadline(
    orchestrator, seconds, output
):
    app = app_with(orchestrator)
    app.orchestrator(wait_async, name="child")
    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        (child,) = [one for one in (await env.client.query()).instances if one.name == "child"]
        await env.client.suspend(instance)
        await env.advance(seconds=seconds)
        await env.client.raise_event(child.instance_id, "Go", "in time")
        await env.advance(hours=1)
        await env.client.resume(instance)
        assert (await env.client.wait_for_completion(instance)).output == output
