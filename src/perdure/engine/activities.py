"""Running activities: `async def` ones on the host's event loop, `def` ones on threads of their own.

An invocation arrives here only after the commit that scheduled it. Its result goes back to the loop as a
message; nothing else does. Threads share one queue and stay; a thread whose activity outlives its timeout is
abandoned (Python cannot stop it), counted, and replaced up to a limit. Beyond that limit the worker reports
itself unhealthy and starts no more `def` activities until one of the abandoned comes back.
An invocation that is already running here is not started a second time when its instance is loaded again.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from msgspec import Raw

from perdure.engine.envelope import Envelope
from perdure.engine.registry import Activity, Plan, Registry, plan_of
from perdure.errors import FunctionNotFound, PayloadError
from perdure.model import payload
from perdure.model.failure import Failure, failure_of
from perdure.model.messages import ActivityResult
from perdure.replay.settle import Invocation

Key = tuple[str, int]  # execution id, task id
Deliver = Callable[[ActivityResult], None]


class Handover(Protocol):
    """What one batch has for the event loops, to be handed over at once."""

    def add(self, event_loop: asyncio.AbstractEventLoop, action: Callable[..., None], *args: Any) -> None: ...


class Outbox(Protocol):
    """Where results of the event loop's own activities go, to be handed over together."""

    event_loop: asyncio.AbstractEventLoop

    def put(self, envelope: Envelope) -> None: ...


class ActivityContext:
    """What an activity may know about the call it serves. Ask for it with a parameter annotated so."""

    __slots__ = (
        "_input",
        "activity_name",
        "attempt",
        "execution_id",
        "idempotency_key",
        "instance_id",
        "task_id",
    )

    def __init__(self, invocation: Invocation) -> None:
        self.instance_id = invocation.instance_id
        self.execution_id = invocation.execution_id
        self.task_id = invocation.task_id
        self.activity_name = invocation.name
        self.attempt = invocation.attempt
        self.idempotency_key = invocation.idempotency_key
        self._input = invocation.input

    def get_input(self, expected_type: Any = Any) -> Any:
        """The input, typed if a type is given. Raises PayloadError on a misfit."""
        return payload.decode(self._input, expected_type) if bytes(self._input) else None


@dataclass(frozen=True)
class Concurrency:
    """How much one worker runs at a time."""

    threads: int = 16  # `def` activities
    tasks: int = 1_000  # `async def` activities
    abandoned: int = 16  # timed-out threads replaced before the worker calls itself unhealthy


class Runner:
    """One activity function, ready to be called: how its parameters are filled is decided once."""

    def __init__(self, plan: Plan[Activity], resources: Mapping[type, Any]) -> None:
        self.activity = plan.definition
        self.is_async = plan.definition.is_async
        self._plan = plan
        self._takes_context = [n for n, kind in plan.given.items() if kind is ActivityContext]
        self._constant = {n: resources[kind] for n, kind in plan.given.items() if kind is not ActivityContext}
        self._input_type = plan.input_type
        self.running = 0
        self.queued: deque[Invocation] = deque()

    def call(self, invocation: Invocation) -> Any:
        """Call the function with what it asks for; an `async def` one gives its coroutine."""
        arguments: dict[str, Any] = dict(self._constant)
        if self._takes_context:
            context = ActivityContext(invocation)
            for name in self._takes_context:
                arguments[name] = context
        if self._plan.input_name is not None:
            arguments[self._plan.input_name] = payload.decode(invocation.input, self._input_type)
        return self.activity.function(**arguments)


