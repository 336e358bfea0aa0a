"""The engine: one hub served by one process. It composes store, dispatcher, loop, activities, watchdog and
client.

Threads: the loop's own (decides and commits), one for upkeep (checkpoints, eviction), the watchdog's, and those
of `def` activities. `async def` activities and everything of the host run on the event loop that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, TypeVar

from perdure.engine.activities import ActivityPool, Concurrency
from perdure.engine.activities.offloaded import with_offloaded
from perdure.engine.client.client import Client
from perdure.engine.client.cluster import any_worker_has
from perdure.engine.client.status import Detail, finished_status, status_in
from perdure.engine.client.sync_client import SyncClient
from perdure.engine.client.watching import Bell, Feed
from perdure.engine.clock import Clock, SharedClock, SystemClock, new_id, new_salt
from perdure.engine.cluster.coordinator import Sharing
from perdure.engine.cluster.membership import ClusterSettings, Membership, default_name, quietly_renewed
from perdure.engine.core.announcing import Announcing
from perdure.engine.core.audit import NOTE, AuditMemo
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.partitions import Partitions
from perdure.engine.core.placement import Placement, pulses_of
from perdure.engine.core.ports import Limits, RandomSource, Released
from perdure.engine.core.repeats import named
from perdure.engine.core.telemetry import SILENCE, Telemetry
from perdure.engine.core.tracing import CodeHere, Tracing
from perdure.engine.functions.registry import Registry
from perdure.engine.functions.resolved import FunctionTable
from perdure.engine.functions.versions import Versioning
from perdure.engine.loop.callbacks import CallbackBatch, tell
from perdure.engine.loop.inbox import InboxWaiter, LoopOutbox, SystemWaiter
from perdure.engine.loop.loop import Loop
from perdure.engine.loop.pending_calls import Callers
from perdure.engine.running_code import RunningCode, forget_loop, note_loop
from perdure.engine.upkeep.crash_file import StrikeFile, name_of, shared_file
from perdure.engine.upkeep.retention import AGES, Retention, Sweeper
from perdure.engine.upkeep.watchdog import Marker, Watchdog, audit, stop_audit
from perdure.errors import EngineStopped, FunctionNotFound, InstanceNotFound, Overloaded
from perdure.failure import Failure
from perdure.model import payload
from perdure.model.events import Ending
from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import FINISHED, OrchestrationStatus, RuntimeStatus, asked_id
from perdure.model.messages import Message, RaiseEvent, Start, refuse_unkept
from perdure.model.records import InstanceRow, WorkerRow
from perdure.model.settings import COUNT, SECONDS, SWITCH, one_of, setting
from perdure.model.waiting import Pulse
from perdure.store.port import Profile, SharedStore, Store, shared

SWITCH_INTERVAL = 1e-4  # seconds; see the GIL in ARCHITECTURE.md
COLLECT_AFTER = 10_000  # live containers that trigger the garbage collector; see the same place
UPKEEP_EVERY = 2.0  # seconds; at full speed the write-ahead log grows by tens of megabytes in that time
WATCHED_AT_ONCE = 500  # instances read in one query when the store is back
HELD_FOR_LONG = 2.0  # seconds of blocking by one instance after which the engine is unhealthy
INTERRUPTION_TAKES = 5.0  # seconds in which interruptible code must end
INTERRUPTED_AFTER = 1.0  # seconds after which a stopping engine interrupts blocking code
LEFT_BEHIND_AFTER = 3.0  # seconds after which a stopping engine abandons the thread
_LOOK_EVERY = 0.05
_BUILT_IN = BUILT_IN.casefold()
IDLE_AFTER = 60_000_000  # microseconds after which an idle execution is evicted

T = TypeVar("T")
Finished = tuple[InstanceRow, "Ending | None", "bytes | None"] | None
log = logging.getLogger("perdure.engine")


@dataclass(frozen=True)
class TrackingSettings:
    """Azure's tracking events, as records of the logger `perdure.tracking`."""

    events: bool = setting(
        False,
        "write Azure's tracking events of each instance to the logger perdure.tracking",
        SWITCH,
        name="tracking",
    )
    replays: bool = setting(
        False, "write a tracking event for each replay as well", SWITCH, name="tracking_replays"
    )


