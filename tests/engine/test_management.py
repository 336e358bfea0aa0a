"""The client's verbs: start, status, query, suspend, resume, terminate, purge, restart, wait."""

import asyncio
from datetime import timedelta

import pytest

from perdure import (
    EngineStopped,
    FunctionNotFound,
    IllegalTransition,
    InstanceExists,
    InstanceFinished,
    InstanceNotFound,
    InvalidInstanceId,
    OrchestrationContext,
    Overloaded,
    PayloadError,
    RuntimeStatus,
    Settings,
)
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with, until

S = RuntimeStatus


def wait_yield(context: OrchestrationContext):
    context.set_custom_status("waiting")
    return (yield context.wait_for_external_event("Go"))


async def wait_async(context: OrchestrationContext):
    context.set_custom_status("waiting")
    return await context.wait_for_external_event("Go")


def quick_yield(context: OrchestrationContext):
    yield context.create_timer(0)
    return context.get_input()


async def quick_async(context: OrchestrationContext):
    await context.create_timer(0)
    return context.get_input()


WAITS, QUICK = both(wait_yield, wait_async), both(quick_yield, quick_async)


# ------------------------------------------------------------------------------------------------ starting


@QUICK
async def test_a_start_without_an_id_makes_one_up(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        ids = [await env.client.start_new("main") for _ in range(3)]

    assert len(set(ids)) == 3
    assert all(len(instance_id) == 32 for instance_id in ids)


@pytest.mark.parametrize("bad", ["", "@a", "a/b", "a::b", "x" * 257, "a\n"])
async def test_a_start_under_a_bad_id_is_refused(bad):
    async with environment(app_with(quick_async)) as env:
        with pytest.raises(InvalidInstanceId):
            await env.client.start_new("main", bad)
        assert (await env.client.query()).instances == []


async def test_a_start_of_an_unknown_name_is_refused_with_the_known_ones():
    async with environment(app_with(quick_async)) as env:
        with pytest.raises(FunctionNotFound, match="no orchestrator named 'mian'.*it has main"):
            await env.client.start_new("mian")


@QUICK
async def test_names_of_orchestrators_match_without_regard_to_case(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        status = await env.run("MAIN", 5)

    assert (status.name, status.output) == ("main", 5)


@WAITS
@pytest.mark.parametrize("policy", ["replace_finished", "reject"])
async def test_a_running_id_is_refused(orchestrator, policy):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")

        with pytest.raises(InstanceExists, match="'c1' already exists and is Running"):
            await env.client.start_new("main", "c1", on_existing=policy)


@QUICK
@pytest.mark.parametrize("between", ["nothing", "restart"])
async def test_a_finished_id_is_replaced_by_default(orchestrator, between):
    async with environment(app_with(orchestrator)) as env:
        first = await env.run("main", 1, "c1")
        if between == "restart":
            await env.restart()
        second = await env.run("main", 2, "c1")
        instances = (await env.client.query()).instances

    assert (first.output, second.output) == (1, 2)
    assert first.execution_id != second.execution_id
    assert len(instances) == 1


@QUICK
async def test_reject_refuses_a_finished_id_too(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.run("main", 1, "c1")

        with pytest.raises(InstanceExists, match="is Completed"):
            await env.client.start_new("main", "c1", on_existing="reject")


@WAITS
async def test_return_existing_starts_nothing_and_returns_the_id(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")
        before = await env.client.get_status("c1")
        assert await env.client.start_new("main", "c1", on_existing="return_existing") == "c1"
        await env.client.raise_event("c1", "Go", 1)
        await env.client.wait_for_completion("c1")
        assert await env.client.start_new("main", "c1", on_existing="return_existing") == "c1"
        after = await env.client.get_status("c1")

    assert before.execution_id == after.execution_id
    assert after.output == 1


@WAITS
@pytest.mark.parametrize("between", ["nothing", "restart"])
async def test_a_start_repeated_under_its_operation_id_gets_the_first_answer(orchestrator, between):
    async with environment(app_with(orchestrator)) as env:
        first = await env.client.start_new("main", "c1", operation_id="o1")
        if between == "restart":
            await env.restart()
        assert await env.client.start_new("main", "c1", operation_id="o1") == first

        assert len((await env.client.query()).instances) == 1


@QUICK
async def test_racing_starts_of_one_id_have_one_winner(orchestrator):
    async with environment(app_with(wait_async)) as env:
        answers = await asyncio.gather(
            *(env.client.start_new("main", "c1") for _ in range(20)), return_exceptions=True
        )

    assert answers.count("c1") == 1
    assert sum(isinstance(answer, InstanceExists) for answer in answers) == 19


@QUICK
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_start_at_delays_the_first_step(orchestrator, store, restarted, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        at = env.now + timedelta(days=3)
        await env.client.start_new("main", "c1", 5, start_at=at)
        if restarted:
            await env.restart()
        await env.advance(days=3, seconds=-1)
        pending = await env.client.get_status("c1")
        status = await env.client.wait_for_completion("c1")

        assert (pending.runtime_status, pending.reason) == (S.Pending, "")
        assert pending.waiting_for == "waiting for its start at 2026-01-04 09:00:00 UTC"
        assert (status.output, env.now) == (5, at)


@WAITS
async def test_a_pending_start_can_be_suspended_resumed_and_keeps_its_events(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1", start_at=env.now + timedelta(hours=1))
        await env.client.raise_event("c1", "Go", "early")
        await env.client.suspend("c1")
        await env.advance(hours=2)
        assert (await env.client.get_status("c1")).runtime_status is S.Suspended
        await env.client.resume("c1")

        assert (await env.client.wait_for_completion("c1")).output == "early"


@WAITS
async def test_a_pending_start_can_be_terminated(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1", start_at=env.now + timedelta(hours=1))
        await env.client.terminate("c1", "changed my mind")
        await env.advance(hours=2)
        status = await env.client.get_status("c1")

    assert (status.runtime_status, status.output) == (S.Terminated, "changed my mind")


async def test_a_naive_start_at_is_refused():
    async with environment(app_with(quick_async)) as env:
        with pytest.raises(ValueError, match="aware datetime"):
            await env.client.start_new("main", start_at=env.now.replace(tzinfo=None))


@pytest.mark.parametrize("tags", [{"a": 1}, {1: "a"}, {str(n): "" for n in range(51)}, {"a": "x" * 20_000}])
async def test_tags_are_few_and_strings(tags):
    async with environment(app_with(quick_async)) as env:
        with pytest.raises(PayloadError):
            await env.client.start_new("main", tags=tags)


# ------------------------------------------------------------------------------------------------- status


@WAITS
async def test_a_status_tells_everything_but_bodies_unless_asked(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1", {"n": 1}, tags={"team": "red"})
        plain = await env.client.get_status("c1")
        full = await env.client.get_status("c1", show_history=True, show_input=True)

    assert (plain.instance_id, plain.name, plain.runtime_status) == ("c1", "main", S.Running)
    assert (plain.input, plain.history, plain.output) == (None, None, None)
    assert plain.custom_status == "waiting"
    assert plain.tags == {"team": "red"}
    assert plain.created_time == env.now
    assert full.input == {"n": 1}
    assert [event["type"] for event in full.history] == ["ExecutionStarted", "EventAwaited"]


async def test_the_status_of_nobody_is_none():
    async with environment(app_with(quick_async)) as env:
        assert await env.client.get_status("nobody") is None


@WAITS
@pytest.mark.parametrize("between", ["nothing", "restart"])
async def test_the_status_waited_for_is_the_status_asked_for(orchestrator, between):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1", tags={"a": "b"})
        if between == "restart":
            await env.restart()
        waiting = asyncio.create_task(env.client.wait_for_completion("c1"))
        await env.client.terminate("c1", "enough")

        assert await waiting == await env.client.get_status("c1")


# --------------------------------------------------------------------------------------------- transitions


@WAITS
async def test_a_suspended_instance_keeps_everything_and_goes_on_when_resumed(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")
        await env.client.suspend("c1", "lunch")
        await env.client.raise_event("c1", "Go", "kept")
        await env.settled()
        suspended = await env.client.get_status("c1")
        await env.client.resume("c1")
        status = await env.client.wait_for_completion("c1")

    assert (suspended.runtime_status, suspended.reason) == (S.Suspended, "operator: lunch")
    assert suspended.waiting_for == "suspended by an operator until resumed"
    assert status.output == "kept"


def timed_yield(context: OrchestrationContext):
    result = yield context.task_all([context.create_timer(60), context.call_activity("work")])
    return result[1]


async def timed_async(context: OrchestrationContext):
    result = await context.task_all([context.create_timer(60), context.call_activity("work")])
    return result[1]


@both(timed_yield, timed_async)
@pytest.mark.parametrize("between", ["nothing", "eviction", "restart"])
async def test_timers_and_results_wait_for_the_resume(orchestrator, between):
    def work() -> str:
        return "worked"

    async with environment(app_with(orchestrator, work)) as env:
        await env.client.start_new("main", "c1")
        await env.client.suspend("c1")
        await env.advance(hours=1)
        if between == "eviction":
            await env.evict()
        elif between == "restart":
            await env.restart()
        assert env.store.get("c1").row.due_at is None
        assert (await env.client.get_status("c1")).runtime_status is S.Suspended
        await env.client.resume("c1")

        assert (await env.client.wait_for_completion("c1")).output == "worked"


@WAITS
async def test_suspending_the_suspended_and_resuming_the_running_change_nothing(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")
        await env.client.resume("c1")
        await env.client.suspend("c1", "first")
        await env.client.suspend("c1", "second")
        assert (await env.client.get_status("c1")).reason == "operator: first"
        await env.client.resume("c1")
        await env.client.resume("c1")
        status = await env.client.get_status("c1", show_history=True)

    assert status.runtime_status is S.Running
    assert [event["type"] for event in status.history][2:] == ["ExecutionSuspended", "ExecutionResumed"]


@WAITS
@pytest.mark.parametrize("state", ["running", "suspended", "evicted"])
async def test_terminate_ends_it_with_its_reason(orchestrator, state):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")
        if state == "suspended":
            await env.client.suspend("c1")
            await env.client.raise_event("c1", "Go", "undelivered")
        elif state == "evicted":
            await env.evict()
        await env.client.terminate("c1", "enough")
        status = await env.client.get_status("c1")
        dropped = [row.name for row in env.store.dropped("c1", 10)]

    assert (status.runtime_status, status.output, status.waiting_for) == (S.Terminated, "enough", "")
    assert dropped == (["Go"] if state == "suspended" else [])


VERBS = ["raise_event", "suspend", "resume", "terminate"]


async def call(client, verb: str, instance_id: str):
    arguments = ("Go",) if verb == "raise_event" else ()
    await getattr(client, verb)(instance_id, *arguments)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("ended", ["Completed", "Failed", "Terminated"])
async def test_a_finished_instance_refuses_every_verb_but_restart_and_purge(verb, ended):
    async def main(context: OrchestrationContext):
        if ended == "Failed":
            raise ValueError("no")
        if ended == "Terminated":
            await context.wait_for_external_event("Never")

    async with environment(app_with(main)) as env:
        await env.client.start_new("main", "c1")
        if ended == "Terminated":
            await env.client.terminate("c1")
        await env.settled()

        with pytest.raises(InstanceFinished, match=f"'c1'.* is {ended}"):
            await call(env.client, verb, "c1")


@pytest.mark.parametrize("verb", [*VERBS, "restart", "wait_for_completion"])
async def test_every_verb_names_an_unknown_instance(verb):
    async with environment(app_with(quick_async)) as env:
        with pytest.raises(InstanceNotFound, match="'nobody' in this hub"):
            await call(env.client, verb, "nobody")


@WAITS
@pytest.mark.parametrize("verb", ["restart", "purge_instance_history"])
async def test_a_running_instance_refuses_restart_and_purge(orchestrator, verb):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")

        with pytest.raises(IllegalTransition, match="while it is Running: terminate it first"):
            await getattr(env.client, verb)("c1")


@WAITS
async def test_operations_repeated_under_their_ids_happen_once(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        client = env.client
        await client.start_new("main", "c1")
        for _ in range(2):
            await client.suspend("c1", operation_id="s")
        for _ in range(2):
            await client.resume("c1", operation_id="r")
        for _ in range(2):
            await client.terminate("c1", operation_id="t")
        status = await client.get_status("c1", show_history=True)
        for _ in range(2):
            assert await client.purge_instance_history("c1", operation_id="p") == 1
        assert await client.purge_instance_history("c1") == 0

    assert [event["type"] for event in status.history][2:] == [
        "ExecutionSuspended",
        "ExecutionResumed",
        "ExecutionTerminated",
    ]


# ------------------------------------------------------------------------------------ restart, purge, waiting


@WAITS
async def test_a_restart_repeated_under_its_operation_id_gets_the_first_answer(orchestrator):
    """Also while the new run is under way, which could not be restarted, and when the old one is gone."""
    async with environment(app_with(orchestrator)) as env:
        client = env.client
        await client.start_new("main", "c1")
        await client.terminate("c1")
        fresh = await client.restart("c1", operation_id="new")
        assert await client.restart("c1", False, operation_id="same") == "c1"
        assert await client.restart("c1", False, operation_id="same") == "c1"
        await client.terminate("c1")
        await client.purge_instance_history("c1")
        assert await client.restart("c1", operation_id="new") == fresh
        with pytest.raises(InstanceNotFound):
            await client.restart("c1", operation_id="another")


@QUICK
async def test_restart_runs_it_again_under_a_new_id_or_its_own(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.run("main", {"n": 1}, "c1")
        fresh = await env.client.restart("c1")
        again = await env.client.restart("c1", restart_with_new_instance_id=False)
        outputs = [(await env.client.wait_for_completion(i)).output for i in (fresh, again)]

    assert fresh != again == "c1"
    assert outputs == [{"n": 1}, {"n": 1}]


@QUICK
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_purge_leaves_nothing(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        await env.run("main", "x" * 50_000, "c1")
        row = env.store.get("c1").row
        assert await env.client.purge_instance_history("c1") == 1

        assert await env.client.get_status("c1") is None
        assert env.store.executions(row.instance_no) == []
        assert (await env.run("main", 2, "c1")).output == 2


@QUICK
async def test_purge_by_filter_takes_only_the_finished(orchestrator):
    app = app_with(orchestrator)
    app.orchestrator(name="waits")(wait_async)
    async with environment(app) as env:
        for n in range(5):
            await env.run("main", n)
        await env.client.start_new("waits", "w")
        await env.advance(hours=1)
        border = env.now - timedelta(seconds=1)
        await env.run("main", 9, "late")

        assert await env.client.purge_instance_history_by(created_time_to=border) == 5
        left = (await env.client.query()).instances

    assert [status.instance_id for status in left] == ["late", "w"]


@WAITS
async def test_waiting_ends_with_a_timeout_error(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")

        with pytest.raises(TimeoutError):
            await env.client.wait_for_completion("c1", 0.001)


@WAITS
async def test_many_may_wait_for_one(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1")
        waiting = [asyncio.create_task(env.client.wait_for_completion("c1")) for _ in range(10)]
        await asyncio.sleep(0)
        await env.client.raise_event("c1", "Go", 7)

        assert [status.output for status in await asyncio.gather(*waiting)] == [7] * 10


@WAITS
async def test_those_who_wait_are_told_when_the_engine_stops(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        client = env.client
        await client.start_new("main", "c1")
        waiting = asyncio.create_task(client.wait_for_completion("c1"))
        await until(lambda: env.clock.waiters)
        await env.restart()

        with pytest.raises(EngineStopped):
            await waiting
        with pytest.raises(EngineStopped, match="nothing was stored"):
            await client.start_new("main")


# --------------------------------------------------------------------------------------------------- query


async def seven(env):
    for n in range(7):
        tags = {"team": "red" if n % 2 else "blue", "n": str(n)}
        await env.client.start_new("main", f"claim-{n}", n, tags=tags)
        await env.advance(minutes=1)
    await env.client.raise_event("claim-1", "Go")
    await env.client.suspend("claim-2")
    await env.client.start_new("other", "z")
    await env.settled()


def ids(page) -> list[str]:
    return [status.instance_id for status in page.instances]


@pytest.fixture(params=["memory:", "sqlite"])
async def hub(request, tmp_path, perdure_environment):
    app = app_with(wait_async)
    app.orchestrator(name="other")(quick_async)
    url = request.param if request.param == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    env = await perdure_environment(app, store=url)
    await seven(env)
    return env


async def test_query_gives_the_newest_first(hub):
    assert ids(await hub.client.query()) == ["z", *(f"claim-{n}" for n in range(6, -1, -1))]


async def test_query_filters_by_every_field(hub):
    client, start = hub.client, hub.now - timedelta(minutes=7)

    assert ids(await client.query(status=S.Suspended)) == ["claim-2"]
    assert ids(await client.query(status=["Suspended", S.Completed], name="main")) == ["claim-2", "claim-1"]
    assert ids(await client.query(name="other")) == ["z"]
    assert ids(await client.query(prefix="claim-3")) == ["claim-3"]
    assert ids(await client.query(tags={"team": "red"})) == ["claim-5", "claim-3", "claim-1"]
    assert ids(await client.query(tags={"team": "red", "n": "3"})) == ["claim-3"]
    assert ids(await client.query(created_to=start + timedelta(minutes=1))) == ["claim-1", "claim-0"]
    assert ids(await client.query(created_from=start + timedelta(minutes=6))) == ["z", "claim-6"]
    assert "claim-1" not in ids(await client.query(waiting_for="Go"))
    assert len(ids(await client.query(waiting_for="Go"))) == 6
    assert ids(await client.query(prefix="claim_")) == []
    assert ids(await client.query(prefix="claim-%")) == []


async def test_query_pages_by_keyset_and_new_arrivals_do_not_shift_them(hub):
    first = await hub.client.query(top=3)
    await hub.client.start_new("main", "newcomer")
    second = await hub.client.query(top=3, continuation=first.continuation)
    third = await hub.client.query(top=3, continuation=second.continuation)

    assert ids(first) + ids(second) + ids(third) == ["z", *(f"claim-{n}" for n in range(6, -1, -1))]
    assert third.continuation is None


async def test_counts_by_status(hub):
    assert await hub.client.counts() == {"Running": 5, "Completed": 2, "Suspended": 1}


async def test_query_shows_inputs_only_if_asked(hub):
    plain, full = (
        await hub.client.query(prefix="claim-4"),
        await hub.client.query(prefix="claim-4", show_input=True),
    )

    assert (plain.instances[0].input, full.instances[0].input) == (None, 4)
    assert plain.instances[0].custom_status == "waiting"
    assert plain.instances[0].waiting_for == "waiting for the event 'Go' since 2026-01-01 09:04:00 UTC"


@pytest.mark.parametrize(
    "wrong",
    [{"top": 0}, {"top": 1001}, {"continuation": "x"}, {"continuation": "-1"}, {"continuation": "9" * 30}],
)
async def test_a_query_that_makes_no_sense_is_refused(wrong):
    async with environment(app_with(quick_async)) as env:
        with pytest.raises(PayloadError):
            await env.client.query(**wrong)


async def test_an_unknown_status_is_refused():
    async with environment(app_with(quick_async)) as env:
        with pytest.raises(ValueError, match="Asleep"):
            await env.client.query(status="Asleep")


# ------------------------------------------------------------------------------------------------- overload


async def test_more_requests_than_the_queue_admits_are_refused_and_the_others_kept():
    async with environment(app_with(quick_async, settings=Settings(queued_requests=50))) as env:
        answers = await asyncio.gather(
            *(env.client.start_new("main") for _ in range(500)), return_exceptions=True
        )
        accepted = [answer for answer in answers if isinstance(answer, str)]
        refused = [answer for answer in answers if isinstance(answer, Overloaded)]
        for instance in accepted:
            await env.client.wait_for_completion(instance)

    assert accepted
    assert refused
    assert len(accepted) + len(refused) == 500


async def test_an_operator_is_never_too_late_in_the_queue():
    async with environment(app_with(wait_async, settings=Settings(queued_requests=0))) as env:
        await env.client.start_new("main", "c1")
        burst = [asyncio.create_task(env.client.terminate("c1")) for _ in range(5)]
        done = await asyncio.gather(*burst, return_exceptions=True)

    assert not any(isinstance(answer, Overloaded) for answer in done)