class ActivityPool:
    """Runs invocations and delivers their results. `start` is called by the loop's thread only."""

    def __init__(
        self,
        registry: Registry,
        resources: Sequence[object],
        outbox: Outbox,
        deliver: Deliver,
        concurrency: Concurrency,
    ) -> None:
        by_type: dict[type, Any] = {type(r): r for r in resources}
        available = (ActivityContext, *by_type)
        self.runners = {
            name: Runner(plan_of(activity, available), by_type)
            for name, activity in registry.activities.items()
        }
        self._deliver = deliver
        self._outbox = outbox
        self._async = _AsyncRunners(outbox.event_loop, self._done, concurrency.tasks)
        self._threads = _Threads(self._done, concurrency)
        self._in_flight: set[Key] = set()
        self._gate = threading.Lock()

    def start(self, invocations: Iterable[Invocation], handover: Handover) -> None:
        """Begin what is not running here yet; what exceeds an activity's own limit waits its turn."""
        for_loop: list[tuple[Runner, Invocation]] = []
        for invocation in invocations:
            key = (invocation.execution_id, invocation.task_id)
            if key in self._in_flight:
                continue
            self._in_flight.add(key)
            runner = self.runners.get(invocation.name)
            if runner is None:
                self._unknown(invocation)
            elif self._admit(runner, invocation):
                if runner.is_async:
                    for_loop.append((runner, invocation))
                else:
                    self._threads.put(runner, invocation)
        if for_loop:
            handover.add(self._async.event_loop, self._async.begin, for_loop)

    def forget(self, execution_id: str, task_id: int) -> None:
        """Its result has been taken up: if it is ever asked for again, it runs again."""
        self._in_flight.discard((execution_id, task_id))

    def health(self) -> dict[str, int]:
        """How much is running, waiting and abandoned."""
        return {
            "running": self._threads.running + self._async.running,
            "queued": sum(len(r.queued) for r in self.runners.values()) + self._threads.waiting(),
            "abandoned_threads": self._threads.abandoned,
        }

    @property
    def is_busy(self) -> bool:
        """Whether a result is still to come."""
        return bool(self._in_flight)

    @property
    def is_healthy(self) -> bool:
        return self._threads.abandoned <= self._threads.limits.abandoned

    async def close(self) -> None:
        """Start nothing more, and cancel what runs on the event loop: it stays open and runs again.

        Threads in the middle of an activity are left to the end of the process.
        """
        self._threads.close()
        await self._async.close()

    # -------------------------------------------------------------------------------------------- inside

    def _admit(self, runner: Runner, invocation: Invocation) -> bool:
        limit = runner.activity.concurrency
        if not limit:
            return True
        with self._gate:
            if runner.running >= limit:
                runner.queued.append(invocation)
                return False
            runner.running += 1
            return True

    def _done(self, runner: Runner, result: ActivityResult) -> None:
        if runner.is_async:
            self._outbox.put(Envelope(result))
        else:
            self._deliver(result)
        if not runner.activity.concurrency:
            return
        with self._gate:
            following = runner.queued.popleft() if runner.queued else None
            if following is None:
                runner.running -= 1
        if following is not None:
            if runner.is_async:
                self._async.begin([(runner, following)])
            else:
                self._threads.put(runner, following)

    def _unknown(self, invocation: Invocation) -> None:
        known = ", ".join(sorted(self.runners)[:10]) or "none"
        missing = FunctionNotFound(
            f"no activity named {invocation.name!r} is registered in this application; it has {known}"
        )
        self._deliver(_failed(invocation, failure_of(missing, with_stack=False)))