@dataclass(frozen=True)
class TelemetrySettings:
    """What an engine counts, and what it tells OpenTelemetry."""

    mode: str = setting(
        "auto",
        "metrics and spans: off, on, or auto, which counts if the extra telemetry is installed, and tells "
        "OpenTelemetry if the program has set a provider; otlp and azure-monitor set one up from its own environment "
        "variables",
        one_of("auto", "off", "on", "otlp", "azure-monitor"),
        name="telemetry",
    )
    messages: bool = setting(
        True, "whether spans contain the messages of errors", SWITCH, name="telemetry_messages"
    )


@dataclass(frozen=True)
class Settings:
    """The settings of one engine. The defaults suit one machine."""

    limits: Limits = field(default_factory=Limits)
    concurrency: Concurrency = field(default_factory=Concurrency)
    queued_requests: int = setting(
        20_000, "the most queued requests; further ones are rejected", COUNT, least=0
    )
    drain: float = setting(0.0, "how long a stop waits for running activities", SECONDS, least=0)
    retention: Retention | None = setting(  # noqa: RUF009 (a frozen value)
        None, "how long finished instances are kept before they are purged; by default for ever", AGES
    )
    accept_only: bool = setting(False, "store messages, but run no functions", SWITCH)
    versioning: Versioning = field(default_factory=Versioning)
    belonging: ClusterSettings = field(default_factory=ClusterSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    watchdog: bool = setting(True, "interrupt orchestrators that block the engine", SWITCH)
    interrupt_after: float = setting(
        10.0, "how long an orchestrator can block the engine before it is interrupted", SECONDS, least=0.001
    )

    @property
    def runs_nothing(self) -> bool:
        """Whether this engine only accepts messages, which other workers process."""
        return self.accept_only or self.belonging.role == "api"


@dataclass(frozen=True)
class Figures:
    """Numbers of one worker for metrics. `load` has, for each activity, how many attempts run and how many wait."""

    warm: int
    warm_bytes: int
    evictions: int
    stale_results: int
    leases_lost: int
    takeovers: int
    load: Mapping[str, tuple[int, int]]


class Engine:
    """Serves one hub. Also the in-process `Gateway` of its clients."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        hub: str,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        waiter: InboxWaiter | None = None,
        resources: Sequence[object] = (),
        telemetry: Telemetry = SILENCE,
        tracing: Tracing | None = None,
    ) -> None:
        self.registry = registry
        self.client = Client(self)  # one for the host and for activities, so that these can make links too
        self.telemetry = telemetry
        self.tracing = tracing
        self.store = store
        self.hub = hub
        self.settings = settings or Settings()
        self.resources = list(resources)
        self._shared = shared(store)
        self.clock = clock or (SystemClock() if self._shared is None else SharedClock())
        self._skipping: Callable[[int], None] | None = getattr(self.clock, "waiting", None)
        self._strikes: StrikeFile | None = None
        self._marker = Marker()
        self._functions = FunctionTable(registry, self.settings.versioning)
        self._territory = Partitions() if self._shared is not None else None
        self._dispatcher = Dispatcher(
            self._functions,
            RandomSource(new_salt, self.clock.monotonic),
            limits=self.settings.limits,
            running=self._marker,
            accept_only=self.settings.runs_nothing,
            territory=self._territory,
        )
        self._dispatcher.tracing = tracing
        if registry.webhooks:
            self._dispatcher.announcing = Announcing(registry.webhooks)
        if tracing is not None:
            self._dispatcher.variables = tracing.variables(self._traced_here)
        self.loop = Loop(
            self._dispatcher,
            store,
            self.clock,
            waiter or SystemWaiter(self.clock),
            finished=self._tell_watchers,
            evicted=self._forget_evicted,
            telemetry=telemetry,
            sweeper=Sweeper(self.settings.retention, store) if self.settings.retention else None,
        )
        self._dispatcher.tells = telemetry is not SILENCE
        self._functions.environment.pause = self.loop.early.look_within
        self.loop.returned = self._returned
        self.feed = Feed(self._listen)
        self.endless: dict[
            asyncio.Future[Finished], str
        ] = {}  # waits without a timeout, with the instance id of each
        self._watchers: dict[str, list[asyncio.Future[Finished]]] = {}
        self.callers = Callers(self.loop, self.clock, self._held_beyond_patience)
        self._live: set[str] = set()  # known to be running: no query needed
        self._gate = threading.Lock()
        self._thread: threading.Thread | None = None
        self._upkeep: threading.Thread | None = None
        self._stop = threading.Event()
        self._watchdog: Watchdog | None = None
        self._membership: Membership | None = None
        self._worker_name = self.settings.belonging.worker_name or default_name()

    # ------------------------------------------------------------------------------------------ life cycle

    async def start(self) -> Client:
        """Open the store, recover, and serve. Raises StoreInUse, StoreTooNew, StoreUnusable, RegistrationError."""
        event_loop = asyncio.get_running_loop()
        self.registry.check()
        self._outbox = LoopOutbox(event_loop, self.loop.inbox)
        self.loop.pool = self._pool(event_loop)
        await self.loop.pool.open()
        if self._shared is not None:
            self.loop.sharing = self._share(self._shared, self.loop.pool)
        opened: asyncio.Future[None] = event_loop.create_future()
        _tune_interpreter()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="perdure-loop", daemon=True)
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.loop.pool.close()
            raise
        self._upkeep = threading.Thread(target=self._keep_up, name="perdure-upkeep", daemon=True)
        self._upkeep.start()
        self.callers.watch()
        if self._membership is not None:
            threading.Thread(target=self._stay, name="perdure-lease", daemon=True).start()
        return self.client

    async def stop(self) -> None:
        """Finish the current batch, give running activities `drain` seconds, and close the store.

        With several workers the partitions are released first, so that the wait is for activities only.
        """
        pool = self.loop.pool
        self.loop.leaving = True
        self.loop.nudge()
        if pool is not None and self.settings.drain and not self.settings.runs_nothing:
            waited = 0.0
            while pool.is_busy and waited < self.settings.drain:
                await asyncio.sleep(0.05)
                waited += 0.05
        self._stop.set()
        self.callers.close()
        self.feed.close()
        self.loop.stopping = True
        self.loop.nudge()
        await asyncio.to_thread(self._await_end)
        self.loop.refuse_rest()  # messages that arrived after the thread's last look
        if pool is not None:
            await pool.close()
        self._dismiss_watchers()

    def _await_end(self) -> None:
        """Return when the engine's threads have ended. Code that blocks the loop's thread is interrupted; a
        call that cannot be interrupted is abandoned with its thread, and its instance gets a strike at the next
        start.
        """
        threads = [thread for thread in (self._thread, self._upkeep) if thread is not None]
        held, last, told = 0.0, time.monotonic(), ""
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(_LOOK_EVERY)
            now = time.monotonic()
            instance_id, _ = self._held()
            held, last = held + (now - last if instance_id else 0.0), now
            if held > LEFT_BEHIND_AFTER:
                log.error(
                    "the code of instance %s blocks the engine loop and cannot be interrupted: the engine "
                    "stops without it",
                    instance_id,
                )
                return
            if held > INTERRUPTED_AFTER and instance_id and self._watchdog is not None:
                if instance_id != told:
                    log.warning("the engine stops: interrupting the code of instance %s", instance_id)
                told = instance_id
                self._watchdog.end_turn()

    def _share(self, store: SharedStore, pool: ActivityPool) -> Sharing:
        """The coordinator of this worker, which registers when the loop opens the store."""
        settings, registry = self.settings, self.registry
        belonging, territory = settings.belonging, self._territory
        assert territory is not None
        is_worker = not settings.runs_nothing
        store.register(
            Profile(
                self._worker_name,
                "worker" if is_worker else "api",
                tuple(belonging.pools),
                registry.described(version=settings.versioning.default, perdure=version("perdure")),
                int(belonging.lease * 1e6),
            )
        )
        if is_worker:
            pools = {name: runner.activity.pool for name, runner in pool.runners.items()}
            self._dispatcher.placement = Placement(pools, belonging.pools, pool)
        self._membership = Membership(
            store, territory, self.clock, lease=belonging.lease, is_worker=is_worker
        )
        sharing = Sharing(
            store, self._dispatcher, self.clock, territory, self._membership, self._dispatcher.placement
        )
        sharing.nudge = self.loop.nudge
        sharing.tended = self.feed.look_again
        sharing.withdrawn = pool.cancel
        sharing.took_over = self._park_suspects
        sharing.is_visiting = settings.accept_only
        sharing.sought = self._sought
        sharing.found = self._found
        return sharing

    def _pool(self, event_loop: asyncio.AbstractEventLoop) -> ActivityPool:
        functions = self._functions
        runnable = with_offloaded(self.registry, functions.entities.values(), functions.environment)
        return ActivityPool(
            Registry() if self.settings.runs_nothing else runnable,
            [*self.resources, self.client, SyncClient(self.client, event_loop)],
            self._outbox,
            self.loop.post,
            self.settings.concurrency,
            self.hub,
            self.telemetry,
            self.tracing,
        )

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            self.loop.open()
            self._guard()
        except BaseException as error:
            self.store.close()
            tell([(opened, error)])
            return
        tell([(opened, None)])
        try:
            self.loop.run()
        except BaseException:
            log.exception("the engine loop failed; this engine no longer serves its hub")
            self.loop.stopping = True
        finally:
            self._dispatcher.drop_everything()
            self._unguard()
            self.store.close()
            self._dismiss_watchers()

    def _guard(self) -> None:
        """On the loop's thread: start the watchdog, the audit hook and the crash file."""
        if not self.settings.runs_nothing:
            self._strikes = self._strike_file()
            self._marker._strikes = self._strikes
            self._park_suspects()
        self._marker.on_this_thread()
        note_loop(self._code_on_loop)
        audit(self._marker)
        settings = self.settings
        pool = self.loop.pool
        self._watchdog = Watchdog(
            self._marker,
            after=settings.interrupt_after,
            interrupts=settings.watchdog,
            also=pool.blocking.look if pool is not None else lambda _: None,
        )
        self._watchdog.start()

    def _strike_file(self) -> StrikeFile | None:
        if self.store.location:
            return StrikeFile(f"{self.store.location}.running")
        if self._shared is None or not self._shared.place:
            return None
        return shared_file(self._shared.place, self._strike_name())

    def _strike_name(self) -> str:
        assert self._territory is not None
        return name_of(self._territory.incarnation, self._worker_name)

    def _park_suspects(self) -> None:
        """Mark instances whose code has killed three processes for parking. On the loop's thread, at the start
        and when a worker is dead.
        """
        if self._strikes is None:
            return
        if self._membership is not None:
            self._membership.expire_dead(self._strikes.inherit())
        for instance_id in self._strikes.suspects():
            self._dispatcher.quarantine[instance_id] = (
                "the process died three times while its code was running"
            )

    def _unguard(self) -> None:
        forget_loop()
        stop_audit(self._marker)
        if self._watchdog is not None:
            self._watchdog.stop()
        if self._strikes is not None:
            self._marker._strikes = None
            self._strikes.close(for_good=not self.store.location)

    def _code_on_loop(self) -> RunningCode | None:
        """The orchestrator or entity whose code runs now. On the loop's thread."""
        instance_id = self._marker.instance_id
        if not instance_id:
            return None
        instance = self._dispatcher.cache.warm.get(instance_id)
        if instance is None:
            return RunningCode(self.hub, instance_id)
        is_entity = instance.entity_state is not None
        return RunningCode(
            self.hub,
            instance_id,
            instance.execution_id,
            "" if is_entity else instance.name,
            instance.name if is_entity else "",
        )

    def _traced_here(self) -> CodeHere | None:
        """The execution whose code runs now, for its span. On the loop's thread."""
        instance = self._dispatcher.cache.warm.get(self._marker.instance_id)
        if instance is None or instance.entity_state is not None:
            return None
        is_live = instance.execution is not None and instance.execution.context._is_live()
        return CodeHere(instance.instance_id, instance.execution_id, instance.trace, is_live)

    def _keep_up(self) -> None:
        while not self._stop.wait(UPKEEP_EVERY):
            try:
                self.store.maintain(self.clock.now())
            except Exception:
                log.exception("upkeep of the store failed; it is retried")
            self.loop.idle_before = self.clock.now() - IDLE_AFTER
        self.store.close_reader()

    def _stay(self) -> None:
        """Renew the lease, also while the loop's thread is busy."""
        assert self._membership is not None
        while not self._stop.wait(self.settings.belonging.lease / 3):
            quietly_renewed(self._membership)

    # --------------------------------------------------------------------------- Gateway, for the clients

    async def accept(self, message: Message) -> Any:
        """Send a message to the loop; returns its answer once it is durable."""
        if self.tracing is None:
            return await self._accepted(message)
        traced, span = self.tracing.sending(message)
        if span is None:
            return await self._accepted(traced)
        error: BaseException | None = None
        try:
            return await self._accepted(traced)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self.tracing.sent(span, error)

    def _accepted(self, message: Message) -> Coroutine[Any, Any, Any]:
        """Send a message to the loop; what it returns gives the answer."""
        self._demand_service()
        refuse_unkept(message)
        # The inbox contains lists of messages, so its length is not their number.
        queued = len(self.callers)
        if queued > self.settings.queued_requests and isinstance(message, Start | RaiseEvent):
            raise Overloaded(
                f"{queued} requests are waiting, which is the limit: nothing was stored. Try again shortly"
            )
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        note = NOTE.get()
        if note is not None:
            note = note.about(message)
        self._outbox.put(Envelope(named(message), answer, note=note))
        if self.loop.stopping and self._thread is not None and not self._thread.is_alive():
            self.loop.refuse_rest()  # it has stopped in the meantime
        return self.callers.wait_for(answer)

    def _demand_service(self) -> None:
        if self.loop.stopping:
            raise EngineStopped("the engine is not running: nothing was stored")
        self.callers.check()

    async def record(self, memo: AuditMemo) -> None:
        """Write rows with the next batch; returns once they are durable."""
        self._demand_service()
        memo.reply = asyncio.get_running_loop().create_future()
        self.loop.memos.put(memo)
        self.loop.nudge()
        if self.loop.stopping and self._thread is not None and not self._thread.is_alive():
            self.loop.refuse_rest()  # it has stopped in the meantime
        await self.callers.wait_for(memo.reply)

    async def finished(self, instance_id: str, timeout: float | None) -> OrchestrationStatus | None:
        """Return when the instance has finished, with its status if that is known.

        Raises TimeoutError, InstanceNotFound.
        """
        asked_id(instance_id)
        future: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        with self._gate:
            self._watchers.setdefault(instance_id, []).append(future)
        try:
            if instance_id not in self._live:
                status = await self.read(lambda: self._known_end(instance_id), brief=True)
                if status is not None:
                    return status
            if self.loop.stopping:
                raise EngineStopped("the engine is not running: the instance continues when an engine runs")
            if self._skipping is not None:
                self._waiting(self._skipping, +1)
            if timeout is None:
                self.endless[future] = instance_id
            try:
                facts = await (future if timeout is None else asyncio.wait_for(future, timeout))
                return finished_status(*facts, self.output_of_failure) if facts is not None else None
            finally:
                self.endless.pop(future, None)
                if self._skipping is not None:
                    self._waiting(self._skipping, -1)
        finally:
            if instance_id in self._watchers:
                self._forget(instance_id, future)

    def watching(
        self, instance_no: int | None, *, is_counted: bool = True
    ) -> contextlib.AbstractContextManager[Bell]:
        """A bell that rings when this instance, or any with None, has changed."""
        return self.feed.watching(instance_no, is_counted=is_counted)

    def _listen(self, anybody: bool) -> None:
        self.loop.watched = self.feed.changed if anybody else None

    def _known_end(self, instance_id: str) -> OrchestrationStatus | None:
        stored = self.store.get(instance_id)
        if stored is None:
            raise InstanceNotFound(f"no instance {instance_id!r} in this hub")
        is_finished = RuntimeStatus(stored.row.status) in FINISHED
        return status_in(self.store, stored, Detail(), self) if is_finished else None

    def _waiting(self, skipping: Callable[[int], None], more: int) -> None:
        """Count a client that waits for an instance: a clock that skips may skip now."""
        skipping(more)
        self.loop.nudge()

    def _dismiss_watchers(self) -> None:
        with self._gate:
            waiting = [future for futures in self._watchers.values() for future in futures]
            self._watchers.clear()
        tell([(future, EngineStopped("the engine stopped")) for future in waiting])

    def _forget(self, instance_id: str, future: asyncio.Future[Finished]) -> None:
        with self._gate:
            futures = self._watchers.get(instance_id)
            if futures is not None and future in futures:
                futures.remove(future)
                if not futures:
                    del self._watchers[instance_id]

    def _tell_watchers(self, released: Released, handover: CallbackBatch) -> None:
        """On the loop's thread, after a commit."""
        live = self._live
        live.update(released.started)
        if not released.finished:
            return
        told: list[tuple[Any, Any]] = []
        for instance in released.finished:
            live.discard(instance.instance_id)
        with self._gate:
            if self._watchers:
                for instance in released.finished:
                    futures = self._watchers.pop(instance.instance_id, None)
                    if futures:
                        row = instance.row()
                        facts = (row, instance.ending, instance.custom_status)
                        known = facts if instance.custom_status_known else None
                        told.extend((future, known) for future in futures)
        handover.answer(told)

    def _sought(self) -> list[str]:
        """The instances of other workers that this worker's clients wait for. On the loop's thread."""
        territory = self._territory
        if not self._watchers or territory is None or territory.owns_all:
            return []
        with self._gate:
            return [instance_id for instance_id in self._watchers if territory.is_elsewhere(instance_id)]

    def _returned(self) -> None:
        """On the loop's thread, after the store was reopened; with several workers under a new incarnation."""
        if self._strikes is not None and self._shared is not None:
            self._strikes.rename(self._strikes.path.with_name(self._strike_name()))
        self._look_after_watchers()

    def _look_after_watchers(self) -> None:
        """On the loop's thread, when the store is back: find commits that finished a watched instance
        unnoticed.
        """
        self._live.clear()
        with self._gate:
            watched = list(self._watchers)
        for begin in range(0, len(watched), WATCHED_AT_ONCE):
            rows = self.store.rows(watched[begin : begin + WATCHED_AT_ONCE])
            self._found([row.instance_id for row in rows if row.completed_at is not None])

    def _found(self, instance_ids: list[str]) -> None:
        """Resolve the waits for these instances, which finished on another worker. On the loop's thread."""
        with self._gate:
            futures = [future for one in instance_ids for future in self._watchers.pop(one, ())]
        tell([(future, None) for future in futures])

    def _forget_evicted(self, instance_ids: list[str]) -> None:
        self._live.difference_update(instance_ids)

    async def read(self, question: Callable[[], T], *, brief: bool = False) -> T:
        """Query the store; on a thread, unless the answer takes only microseconds."""
        is_near = self._shared is None  # a database may be slow or unavailable
        return question() if brief and is_near else await asyncio.to_thread(question)

    def pulses(self, executions: Mapping[str, str]) -> dict[tuple[str, int], Pulse]:
        pool = self.loop.pool
        own = pool.pulses(executions, self.clock.now()) if pool is not None else {}
        if self._shared is None or not executions:
            return own
        return {**pulses_of(self._shared.placed(list(executions.values())), self._shared.census()), **own}

    def now(self) -> int:
        return self.clock.now()

    def new_instance_id(self) -> str:
        return new_id() if self._territory is None else self._territory.local_id(new_id)

    @property
    def replaces_running(self) -> bool:
        return self.registry.replaces_running

    def output_of_failure(self, name: str, failure: Failure) -> str:
        """The output of a failed instance, in the words of the application."""
        return self.registry.output_of_failure(name, failure)

    def salt_at_hand(self, instance_id: str) -> bytes | None:
        """The salt of an instance, if the instance is in memory and durable. From any thread."""
        found = self._dispatcher.cache.warm.get(instance_id)
        if found is None:
            return self._dispatcher.cache.salts.get(instance_id)
        return found.salt if found.written and not found.purged else None

    def has_orchestrator(self, name: str) -> None:
        if name.casefold().startswith(_BUILT_IN):  # it would send any request in a client's input
            raise FunctionNotFound(f"{name} is a built-in: only orchestrations start it")
        if self.settings.accept_only or self._functions.orchestrator(name) is not None:
            return
        if not any_worker_has(self._others(), "orchestrators", name):
            self.registry.orchestrator(name)

    def operation_guard(self, entity: str, operation: str) -> payload.Guard | None:
        return self._functions.environment.operation(entity, operation)

    def has(self, name: str, version: str = "") -> bool:
        """Whether this application has a function of this name: an orchestrator, in this version if one is given, an
        activity or an entity."""
        if name in self.registry.activities or name.lower() in self.registry.entities:
            return True
        return self._functions.orchestrator(name, version or None) is not None

    def has_entity(self, name: str) -> None:
        if self.settings.accept_only or name in self.registry.entities:
            return
        if not any_worker_has(self._others(), "entities", name):
            self.registry.entity(name)

    def _others(self) -> Iterable[WorkerRow]:
        return self._membership.other_workers if self._membership is not None else ()

    # ------------------------------------------------------------------------------------------- reporting

    def _held(self) -> tuple[str, float]:
        """The instance whose code occupies the loop's thread, and for how many seconds."""
        return self._watchdog.held() if self._watchdog is not None else ("", 0.0)

    def _held_beyond_patience(self) -> tuple[str, float]:
        """The same, if the code should already have been interrupted."""
        if not self._marker.instance_id:
            return "", 0.0  # nearly always: no code runs
        instance_id, seconds = self._held()
        beyond = seconds > self.settings.interrupt_after + INTERRUPTION_TAKES
        return (instance_id, seconds) if beyond else ("", 0.0)

    def health(self) -> dict[str, Any]:
        """Numbers for a health page (warm, queued, running), and whether the engine is healthy."""
        pool = self.loop.pool
        instance_id, held = self._held()
        is_held = held > HELD_FOR_LONG
        is_alive = not (self.loop.stopping or is_held) and (pool is None or pool.is_healthy)
        store = self._store_state()
        return {
            "alive": is_alive,
            "healthy": is_alive and store == "ok",
            "warm": len(self._dispatcher.cache.warm),
            "queued": len(self.callers),
            "store": store,
            **({"held_by": instance_id} if is_held else {}),
            **self._dispatcher.counters,
            **(self.loop.sharing.health() if self.loop.sharing is not None else {}),
            **({f"activities_{k}": v for k, v in pool.health().items()} if pool is not None else {}),
        }

    def figures(self) -> Figures:
        """What this worker holds now, and what it has counted since it started. From any thread."""
        cache, counters, sharing, pool = (
            self._dispatcher.cache,
            self._dispatcher.counters,
            self.loop.sharing,
            self.loop.pool,
        )
        return Figures(
            warm=len(cache.warm),
            warm_bytes=cache.weight,
            evictions=counters["evictions"],
            stale_results=counters["stale_results"],
            leases_lost=sharing.leases_lost if sharing is not None else 0,
            takeovers=sharing.takeovers if sharing is not None else 0,
            load=pool.load() if pool is not None else {},
        )

    @property
    def worker_name(self) -> str:
        """The name of this worker among those of its hub."""
        return self._worker_name

    def _store_state(self) -> str:
        if self.loop.away is not None:
            return str(self.loop.away)
        if self.loop.full_until > self.clock.monotonic():
            return "writes are rejected: no space is left"
        return f"no answer for {self.callers.held_up:.0f} s" if self.callers.held_up else "ok"

    def publish(self, address: str, token: str) -> None:
        """Publish the engine's address to other processes on this machine."""
        publish = getattr(self.store, "publish", None)
        if publish is not None:
            with contextlib.suppress(OSError):
                publish(address, token)


def _tune_interpreter() -> None:
    """Tune the interpreter's switch interval and garbage collector. Higher or disabled settings stay unchanged."""
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
    first, *others = gc.get_threshold()
    if first:
        gc.set_threshold(max(first, COLLECT_AFTER), *others)
