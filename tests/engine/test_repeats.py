"""What a caller's name for a request counts for: within its caller, its operation and its target."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

import perdure as df
from perdure.engine.core.audit import NOTE, AuditNote
from perdure.engine.core.repeats import CAUSE, bound, digest_of, id_of, named
from perdure.errors import IdempotencyConflict
from perdure.model.messages import (
    Message,
    Purge,
    RaiseEvent,
    Start,
    Terminate,
    decode_message,
    encode_message,
)
from perdure.model.records import SeenRow
from perdure.store.memory import MemoryStore
from perdure.testing import environment

KEY = "one-name"
HOUR = timedelta(hours=1)
LATER = 2**60
Verb = Callable[[df.Client, str], Awaitable[Any]]

VERBS: dict[str, Verb] = {
    "start": lambda c, i: c.start_new("listens", f"{i}-made", operation_id=KEY),
    "raise": lambda c, i: c.raise_event(i, "Go", 1, event_id=KEY),
    "raise another": lambda c, i: c.raise_event(i, "Halt", 1, event_id=KEY),
    "suspend": lambda c, i: c.suspend(i, operation_id=KEY),
    "resume": lambda c, i: c.resume(i, operation_id=KEY),
    "terminate": lambda c, i: c.terminate(i, operation_id=KEY),
    "restart": lambda c, i: c.restart(i, operation_id=KEY),
    "purge": lambda c, i: c.purge_instance_history(i, operation_id=KEY),
    "signal": lambda c, i: c.signal_entity(f"@counter@{i}", "add", 1, operation_id=KEY),
}


def make_app() -> df.App:
    app = df.App("repeats")

    @app.orchestrator
    async def listens(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("Go")

    @app.orchestrator
    async def fails(context: df.OrchestrationContext) -> object:
        await context.wait_for_external_event("Go")
        raise ValueError("no")

    @app.entity
    def counter(context: df.EntityContext) -> None:
        context.set_state(context.get_state(lambda: 0) + context.get_input())

    return app


@pytest.mark.parametrize("second", ["raise", "suspend", "terminate", "signal", "start"])
@pytest.mark.parametrize("first", ["raise another", "suspend", "signal", "start"])
async def test_a_name_that_another_verb_has_used_is_a_new_name_for_this_one(first: str, second: str) -> None:
    if first == second:
        return
    async with environment(make_app()) as env:
        await env.client.start_new("listens", "a")
        await VERBS[first](env.client, "a")
        await VERBS[second](env.client, "a")

        status = await env.client.get_status("a", show_history=True)
        entity = await env.client.read_entity_state("@counter@a")
        happened = {
            "raise": any(e["type"] == "EventRaised" and e["name"] == "Go" for e in status.history)
            or first == "suspend",  # then it is kept until the instance is resumed
            "suspend": status.runtime_status is df.RuntimeStatus.Suspended,
            "terminate": status.runtime_status is df.RuntimeStatus.Terminated,
            "signal": entity.state == 1,
            "start": await env.client.get_status("a-made") is not None,
        }
        assert happened[second]


@pytest.mark.parametrize("where", ["memory", "sqlite", "postgres"])
async def test_one_name_goes_through_the_whole_life_of_an_instance(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    match where:
        case "memory":
            store = "memory:"
        case "sqlite":
            store = f"sqlite:///{tmp_path}/perdure.db"
        case _:
            store = request.getfixturevalue("newest_url")
    async with environment(make_app(), store=store) as env:
        client = env.client
        await client.start_new("fails", "a", operation_id=KEY)
        await client.suspend("a", operation_id=KEY)
        await client.resume("a", operation_id=KEY)
        await client.raise_event("a", "Go", 1, event_id=KEY)
        assert (await client.wait_for_completion("a")).runtime_status is df.RuntimeStatus.Failed
        await client.rewind("a", operation_id=KEY)
        assert (await client.wait_for_completion("a")).runtime_status is df.RuntimeStatus.Failed
        again = await client.restart("a", operation_id=KEY)
        assert again != "a" and await client.restart("a", operation_id=KEY) == again
        await client.terminate(again, operation_id=KEY)
        assert await client.purge_instance_history("a", operation_id=KEY)
        assert await client.purge_instance_history(again, operation_id=KEY)
        assert [await client.get_status(one) for one in ("a", again)] == [None, None]
        await client.start_new("listens", "b", 1, operation_id=KEY)
        with pytest.raises(IdempotencyConflict):
            await client.start_new("listens", "b", 2, operation_id=KEY)


async def test_one_webhook_id_raised_to_three_instances_reaches_all_three() -> None:
    async with environment(make_app()) as env:
        for one in "abc":
            await env.client.start_new("listens", one)
        for one in "abc":
            await env.client.raise_event(one, "Go", one, event_id="webhook-1")
        assert [(await env.client.wait_for_completion(one)).output for one in "abc"] == ["a", "b", "c"]


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("restarted", [False, True])
async def test_the_same_name_with_another_content_is_refused_and_does_nothing(
    suspended: bool, restarted: bool
) -> None:
    async with environment(make_app()) as env:
        await env.client.start_new("listens", "a", {"n": 1}, operation_id=KEY)
        if suspended:
            await env.client.suspend("a")
        await env.client.raise_event("a", "Halt", "first", event_id=KEY)
        await env.client.signal_entity("@counter@x", "add", 1, operation_id=KEY)
        if restarted:
            await env.restart()
        with pytest.raises(IdempotencyConflict) as refused:
            await env.client.raise_event("a", "Halt", "second", event_id=KEY)
        with pytest.raises(IdempotencyConflict):
            await env.client.start_new("listens", "a", {"n": 2}, operation_id=KEY)
        with pytest.raises(IdempotencyConflict):
            await env.client.start_new("fails", "a", {"n": 1}, operation_id=KEY)
        with pytest.raises(IdempotencyConflict):
            await env.client.signal_entity("@counter@x", "add", 2, operation_id=KEY)
        await env.client.raise_event("a", "Halt", "first", event_id=KEY)

        assert refused.value.number == "PDR-095" and "'a'" in str(refused.value)
        assert (await env.client.read_entity_state("@counter@x")).state == 1
        if suspended:
            await env.client.resume("a")
        history = (await env.client.get_status("a", show_history=True, show_input=True)).history
        assert [e["input"] for e in history if e["type"] == "EventRaised"] == ["first"]


async def test_a_reason_is_content_and_so_is_how_an_instance_is_restarted() -> None:
    async with environment(make_app()) as env:
        await env.client.start_new("listens", "a")
        await env.client.suspend("a", "one", operation_id=KEY)
        with pytest.raises(IdempotencyConflict):
            await env.client.suspend("a", "another", operation_id=KEY)
        await env.client.terminate("a", "one", operation_id=KEY)
        with pytest.raises(IdempotencyConflict):
            await env.client.terminate("a", "one", recursive=True, operation_id=KEY)
        await env.client.restart("a", operation_id=KEY)
        with pytest.raises(IdempotencyConflict):
            await env.client.restart("a", False, operation_id=KEY)


async def test_a_queue_takes_one_message_of_a_name_and_tells_who_sends_another() -> None:
    async with environment(make_app()) as env:
        queues = df.Queues(env.client)
        first = await queues.send("orders", {"n": 1}, message_id="m-1")
        assert await queues.send("orders", {"n": 1}, message_id="m-1") == first
        with pytest.raises(IdempotencyConflict):
            await queues.send("orders", {"n": 2}, message_id="m-1")
        assert await queues.send("parcels", {"n": 2}, message_id="m-1") != first


async def test_starts_without_an_id_count_for_their_orchestrator() -> None:
    async with environment(make_app()) as env:
        first = await env.client.start_new("listens", None, 1, operation_id=KEY)
        assert await env.client.start_new("listens", None, 1, operation_id=KEY) == first
        assert await env.client.start_new("fails", None, 1, operation_id=KEY) != first
        with pytest.raises(IdempotencyConflict):
            await env.client.start_new("listens", None, 2, operation_id=KEY)


async def test_a_repeat_may_name_another_time() -> None:
    """A caller that computes "in an hour" does so again when it repeats its request."""
    async with environment(make_app()) as env:
        first = await env.client.start_new("listens", None, 1, start_at=env.now + HOUR, operation_id=KEY)
        await env.advance(minutes=1)
        again = await env.client.start_new("listens", None, 1, start_at=env.now + HOUR, operation_id=KEY)
        assert again == first


async def test_callers_do_not_share_names() -> None:
    async with environment(make_app()) as env:
        await env.client.start_new("listens", "a")
        for caller in ("Ann (key 1)", "Bob (key 2)", None):
            before = NOTE.set(AuditNote(caller, "127.0.0.1") if caller else None)
            await env.client.raise_event("a", "Halt", caller, event_id=KEY)
            NOTE.reset(before)
        history = (await env.client.get_status("a", show_history=True, show_input=True)).history
        raised = [e["input"] for e in history if e["type"] == "EventRaised"]
        assert raised == ["Ann (key 1)", "Bob (key 2)", None]


# ------------------------------------------------------------------------------ derived by activities


async def test_no_request_can_burn_what_an_activity_will_ask_for() -> None:
    """The names that an activity derives are known to readers of its history; they are in a space of their own."""
    app = make_app()

    @app.activity
    async def works(context: df.ActivityContext, client: df.Client) -> str:
        await client.raise_event("target", "Go", "from the activity")
        return await client.start_new("listens", None, "child")

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> str:
        await context.wait_for_external_event("Begin")
        return await context.call_activity(works)

    async with environment(app) as env:
        await env.client.start_new("listens", "target")
        await env.client.start_new("main", "m")
        execution = (await env.client.get_status("m")).execution_id
        for task in range(1, 5):
            for number in range(3):
                cause = f"m:{execution}:{task}#{number}"
                await env.client.raise_event("target", "Other", "burnt", event_id=cause)
                await env.client.start_new("listens", f"burnt-{task}-{number}", operation_id=cause)
        await env.client.raise_event("m", "Begin")
        child = (await env.client.wait_for_completion("m")).output

        assert (await env.client.wait_for_completion("target")).output == "from the activity"
        assert not child.startswith("burnt")
        assert (await env.client.get_status(child, show_input=True)).input == "child"


# ------------------------------------------------------------------------------------ rows from before


async def test_rows_that_bear_the_bare_name_still_answer_their_repeats() -> None:
    store = MemoryStore("repeats")
    async with environment(make_app(), store=store) as env:
        await env.client.start_new("listens", "a")
        await env.client.start_new("listens", "b")
        seen = store._tables.seen
        seen["old-raise"] = SeenRow("old-raise", "a", b"null", LATER)
        seen["old-start"] = SeenRow("old-start", "made-then", b'"made-then"', LATER)
        seen["old-restart"] = SeenRow("old-restart", "run-then", b'"run-then"', LATER)

        await env.client.raise_event("a", "Go", 1, event_id="old-raise")
        assert not (await env.client.get_status("a")).is_finished  # it was raised before the update
        assert await env.client.start_new("listens", None, operation_id="old-start") == "made-then"
        assert await env.client.start_new("listens", "made-then", operation_id="old-start") == "made-then"
        assert await env.client.restart("a", operation_id="old-restart") == "run-then"


async def test_rows_that_bear_the_bare_name_answer_nothing_else() -> None:
    store = MemoryStore("repeats")
    async with environment(make_app(), store=store) as env:
        await env.client.start_new("listens", "a")
        await env.client.start_new("listens", "b")
        store._tables.seen["old"] = SeenRow("old", "a", b"null", LATER)
        store._tables.seen["old-start"] = SeenRow("old-start", "a", b'"a"', LATER)

        await env.client.raise_event("b", "Go", 1, event_id="old")
        assert (await env.client.wait_for_completion("b")).output == 1
        assert await env.client.start_new("listens", "c", operation_id="old-start") == "c"
        await env.client.terminate("a", operation_id="old-start")
        assert (await env.client.get_status("a")).runtime_status is df.RuntimeStatus.Terminated
        assert await env.client.purge_instance_history("a", operation_id="old")
        assert await env.client.get_status("a") is None


# --------------------------------------------------------------------------------------- the digests


def test_what_is_kept_is_a_digest_that_tells_every_part_apart() -> None:
    names = {
        id_of(caller, verb, target, key)
        for caller in ("", "a", "ab")
        for verb in ("raise", "start")
        for target in (("a",), ("a", ""), ("", "a"), ("b",))
        for key in ("k", "kk")
    }
    assert len(names) == 3 * 2 * 4 * 2
    assert all(name.startswith("op:") and len(name) == 43 for name in names)
    assert digest_of("ab", "c") != digest_of("a", "bc")


@pytest.mark.parametrize(
    "message",
    [
        Start(instance_id="a", name="n", input=Raw(b"1"), operation_id="k"),
        RaiseEvent(instance_id="a", name="n", operation_id="k"),
        Terminate(instance_id="a", operation_id="k"),
        Purge(instance_id="a", operation_id="k"),
    ],
)
def test_a_message_is_bound_once_and_travels_so(message: Message) -> None:
    once = named(message)
    assert named(once) is once
    assert decode_message(encode_message(once)) == once
    caused = bound(message, CAUSE, content="")
    assert caused.remembered_as != once.remembered_as and caused.content == ""


def test_a_message_without_a_name_passes_as_it_is() -> None:
    message = RaiseEvent(instance_id="a", name="n")
    assert named(message) is message
    assert b"remembered_as" not in encode_message(message)
