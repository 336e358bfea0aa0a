"""The application whose instances are kept: every kind of event, in both styles.

The code must stay as it is, because the kept histories are replayed with it. Only the activity bodies may change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import perdure as df
from perdure.errors import TaskFailedError

LARGE = 17_000  # characters, more than a history row keeps
STYLES = ("yield", "async")
LEDGER = df.EntityId("ledger", "main")
OTHER = df.EntityId("ledger", "other")
RETRY = df.RetryPolicy(first_interval=5, backoff=2, max_attempts=3, jitter=0.5)


def build(
    *, missing: Sequence[str] = (), changed: bool = False, broken: bool = False, stuck: bool = False
) -> df.App:
    """The application.

    Parameters:
        missing: activities that this deploy lacks; instances that call them are parked.
        changed: a deploy whose `parkable` orchestrators disagree with what was recorded.
        broken: the activity `fragile` fails.
        stuck: the activity `slow` does not end.
    """
    app = df.App("kept", keep_executions=5)

    # ------------------------------------------------------------------------------------------- activities

    def activity(function: Any) -> None:
        if function.__name__ not in missing:
            app.activity(function)

    def double(n: int) -> int:
        return 2 * n

    def large(text: str) -> str:
        return text * (LARGE // len(text))

    def flaky(n: int, context: df.ActivityContext) -> int:
        if context.attempt < 2:
            raise ConnectionError("not at the first attempt")
        return n

    def failing(n: int) -> int:
        raise ValueError(f"cannot do {n}")

    def fragile(n: int) -> int:
        if broken:
            raise ValueError(f"cannot do {n} today")
        return n + 1

    def lonely(n: int) -> int:
        return n - 1

    async def slow(n: int) -> int:
        if stuck:
            await asyncio.Event().wait()
        return n

    for one in (double, large, flaky, failing, fragile, lonely, slow):
        activity(one)

    # --------------------------------------------------------------------------------------------- entities

    @app.entity
    class Ledger:
        def __init__(self) -> None:
            self.total = 0

        def add(self, n: int) -> int:
            self.total += n
            return self.total

        def fail(self) -> None:
            raise ValueError("the ledger refuses")

    # --------------------------------------------------------------------------------------------- children

    @app.orchestrator(name="child-yield")
    def child_yield(context):
        n = context.get_input()
        if n < 0:
            raise ValueError("negative")
        return (yield context.call_activity(double, n))

    @app.orchestrator(name="child-async")
    async def child_async(context, n: int) -> int:
        if n < 0:
            raise ValueError("negative")
        return await context.call_activity(double, n)

    # ------------------------------------------------------------------------------------------- everything

    @app.orchestrator(name="everything-yield")
    def everything_yield(context):
        given = context.get_input()
        me = context.instance_id
        seen: list[Any] = [len(given["large"]), str(context.new_guid()), context.new_uuid()]
        seen.append(context.random().random())
        seen.append(context.current_utc_datetime.isoformat())
        context.set_custom_status({"step": 1})
        seen.append((yield context.call_activity(double, given["n"])))
        seen.append((yield context.call_activity(flaky, 3, retry=RETRY)))
        try:
            yield context.call_activity(failing, 4)
        except TaskFailedError as error:
            seen.append(str(error))
        seen.append(len((yield context.call_activity(large, "wide "))))
        seen.append((yield context.call_sub_orchestrator(child_yield, 5)))
        seen.append((yield context.call_sub_orchestrator(child_yield, 6, f"{me}-explicit")))
        try:
            yield context.call_sub_orchestrator(child_yield, -1)
        except TaskFailedError as error:
            seen.append(str(error))
        yield context.create_timer(timedelta(minutes=5))
        timer = context.create_timer(3600)
        call = context.call_activity(double, 7)
        winner = yield context.task_any([call, timer])
        seen.append(winner is call)
        timer.cancel()
        unwanted = context.call_activity(double, 8)
        unwanted.cancel()
        seen.append((yield context.call_entity(LEDGER, "add", 1)))
        try:
            yield context.call_entity(LEDGER, "fail")
        except TaskFailedError as error:
            seen.append(str(error))
        context.signal_entity(LEDGER, "add", 10)
        with (yield context.lock(LEDGER, OTHER)):
            seen.append((yield context.call_entity(OTHER, "add", 100)))
        if context.patched("one"):
            seen.append("patched")
        context.deprecate_patch("two")
        dropped = context.wait_for_external_event("Never")
        dropped.cancel()
        seen.append((yield context.wait_for_external_event("Typed", int)))
        seen.append((yield context.wait_for_external_event("Late", int, timeout=30, default=-1)))
        try:
            yield context.wait_for_external_event("Late", timeout=30)
        except TimeoutError:
            seen.append("late")
        branch = context.spawn(branch_yield(context))
        seen.append((yield context.task_all([branch, context.call_activity(double, 9)])))
        context.set_custom_status({"step": 2})
        seen.append((yield context.wait_for_external_event("Go")))
        seen.append((yield context.call_activity(double, 21)))
        return seen

    def branch_yield(context):
        yield context.create_timer(1)
        return "branch"

    @app.orchestrator(name="everything-async")
    async def everything_async(context, given: dict[str, Any]) -> list[Any]:
        me = context.instance_id
        seen: list[Any] = [len(given["large"]), str(context.new_guid()), context.new_uuid()]
        seen.append(context.random().random())
        seen.append(context.current_utc_datetime.isoformat())
        context.set_custom_status({"step": 1})
        seen.append(await context.call_activity(double, given["n"]))
        seen.append(await context.call_activity(flaky, 3, retry=RETRY))
        try:
            await context.call_activity(failing, 4)
        except TaskFailedError as error:
            seen.append(str(error))
        seen.append(len(await context.call_activity(large, "wide ")))
        seen.append(await context.call_sub_orchestrator(child_async, 5))
        seen.append(await context.call_sub_orchestrator(child_async, 6, f"{me}-explicit"))
        try:
            await context.call_sub_orchestrator(child_async, -1)
        except TaskFailedError as error:
            seen.append(str(error))
        await context.create_timer(timedelta(minutes=5))
        timer = context.create_timer(3600)
        call = context.call_activity(double, 7)
        winner = await context.task_any([call, timer])
        seen.append(winner is call)
        timer.cancel()
        unwanted = context.call_activity(double, 8)
        unwanted.cancel()
        seen.append(await context.call_entity(LEDGER, "add", 1))
        try:
            await context.call_entity(LEDGER, "fail")
        except TaskFailedError as error:
            seen.append(str(error))
        context.signal_entity(LEDGER, "add", 10)
        async with context.lock(LEDGER, OTHER):
            seen.append(await context.call_entity(OTHER, "add", 100))
        if context.patched("one"):
            seen.append("patched")
        context.deprecate_patch("two")
        dropped = context.wait_for_external_event("Never")
        dropped.cancel()
        seen.append(await context.wait_for_external_event("Typed", int))
        seen.append(await context.wait_for_external_event("Late", int, timeout=30, default=-1))
        try:
            await context.wait_for_external_event("Late", timeout=30)
        except TimeoutError:
            seen.append("late")
        branch = context.spawn(branch_async(context))
        seen.append(await context.task_all([branch, context.call_activity(double, 9)]))
        context.set_custom_status({"step": 2})
        seen.append(await context.wait_for_external_event("Go"))
        seen.append(await context.call_activity(double, 21))
        return seen

    async def branch_async(context):
        await context.create_timer(1)
        return "branch"

    # ------------------------------------------------------------------------------------------ generations

    @app.orchestrator(name="generations-yield")
    def generations_yield(context):
        seen = context.get_input()
        seen.append((yield context.wait_for_external_event("Step")))
        if len(seen) < 3:
            context.continue_as_new(seen)
            return None
        seen.append((yield context.wait_for_external_event("Go")))
        return seen

    @app.orchestrator(name="generations-async")
    async def generations_async(context, seen: list[Any]) -> Any:
        seen.append(await context.wait_for_external_event("Step"))
        if len(seen) < 3:
            context.continue_as_new(seen)
            return None
        seen.append(await context.wait_for_external_event("Go"))
        return seen

    # ------------------------------------------------------------------------------------ rewound and parked

    @app.orchestrator(name="fragile-yield")
    def fragile_yield(context):
        first = yield context.call_activity(double, 1)
        second = yield context.call_activity(fragile, first)
        return [second, (yield context.wait_for_external_event("Go"))]

    @app.orchestrator(name="fragile-async")
    async def fragile_async(context):
        first = await context.call_activity(double, 1)
        second = await context.call_activity(fragile, first)
        return [second, await context.wait_for_external_event("Go")]

    @app.orchestrator(name="parkable-yield")
    def parkable_yield(context):
        first = yield context.call_activity(double if not changed else large, 1 if not changed else "x")
        told = yield context.wait_for_external_event("Step")
        return [first, told, (yield context.call_activity("fragile", 5))]

    @app.orchestrator(name="unserved-yield")
    def unserved_yield(context):
        told = yield context.wait_for_external_event("Step")
        return [told, (yield context.call_activity("lonely", 5))]

    @app.orchestrator(name="unserved-async")
    async def unserved_async(context):
        told = await context.wait_for_external_event("Step")
        return [told, await context.call_activity("lonely", 5)]

    @app.orchestrator(name="working-yield")
    def working_yield(context):
        return (yield context.call_activity(slow, 6))

    @app.orchestrator(name="working-async")
    async def working_async(context):
        return await context.call_activity(slow, 6)

    @app.orchestrator(name="parkable-async")
    async def parkable_async(context):
        first = await context.call_activity(double if not changed else large, 1 if not changed else "x")
        told = await context.wait_for_external_event("Step")
        return [first, told, await context.call_activity("fragile", 5)]

    # ---------------------------------------------------------------------------------------- open when kept

    @app.orchestrator(name="retrying-yield")
    def retrying_yield(context):
        return (
            yield context.call_activity(flaky, 9, retry=df.RetryPolicy(first_interval=86_400, max_attempts=3))
        )

    @app.orchestrator(name="retrying-async")
    async def retrying_async(context):
        return await context.call_activity(
            flaky, 9, retry=df.RetryPolicy(first_interval=86_400, max_attempts=3)
        )

    @app.orchestrator(name="section-yield")
    def section_yield(context):
        with (yield context.lock(df.EntityId("ledger", context.instance_id))):
            total = yield context.call_entity(df.EntityId("ledger", context.instance_id), "add", 2)
            return [total, (yield context.wait_for_external_event("Go"))]

    @app.orchestrator(name="section-async")
    async def section_async(context):
        async with context.lock(df.EntityId("ledger", context.instance_id)):
            total = await context.call_entity(df.EntityId("ledger", context.instance_id), "add", 2)
            return [total, await context.wait_for_external_event("Go")]

    @app.orchestrator(name="waiting-yield")
    def waiting_yield(context):
        return (yield context.wait_for_external_event("Go"))

    @app.orchestrator(name="waiting-async")
    async def waiting_async(context):
        return await context.wait_for_external_event("Go")

    @app.orchestrator(name="parent-yield")
    def parent_yield(context):
        return (yield context.call_sub_orchestrator(waiting_yield, None, f"{context.instance_id}-child"))

    @app.orchestrator(name="parent-async")
    async def parent_async(context):
        return await context.call_sub_orchestrator(waiting_async, None, f"{context.instance_id}-child")

    @app.orchestrator(name="sleeping-yield", version="1")
    def sleeping_yield(context):
        yield context.create_timer(timedelta(days=30))
        return context.version

    @app.orchestrator(name="sleeping-async", version="1")
    async def sleeping_async(context):
        await context.create_timer(timedelta(days=30))
        return context.version

    # --------------------------------------------------------------------------------------------- triggers

    @app.schedule("0 * * * *")
    def hourly(tick: df.Tick) -> None:
        return None

    @app.queue("orders", retry=df.RetryPolicy(first_interval=1, max_attempts=2))
    async def take(message: dict[str, Any], client: df.Client) -> str:
        if message["n"] < 0:
            raise ValueError("a negative order")
        return await client.start_new(child_async, None, message["n"])

    return app


__all__ = ["LARGE", "LEDGER", "OTHER", "STYLES", "build"]
