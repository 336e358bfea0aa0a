"""The activity pool: runs `async def` activities on the host's event loop, `def` activities on threads, and
others on executors.

An invocation arrives here only after the commit that scheduled it. Its only effect on the engine is its result,
which returns to the loop as a message. An activity that already runs here is not started again when its
instance is reloaded. The end of an attempt is settled once: by its body, by its deadline, or by a cancellation,
which also comes only after the commit that decided it. Results after that are dropped and counted; Python
cannot end a thread or a call into C, but it can notify them (`ActivityContext.is_cancelled`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from perdure.engine.activities.asyncio_host import OnLoop
from perdure.engine.activities.blocking import Blocking
from perdure.engine.activities.deadlines import Deadlines
from perdure.engine.activities.executors.definitions import Executors
from perdure.engine.activities.executors.factories import place_of
from perdure.engine.activities.executors.host import ExecutorHost
from perdure.engine.activities.ports import Concurrency, Deliver, Outbox
from perdure.engine.activities.results import failed
from perdure.engine.activities.runner import ActivityHost, Attempt, Runner
from perdure.engine.activities.thread_host import Threads
from perdure.engine.client.watching import CallbackSink
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.telemetry import CANCELLED, COMPLETED, FAILED, SILENCE, TIMED_OUT, Telemetry
from perdure.engine.core.tracing import Tracing
from perdure.engine.functions.callables import where
from perdure.engine.functions.registry import Activity, CallPlan, Registry, plan_of
from perdure.errors import FunctionNotFound, RegistrationError
from perdure.failure import Failure
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult
from perdure.model.waiting import Pulse
from perdure.replay.activity_context import ActivityContext
from perdure.replay.settle import Invocation

Key = tuple[str, int]  # execution id, task id


class ActivityPool:
    """Runs invocations and delivers their results. `start` and `cancel` are called by the loop's thread only."""

    def __init__(
        self,
        registry: Registry,
        resources: Sequence[object],
        outbox: Outbox,
        deliver: Deliver,
        concurrency: Concurrency,
        hub: str = "",
        telemetry: Telemetry = SILENCE,
        tracing: Tracing | None = None,
    ) -> None:
        by_type: dict[type, Any] = {type(r): r for r in resources}
        available = (ActivityContext, *by_type)
        self._deliver = deliver
        self._hub = hub
        self._outbox = outbox
        self._telemetry = telemetry if telemetry.follows_bodies else None  # no call per attempt without need
        self._deadlines = Deadlines(self._expire)
        self._async = OnLoop(outbox.event_loop, self._take_up, self._begin, self._conclude, concurrency.tasks)
        self.blocking = Blocking(self._async, warn_after=1.0)
        self._threads = Threads(self._begin, self._conclude, concurrency)
        self._executors = Executors(registry, self._begin, self._conclude, tracing)
        self.runners = {
            name: self._runner(activity, plan_of(activity, available), by_type)
            for name, activity in registry.activities.items()
        }
        self._in_flight: dict[Key, Attempt | Invocation] = {}  # attempts, once their host takes them
        self._gate = threading.Lock()
        self._dropped = 0
        self._closed = False

    async def open(self) -> None:
        """Create the executors. Raises the errors of their sources."""
        await self._executors.open()

    def start(self, invocations: Iterable[Invocation], handover: CallbackSink) -> None:
        """Start invocations that do not run here yet; those beyond an activity's own limit wait."""
        for_loop: list[Attempt | Invocation] = []
        in_flight = self._in_flight
        for invocation in invocations:
            key = (invocation.execution_id, invocation.task_id)
            if key in in_flight:
                continue
            runner = self.runners.get(invocation.name)
            if runner is None:
                self._unknown(invocation)
                continue
            if runner.host is self._async and not runner.activity.concurrency:
                in_flight[key] = invocation  # nothing else is created for a hundred thousand at once
                for_loop.append(invocation)
                continue
            attempt = in_flight[key] = Attempt(runner, invocation)
            if self._admit(runner, attempt):
                if runner.host is self._async:
                    for_loop.append(attempt)
                else:
                    self._hand(attempt)
        if for_loop:
            handover.add(self._async.event_loop, self._async.take, for_loop)

    def forget(self, calls: Iterable[Key]) -> list[Attempt | Invocation | None]:
        """Forget activities whose results are processed: one that is scheduled again runs again.

        Returns for each call what ran here, or None.
        """
        in_flight = self._in_flight
        with self._gate:
            return [in_flight.pop(key, None) for key in calls]

    def cancel(self, calls: Iterable[Key], executions: Collection[str] = ()) -> list[Attempt]:
        """Cancel these calls, and all calls of these executions, after the commits that decided it.

        Returns the attempts that end thereby.
        """
        gone = [self._withdraw(key, "the orchestrator cancelled the call") for key in calls]
        if executions:
            keys = [key for key in self._in_flight if key[0] in executions]
            gone += [self._withdraw(key, "the instance was terminated or purged") for key in keys]
        return [attempt for attempt in gone if attempt is not None]

    def health(self) -> dict[str, int]:
        """The numbers of running, waiting and abandoned attempts, and of late results."""
        elsewhere = self._executors.health()
        return {
            "running": self._threads.running + self._async.running + elsewhere["running"],
            "queued": sum(len(r.queued) for r in self.runners.values())
            + self._threads.waiting()
            + elsewhere["queued"],
            "abandoned_threads": self._threads.abandoned,
            "abandoned_in_executors": elsewhere["abandoned"],
            "dropped_results": self._dropped,
        }

    def load(self) -> dict[str, tuple[int, int]]:
        """For each activity with open attempts here, how many run and how many wait. From any thread."""
        found: dict[str, list[int]] = {}
        for one in self._in_flight.copy().values():
            if isinstance(one, Attempt):
                if not one.settled:
                    found.setdefault(one.invocation.name, [0, 0])[one.since == 0.0] += 1
            else:
                found.setdefault(one.name, [0, 0])[1] += 1
        return {name: (running, queued) for name, (running, queued) in found.items()}

    def pulses(self, execution_ids: Collection[str], now: int) -> dict[Key, Pulse]:
        """The state of these executions' activities on this worker. `now` is in microseconds; from any thread."""
        return {
            key: _pulse(begun, now) if isinstance(begun, Attempt) else _waiting(begun)
            for key, begun in self._in_flight.copy().items()
            if key[0] in execution_ids
        }

    def open_invocations(self) -> list[Invocation]:
        """Invocations that started here and whose results are not processed yet."""
        begun = self._in_flight.copy().values()
        return [one.invocation if isinstance(one, Attempt) else one for one in begun]

    def free_slots(self) -> tuple[list[str], int]:
        """The activities that could start at once, and the number of free slots."""
        free = {id(host): host.free for host in self._hosts()}
        names = [
            name for name, runner in self.runners.items() if free[id(runner.host)] > 0 and not runner.is_full
        ]
        hosts = {id(self.runners[name].host) for name in names}
        return names, sum(free[host] for host in hosts)

    def expected_wait(self, name: str, more: int) -> float:
        """The estimated seconds until an activity would start here, after `more` others of its kind.

        A full pool without known durations counts as a long wait.
        """
        runner = self.runners.get(name)
        if runner is None or runner.host is None:
            return 0.0
        host = runner.host
        behind, slots = more - host.free, host.slots
        limit = runner.activity.concurrency
        if limit and limit < slots:
            behind, slots = more + runner.running + len(runner.queued) - limit, limit
        if behind < 0:
            return 0.0
        return (behind + 1) / slots * (runner.usual_seconds if runner.usual_seconds is not None else 3_600.0)

    def _hosts(self) -> Iterable[ActivityHost]:
        return {id(runner.host): runner.host for runner in self.runners.values() if runner.host}.values()

    @property
    def is_busy(self) -> bool:
        """Whether a result is still pending."""
        return bool(self._in_flight)

    @property
    def is_healthy(self) -> bool:
        return self._threads.abandoned <= self._threads.limits.abandoned and self._executors.is_healthy

    async def close(self) -> None:
        """Start no more attempts, and stop the running ones: they stay open and run again after a restart.

        Threads within an activity end with the process.
        """
        self._closed = True
        self._deadlines.close()
        for attempt in list(self._in_flight.values()):
            if isinstance(attempt, Attempt):
                attempt.cancel("the engine is stopping; the activity runs again after a restart")
        self._threads.close()
        await self._async.close()
        await self._executors.close()

    # ------------------------------------------------------------------------------------- how attempts begin

    def _runner(self, activity: Activity, plan: CallPlan[Activity], resources: dict[type, Any]) -> Runner:
        elsewhere = self._executors.host_of(activity)
        if elsewhere is None:
            return Runner(plan, resources, self._async if activity.is_async else self._threads, self._hub)
        taken = [kind.__name__ for kind in plan.given.values() if kind is not ActivityContext]
        if taken:
            raise RegistrationError(
                f"{where(activity.function)} runs on an executor, in another process: the resources of a "
                f"lifespan ({', '.join(taken)}) cannot be passed to it. Create them inside the activity"
            )
        runner = Runner(plan, resources, elsewhere, self._hub)
        runner.place = place_of(activity)
        return runner

    def _admit(self, runner: Runner, attempt: Attempt) -> bool:
        limit = runner.activity.concurrency
        if not limit:
            return True
        with self._gate:
            if runner.running >= limit:
                runner.queued.append(attempt)
                return False
            runner.running += 1
            attempt.admitted = True
            return True

    def _take_up(self, invocation: Invocation) -> Attempt | None:
        """Start an attempt for an invocation; None if it is no longer wanted."""
        key = invocation.execution_id, invocation.task_id
        with self._gate:
            if self._in_flight.get(key) is not invocation:
                return None
            attempt = self._in_flight[key] = Attempt(self.runners[invocation.name], invocation)
            return attempt

    def _hand(self, attempt: Attempt) -> None:
        """Pass an attempt to the host of its activity; from any thread, outside a batch."""
        host = attempt.runner.host
        if host is self._async:
            self._async.take_one(attempt)
        elif isinstance(host, ExecutorHost):
            host.put(attempt, attempt.runner.place)
        else:
            self._threads.put(attempt)

    def _begin(self, attempt: Attempt) -> None:
        """Called by the host when a body begins."""
        attempt.since = attempt.heard_at = time.monotonic()
        invocation = attempt.invocation
        if invocation.timeout or invocation.heartbeat:
            self._deadlines.watch(attempt)
        if self._telemetry is not None:
            self._telemetry.begun(attempt)

    # --------------------------------------------------------------------------------------- how attempts end

    def _settle(self, attempt: Attempt, outcome: str) -> bool:
        """Settle the end of an attempt; False if it is already settled."""
        with self._gate:
            if attempt.settled:
                return False
            attempt.settled = True
            attempt.outcome = outcome
            return True

    def _conclude(self, attempt: Attempt, result: ActivityResult) -> None:
        """Handle the return of a body."""
        if attempt.since:
            seconds = attempt.seconds = time.monotonic() - attempt.since
            attempt.runner.took(seconds)
        if self._telemetry is not None:
            self._telemetry.ended(attempt, result)
        with self._gate:
            is_dropped, attempt.settled = attempt.settled, True
            self._dropped += is_dropped
        if not is_dropped:
            attempt.outcome = COMPLETED if result.failure is None else FAILED
            self._send(attempt, result)

    def _expire(self, attempt: Attempt, failure: Failure) -> None:
        """Fail an attempt at its deadline; its later actions are ignored."""
        if self._settle(attempt, TIMED_OUT):
            attempt.seconds = time.monotonic() - attempt.since
            self._stop(attempt, failure.message)
            self._send(attempt, failed(attempt.invocation, failure))

    def _withdraw(self, key: Key, reason: str) -> Attempt | None:
        """Stop an attempt; returns it, if it had not ended."""
        with self._gate:
            attempt = self._in_flight.pop(key, None)
        if not isinstance(attempt, Attempt) or not self._settle(attempt, CANCELLED):
            return None
        if attempt.since:
            attempt.seconds = time.monotonic() - attempt.since
        self._stop(attempt, reason)
        self._vacate(attempt)
        return attempt

    def _stop(self, attempt: Attempt, reason: str) -> None:
        attempt.cancel(reason)
        if attempt.runner.host is not None:
            attempt.runner.host.stop(attempt)

    def _send(self, attempt: Attempt, result: ActivityResult) -> None:
        if attempt.runner.host is self._async:
            self._outbox.put(Envelope(result))
        else:
            self._deliver(result)
        if attempt.admitted:
            self._vacate(attempt)

    def _vacate(self, attempt: Attempt) -> None:
        """Give the attempt's slot to the next wanted attempt of its activity."""
        if not attempt.admitted:
            return
        runner, following = attempt.runner, None
        with self._gate:
            attempt.admitted = False
            while runner.queued and following is None:
                waiting = runner.queued.popleft()
                following = None if waiting.settled else waiting
            if following is None:
                runner.running -= 1
            else:
                following.admitted = True
        if following is not None and not self._closed:
            self._hand(following)

    def _unknown(self, invocation: Invocation) -> None:
        known = ", ".join(sorted(self.runners)[:10]) or "none"
        missing = FunctionNotFound(
            f"no activity named {invocation.name!r} is registered in this application; it has {known}"
        )
        self._deliver(failed(invocation, failure_of(missing, with_stack=False)))


def _pulse(attempt: Attempt, now: int) -> Pulse:
    """The visible state of an attempt. Heartbeats use the monotonic clock; people read the wall clock."""
    host = attempt.runner.host
    heard = attempt.heard_at if attempt.heard_at > attempt.since > 0.0 else 0.0
    return Pulse(
        name=attempt.invocation.name,
        attempt=attempt.invocation.attempt,
        where=host.where if attempt.since and host is not None else "queue",
        begun_at=_instant(attempt.since, now),
        heard_at=_instant(heard, now),
        progress=attempt.progress,
    )


def _waiting(invocation: Invocation) -> Pulse:
    """The visible state of a waiting invocation."""
    return Pulse(invocation.name, invocation.attempt, "queue")


def _instant(seconds: float, now: int) -> int:
    """A moment of the monotonic clock as an instant in microseconds; 0 stays 0."""
    return now - int((time.monotonic() - seconds) * 1e6) if seconds else 0
