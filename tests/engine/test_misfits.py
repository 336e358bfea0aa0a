"""A payload that was accepted, and no longer fits its type after a deploy: the instance is parked as a misfit.

It goes on by itself when the code has been mended, and its code is never told that something failed.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pydantic
import pytest
from msgspec import Raw

from perdure import App, EntityId, OrchestrationContext, RuntimeStatus
from perdure.errors import MisfitError, PayloadError
from perdure.model import events as ev
from perdure.model.payload import encode
from perdure.testing import check_history, environment
from tests.core.styles import both


@dataclass
class Before:
    id: str


@dataclass
class After:
    id: str
    region: str


@dataclass
class Mended:
    id: str
    region: str = "eu"


Make = Any  # makes the application for one type


async def deployed(make: Make, events=(), *, suspend: bool = False, tmp_path=None, setup=None):
    """Start under `Before`, deploy `After`, send events, and return what is seen; then deploy `Mended`."""
    store = "memory:" if tmp_path is None else f"sqlite:///{tmp_path}/hub.db"
    async with environment(make(Before), store=store) as env:
        await env.client.start_new("main", "m", {"id": "r-1"})
        await env.settled()
        if setup is not None:
            await setup(env)
        await env.restart(make(After))
        for name, body in events:
            await env.client.raise_event("m", name, body)
        await env.advance(minutes=2)
        parked = await env.client.get_status("m")
        await env.restart(make(Mended))
        await env.settled()
        return parked, await env.client.get_status("m")


def is_misfit(status, *told: str, wanted: str = "After") -> None:
    assert status.runtime_status is RuntimeStatus.Suspended
    assert status.reason.startswith("nondeterminism: misfit: ")
    for words in ("does not fit", wanted, "`region`", "give 'region' a default", *told):
        assert words in status.reason
    assert "PDR-073" in status.waiting_for


def paying(style: str) -> Make:
    def make(kind: type) -> App:
        app = App("payments")

        def pay():
            return Before("r-1")

        pay.__annotations__["return"] = kind
        app.activity(pay)

        if style == "yield":

            @app.orchestrator
            def main(context: OrchestrationContext):
                try:
                    yield context.call_activity(pay)
                    paid = True
                except Exception:
                    paid = False
                yield context.wait_for_external_event("Shipped")
                return "paid" if paid else "refused"

        else:

            @app.orchestrator
            async def main(context: OrchestrationContext):
                try:
                    await context.call_activity(pay)
                    paid = True
                except Exception:
                    paid = False
                await context.wait_for_external_event("Shipped")
                return "paid" if paid else "refused"

        return app

    return make


@pytest.mark.parametrize("style", ["yield", "async"])
@pytest.mark.parametrize("stored", [False, True])
async def test_a_recorded_result_that_no_longer_fits_is_not_taken_for_a_failure(style, stored, tmp_path):
    parked, mended = await deployed(paying(style), [("Shipped", None)], tmp_path=tmp_path if stored else None)

    is_misfit(parked, "the result of call 0 (Activity function 'pay')")
    assert mended.output == "paid"


@pytest.mark.parametrize("style", ["yield", "async"])
async def test_a_result_that_arrives_and_does_not_fit_waits_for_code_that_takes_it(style):
    """The effect has happened. Its first decoding tells no less than a later one."""
    make = paying(style)
    async with environment(make(After)) as env:
        await env.client.start_new("main", "m")
        await env.settled()
        is_misfit(await env.client.get_status("m"), "the result of call 0")
        await env.client.resume("m")
        await env.settled()
        is_misfit(await env.client.get_status("m"), "the result of call 0")

        await env.restart(make(Mended))
        await env.client.raise_event("m", "Shipped")
        assert (await env.client.wait_for_completion("m")).output == "paid"
        assert len(env.calls("pay")) == 1


def with_child(kind: type) -> App:
    app = App("family")

    @app.orchestrator
    def child(context: OrchestrationContext) -> dict:
        return {"id": "r-1"}

    @app.orchestrator
    async def main(context: OrchestrationContext):
        try:
            found = await context.call_sub_orchestrator(child, expected_type=kind)
        except Exception:
            return "refused"
        await context.wait_for_external_event("Go")
        return found.id

    return app


def with_entity(kind: type) -> App:
    app = App("entities")

    class Till:
        def read(self) -> dict:
            return {"id": "r-1"}

    app.entity(Till)

    @app.orchestrator
    async def main(context: OrchestrationContext):
        try:
            found = await context.call_entity(EntityId("Till", "1"), "read", expected_type=kind)
        except Exception:
            return "refused"
        await context.wait_for_external_event("Go")
        return found.id

    return app


def with_input(kind: type) -> App:
    app = App("inputs")

    async def main(context: OrchestrationContext, found):
        await context.wait_for_external_event("Go")
        return found.id

    main.__annotations__["found"] = kind
    app.orchestrator(main)
    return app


def with_get_input(kind: type) -> App:
    app = App("inputs")

    @app.orchestrator
    async def main(context: OrchestrationContext):
        found = context.get_input(kind)
        await context.wait_for_external_event("Go")
        return found.id

    return app


def with_late_get_input(kind: type) -> App:
    app = App("inputs")

    @app.orchestrator
    async def main(context: OrchestrationContext):
        await context.wait_for_external_event("Go")
        return context.get_input(kind).id

    return app


@pytest.mark.parametrize(
    ("make", "whose"),
    [
        (with_child, "the result of call 0 (Orchestrator function 'child')"),
        (with_entity, "the result of call 0 ("),
        (with_input, "the input: "),
        (with_get_input, "the input: "),
        (with_late_get_input, "the input: "),
    ],
)
async def test_what_a_running_instance_has_read_and_no_longer_fits_parks_it(make, whose):
    parked, mended = await deployed(make, [("Go", None)])

    is_misfit(parked, whose)
    assert mended.output == "r-1"


# ------------------------------------------------------------------------------------------------------- events


def taking(kind: type) -> App:
    app = App("events")

    @app.orchestrator
    async def main(context: OrchestrationContext):
        found = await context.wait_for_external_event("Decision", kind)
        await context.wait_for_external_event("Go")
        return found.id

    return app


def taking_later(kind: type) -> App:
    app = App("events")

    @app.orchestrator
    async def main(context: OrchestrationContext):
        await context.create_timer(timedelta(minutes=1))
        found = await context.wait_for_external_event("Decision", kind)
        return found.id

    return app


def taking_in_the_next_execution(kind: type) -> App:
    app = App("events")

    @app.orchestrator
    async def main(context: OrchestrationContext):
        if context.get_input() != "next":
            await context.create_timer(timedelta(minutes=1))
            context.continue_as_new("next")
            return None
        return (await context.wait_for_external_event("Decision", kind)).id

    return app


async def raised(env) -> None:
    await env.client.raise_event("m", "Decision", {"id": "r-1"})
    await env.settled()


async def raised_while_suspended(env) -> None:
    await env.client.suspend("m")
    await raised(env)


@pytest.mark.parametrize("make", [taking, taking_later, taking_in_the_next_execution])
async def test_an_event_that_was_accepted_and_no_longer_fits_parks_its_instance(make):
    parked, mended = await deployed(make, [("Go", None)] if make is taking else [], setup=raised)

    is_misfit(parked, "the event 'Decision'")
    assert mended.output == "r-1"


async def test_an_event_held_for_a_suspended_instance_is_neither_lost_nor_refused():
    async with environment(taking(Before)) as env:
        await env.client.start_new("main", "m")
        await env.settled()
        await raised_while_suspended(env)
        await env.restart(taking(After))
        await env.client.resume("m")
        await env.settled()
        is_misfit(await env.client.get_status("m"), "the event 'Decision'")
        await env.client.resume("m")  # with the same code: nothing is lost
        await env.settled()
        is_misfit(await env.client.get_status("m"), "the event 'Decision'")

        await env.restart(taking(Mended))
        await env.client.raise_event("m", "Go")
        assert (await env.client.wait_for_completion("m")).output == "r-1"


async def test_a_held_event_that_today_s_door_would_refuse_is_kept_too():
    def make(kind: type) -> App:
        app = App("events")

        @app.orchestrator(events={"Decision": kind})
        async def main(context: OrchestrationContext):
            return (await context.wait_for_external_event("Decision", kind)).id

        return app

    async with environment(make(Before)) as env:
        await env.client.start_new("main", "m")
        await env.settled()
        await raised_while_suspended(env)
        await env.restart(make(After))
        await env.client.resume("m")
        await env.settled()
        status = await env.client.get_status("m")
        assert status.reason.startswith("nondeterminism: misfit: event 'Decision' of 'main'")
        assert "`region`" in status.reason

        await env.restart(make(Mended))
        assert (await env.client.wait_for_completion("m")).output == "r-1"


async def test_a_fresh_event_that_does_not_fit_is_recorded_and_dropped_as_before():
    async with environment(taking(After)) as env:
        await env.client.start_new("main", "m")
        await env.settled()
        await raised(env)
        status = await env.client.get_status("m", show_history=True)
        assert status.runtime_status is RuntimeStatus.Running
        assert "EventRejected" in [event["type"] for event in status.history]

        await env.restart(taking(Mended))  # it was rejected then, and stays so
        await env.client.raise_event("m", "Decision", {"id": "r-2"})
        await env.client.raise_event("m", "Go")
        assert (await env.client.wait_for_completion("m")).output == "r-2"


async def test_garbage_raised_early_under_the_same_code_parks_nothing():
    async with environment(taking_later(After)) as env:
        await env.client.start_new("main", "m")
        await env.settled()
        await raised(env)
        await env.advance(minutes=2)
        assert (await env.client.get_status("m")).runtime_status is RuntimeStatus.Running
        await env.client.raise_event("m", "Decision", {"id": "r-2", "region": "eu"})
        assert (await env.client.wait_for_completion("m")).output == "r-2"


# ------------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("make", [with_input, with_get_input])
async def test_a_fresh_input_that_does_not_fit_fails_its_instance_as_before(make):
    async with environment(make(After)) as env:
        failure = (await env.run("main", {"id": "r-1"})).failure

    assert failure.type == "perdure.errors.PayloadError"


async def test_a_start_accepted_for_later_waits_for_code_that_takes_it():
    async with environment(with_input(Before)) as env:
        at = env.now + timedelta(hours=1)
        await env.client.start_new("main", "m", {"id": "r-1"}, start_at=at)
        await env.settled()
        await env.restart(with_input(After))
        await env.advance(hours=2)
        is_misfit(await env.client.get_status("m"), "the input: ", "no worker was running to check its start")

        await env.restart(with_input(Mended))
        await env.client.raise_event("m", "Go")
        assert (await env.client.wait_for_completion("m")).output == "r-1"


async def test_code_that_handles_a_bad_input_is_told_again_in_replay():
    """A fresh input that does not fit is an error like any other; it leaves a mark in history."""

    def make(kind: type) -> App:
        app = App("inputs")

        @app.orchestrator
        async def main(context: OrchestrationContext):
            try:
                context.get_input(kind)
            except PayloadError:
                await context.wait_for_external_event("Go")
                return "sent back"
            return "accepted"

        return app

    async with environment(make(After)) as env:
        await env.client.start_new("main", "m", {"id": "r-1"})
        await env.settled()
        await env.restart(make(After))
        await env.client.raise_event("m", "Go")
        assert (await env.client.wait_for_completion("m")).output == "sent back"


@pytest.mark.parametrize("swallowed", [Exception, BaseException])
async def test_an_input_that_fitted_is_not_taken_for_a_refusal(swallowed):
    def make(kind: type) -> App:
        app = App("inputs")

        @app.orchestrator
        async def main(context: OrchestrationContext):
            try:
                found = context.get_input(kind).id
            except swallowed:
                found = "refused"
            await context.wait_for_external_event("Go")
            return found

        return app

    parked, mended = await deployed(make, [("Go", None)])

    is_misfit(parked, "the input: ")
    assert mended.output == "r-1"


# ----------------------------------------------------------------------------------------------------- entities


def till(kind: type, style: str) -> App:
    app = App("tills")

    if style == "whole":

        @dataclass
        class Till:
            last: kind | None = None

            def put(self, last: dict) -> None:
                self.last = kind(**last)

            def read(self) -> str:
                return self.last.id

        app.entity(Till)
    elif style == "attributes":

        class Till:
            def __init__(self) -> None:
                self.last = None

            def put(self, last: dict) -> None:
                self.last = kind(**last)

            def read(self) -> str:
                return self.last.id

        Till.__annotations__ = {"last": kind | None}
        app.entity(Till)
    else:

        def work(context):
            if context.operation_name == "put":
                context.set_state(context.get_input())
            else:
                try:
                    found = context.get_state(expected_type=kind).id
                except Exception:
                    found = "lost"
                    context.set_state({})
                context.set_result(found)

        if style == "function":

            @app.entity(name="Till")
            def plain(context):
                work(context)

        elif style == "threads":

            @app.entity(name="Till", offload=True)
            def offloaded(context):
                work(context)

        else:

            @app.entity(name="Till", offload=True)
            async def waiting(context):
                work(context)

    @app.orchestrator
    async def main(context: OrchestrationContext):
        await context.call_entity(EntityId("Till", "1"), "put", {"id": "r-1"})
        await context.wait_for_external_event("Go")
        try:
            return await context.call_entity(EntityId("Till", "1"), "read")
        except Exception:
            return "refused"

    return app


@pytest.mark.parametrize("style", ["whole", "attributes", "function", "threads", "async"])
async def test_an_entity_whose_state_no_longer_fits_is_parked_with_its_state_and_what_waits(style):
    async with environment(till(Before, style)) as env:
        await env.client.start_new("main", "m")
        await env.settled()
        await env.restart(till(After, style))
        await env.client.raise_event("m", "Go")
        await env.settled()
        assert (await env.client.get_status("m")).runtime_status is RuntimeStatus.Running
        entity = await env.client.get_status("@till@1")
        wanted = "Till" if style == "whole" else "After"
        is_misfit(entity, "the state of the entity @till@1", wanted=wanted)

        await env.restart(till(Mended, style))
        assert (await env.client.wait_for_completion("m")).output == "r-1"


# ------------------------------------------------------------------------------- histories of earlier versions


def told_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("pay", expected_type=After)
    except Exception as error:
        yield context.call_activity("refund", type(error).__name__)


async def told_async(context: OrchestrationContext):
    try:
        await context.call_activity("pay", expected_type=After)
    except Exception as error:
        await context.call_activity("refund", type(error).__name__)


def _history(*decisions: Any, parks: bool) -> list[Any]:
    return [
        (
            1,
            [
                ev.ExecutionStarted(name="main", parks_misfits=parks),
                ev.TaskScheduled(id=0, name="pay"),
                ev.TaskCompleted(task_id=0, result=encode_raw({"id": "r-1"})),
                *decisions,
            ],
        )
    ]


def encode_raw(value: object) -> Raw:
    return Raw(encode(value))


@both(told_yield, told_async)
def test_a_history_of_an_earlier_version_is_replayed_as_it_was(orchestrator):
    refunded = ev.TaskScheduled(id=1, name="refund")

    assert check_history(orchestrator, _history(refunded, parks=False)) is None
    disagreed = check_history(orchestrator, _history(ev.ExecutionCompleted(), parks=False))
    assert isinstance(disagreed, MisfitError), "the code was told, and history says that it was not"
    assert isinstance(check_history(orchestrator, _history(refunded, parks=True)), MisfitError)


@both(told_yield, told_async)
def test_a_misfit_names_payload_type_and_member(orchestrator):
    found = check_history(orchestrator, _history(parks=True))

    assert isinstance(found, MisfitError)
    assert found.payload == "the result of call 0 (Activity function 'pay')"
    assert found.wanted == "After"
    assert "`region`" in found.reason


def test_what_would_mend_it_is_told_for_pydantic_models_as_well():
    class Model(pydantic.BaseModel):
        id: str
        region: str

    class Holder(pydantic.BaseModel):
        inner: Model

    async def flow(context: OrchestrationContext):
        await context.call_activity("pay", expected_type=Holder)

    history = [
        (
            1,
            [
                ev.ExecutionStarted(name="main", parks_misfits=True),
                ev.TaskScheduled(id=0, name="pay"),
                ev.TaskCompleted(task_id=0, result=encode_raw({"inner": {"id": "r-1"}})),
            ],
        )
    ]
    found = check_history(flow, history)

    assert isinstance(found, MisfitError)
    assert found.pointer == "/inner/region"
    assert "give 'region' a default" in str(found)
