"""Times, durations and names at the edges: refused at the line that writes them, and never parked as poison."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest

import perdure as df
from perdure import OrchestrationContext, PayloadError
from perdure.engine.client.client import Client
from perdure.testing import environment

BAD = "caf\udc80"
AGES = timedelta(days=365 * 9_000)
LAST = datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))
FIRST = datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))
ENTITY = df.EntityId("account", "k")


class Nowhere(tzinfo):
    """A time zone that does not say where it is."""

    def utcoffset(self, at):
        return None


REFUSED = {
    "a timer for ever": lambda c: c.create_timer(timedelta.max),
    "a timer before all time": lambda c: c.create_timer(timedelta.min),
    "a timer beyond the year 9999": lambda c: c.create_timer(AGES),
    "the same in seconds": lambda c: c.create_timer(3e11),
    "a timer before the year 1": lambda c: c.create_timer(-AGES),
    "an infinite timer": lambda c: c.create_timer(float("inf")),
    "a timer of no number": lambda c: c.create_timer(float("nan")),
    "a number that no float holds": lambda c: c.create_timer(10**400),
    "a naive datetime": lambda c: c.create_timer(datetime(2030, 1, 1)),
    "a datetime of no zone": lambda c: c.create_timer(datetime(2030, 1, 1, tzinfo=Nowhere())),
    "a datetime beyond the last": lambda c: c.create_timer(LAST),
    "a datetime before the first": lambda c: c.create_timer(FIRST),
    "a wait for ever": lambda c: c.wait_for_external_event("go", timeout=timedelta.max),
    "a wait beyond the year 9999": lambda c: c.wait_for_external_event("go", timeout=AGES),
    "an activity for ever": lambda c: c.call_activity("act", timeout=timedelta.max),
    "a negative timeout": lambda c: c.call_activity("act", timeout=-1),
    "a negative silence": lambda c: c.call_activity("act", heartbeat_timeout=-1.0),
    "a pause for ever": lambda c: c.call_activity("act", retry=df.RetryPolicy(timedelta.max)),
    "a negative limit of retries": lambda c: c.call_activity("act", retry=df.RetryPolicy(1, max_elapsed=-1)),
    "a factor of no number": lambda c: c.call_activity("act", retry=df.RetryPolicy(1, backoff=float("nan"))),
    "a signal after all time": lambda c: c.signal_entity(ENTITY, "add", at=LAST),
    "polling for ages": lambda c: c.call_http("GET", "http://x/", poll_timeout=AGES),
    "an event of no characters": lambda c: c.wait_for_external_event(BAD),
    "an event with NUL": lambda c: c.wait_for_external_event("a\0b"),
    "an event with no name": lambda c: c.wait_for_external_event(""),
    "an event with a long name": lambda c: c.wait_for_external_event("a" * 201),
    "an activity of no characters": lambda c: c.call_activity(BAD),
    "an activity with a long name": lambda c: c.call_activity("a" * 201),
    "an activity with no name": lambda c: c.call_activity(""),
    "no activity": lambda c: c.call_activity(None),
    "a child of no characters": lambda c: c.call_sub_orchestrator(BAD),
    "a child id of no characters": lambda c: c.call_sub_orchestrator("main", "x", BAD),
    "a child version of no characters": lambda c: c.call_sub_orchestrator("main", "x", None, BAD),
    "an operation of no characters": lambda c: c.call_entity(ENTITY, BAD),
    "an entity of no characters": lambda c: c.call_entity(f"@account@{BAD}", "add"),
    "a lock of no characters": lambda c: c.lock(f"@account@{BAD}"),
    "a status of no characters": lambda c: c.set_custom_status({BAD: 1}),
    "an input of no characters": lambda c: c.call_activity("act", BAD),
    "a patch of no characters": lambda c: c.patched(BAD),
    "a patch with a long name": lambda c: c.patched("a" * 201),
    "a next version of no characters": lambda c: c.continue_as_new("x", version=BAD),
}


def app() -> df.App:
    made = df.App("edges")

    @made.activity
    def act(given: object = None) -> str:
        return "done"

    @made.entity(name="account")
    class Account:
        def add(self) -> int:
            return 1

    def body(context: OrchestrationContext, what: str) -> str:
        try:
            REFUSED[what](context)
        except (ValueError, df.PerdureError) as error:
            return f"refused: {error!a}"
        return "accepted"

    @made.orchestrator(name="main")
    async def main(context: OrchestrationContext, what: str) -> str:
        said = body(context, what)
        await context.create_timer(1)
        return said

    @made.orchestrator(name="main_yield")
    def main_yield(context: OrchestrationContext, what: str):
        said = body(context, what)
        yield context.create_timer(1)
        return said

    return made


@pytest.mark.parametrize("style", ["main", "main_yield"])
@pytest.mark.parametrize("what", REFUSED)
async def test_it_is_refused_where_it_is_written(style, what, tmp_path):
    async with environment(app(), store=f"sqlite:///{tmp_path}/hub.db") as env:
        instance = await env.client.start_new(style, None, what)
        await env.settled()
        await env.evict()
        output = (await env.client.wait_for_completion(instance)).output

    assert output.startswith("refused: "), output


@pytest.mark.parametrize("after", [-1, timedelta(days=-1), timedelta(microseconds=-1), 0])
async def test_a_time_that_has_passed_fires_at_once(after):
    made = df.App("edges")

    @made.orchestrator
    async def main(context: OrchestrationContext) -> str:
        await context.create_timer(after)
        return await context.wait_for_external_event("go", timeout=after, default="too late")

    async with environment(made) as env:
        instance = await env.client.start_new(main)
        await env.settled()
        assert (await env.client.get_status(instance)).output == "too late"


async def test_a_pause_that_would_end_after_all_time_ends_with_it():
    made = df.App("edges")

    @made.activity
    def broken() -> None:
        raise ValueError("it is broken")

    @made.orchestrator
    async def main(context: OrchestrationContext) -> None:
        await context.call_activity(broken, retry=df.RetryPolicy(AGES, max_interval=AGES))

    async with environment(made) as env:
        instance = await env.client.start_new(main)
        await env.settled()
        status = await env.client.get_status(instance)

    assert "at 9999-12-31 23:59:59 UTC" in status.waiting_for


ASKED = {
    "start, tag": lambda client: client.start_new("main", "b", "x", tags={"a": BAD}),
    "start, version": lambda client: client.start_new("main", "b", "x", version=BAD),
    "start, name of the request": lambda client: client.start_new("main", "b", "x", operation_id=BAD),
    "start, NUL": lambda client: client.start_new("main", "b", "x", operation_id="a\0b"),
    "start, later": lambda client: client.start_new("main", "b", "x", start_at=LAST),
    "event": lambda client: client.raise_event("a", BAD),
    "event id": lambda client: client.raise_event("a", "go", event_id=BAD),
    "suspend": lambda client: client.suspend("a", BAD),
    "resume": lambda client: client.resume("a", BAD),
    "terminate": lambda client: client.terminate("a", BAD),
    "rewind": lambda client: client.rewind("a", BAD),
    "signal": lambda client: client.signal_entity(ENTITY, BAD),
    "signal, later": lambda client: client.signal_entity(ENTITY, "add", at=LAST),
    "start, version of no text": lambda client: client.start_new("main", "b", "x", version=5),
    "start, tags of no pairs": lambda client: client.start_new("main", "b", "x", tags=["a"]),
    "suspend, reason of no text": lambda client: client.suspend("a", 5),
    "query": lambda client: client.query(name=BAD),
    "query, tags": lambda client: client.query(tags={"a": BAD}),
    "query, from": lambda client: client.query(created_from=LAST),
}


@pytest.mark.parametrize("verb", ASKED)
async def test_a_client_is_told_and_nothing_is_stored(verb):
    made = app()

    @made.orchestrator
    async def waits(context: OrchestrationContext) -> None:
        await context.wait_for_external_event("go")

    async with environment(made) as env:
        await env.client.start_new(waits, "a")
        await env.settled()
        with pytest.raises((PayloadError, ValueError)):
            await ASKED[verb](env.client)
        assert (await env.client.get_status("a")).runtime_status is df.RuntimeStatus.Running
        assert await env.client.get_status("b") is None


async def test_no_instance_has_an_id_that_is_no_text():
    async with environment(app()) as env:
        client: Client = env.client
        assert await client.get_status(BAD) is None


ASKED_BY_ID = {
    "event": lambda client, id: client.raise_event(id, "go"),
    "suspend": lambda client, id: client.suspend(id),
    "resume": lambda client, id: client.resume(id),
    "terminate": lambda client, id: client.terminate(id),
    "rewind": lambda client, id: client.rewind(id),
    "purge": lambda client, id: client.purge_instance_history(id),
    "purge the family": lambda client, id: client.purge_instance_history(id, recursive=True),
    "restart": lambda client, id: client.restart(id),
    "status": lambda client, id: client.get_status(id),
    "wait": lambda client, id: client.wait_for_completion(id, timeout=1),
    "watch": lambda client, id: anext(client.watch(id)),
    "event, of no text": lambda client, id: client.raise_event(id, None),
}


@pytest.mark.parametrize("verb", ASKED_BY_ID)
@pytest.mark.parametrize("wrong", [None, 5, b"a"])
async def test_an_id_that_is_no_text_is_refused_at_once(verb, wrong):
    async with environment(app()) as env:
        with pytest.raises((df.InvalidInstanceId, PayloadError), match="not (NoneType|int|bytes|None)"):
            await ASKED_BY_ID[verb](env.client, wrong)


@pytest.mark.parametrize("verb", ["restart", "wait", "watch", "purge the family"])
async def test_an_id_that_no_store_keeps_is_refused_at_once(verb):
    async with environment(app()) as env:
        with pytest.raises(df.InvalidInstanceId, match="lone surrogate"):
            await ASKED_BY_ID[verb](env.client, BAD)


async def test_a_reason_may_be_none():
    made = app()

    @made.orchestrator
    async def waits(context: OrchestrationContext) -> None:
        await context.wait_for_external_event("go")

    async with environment(made) as env:
        await env.client.start_new(waits, "a")
        await env.client.suspend("a", None)
        await env.client.terminate("a", None)
        assert (await env.client.get_status("a")).runtime_status is df.RuntimeStatus.Terminated


WRONG_TIMES = {
    "a timer of words": lambda c: c.create_timer("PT3S"),
    "a timer of a date": lambda c: c.create_timer(datetime.max.date()),
    "a timeout of words": lambda c: c.wait_for_external_event("go", timeout="soon"),
    "a signal at no time": lambda c: c.signal_entity(ENTITY, "add", at="tomorrow"),
    "a method that is no text": lambda c: c.call_http(None, "http://x/"),
}


@pytest.mark.parametrize("what", WRONG_TIMES)
async def test_what_is_no_time_is_refused_in_words(what):
    made = df.App("edges")
    made.entity(name="account")(type("Account", (), {"add": lambda self: 1}))

    @made.orchestrator
    async def main(context: OrchestrationContext) -> str:
        try:
            WRONG_TIMES[what](context)
        except (TypeError, ValueError) as error:
            return str(error)
        return "accepted"

    async with environment(made) as env:
        said = (await env.run(main)).output
        assert "seconds" in said or "aware datetime" in said or "GET" in said
        with pytest.raises(TypeError, match="start_at must be an aware datetime"):
            await env.client.start_new(main, start_at="2026-01-01T00:00:00Z")


def test_the_last_instant_is_one():
    from perdure.model.durations import LATEST, instant, moment

    last = datetime.max.replace(tzinfo=UTC)

    assert instant(last) == LATEST
    assert moment(LATEST) == last
