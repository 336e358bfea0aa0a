"""Watching: being told that something changed, and looking then.

A watcher gets no stream of events that somebody would have to keep for it. It has a bell; a commit that touched
what it watches rings it, however many times as one ring, and it looks at what is committed. So a slow watcher
costs no memory and misses no end, only stations in between; and a watcher that comes back after a crash of
either side just looks again: the cursor names the state it saw last, and the same state is not told twice.
While nobody watches, the engine's loop does not even have a function to call.
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
    from perdure.model.records import Batch

MOST: Final = 1_000  # watchers of one engine at a time
IDLE: Final = 15.0  # seconds after which a watcher looks without having been called
BUSY: Final = 2.0  # the same while activities run, whose heartbeats are no commits


class Bell:
    """Rings when something has changed; rung several times before anybody listens, it is one ring."""

    def __init__(self) -> None:
        self.event_loop = asyncio.get_running_loop()
        self.is_closed = False
        self._event = asyncio.Event()

    def ring(self) -> None:
        """On the event loop of the watcher."""
        self._event.set()

    async def rung(self, seconds: float) -> bool:
        """Wait for a ring, or so long; tells whether it was a ring."""
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
    """Who watches what. `listen` is told whether anybody does at all."""

    def __init__(self, listen: Callable[[bool], None]) -> None:
        self._listen = listen
        self._gate = threading.Lock()
        self._bells: dict[int | None, set[Bell]] = {}
        self._counted = 0

    @contextmanager
    def watching(self, instance_no: int | None, *, is_counted: bool = True) -> Iterator[Bell]:
        """A bell that commits ring which touch this instance, or any with None. Raises Overloaded.

        With `is_counted=False` the caller has counted it already, and it is not refused.
        """
        bell = Bell()
        with self._gate:
            self._counted += is_counted
            if is_counted and self._counted > MOST:
                self._counted -= 1
                raise Overloaded(
                    f"{MOST:,} watchers are watching already: try again later, or ask now and then"
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
        """A batch was committed; on the engine's thread."""
        with self._gate:
            touched = {None, *_touched(batch)} & self._bells.keys()
            for bell in [bell for number in touched for bell in self._bells[number]]:
                handover.add(bell.event_loop, bell.ring)

    def look_again(self) -> None:
        """Other workers may have changed something: every watcher is to look. From any thread."""
        with self._gate:
            bells = [bell for found in self._bells.values() for bell in found]
        for bell in bells:
            with suppress(RuntimeError):  # its event loop is gone
                bell.event_loop.call_soon_threadsafe(bell.ring)

    def close(self) -> None:
        """The engine stops: nobody waits for it any longer."""
        with self._gate:
            bells = [bell for found in self._bells.values() for bell in found]
        for bell in bells:
            bell.is_closed = True
            with suppress(RuntimeError):  # its event loop is gone
                bell.event_loop.call_soon_threadsafe(bell.ring)


def _touched(batch: Batch) -> Iterator[int]:
    yield from (row.instance_no for row in batch.new_instances)
    yield from (row.instance_no for row in batch.updates)
    yield from batch.purged


@dataclass(frozen=True)
class Sighting:
    """An instance as it was seen. `cursor` names the state; two of one cursor differ in heartbeats at most."""

    instance_no: int
    cursor: str
    status: OrchestrationStatus

    @property
    def key(self) -> tuple[Any, ...]:
        """What has to be another one for this to be news."""
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
    """Look at an instance."""

    def look() -> Sighting | None:
        # The cursor first: should the instance move on meanwhile, its state is told once more, and none is missed.
        stored = gateway.store.get(instance_id)
        status = status_of(gateway.store, instance_id, Detail(), gateway) if stored is not None else None
        if stored is None or status is None:
            return None
        row = stored.row
        cursor = f"{execution_id_of(row.salt, row.execution_no)}.{row.episodes}"
        return Sighting(row.instance_no, cursor, status)

    found: Sighting | None = await gateway.read(look)
    return found


async def sightings(
    gateway: Any,
    instance_id: str,
    seen: str = "",
    *,
    look: Look | None = None,
    watching: Watching | None = None,
) -> AsyncGenerator[Sighting, None]:
    """An instance now, unless `seen` is the cursor of that, and whenever it has changed, until it has finished.

    `look` and `watching` stand for those of the gateway.

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
            found = await look()  # again: now a change rings
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
    """The verb that watches."""

    gateway: Any

    async def watch(self, instance_id: str) -> AsyncGenerator[OrchestrationStatus, None]:
        """An instance's status now, and after each change, until it has finished; the last one is its end.

        Changes that follow each other faster than the statuses are taken are told as one. It ends without a
        finished status if the instance is purged or the engine stops.

        Raises InstanceNotFound, Overloaded when too many are watching, EngineStopped when a server is not there.
        """
        async with aclosing(sightings(self.gateway, instance_id)) as found:
            async for one in found:
                yield one.status


__all__ = ["IDLE", "Bell", "Feed", "Sighting", "WatchVerbs", "sight", "sightings"]
