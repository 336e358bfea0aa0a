"""Bodies through a whole engine: strict at the edge, exact inside, large ones out of line."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from msgspec import Raw

from perdure import OrchestrationContext, PayloadError, RuntimeStatus
from perdure.model import hash_chain
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with

STORES = pytest.mark.parametrize("store", ["memory:", "sqlite"])


def echo(value):
    return value


def there_and_back_yield(context: OrchestrationContext):
    through_activity = yield context.call_activity("echo", context.get_input())
    event = yield context.wait_for_external_event("Go")
    child = yield context.call_sub_orchestrator("child", event)
    context.set_custom_status("done")
    return [through_activity, child]


async def there_and_back_async(context: OrchestrationContext):
    through_activity = await context.call_activity("echo", context.get_input())
    event = await context.wait_for_external_event("Go")
    child = await context.call_sub_orchestrator("child", event)
    context.set_custom_status("done")
    return [through_activity, child]


def app_of(orchestrator):
    app = app_with(orchestrator, echo)

    @app.orchestrator
    def child(context: OrchestrationContext):
        yield context.create_timer(1)
        return context.get_input()

    return app


def url(store: str, tmp_path) -> str:
    return store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"


@both(there_and_back_yield, there_and_back_async)
@STORES
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(2**63, id="beyond 64 bits"),
        pytest.param(-(10**400), id="400 digits"),
        pytest.param("x" * 100_000, id="large text"),
        pytest.param(["y" * 9_000, {"z": "z" * 20_000}], id="large parts"),
        pytest.param({"ü": "日本 \U0001f600", "": None, "n": [1.5, -0.0, 1e300]}, id="text and floats"),
    ],
)
async def test_a_value_survives_every_way_through_the_engine(orchestrator, store, value, tmp_path):
    async with environment(app_of(orchestrator), store=url(store, tmp_path)) as env:
        instance = await env.client.start_new("main", None, value)
        await env.settled()
        await env.restart()
        await env.client.raise_event(instance, "Go", value)
        await env.evict()
        status = await env.client.wait_for_completion(instance)
        asked = await env.client.get_status(instance, show_input=True)

    assert status.output == [value, value]
    assert (asked.output, asked.input) == ([value, value], value)


@both(there_and_back_yield, there_and_back_async)
@STORES
async def test_large_bodies_leave_the_history_row_and_keep_its_chain_valid(orchestrator, store, tmp_path):
    async with environment(app_of(orchestrator), store=url(store, tmp_path)) as env:
        instance = await env.client.start_new("main", None, "x" * 100_000)
        await env.client.raise_event(instance, "Go", "y" * 50_000)
        await env.client.wait_for_completion(instance)
        stored = env.store.get(instance, history=True)

    assert max(len(row.events) for row in stored.history) < 2_000
    assert sum(map(len, stored.bodies.values())) > 400_000
    head = hash_chain.base_of(stored.row.salt, 1)
    for row in stored.history:
        assert row.digest == hash_chain.digest_of(stored.row.salt, row.events)
        head = hash_chain.link(head, row.execution_no, row.episode, row.at, row.digest)
        assert row.hash == head
    assert stored.row.head == head


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        (float("nan"), ""),
        ({"a": [0, float("inf")]}, "/a/1"),
        ({"a": "b\0"}, "/a"),
        (["\ud800"], "/0"),
        ({"a": object()}, "/a"),
        ({1: "a"}, None),
        ("x" * (1024 * 1024 + 1), ""),
        ({"deep": [[[[[[[[[[[]]]]]]]]]]]}, None),
    ],
)
async def test_a_client_cannot_hand_in_what_json_cannot_carry(value, pointer):
    if value == {"deep": [[[[[[[[[[[]]]]]]]]]]]}:
        value = "leaf"
        for _ in range(100):
            value = [value]
    elif value == {1: "a"}:
        value = {(1, 2): "a"}
    async with environment(app_of(there_and_back_async)) as env:
        with pytest.raises(PayloadError) as refused:
            await env.client.start_new("main", None, value)
        assert (await env.client.query()).instances == []

    assert pointer is None or refused.value.pointer == pointer


async def test_an_encoded_body_passes_as_it_is():
    async with environment(app_of(there_and_back_async)) as env:
        instance = await env.client.start_new("main", None, Raw(b'{"n": 12345678901234567890123}'))

        assert (await env.client.get_status(instance, show_input=True)).input == {
            "n": 12345678901234567890123
        }


def returns_rubbish_yield(context: OrchestrationContext):
    yield context.create_timer(0)
    return {"result": object()}


async def returns_rubbish_async(context: OrchestrationContext):
    await context.create_timer(0)
    return {"result": object()}


@both(returns_rubbish_yield, returns_rubbish_async)
async def test_an_output_that_json_cannot_carry_fails_the_orchestration_with_a_pointer(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        status = await env.run("main")

    assert status.runtime_status is RuntimeStatus.Failed
    assert status.failure.type == "perdure.errors.PayloadError"
    assert "/result" in status.failure.message


def passes_rubbish_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("echo", {1, object()})
    except PayloadError:
        return "noticed at the call"


async def passes_rubbish_async(context: OrchestrationContext):
    try:
        await context.call_activity("echo", {1, object()})
    except PayloadError:
        return "noticed at the call"


@both(passes_rubbish_yield, passes_rubbish_async)
async def test_an_input_that_json_cannot_carry_is_refused_where_it_is_passed(orchestrator):
    async with environment(app_with(orchestrator, echo)) as env:
        assert (await env.run("main")).output == "noticed at the call"


def large_status_yield(context: OrchestrationContext):
    yield context.create_timer(0)
    context.set_custom_status("x" * 17_000)


async def large_status_async(context: OrchestrationContext):
    await context.create_timer(0)
    context.set_custom_status("x" * 17_000)


@both(large_status_yield, large_status_async)
async def test_a_custom_status_over_16_kib_is_refused_where_it_is_set(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        status = await env.run("main")

    assert status.failure.type == "perdure.errors.PayloadError"
    assert status.custom_status is None


@dataclass
class Claim:
    id: UUID
    amount: Decimal
    filed: datetime
    photos: list[bytes]


CLAIM = Claim(UUID(int=7), Decimal("10.50"), datetime(2026, 1, 2, tzinfo=UTC), [b"\x00\xff"])


def assess(claim: Claim) -> Claim:
    return Claim(claim.id, claim.amount * 2, claim.filed, claim.photos)


def typed_yield(context: OrchestrationContext, claim: Claim):
    doubled = yield context.call_activity(assess, claim)
    return doubled


async def typed_async(context: OrchestrationContext, claim: Claim):
    return await context.call_activity(assess, claim)


@both(typed_yield, typed_async)
async def test_types_are_kept_by_annotation_on_every_edge(orchestrator):
    async with environment(app_with(orchestrator, assess)) as env:
        status = await env.run("main", CLAIM)

    assert status.output == {
        "id": "00000000-0000-0000-0000-000000000007",
        "amount": "21.00",
        "filed": "2026-01-02T00:00:00Z",
        "photos": ["AP8="],
    }


@both(typed_yield, typed_async)
async def test_an_input_that_does_not_fit_the_orchestrator_fails_it_with_a_pointer(orchestrator):
    async with environment(app_with(orchestrator, assess)) as env:
        failure = (await env.run("main", {"id": 5})).failure

    assert failure.type == "perdure.errors.PayloadError"
    assert "does not fit 'main'" in failure.message
