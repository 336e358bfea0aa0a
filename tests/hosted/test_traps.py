"""The traps of the SDK's semantics, with the real package on the virtual clock."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.app import App
from perdure.hosts.azure_functions.application import load
from perdure.model.instances import RuntimeStatus
from perdure.testing import DurableEnvironment, environment
from tests.hosted.programs import APPS, COMPLETED, Program

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Azure's packages warn of themselves


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    return load(APPS / "traps").app


async def run(env: DurableEnvironment, program: Program) -> Any:
    """Start a program, raise its events one by one, and let days pass."""
    instance_id = await env.client.start_new(program.name, program.name, program.input)
    await env.settled()
    for name, data in program.events:
        await env.client.raise_event(instance_id, name, data)
        await env.settled()
    await env.advance(days=60)
    return await env.client.get_status(instance_id)


async def test_a_failure_names_the_users_own_line_and_nothing_of_the_bridge(app: App) -> None:
    async with environment(app) as env:
        status = await env.run("uncaught")

    assert status.runtime_status is RuntimeStatus.Failed and status.failure is not None
    assert "Activity function 'fail' failed: ValueError: no mercy" in status.failure.message
    assert 'context.call_activity("fail", "mercy")' in status.failure.stack
    assert "bridge.py" not in status.failure.stack


@pytest.mark.parametrize("program", COMPLETED, ids=lambda one: one.name)
async def test_a_program_returns_what_it_returns_on_azure(app: App, program: Program) -> None:
    async with environment(app) as env:
        status = await run(env, program)

    assert (status.runtime_status, status.output) == (RuntimeStatus.Completed, program.output), status.failure
