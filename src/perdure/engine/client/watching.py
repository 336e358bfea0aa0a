"""Watching an instance: a commit notifies the watcher, and the watcher reads the state.

The engine keeps no event stream for a watcher. A watcher has a bell. A commit that touched the watched instance
rings it; several rings before the watcher looks count as one. The watcher then reads the committed state. So a
slow watcher costs no memory and misses no end, only intermediate states. A watcher that reconnects after a
crash of either side reads again: its cursor names the last state it saw, and that state is not reported twice.
Without watchers, the engine's loop has no function to call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from perdure.engine.client.status import Detail, status_of
from perdure.errors import InstanceNotFound, Overloaded
from perdure.model.instances import OrchestrationStatus, asked_id, execution_id_of

if TYPE_CHECKING:
    from perdure.model.records import Batch, InstanceRow

MOST: Final = 1_000  # watchers of one engine at a time
IDLE: Final = 15.0  # seconds after which a watcher reads without a ring
BUSY: Final = 2.0  # the same while activities run, because heartbeats make no commits


class Bell:
    """Rings after a change; several rings before the watcher waits count as one."""

    def __init__(self) -> None:
        self.event_loop = asyncio.get_running_loop()
        self.is_closed = False
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Ring; on the watcher's event loop."""
        self._event.set()

    async def rung(self, seconds: float) -> bool:
        """Wait for a ring for at most `seconds`; returns whether it rang."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        found = self._event.is_set()
        self._event.clear()
        return found


class CallbackSink(Protocol):
    """Collects the calls that one batch makes on event loops."""

    def add(self, event_loop: asyncio.AbstractEventLoop, action: Callable[..., None], *args: Any) -> None: ...


class Feed:
    """The watchers of an engine. `listen` is called with whether there are any."""

    def __init__(self, listen: Callable[[bool], None]) -> None:
        self._listen = listen
        self._gate = threading.Lock()
        self._bells: dict[int | None, set[Bell]] = {}
        self._counted = 0

    @contextmanager
    def watching(self, instance_no: int | None, *, is_counted: bool = True) -> Iterator[Bell]:
        """A bell that rings on commits to this instance, or to any instance with None. Raises Overloaded.

        With `is_counted=False` the caller has already counted the watcher, and the limit does not apply.
        """
        bell = Bell()
        with self._gate:
            self._counted += is_counted
            if is_counted and self._counted > MOST:
                self._counted -= 1
                raise Overloaded(
                    f"{MOST:,} watchers are active, which is the limit: try again later, or poll the status"
                )
            self._bells.setdefault(instance_no, set()).add(bell)
            self._listen(True)
        try:
            yield bell
        finally:
            with self._gate:
                self._counted -= is_counted
                self._bells[instance_no].discard(bell)
                if not self._bells[instance_no]:
                    del self._bells[instance_no]
                self._listen(bool(self._bells))

    def changed(self, batch: Batch, handover: CallbackSink) -> None:
        """Ring for a committed batch; on the engine's thread."""
        with self._gate:
            touched = {None, *_touched(batch)} & self._bells.keys()
            for bell in [bell for number in touched for bell in self._bells[number]]:
                handover.add(bell.event_loop, bell.ring)

    def look_again(self) -> None:
        """Ring all bells, because another worker may have made a change. From any thread."""
        with self._gate:
            bells = [bell for found in self._bells.values() for bell in found]
        for bell in bells:
            with suppress(RuntimeError):  # its event loop is closed
                bell.event_loop.call_soon_threadsafe(bell.ring)

    def close(self) -> None:
        """End all watches, because the engine stops."""
        with self._gate:
            bells = [bell for found in self._bells.values() for bell in found]
        for bell in bells:
            bell.is_closed = True
            with suppress(RuntimeError):  # its event loop is closed
                bell.event_loop.call_soon_threadsafe(bell.ring)


def _touched(batch: Batch) -> Iterator[int]:
    yield from (row.instance_no for row in batch.new_instances)
    yield from (row.instance_no for row in batch.updates)
    yield from batch.purged


@dataclass(frozen=True)
class Sighting:
    """An observed instance. `cursor` identifies the state; sightings with the same cursor differ at most in
    heartbeats.
    """

    instance_no: int
    cursor: str
    status: OrchestrationStatus

    @property
    def key(self) -> tuple[Any, ...]:
        """The values whose change makes this a new sighting."""
        waiting = self.status.waiting
        running = waiting.activities if waiting is not None else ()
        return (self.cursor, *((one.task_id, one.where, one.begun_at, str(one.progress)) for one in running))

    @property
    def pace(self) -> float:
        waiting = self.status.waiting
        return BUSY if waiting is not None and waiting.activities else IDLE


Look = Callable[[], Awaitable[Sighting | None]]
Watching = Callable[[int], AbstractContextManager[Bell]]


async def sight(gateway: Any, instance_id: str) -> Sighting | None:
    """Read an instance."""

    def look() -> Sighting | None:
        # The cursor first: if the instance changes in between, its state is reported twice rather than missed.
        stored = gateway.store.get(instance_id)
        status = status_of(gateway.store, instance_id, Detail(), gateway) if stored is not None else None
        if stored is None or status is None:
            return None
        return Sighting(stored.row.instance_no, _cursor(stored.row), status)

    found: Sighting | None = await gateway.read(look)
    return found


async def cursor_of(gateway: Any, instance_id: str) -> str:
    """The id of the instance's current state, as in a `Sighting`; "" for an unknown instance."""
    stored = await gateway.read(lambda: gateway.store.get(instance_id))
    return _cursor(stored.row) if stored is not None else ""


def _cursor(row: InstanceRow) -> str:
    return f"{execution_id_of(row.salt, row.execution_no)}.{row.episodes}"


async def sightings(
    gateway: Any,
    instance_id: str,
    seen: str = "",
    *,
    look: Look | None = None,
    watching: Watching | None = None,
) -> AsyncGenerator[Sighting, None]:
    """The instance now, unless `seen` is its current cursor, and after each change until it has finished.

    `look` and `watching` replace those of the gateway.

    Raises InstanceNotFound; ends when the instance is purged, or the engine stops.
    """
    asked_id(instance_id)
    look = look or (lambda: sight(gateway, instance_id))
    watching = watching or gateway.watching
    found = await look()
    if found is None:
        raise InstanceNotFound(f"no instance {instance_id!r} in this hub: there is nothing to watch")
    last = found.key if found.cursor == seen else None
    while found is not None:
        number = found.instance_no
        with watching(number) as bell:
            found = await look()  # again, because from here on a change rings
            while found is not None and found.instance_no == number:
                if found.key != last:
                    last = found.key
                    yield found
                if found.status.is_finished:
                    return
                await bell.rung(found.pace)
                if bell.is_closed:
                    return
                found = await look()


class WatchVerbs:
    gateway: Any

    async def watch(self, instance_id: str) -> AsyncGenerator[OrchestrationStatus, None]:
        """An instance's status now and after each change until it has finished; the last status is the final
        one.

        Changes that come faster than the consumer reads are combined. The stream ends without a final status if
        the instance is purged or the engine stops.

        Raises InstanceNotFound, Overloaded when there are too many watchers, EngineStopped when the server is
        unavailable.
        """
        async with aclosing(sightings(self.gateway, instance_id)) as found:
            async for one in found:
                yield one.status


__all__ = ["IDLE", "Bell", "Feed", "Sighting", "WatchVerbs", "sight", "sightings"]
