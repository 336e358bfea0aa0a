"""Starts an application's schedules and the pumps of its brokers' queues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context

from perdure.engine.client.client import Client
from perdure.engine.functions.registry import Registry
from perdure.triggers.broker_pump import Pump
from perdure.triggers.definitions import Queue, Schedule
from perdure.triggers.schedule_admin import Schedules, install


@asynccontextmanager
async def serving(registry: Registry, client: Client, *, accept_only: bool = False) -> AsyncIterator[None]:
    """Run an application's triggers during the block."""
    pumps: list[asyncio.Task[None]] = []
    if not accept_only:
        for trigger in registry.triggers:
            if isinstance(trigger, Schedule):
                await install(client, trigger.plan)
                if trigger.runs_at_start:
                    await Schedules(client).run(trigger.name)
            elif isinstance(trigger, Queue) and trigger.source is not None:
                pump = Pump(trigger.name, trigger.source, client, trigger.concurrency)
                # In a context of its own: messages continue no trace but the one that they carry.
                name = f"perdure-queue-{trigger.name}"
                pumps.append(asyncio.create_task(pump.run(), name=name, context=Context()))
    try:
        yield
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


__all__ = ["serving"]
