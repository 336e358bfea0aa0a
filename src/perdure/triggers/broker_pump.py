"""Moves messages from a broker's queue into the hub.

The pump receives a message, starts an instance for it, waits until the instance has finished, and only then
acknowledges the message. If the process dies in between, the broker redelivers the message and the pump finds the
existing instance. A message whose last attempt failed, or that is not JSON, goes to the broker's dead letters with
the reason.
"""

from __future__ import annotations

import asyncio
import logging

from perdure.engine.client.client import Client
from perdure.errors import EngineStopped, InvalidInstanceId, PayloadError, PerdureError
from perdure.model.instances import OrchestrationStatus, RuntimeStatus
from perdure.model.trace_context import trace_in
from perdure.triggers.queue_admin import deliver
from perdure.triggers.source import QueueSource, Received

RECONNECT_AFTER = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before each attempt to reconnect to a broker
KEEP_EVERY = 10.0  # seconds between two signals to the broker that a message is still being handled

log = logging.getLogger("perdure.triggers")


class Pump:
    """Moves messages of one queue. At most `concurrency` messages at a time are unacknowledged."""

    def __init__(self, name: str, source: QueueSource, client: Client, concurrency: int) -> None:
        self._name = name
        self._source = source
        self._client = client
        self._places = asyncio.Semaphore(concurrency)
        self._concurrency = concurrency
        self._handling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Run until cancelled. Reconnects to a broker that goes away."""
        failures = 0
        while True:
            try:
                async with self._source.connected():
                    failures = 0
                    await self._pump()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                pause = RECONNECT_AFTER[min(failures, len(RECONNECT_AFTER) - 1)]
                failures += 1
                log.warning(
                    "queue %r: the broker failed (%s); reconnecting in %g s", self._name, _told(error), pause
                )
                await asyncio.sleep(pause)

    async def _pump(self) -> None:
        try:
            while True:
                await self._places.acquire()  # one place at least
                self._places.release()
                free = self._concurrency - len(self._handling)
                for message in await self._source.receive(max(free, 1)):
                    await self._places.acquire()
                    task = asyncio.create_task(self._handle(message))
                    self._handling.add(task)
                    task.add_done_callback(self._done)
        finally:
            for task in self._handling:
                task.cancel()
            await asyncio.gather(*self._handling, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        self._places.release()
        if not task.cancelled() and task.exception() is not None:
            log.warning("queue %r: handling a message failed: %s", self._name, _told(task.exception()))

    async def _handle(self, message: Received) -> None:
        try:
            instance_id = await deliver(
                self._client, self._name, message.message_id, message.body, trace=_trace_of(message)
            )
        except (PayloadError, InvalidInstanceId) as error:
            await self._source.bury(message, f"the message cannot be delivered: {error} (PDR-057)")
            return
        except PerdureError as error:
            log.warning(
                "queue %r: the hub did not accept a message, which goes back to the broker: %s",
                self._name,
                error,
            )
            await self._source.give_back(message)
            return
        status = await self._end_of(instance_id, message)
        if status.runtime_status is RuntimeStatus.Completed:
            await self._source.acknowledge(message)
        else:
            await self._source.bury(message, _reason(status))

    async def _end_of(self, instance_id: str, message: Received) -> OrchestrationStatus:
        while True:
            try:
                return await self._client.wait_for_completion(instance_id, KEEP_EVERY)
            except TimeoutError:
                await self._source.keep(message)
            except EngineStopped:
                raise asyncio.CancelledError from None


def _trace_of(message: Received) -> str:
    """The trace that the publisher sent with a message, which becomes the parent of the message's instance."""
    carried = message.attributes
    found = trace_in(f"{carried.get('traceparent', '')} {carried.get('tracestate', '')}".strip())
    return found.text() if found is not None else ""


def _reason(status: OrchestrationStatus) -> str:
    why = str(status.failure) if status.failure is not None else status.reason
    return f"{status.instance_id} is {status.runtime_status.value}: {why}"


def _told(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


__all__ = ["Pump"]
