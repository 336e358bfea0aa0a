"""The pytest plugin: `pytest_plugins = ["perdure.testing.plugin"]` in your conftest.py.

    async def test_a_claim_is_paid(perdure_environment):
        env = await perdure_environment(app, activities={process_payment: lambda claim: "paid"})
        assert (await env.run(claims, {"amount": 5})).output == "paid"

It needs pytest-asyncio. Without pytest, use `perdure.testing.environment`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from perdure.testing.environments import DurableEnvironment, environment

if TYPE_CHECKING:
    from perdure.app import App

EnvironmentFactory = Callable[..., Awaitable[DurableEnvironment]]


@pytest_asyncio.fixture
async def perdure_environment() -> AsyncIterator[EnvironmentFactory]:
    """Start environments with the parameters of `environment`; they are stopped when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(app: App, **options: Any) -> DurableEnvironment:
            return await stack.enter_async_context(environment(app, **options))

        yield start
