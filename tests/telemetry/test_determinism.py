"""Crashes and evictions change no span: not one id, parent, name, start or end."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import count

import pytest

from perdure import App, OrchestrationContext, RetryPolicy
from perdure.engine import engine as engine_module
from perdure.telemetry.trees import tree_of
from perdure.testing import environment
from perdure.testing.environments import DurableEnvironment
from tests.core.styles import both

Brief = tuple[int, int, int, str, int, int | None]


def office_yield(context: OrchestrationContext):
    yield context.call_activity("pay", 1)
    yield context.create_timer(timedelta(hours=1))
    approval = context.wait_for_external_event("Approval")
    assessed = context.call_sub_orchestrator("assess", 2)
    yield context.task_all([approval, assessed])
    yield context.call_activity("pay", -3)
    if context.get_input():
        context.continue_as_new(0)


async def office_async(context: OrchestrationContext):
    await context.call_activity("pay", 1)
    await context.create_timer(timedelta(hours=1))
    approval = context.wait_for_external_event("Approval")
    assessed = context.call_sub_orchestrator("assess", 2)
    await context.task_all([approval, assessed])
    await context.call_activity("pay", -3)
    if context.get_input():
        context.continue_as_new(0)


def app_of(orchestrator: Callable[..., object]) -> App:
    app = App("office", keep_executions=10)
    app.orchestrator(name="office")(orchestrator)
    attempts = count()

    @app.activity(retry=RetryPolicy(first_interval=60, max_attempts=3))
    def pay(n: int) -> int:
        if n < 0 and next(attempts) % 3 < 2:
            raise OSError("down")
        return n

    @app.orchestrator
    async def assess(context: OrchestrationContext, n: int) -> int:
        await context.create_timer(timedelta(minutes=5))
        return await context.call_activity(pay, n)

    return app


async def nothing(env: DurableEnvironment) -> None:
    """The run that the others are compared with."""


async def evict(env: DurableEnvironment) -> None:
    await env.evict()


async def restart(env: DurableEnvironment) -> None:
    await env.restart()


@both(office_yield, office_async)
@pytest.mark.parametrize("disturb", [evict, restart])
async def test_a_disturbed_run_has_the_spans_of_an_undisturbed_one(
    orchestrator, disturb, tmp_path, monkeypatch
):
    wanted = await spans_of_a_run(orchestrator, nothing, f"sqlite:///{tmp_path}/a.db", monkeypatch)
    found = await spans_of_a_run(orchestrator, disturb, f"sqlite:///{tmp_path}/b.db", monkeypatch)

    assert found == wanted
    assert len({brief[:2] for brief in wanted}) == len(wanted) == 2 * 13


async def spans_of_a_run(
    orchestrator: Callable[..., object],
    disturb: Callable[[DurableEnvironment], Awaitable[None]],
    store: str,
    monkeypatch: pytest.MonkeyPatch,
) -> set[Brief]:
    salts = count(1)
    monkeypatch.setattr(engine_module, "new_salt", lambda: next(salts).to_bytes(16, "little"))
    async with environment(app_of(orchestrator), store=store) as env:
        await env.client.start_new("office", "one", 1)
        for _ in range(2):
            for minutes in (0, 30, 30, 5, 1, 1):
                await env.advance(timedelta(minutes=minutes))
                await disturb(env)
                if minutes == 0:
                    await env.client.raise_event("one", "Approval")
                    await env.settled()
                    await disturb(env)
        spans = tree_of(env.store, "one", "office").spans
    return {(s.trace_id, s.span_id, s.parent_id, s.name, s.start, s.end) for s in spans}
