"""Sub-orchestrations: results, failures, ids, and ends that hit the right ones."""

import asyncio

import pytest

from perdure import App, InstanceFinished, InvalidInstanceId, OrchestrationContext, RuntimeStatus
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
@pytest.mark.parametrize("finished", [False, True])
async def test_a_taken_child_id_fails_the_call(orchestrator, finished):
    async with environment(family(orchestrator, child_waits)) as env:
        await env.client.start_new("child", "kid")
        if finished:
            await env.client.raise_event("kid", "Go")
            await env.client.wait_for_completion("kid")
        failure = (await env.run("main")).failure

    assert failure.cause.type == "perdure.errors.InstanceExists"
    assert "'kid' already exists" in failure.cause.message


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