class _AsyncRunners:
    """`async def` activities: one hand-over per batch to the event loop, then as many drivers as needed.

    A driver is a task that runs one activity after the other. Only when a body really waits for something does
    the event loop get to start another driver for the rest: bodies that return at once cost no task each.
    A driver whose activity left traces in its context variables ends, so that the next one starts clean.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[Runner, ActivityResult], None],
        limit: int,
    ) -> None:
        self.event_loop = loop
        self._done = done
        self._limit = limit
        self._context = copy_context()
        self._waiting: deque[tuple[Runner, Invocation]] = deque()
        self._drivers: set[asyncio.Task[None]] = set()
        self._starting = False
        self.running = 0

    def begin(self, work: list[tuple[Runner, Invocation]]) -> None:
        """On the event loop: take more work."""
        self._waiting.extend(work)
        if not self._starting:
            self._start_driver()

    async def close(self) -> None:
        self._waiting.clear()
        for task in list(self._drivers):
            task.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)

    def _start_driver(self) -> None:
        self._starting = False
        if self._waiting and self.running < self._limit:
            task = self.event_loop.create_task(self._drive(), context=self._context.copy())
            self._drivers.add(task)
            task.add_done_callback(self._drivers.discard)

    async def _drive(self) -> None:
        while self._waiting and self.running < self._limit:
            runner, invocation = self._waiting.popleft()
            if self._waiting and not self._starting:
                self._starting = True  # reached when this driver waits for something, or is done with all
                self.event_loop.call_soon(self._start_driver)
            self.running += 1
            try:
                result = await self._attempt(runner, invocation)
            finally:
                self.running -= 1
            self._done(runner, result)
            if copy_context() != self._context:
                break
        if self._waiting and not self._starting:
            self._start_driver()

    async def _attempt(self, runner: Runner, invocation: Invocation) -> ActivityResult:
        try:
            value = runner.call(invocation)
            if inspect.isawaitable(value):
                if invocation.timeout:
                    value = await asyncio.wait_for(value, invocation.timeout / 1e6)
                else:
                    value = await value
            return _completed(invocation, value)
        except TimeoutError as error:
            return _failed(invocation, _timed_out(invocation, error))
        except asyncio.CancelledError as error:
            driver = asyncio.current_task()
            if driver is not None and driver.cancelling():
                raise  # the host is going down: the activity stays open and runs again at the next start
            return _failed(invocation, failure_of(error))
        except Exception as error:
            return _failed(invocation, failure_of(error))


class _Threads:
    """`def` activities: threads of our own on one queue."""

    def __init__(self, done: Callable[[Runner, ActivityResult], None], limits: Concurrency) -> None:
        self.limits = limits
        self._done = done
        self._queue: SimpleQueue[tuple[Runner, Invocation] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._alive = 0
        self.running = 0
        self.abandoned = 0
        self._deadlines: dict[int, _Attempt] = {}
        self._clock: threading.Thread | None = None
        self._changed = threading.Condition(self._lock)
        self._closed = False

    def put(self, runner: Runner, invocation: Invocation) -> None:
        self._queue.put((runner, invocation))
        with self._lock:
            if self._queue.qsize() > self._idle and self._alive < self.limits.threads:
                self._spawn()

    def waiting(self) -> int:
        return self._queue.qsize()

    def _spawn(self) -> None:
        self._alive += 1
        threading.Thread(target=self._work, name="perdure-activity", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            item = self._queue.get()
            with self._lock:
                self._idle -= 1
                if item is None:
                    self._alive -= 1
                    return
                self.running += 1
            if not self._attempt(*item):
                return

    def _attempt(self, runner: Runner, invocation: Invocation) -> bool:
        """Run one; returns whether this thread is still wanted afterwards."""
        attempt = _Attempt(runner, invocation)
        if invocation.timeout:
            self._watch(attempt)
        try:
            result = _completed(invocation, runner.call(invocation))
        except BaseException as error:
            result = _failed(invocation, failure_of(error))
        with self._lock:
            self._deadlines.pop(id(attempt), None)
            if attempt.abandoned:
                self.abandoned -= 1
                if (
                    not self._closed
                    and self._queue.qsize() > self._idle
                    and self._alive < self.limits.threads
                ):
                    self._spawn()
                return False
            self.running -= 1
        self._done(runner, result)
        return True

    def _watch(self, attempt: _Attempt) -> None:
        with self._changed:
            self._deadlines[id(attempt)] = attempt
            if self._clock is None:
                self._clock = threading.Thread(target=self._keep_time, name="perdure-timeouts", daemon=True)
                self._clock.start()
            self._changed.notify()

    def _keep_time(self) -> None:
        while not self._closed:
            with self._changed:
                now = time.monotonic()
                late = [a for a in self._deadlines.values() if a.deadline <= now]
                for attempt in late:
                    self._abandon(attempt)
                if not late:
                    nearest = min((a.deadline for a in self._deadlines.values()), default=now + 60)
                    self._changed.wait(max(nearest - now, 0.001))
            for attempt in late:
                self._done(
                    attempt.runner,
                    _failed(attempt.invocation, _timed_out(attempt.invocation, TimeoutError())),
                )

    def _abandon(self, attempt: _Attempt) -> None:
        """Under the lock: the thread is on its own from here, and another may take its place."""
        del self._deadlines[id(attempt)]
        attempt.abandoned = True
        self.abandoned += 1
        self.running -= 1
        self._alive -= 1
        if self.abandoned <= self.limits.abandoned and self._queue.qsize() > self._idle:
            self._spawn()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
            for _ in range(self._alive):
                self._queue.put(None)


class _Attempt:
    __slots__ = ("abandoned", "deadline", "invocation", "runner")

    def __init__(self, runner: Runner, invocation: Invocation) -> None:
        self.runner = runner
        self.invocation = invocation
        self.deadline = time.monotonic() + invocation.timeout / 1e6
        self.abandoned = False


_NULL = Raw(b"null")


def _completed(invocation: Invocation, value: Any) -> ActivityResult:
    if value is None:
        body = _NULL
    else:
        try:
            body = Raw(payload.encode(value))
        except PayloadError as error:
            return _failed(invocation, failure_of(error, with_stack=False))
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        result=body,
    )


def _failed(invocation: Invocation, failure: Failure) -> ActivityResult:
    return ActivityResult(
        instance_id=invocation.instance_id,
        execution_id=invocation.execution_id,
        task_id=invocation.task_id,
        failure=failure,
    )


def _timed_out(invocation: Invocation, error: BaseException) -> Failure:
    limit = invocation.timeout / 1e6
    if not limit:
        return failure_of(error)
    return Failure(
        "TimeoutError",
        f"activity {invocation.name!r} (attempt {invocation.attempt}) took longer than its {limit:g} s; "
        "its body may still be running and its result will be dropped",
    )
