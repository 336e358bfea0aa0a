"""perdure.testing itself: the clock, the stubs, restarts, the fixture."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from perdure import ActivityContext, App, FunctionNotFound, OrchestrationContext
from perdure.testing import START, VirtualClock, environment


@dataclass
class Claim:
    amount: int


app = App("claims")


@app.activity
def process_payment(claim: Claim) -> Claim:
    raise AssertionError("the real one must not run in a test")


@app.activity
async def notify(text: str) -> str:
    return f"told {text}"


@app.orchestrator
async def claims(context: OrchestrationContext, claim: Claim):
    await context.create_timer(timedelta(hours=72))
    paid = await context.call_activity(process_payment, claim)
    return [paid.amount, await context.call_activity(notify, "Ann")]


async def test_the_readmes_example():
    async with environment(app, activities={process_payment: lambda claim: claim}) as env:
        status = await env.run(claims, Claim(5))

        assert status.output == [5, "told Ann"]
        assert [call.input for call in env.calls(process_payment)] == [{"amount": 5}]
        assert [call.input for call in env.calls("notify")] == ["Ann"]
        assert [call.activity for call in env.calls()] == ["process_payment", "notify"]


async def test_a_stub_takes_whatever_an_activity_may_take():
    def with_context(claim, context: ActivityContext):
        return Claim(claim.amount + context.attempt)

    async def asynchronous(context: ActivityContext):
        return context.get_input()

    class Gateway:
        def __call__(self, claim: Claim) -> Claim:
            return Claim(claim.amount * 10)

    def two(factor, claim):
        return Claim(claim.amount * factor)

    outputs = []
    for stub in (with_context, asynchronous, Gateway(), lambda: Claim(0), partial(two, 3)):
        async with environment(app, activities={process_payment: stub}) as env:
            outputs.append((await env.run(claims, Claim(5))).output[0])

    assert outputs == [6, 5, 50, 0, 15]


async def test_a_stub_for_an_unknown_activity_is_refused():
    with pytest.raises(FunctionNotFound, match="'pay'"):
        async with environment(app, activities={"pay": lambda: 5}):
            pass


async def test_the_application_is_left_as_it_was():
    before = dict(app.registry.activities)
    async with environment(app, activities={process_payment: lambda claim: claim}) as env:
        await env.run(claims, Claim(5))

    assert app.registry.activities == before


async def test_the_clock_stands_still_unless_somebody_waits_or_advances():
    async with environment(app, activities={process_payment: lambda claim: claim}) as env:
        instance = await env.client.start_new(claims, None, Claim(5))
        await env.settled()
        assert env.now == START
        await env.advance(hours=71)
        assert env.calls(process_payment) == []
        await env.advance(timedelta(hours=1))
        assert len(env.calls(process_payment)) == 1
        assert env.now == START + timedelta(hours=72)
        assert (await env.client.get_status(instance)).is_finished


async def test_advance_goes_to_an_instant():
    async with environment(app, start=datetime(2030, 1, 1, tzinfo=UTC)) as env:
        await env.advance(to=datetime(2030, 6, 1, tzinfo=UTC))

        assert env.now == datetime(2030, 6, 1, tzinfo=UTC)


async def test_the_clock_waits_for_running_activities():
    release = asyncio.Event()

    async def slow(claim: Claim) -> Claim:
        await release.wait()
        return claim

    @app.orchestrator(name="races")
    def races(context: OrchestrationContext):
        work = context.call_activity(process_payment, Claim(1))
        winner = yield context.task_any([work, context.create_timer(5)])
        return winner is work

    async with environment(app, activities={process_payment: slow}) as env:
        waiting = asyncio.create_task(env.run("races"))
        while not env.calls():
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert env.now == START
        release.set()

        assert (await waiting).output is True


async def test_what_the_test_is_about_to_say_comes_before_any_skip():
    @app.orchestrator(name="decides")
    async def decides(context: OrchestrationContext):
        return await context.wait_for_external_event("Go", timeout=60, default="too late")

    async with environment(app) as env:
        for _ in range(20):
            instance = await env.client.start_new("decides")
            status, _ = await asyncio.gather(
                env.client.wait_for_completion(instance), env.client.raise_event(instance, "Go", "in time")
            )
            assert status.output == "in time"


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_a_restart_keeps_the_store_and_the_clock(store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app, store=url, activities={process_payment: lambda claim: claim}) as env:
        instance = await env.client.start_new(claims, None, Claim(5))
        await env.advance(hours=10)
        first = env.client
        assert await env.restart() is env.client is not first
        status = await env.client.wait_for_completion(instance)

        assert status.output == [5, "told Ann"]
        assert env.now == START + timedelta(hours=72)


async def test_outside_of_its_block_an_environment_says_so():
    async with environment(app) as env:
        pass

    with pytest.raises(RuntimeError, match="not running"):
        _ = env.client


async def test_the_fixture_starts_environments_and_stops_them(perdure_environment):
    one = await perdure_environment(app, activities={process_payment: lambda claim: claim})
    two = await perdure_environment(app, activities={process_payment: lambda claim: Claim(7)})

    outputs = [(await env.run(claims, Claim(5))).output[0] for env in (one, two)]

    assert outputs == [5, 7]


def test_a_virtual_clock_never_goes_back():
    clock = VirtualClock()
    clock.move(clock.now() + 5_000_000)
    clock.move(0)

    assert clock.datetime == START + timedelta(seconds=5)
    assert clock.monotonic() == 5.0


async def test_two_environments_on_one_sqlite_file_are_refused(tmp_path):
    from perdure import StoreInUse

    url = f"sqlite:///{tmp_path}/hub.db"
    async with environment(app, store=url):
        with pytest.raises(StoreInUse):
            async with environment(app, store=url):
                pass
