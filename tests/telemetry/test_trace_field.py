"""The field `trace`: the start of an execution carries it, and children and further executions inherit it."""

import msgspec
import pytest

from perdure import App, OrchestrationContext
from perdure.model import events as ev
from perdure.model.messages import RaiseEvent, Start, decode_message, encode_message
from perdure.model.span_ids import span_id_of, trace_id_of
from perdure.model.trace_context import (
    STATE_LIMIT,
    TraceContext,
    trace_before,
    trace_continued,
    trace_in,
)
from perdure.testing import environment
from perdure.testing.environments import DurableEnvironment
from tests.core.styles import both
from tests.engine.programs import app_with

CARRIED = f"00-{'ab' * 16}-{'cd' * 8}-01 vendor=value"


def parent_yield(context: OrchestrationContext):
    yield context.call_activity("work", 1)
    yield context.wait_for_external_event("Go")
    yield context.call_sub_orchestrator("leaf", instance_id="leaf-1")
    if context.get_input():
        context.continue_as_new(None)


async def parent_async(context: OrchestrationContext):
    await context.call_activity("work", 1)
    await context.wait_for_external_event("Go")
    await context.call_sub_orchestrator("leaf", instance_id="leaf-1")
    if context.get_input():
        context.continue_as_new(None)


async def leaf(context: OrchestrationContext):
    await context.call_activity("work", 2)


def work(n: int) -> int:
    return n


def app_of(orchestrator) -> App:
    app = app_with(orchestrator, work)
    app.orchestrator(leaf)
    return app


async def started(env: DurableEnvironment, trace: str, input_: str = "null") -> None:
    message = Start(instance_id="one", name="main", input=msgspec.Raw(input_.encode()), trace=trace)
    await env.client.gateway.accept(message)
    await env.settled()


def start_of(env: DurableEnvironment, instance_id: str) -> ev.ExecutionStarted:
    stored = env.store.get(instance_id, history=True)
    [found] = [
        event
        for row in stored.history
        for event in ev.decode_events(row.events)
        if isinstance(event, ev.ExecutionStarted)
    ]
    return found


@both(parent_yield, parent_async)
@pytest.mark.parametrize("lost", ["nothing", "code", "process"])
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_a_child_inherits_the_trace_also_after_a_restart(orchestrator, lost, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_of(orchestrator), store=url) as env:
        await started(env, CARRIED)
        if lost == "code":
            await env.evict()
        if lost == "process" and store != "memory:":
            await env.restart()
        await env.client.raise_event("one", "Go")
        await env.client.wait_for_completion("one")

        assert start_of(env, "one").trace == CARRIED
        assert start_of(env, "leaf-1").trace == CARRIED


@both(parent_yield, parent_async)
async def test_without_a_trace_nothing_is_written(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        await started(env, "")
        await env.client.raise_event("one", "Go")
        await env.client.wait_for_completion("one")

        rows = [row for one in ("one", "leaf-1") for row in env.store.get(one, history=True).history]
        assert b"trace" not in b"".join(bytes(row.events) for row in rows)


@both(parent_yield, parent_async)
async def test_the_next_execution_is_a_trace_of_its_own_with_the_same_decision(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        await started(env, CARRIED, "true")
        await env.client.raise_event("one", "Go")
        await env.settled()
        second = start_of(env, "one").trace
        await env.client.raise_event("one", "Go")
        await env.client.wait_for_completion("one")
        row = env.store.get("one").row
        salt = row.salt[:4].hex()

        found = trace_in(second)
        assert found is not None
        assert (found.trace_id, found.flags) == (trace_id_of("one", f"{salt}-2"), 1)
        assert trace_before(second, "one", f"{salt}-1")[:2] == (
            int("ab" * 16, 16),
            span_id_of("one", f"{salt}-1"),
        )
        assert start_of(env, "leaf-1").trace == second


async def test_a_raised_event_keeps_the_trace_of_its_raiser():
    async def waits(context: OrchestrationContext):
        await context.wait_for_external_event("Go")

    async with environment(app_with(waits)) as env:
        await started(env, "")
        await env.client.gateway.accept(RaiseEvent(instance_id="one", name="Go", trace=CARRIED))
        await env.client.wait_for_completion("one")

        raised = [
            event
            for row in env.store.get("one", history=True).history
            for event in ev.decode_events(row.events)
            if isinstance(event, ev.EventRaised)
        ]
        assert [event.trace for event in raised] == [CARRIED]


# ------------------------------------------------------------------------------------------------ the text


def test_a_traceparent_is_read_and_written():
    found = trace_in(CARRIED)

    assert found == TraceContext(int("ab" * 16, 16), int("cd" * 8, 16), 1, "vendor=value")
    assert found.text() == CARRIED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"00-{'0' * 32}-{'cd' * 8}-01",
        f"00-{'ab' * 16}-{'0' * 16}-01",
        f"ff-{'ab' * 16}-{'cd' * 8}-01",
        f"00-{'AB' * 16}-{'cd' * 8}-01",
        f"00-{'ab' * 16}-{'cd' * 8}-01-more",
        f"00-{'ab' * 16}-{'cd' * 8}-1",
    ],
)
def test_what_is_no_traceparent_is_no_trace(text):
    assert trace_in(text) is None
    assert trace_continued(text, "one", "0a-1", "0a-2") == ""


def test_a_later_version_of_the_header_may_have_more_fields():
    assert trace_in(f"01-{'ab' * 16}-{'cd' * 8}-03-more") == TraceContext(
        int("ab" * 16, 16), int("cd" * 8, 16), 3
    )


@pytest.mark.parametrize("state", ["x" * (STATE_LIMIT + 1), "a=\n", "a=ü"])
def test_a_tracestate_that_is_too_long_or_no_header_is_left_out(state):
    assert TraceContext(1, 2, 0, state).text() == f"00-{1:032x}-{2:016x}-00"


def test_continuing_again_and_again_does_not_grow_the_tracestate():
    trace = CARRIED
    for number in range(1, 5):
        trace = trace_continued(trace, "one", f"0a-{number}", f"0a-{number + 1}")

    found = trace_in(trace)
    assert found is not None
    assert found.state == f"perdure={trace_id_of('one', '0a-4'):032x},vendor=value"


def test_messages_written_before_the_field_are_read():
    before = b'{"type":"Start","instance_id":"one","name":"main"}'

    assert decode_message(before) == Start(instance_id="one", name="main")
    assert b"trace" not in encode_message(decode_message(before))
