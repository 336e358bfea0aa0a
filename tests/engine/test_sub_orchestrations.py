"""Sub-orchestrations: results, failures, ids, and ends that hit the right ones."""

import asyncio

import pytest

from perdure import App, InstanceFinished, InvalidInstanceId, OrchestrationContext, RetryPolicy, RuntimeStatus
from perdure.testing import environment
from tests.core.styles import both

S = RuntimeStatus


def child_result(context: OrchestrationContext):
    yield context.create_timer(1)
    return {"of": context.get_input(), "parent": context.parent_instance_id}


def child_fails(context: OrchestrationContext):
    yield context.create_timer(1)
    raise KeyError("no")


async def child_waits(context: OrchestrationContext):
    return await context.wait_for_external_event("Go")


def family(orchestrator, child) -> App:
    app = App("claims")
    app.orchestrator(name="main")(orchestrator)
    app.orchestrator(name="child")(child)
    return app


def call_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("child", context.get_input()))


async def call_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("child", context.get_input())


@both(call_yield, call_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_parent_gets_its_childs_result(orchestrator, store, restarted, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(family(orchestrator, child_result), store=url) as env:
        parent = await env.client.start_new("main", "p", 5)
        if restarted:
            await env.restart()
        status = await env.client.wait_for_completion(parent)
        (child,) = (await env.client.query(name="child")).instances

    assert status.output == {"of": 5, "parent": "p"}
    assert child.parent_instance_id == "p"
    assert child.instance_id == f"p::{status.execution_id}.0"


@both(call_yield, call_async)
async def test_a_childs_failure_arrives_with_its_type_and_message(orchestrator):
    async with environment(family(orchestrator, child_fails)) as env:
        failure = (await env.run("main")).failure

    assert "Orchestrator function 'child' failed" in failure.message
    assert (failure.cause.type, failure.cause.message) == ("KeyError", "'no'")


@both(call_yield, call_async)
async def test_a_call_of_an_unknown_orchestrator_waits_with_the_known_names(orchestrator):
    app = App("claims")
    app.orchestrator(name="main")(orchestrator)
    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        status = await env.client.get_status(instance)

    assert not status.is_finished
    assert status.reason.startswith("no_worker: no orchestrator named 'child'")


def many_yield(context: OrchestrationContext):
    children = [context.call_sub_orchestrator("child", n) for n in range(20)]
    return [result["of"] for result in (yield context.task_all(children))]


async def many_async(context: OrchestrationContext):
    children = [context.call_sub_orchestrator("child", n) for n in range(20)]
    return [result["of"] for result in await context.task_all(children)]


@both(many_yield, many_async)
async def test_twenty_children_give_their_results_in_argument_order(orchestrator):
    async with environment(family(orchestrator, child_result)) as env:
        assert (await env.run("main")).output == list(range(20))


# --------------------------------------------------------------------------------------------------- ids


def named_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("child", None, "kid"))


async def named_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("child", None, "kid")


@both(named_yield, named_async)
async def test_a_child_may_have_an_id_of_its_own_and_take_events_under_it(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        parent = await env.client.start_new("main")
        await env.client.raise_event("kid", "Go", 7)

        assert (await env.client.wait_for_completion(parent)).output == 7


@both(named_yield, named_async)
async def test_a_child_id_that_a_running_instance_has_fails_the_call(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("child", "kid")
        failure = (await env.run("main")).failure

    assert failure.cause.type == "perdure.errors.InstanceExists"
    assert "'kid' already exists and is Running: a client started it" in failure.cause.message


def numbered_yield(context: OrchestrationContext):
    ids = [f"{context.instance_id}:{n}" for n in range(3)]
    calls = [context.call_sub_orchestrator("child", n, one) for n, one in enumerate(ids)]
    return [context.execution_id, (yield context.task_all(calls))]


async def numbered_async(context: OrchestrationContext):
    ids = [f"{context.instance_id}:{n}" for n in range(3)]
    calls = [context.call_sub_orchestrator("child", n, one) for n, one in enumerate(ids)]
    return [context.execution_id, await context.task_all(calls)]


async def child_ends_at_once(context: OrchestrationContext, n: int):
    return [n, context.execution_id]


async def child_takes_time(context: OrchestrationContext, n: int):
    await context.create_timer(1)
    return [n, context.execution_id]


async def child_ends_badly(context: OrchestrationContext, n: int):
    await context.create_timer(1)
    raise ValueError(f"{n} {context.execution_id}")


AGAIN = ("started again", "restarted", "purged", "terminated")


@both(numbered_yield, numbered_async)
@pytest.mark.parametrize("child", [child_ends_at_once, child_takes_time])
@pytest.mark.parametrize("how", AGAIN)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_an_orchestration_that_runs_again_calls_its_children_by_the_same_ids(
    orchestrator, child, how, store, tmp_path
):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    runs = []
    async with environment(family(orchestrator, child), store=url) as env:
        client = env.client
        await client.start_new("main", "nightly")
        runs.append(await client.wait_for_completion("nightly"))
        if how == "terminated":
            await client.start_new("main", "nightly")
            await asyncio.gather(client.terminate("nightly", recursive=True), return_exceptions=True)
        if how == "purged":
            await client.purge_instance_history("nightly")
        if how == "restarted":
            await client.restart("nightly", restart_with_new_instance_id=False)
        else:
            await client.start_new("main", "nightly")
        await env.evict()
        runs.append(await client.wait_for_completion("nightly"))
        children = (await client.query(name="child")).instances

    outputs = [run.output for run in runs]
    assert [[n for n, _ in given] for _, given in outputs] == [[0, 1, 2], [0, 1, 2]]
    executions = [{execution for _, execution in given} for _, given in outputs]
    assert executions[0].isdisjoint(executions[1]), "each run has its own children's results"
    assert {one.instance_id for one in children} == {f"nightly:{n}" for n in range(3)}
    assert {one.output[1] for one in children} == executions[1]


@both(numbered_yield, numbered_async)
async def test_children_that_failed_are_replaced_too(orchestrator):
    async with environment(family(orchestrator, child_ends_badly)) as env:
        first = (await env.run("main", None, "nightly")).failure
        await env.advance(minutes=1)
        second = (await env.run("main", None, "nightly")).failure

    assert [failure.cause.type for failure in (first, second)] == ["ValueError"] * 2
    assert first.cause.message != second.cause.message


@both(named_yield, named_async)
@pytest.mark.parametrize("stranger", ["a client's", "another parent's"])
async def test_an_instance_that_has_finished_is_replaced_whoever_started_it(orchestrator, stranger):
    async with environment(family(orchestrator, child_waits)) as env:
        client = env.client
        first = "kid" if stranger == "a client's" else "first"
        await client.start_new("child" if stranger == "a client's" else "main", first)
        await env.settled()
        await client.raise_event("kid", "Go", "old")
        await client.wait_for_completion(first)
        await client.start_new("main", "second")
        await env.settled()
        before = await client.get_status("kid")
        await client.raise_event("kid", "Go", "new")
        status = await client.wait_for_completion("second")

    assert (before.runtime_status, before.parent_instance_id) == (S.Running, "second")
    assert status.output == "new"


def rounds_yield(context: OrchestrationContext):
    seen = context.get_input()
    seen.append((yield context.call_sub_orchestrator("child", len(seen), "kid")))
    if len(seen) < 4:
        context.continue_as_new(seen)
    return seen


async def rounds_async(context: OrchestrationContext):
    seen = context.get_input()
    seen.append(await context.call_sub_orchestrator("child", len(seen), "kid"))
    if len(seen) < 4:
        context.continue_as_new(seen)
    return seen


@both(rounds_yield, rounds_async)
@pytest.mark.parametrize("child", [child_ends_at_once, child_takes_time])
async def test_each_execution_of_an_eternal_orchestration_may_use_one_child_id(orchestrator, child):
    async with environment(family(orchestrator, child)) as env:
        output = (await env.run("main", [])).output

    assert [n for n, _ in output] == [0, 1, 2, 3]
    assert len({execution for _, execution in output}) == 4


def hasty_yield(context: OrchestrationContext):
    tasks = [context.call_sub_orchestrator("child", None, "kid"), context.create_timer(5)]
    try:
        yield context.task_any(tasks)
        if tasks[0].is_completed:
            return tasks[0].result
    except Exception as error:
        return str(error)
    context.continue_as_new(None)
    return None


async def hasty_async(context: OrchestrationContext):
    tasks = [context.call_sub_orchestrator("child", None, "kid"), context.create_timer(5)]
    try:
        await context.task_any(tasks)
        if tasks[0].is_completed:
            return tasks[0].result
    except Exception as error:
        return str(error)
    context.continue_as_new(None)
    return None


@both(hasty_yield, hasty_async)
async def test_a_child_that_an_earlier_run_left_running_fails_the_call_and_says_so(orchestrator):
    """It may be in the middle of a payment: perdure ends no instance that nobody has asked it to end."""
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("main", "p")
        await env.advance(seconds=6)
        status = await env.client.wait_for_completion("p")
        kid = await env.client.get_status("kid")

    assert kid.runtime_status is S.Running
    assert "an earlier run of 'p' (execution " in status.output and "still runs" in status.output


def patiently_yield(context: OrchestrationContext):
    policy = RetryPolicy(first_interval=60, max_attempts=10)
    return (yield context.call_sub_orchestrator("child", None, "kid", retry=policy))


async def patiently_async(context: OrchestrationContext):
    policy = RetryPolicy(first_interval=60, max_attempts=10)
    return await context.call_sub_orchestrator("child", None, "kid", retry=policy)


@both(patiently_yield, patiently_async)
async def test_a_retry_policy_waits_for_the_id(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("main", "p")
        await env.settled()
        await env.client.terminate("p", recursive=False)
        await env.client.start_new("main", "p")
        await env.advance(seconds=90)
        await env.client.raise_event("kid", "Go", "for the run that was terminated")
        await env.advance(seconds=90)
        await env.client.raise_event("kid", "Go", "for this one")
        status = await env.client.wait_for_completion("p")

    assert status.output == "for this one"


def twice_yield(context: OrchestrationContext):
    first = context.call_sub_orchestrator("child", None, "kid")
    try:
        yield context.call_sub_orchestrator("child", None, "kid")
    except Exception as error:
        return [str(error), (yield first)]


async def twice_async(context: OrchestrationContext):
    first = context.call_sub_orchestrator("child", None, "kid")
    try:
        await context.call_sub_orchestrator("child", None, "kid")
    except Exception as error:
        return [str(error), await first]


@both(twice_yield, twice_async)
async def test_two_calls_of_one_execution_do_not_share_an_id(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("main", "p")
        await env.settled()
        await env.client.raise_event("kid", "Go", 5)
        told, result = (await env.client.wait_for_completion("p")).output

    assert "call 0 of this execution started it" in told
    assert result == 5


def fragile_yield(context: OrchestrationContext):
    result = yield context.call_sub_orchestrator("child", 1, "kid")
    yield context.call_activity("fragile")
    return [result, (yield context.call_sub_orchestrator("child", 2, "kid"))]


async def fragile_async(context: OrchestrationContext):
    result = await context.call_sub_orchestrator("child", 1, "kid")
    await context.call_activity("fragile")
    return [result, await context.call_sub_orchestrator("child", 2, "kid")]


@both(fragile_yield, fragile_async)
async def test_a_rewound_orchestration_uses_an_id_again(orchestrator):
    broken = [True]

    def fragile():
        if broken[0]:
            raise ValueError("broken")

    app = family(orchestrator, child_takes_time)
    app.activity(fragile)
    async with environment(app) as env:
        await env.run("main", None, "p")
        broken[0] = False
        await env.client.rewind("p")
        output = (await env.client.wait_for_completion("p")).output

    assert [n for n, _ in output] == [1, 2]


def failing_once(left: list[int]):
    def child(context: OrchestrationContext):
        yield context.create_timer(1)
        if left and left.pop():
            raise ValueError("once")
        return context.execution_id

    return child


@both(named_yield, named_async)
async def test_a_child_that_failed_and_was_replaced_by_another_parents_is_started_anew_by_a_rewind(
    orchestrator,
):
    async with environment(family(orchestrator, failing_once([1]))) as env:
        await env.run("main", None, "first")
        other = await env.run("main", None, "second")
        await env.client.rewind("first")
        status = await env.client.wait_for_completion("first")
        kid = await env.client.get_status("kid")

    assert status.runtime_status is other.runtime_status is S.Completed
    assert status.output != other.output
    assert (kid.parent_instance_id, kid.output) == ("first", status.output)


def bad_id_yield(context: OrchestrationContext):
    yield context.call_sub_orchestrator("child", None, "a/b")


async def bad_id_async(context: OrchestrationContext):
    await context.call_sub_orchestrator("child", None, "a/b")


@both(bad_id_yield, bad_id_async)
async def test_a_bad_child_id_is_refused_at_the_call(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        failure = (await env.run("main")).failure

    assert failure.type == f"perdure.errors.{InvalidInstanceId.__name__}"


# --------------------------------------------------------------------------------------------- terminating


@both(call_yield, call_async)
@pytest.mark.parametrize("between", ["nothing", "eviction", "restart", "suspended"])
async def test_terminate_recursive_ends_the_whole_family(orchestrator, between):
    def grandparent(context: OrchestrationContext):
        yield context.call_sub_orchestrator("main", None, "p")

    app = family(orchestrator, child_waits)
    app.orchestrator(grandparent)
    async with environment(app) as env:
        await env.client.start_new("grandparent", "g")
        await env.settled()
        if between == "eviction":
            await env.evict()
        elif between == "restart":
            await env.restart()
        elif between == "suspended":
            await env.client.suspend("g")
            await env.restart()
        await env.client.terminate("g", "enough", recursive=True)
        await env.settled()
        found = (await env.client.query()).instances

    assert [(s.runtime_status, s.output) for s in found] == [(S.Terminated, "enough")] * 3


@both(call_yield, call_async)
async def test_terminate_without_recursion_leaves_the_children_running(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("main", "p")
        await env.client.terminate("p")
        (child,) = (await env.client.query(name="child")).instances
        await env.client.raise_event(child.instance_id, "Go", 1)

        assert (await env.client.wait_for_completion(child.instance_id)).output == 1


def patient_yield(context: OrchestrationContext):
    try:
        yield context.call_sub_orchestrator("child", None, "kid")
    except Exception:
        yield context.wait_for_external_event("Never")


async def patient_async(context: OrchestrationContext):
    try:
        await context.call_sub_orchestrator("child", None, "kid")
    except Exception:
        await context.wait_for_external_event("Never")


@both(patient_yield, patient_async)
@pytest.mark.parametrize("at_once", [False, True])
async def test_terminate_recursive_never_hits_a_stranger(orchestrator, at_once):
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("child", "kid")
        if at_once:  # the refusal of the taken id is still on its way
            await asyncio.gather(env.client.start_new("main", "p"), env.client.terminate("p", recursive=True))
        else:
            await env.client.start_new("main", "p")
            await env.settled()
            await env.client.terminate("p", recursive=True)
        await env.settled()

        assert (await env.client.get_status("p")).runtime_status is S.Terminated
        assert (await env.client.get_status("kid")).runtime_status is S.Running


@both(call_yield, call_async)
async def test_a_terminated_child_fails_its_parents_call(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        parent = await env.client.start_new("main", "p")
        (child,) = (await env.client.query(name="child")).instances
        await env.client.terminate(child.instance_id, "not needed")
        failure = (await env.client.wait_for_completion(parent)).failure

    assert (failure.cause.type, failure.cause.message) == ("OrchestrationTerminated", "not needed")


@both(call_yield, call_async)
async def test_the_result_for_a_finished_parent_is_dropped(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("main", "p")
        (child,) = (await env.client.query(name="child")).instances
        await env.client.terminate("p")
        await env.client.start_new("main", "p")
        await env.client.raise_event(child.instance_id, "Go", "for the old parent")
        await env.settled()
        parent = await env.client.get_status("p")

    assert parent.runtime_status is S.Running


@both(call_yield, call_async)
async def test_a_suspended_parent_keeps_its_childs_result(orchestrator):
    async with environment(family(orchestrator, child_result)) as env:
        await env.client.start_new("main", "p", 5)
        await env.client.suspend("p")
        await env.advance(hours=1)
        await env.restart()
        await env.client.resume("p")

        assert (await env.client.wait_for_completion("p")).output["of"] == 5


@both(call_yield, call_async)
async def test_a_childs_waiting_sentence_is_in_its_parents(orchestrator):
    async with environment(family(orchestrator, child_waits)) as env:
        parent = await env.client.start_new("main", "p")
        status = await env.client.get_status(parent)

    assert status.waiting_for == f"waiting for the sub-orchestration 'child' (p::{status.execution_id}.0)"


async def test_a_terminated_child_cannot_be_terminated_again():
    async with environment(family(call_async, child_waits)) as env:
        await env.client.start_new("child", "kid")
        await env.client.terminate("kid")

        with pytest.raises(InstanceFinished):
            await env.client.terminate("kid")


def below_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("child", 7, f"{context.instance_id}:7"))


async def below_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("child", 7, f"{context.instance_id}:7")


@pytest.mark.parametrize("form", ["{0}:7", "check-{0}", "check of {0}, 7"])
async def test_a_derived_id_may_stand_anywhere_in_one_that_is_made_from_it(form):
    async def parent(context: OrchestrationContext):
        return await context.call_sub_orchestrator("child", 7, form.format(context.instance_id))

    async def over(context: OrchestrationContext):
        return await context.call_sub_orchestrator("parent")

    app = family(over, child_takes_time)
    app.orchestrator(parent)
    async with environment(app) as env:
        assert (await env.run("main")).output[0] == 7


@both(below_yield, below_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_an_id_may_be_made_from_a_parents_id_that_is_derived_itself(orchestrator, store, tmp_path):
    async def grandparent(context: OrchestrationContext):
        first = await context.call_sub_orchestrator("main")
        return [first, await context.call_sub_orchestrator("main")]

    app = family(orchestrator, child_takes_time)
    app.orchestrator(grandparent)
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app, store=url) as env:
        output = (await env.run("grandparent", None, "g")).output
        names = {one.instance_id for one in (await env.client.query(name="child")).instances}

    assert [n for n, _ in output] == [7, 7]
    assert all(name.startswith("g::") and name.endswith(":7") for name in names) and len(names) == 2


@both(below_yield, below_async)
async def test_such_an_id_is_looked_for_like_any_other(orchestrator):
    async def grandparent(context: OrchestrationContext):
        policy = RetryPolicy(first_interval=1, max_attempts=2)
        return await context.call_sub_orchestrator("main", None, "mid::1", retry=policy)

    async def parent(context: OrchestrationContext):
        mine = f"{context.instance_id}:7"
        first = await context.call_sub_orchestrator("child", 1, mine)
        return [first[0], (await context.call_sub_orchestrator("child", 2, mine))[0]]

    app = family(orchestrator, child_takes_time)
    app.orchestrator(grandparent)
    app.orchestrator(parent)

    async def over(context: OrchestrationContext):
        return await context.call_sub_orchestrator("parent")

    app.orchestrator(over)
    async with environment(app) as env:
        assert (await env.run("over")).output == [1, 2]
        refused = (await env.run("grandparent")).failure
    assert "contains '::'" in refused.message, "of another instance's derived ids none can be made up"
