"""Tasks: the awaitables of an orchestrator.

A task is pending until it has a value or an error. Its waiters are notified at once, in the order in which they
began to wait; that order comes from the code and from history, never from a clock or a scheduler. `yield task`
and `await task` are the same operation: an awaited task yields itself to the fiber that drives it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from perdure.errors import EngineSignal, OrchestratorError, PayloadError, TaskCancelled, TaskFailedError
from perdure.failure import Failure
from perdure.model import payload
from perdure.model.retry import RetryPolicy, next_attempt_at
from perdure.replay.determinism import Mismatch, misfit
from perdure.replay.relay import ABANDONED, DEEPEST, WIDE, Relay, Standing, Waiter

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.model.events import EventRaised

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

PENDING, DONE, FAILED = 0, 1, 2


class TaskState(IntEnum):
    """The state of a task, with Azure's names and numbers."""

    RUNNING = PENDING
    SUCCEEDED = DONE
    FAILED = FAILED


class Owner(Protocol):
    """The execution, as its tasks use it."""

    _now: int
    _replaying: bool
    _doom: EngineSignal | None
    _parks_misfits: bool
    _unfit: tuple[PayloadError, Mismatch] | None
    _rewound: dict[int, int] | None
    _taken: dict[int, EventTask[Any]]

    def _park(self, found: Mismatch) -> Mismatch: ...

    def _recorded_retry(self, call: int) -> int | None: ...

    def _randomness(self, call: int, attempt: int) -> float: ...

    def _timer(self, fire_at: int, purpose: str, of: int) -> TimerTask: ...

    def _cancel_call(self, call: CallTask[Any]) -> None: ...

    def _cancel_timer(self, timer: TimerTask) -> None: ...

    def _cancel_wait(self, wait: EventTask[Any]) -> None: ...

    def _give_back(self, wait: EventTask[Any]) -> None: ...

    def _wait_changed(self, wait: EventTask[Any]) -> None: ...

    def _branch_ended(self, branch: Any) -> None: ...


class Task(Generic[T_co]):
    """A pending or finished result of an orchestrator: `yield` it or `await` it, alone or in task_all and
    task_any.
    """

    __slots__ = ("_context", "_outcome", "_state", "_waiters", "id")

    def __init__(self, context: Owner, task_id: int = -1) -> None:
        self._context = context
        self.id = task_id
        self._state = PENDING
        self._outcome: Any = None
        self._waiters: Waiter[Any] | list[Waiter[Any]] | None = (
            None  # nearly always one, and a list takes 80 bytes
        )

    def __await__(self) -> Generator[Task[T_co], Any, T_co]:
        value: T_co = yield self
        return value

    def __iter__(self) -> Generator[Task[T_co], Any, T_co]:
        """`result = yield from task` is `yield task` with a type that checkers know."""
        value: T_co = yield self
        return value

    @property
    def is_completed(self) -> bool:
        """Whether it has a result or has failed."""
        return self._state != PENDING

    @property
    def state(self) -> TaskState:
        """Its state, as in azure-functions-durable."""
        return TaskState(self._state)

    @property
    def is_faulted(self) -> bool:
        """Whether it has failed."""
        return self._state == FAILED

    @property
    def failure(self) -> Failure | None:
        """The failure of an activity or sub-orchestration, or None."""
        return self._outcome if isinstance(self._outcome, Failure) else None

    @property
    def result(self) -> T_co:
        """The value. Raises TaskFailedError (or TimeoutError) if it failed, OrchestratorError if it is pending."""
        if self._state == PENDING:
            raise OrchestratorError("this task is not completed yet: yield it or await it to get its result")
        self._observe()
        if self._state == FAILED:
            raise self._error()
        value: T_co = self._outcome
        return value

    def get_result(self) -> T_co:
        """The same as `result`, as durabletask spells it."""
        return self.result

    def cancel(self) -> None:
        """Raise OrchestratorError: only activities, timers and waits for events can be cancelled."""
        raise OrchestratorError(
            f"{self._describe()} cannot be cancelled: only activities, timers and waits for external events "
            "support it"
        )

    # ------------------------------------------------------------------- inside: fibers and combinators

    def _add_waiter(self, waiter: Waiter[Any]) -> None:
        waiters = self._waiters
        if waiters is None:
            self._waiters = waiter
        elif isinstance(waiters, list):
            waiters.append(waiter)
        elif type(waiters) is Relay:
            waiters.is_alone = False
            self._waiters = waiter if waiters.race is None else [waiters, waiter]
        else:
            self._waiters = [waiters, waiter]

    def _drop_waiter(self, waiter: Waiter[Any]) -> None:
        """Remove a waiter that no longer needs this task. A task without waiters is marked as abandoned."""
        waiters = self._waiters
        if waiters is waiter:
            self._waiters = ABANDONED
        elif isinstance(waiters, list) and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                self._waiters = ABANDONED

    def _standing(self, depth: int = DEEPEST) -> Standing:
        """The code's interest in this open task."""
        waiters = self._waiters
        if self._state != PENDING:
            return Standing.LEFT
        if waiters is None:
            return Standing.FRESH
        if not depth:
            return Standing.AWAITED
        if isinstance(waiters, list):
            return max(waiter._standing(depth - 1) for waiter in waiters)
        return waiters._standing(depth - 1)

    def _complete(self, value: Any) -> None:
        self._state = DONE
        self._outcome = value
        self._tell()

    def _fail(self, error: Failure | BaseException) -> None:
        self._state = FAILED
        self._outcome = error
        self._tell()

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, None
        if isinstance(waiters, list):
            for waiter in waiters:
                waiter.on_done(self)
        elif waiters is not None:
            waiters.on_done(self)

    def _error(self) -> BaseException:
        outcome = self._outcome
        if isinstance(outcome, Failure):
            return TaskFailedError(f"{self._describe()} failed: {outcome}", outcome, self._failed_id())
        assert isinstance(outcome, BaseException)
        return outcome

    def _observe(self) -> None:
        """Note that the code has seen the outcome."""

    def _failed_id(self) -> int:
        """The id of the call that failed."""
        return self.id

    def _describe(self) -> str:
        return "this task"


class CallTask(Task[T_co]):
    """A call of an activity or a sub-orchestration."""

    __slots__ = ("_expected", "_kind", "name")

    def __init__(self, context: Owner, task_id: int, kind: str, name: str, expected: Any) -> None:
        self._context = context  # as in `Task`, without another call: a step may create a hundred thousand
        self.id = task_id
        self._state = PENDING
        self._outcome = None
        self._waiters = None
        self._kind = kind
        self.name = name
        self._expected = expected

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel()` ended it."""
        return isinstance(self._outcome, TaskCancelled)

    def cancel(self) -> None:
        """Cancel an activity: its body is notified once this is durable, and its result is dropped.

        Awaiting it afterwards raises TaskCancelled. Cancelling a finished call does nothing. Raises
        OrchestratorError for a sub-orchestration: terminate that through a client.
        """
        if self._kind != "Activity":
            super().cancel()
        elif self._state == PENDING:
            self._context._cancel_call(self)
            self._fail(TaskCancelled(f"{self._describe()} was cancelled"))

    def _complete_with(self, body: Raw) -> None:
        """Take the recorded result, typed as the caller expects it."""
        try:
            value = payload.decode(body, self._expected) if bytes(body) else None
        except PayloadError as error:
            self._fail(self._unfit(error))
        else:
            self._complete(value)

    def _unfit(self, error: PayloadError) -> PayloadError:
        """Park the instance: the call has succeeded, so the code must not see a failure.

        In executions of earlier versions the code received the error, and receives it again in replay.
        """
        context = self._context
        whose = f"the result of call {self.id} ({self._describe()})"
        found = misfit(whose, self._expected, error)
        if context._parks_misfits or not context._replaying:
            raise context._park(found)
        expected = payload.title(self._expected)
        told = PayloadError(f"the result of {self._describe()} is not a {expected}: {error}", error.pointer)
        context._unfit = told, found
        return told

    def _describe(self) -> str:
        return f"{self._kind} function '{self.name}'"


class RetryTask(Task[T_co]):
    """A call with a retry policy: each failure, durable timer and new call is visible in history."""

    __slots__ = (
        "_attempt",
        "_before",
        "_call",
        "_current",
        "_first_at",
        "_last",
        "_policy",
        "_start",
        "name",
    )

    def __init__(
        self,
        context: Owner,
        name: str,
        policy: RetryPolicy,
        start: Callable[[int, int], CallTask[T_co]],
    ) -> None:
        super().__init__(context)
        self.name = name
        self._policy = policy
        self._start = start
        self._attempt = 1
        self._before = 0  # attempts before the last rewind, which the policy does not count
        self._first_at = context._now
        self._call = -1
        first = start(self._call, self._attempt)
        self._call = self.id = self._last = first.id
        self._current: CallTask[T_co] | TimerTask = first
        first._add_waiter(self)

    def on_done(self, task: Task[Any]) -> None:
        if isinstance(task, TimerTask):
            self._attempt += 1
            self._current = self._start(self._call, self._attempt)
            self._last = self._current.id
            self._current._add_waiter(self)
        elif task._state == DONE:
            self._complete(task._outcome)
        else:
            self._failed(task._outcome)

    def _failed(self, outcome: Failure | BaseException) -> None:
        again_at = self._again_at(outcome) if isinstance(outcome, Failure) else None
        if again_at is None:
            self._fail(outcome)
        else:
            self._current = self._context._timer(again_at, "retry", self._call)
            self._current._add_waiter(self)

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel()` ended it."""
        return isinstance(self._outcome, TaskCancelled)

    def cancel(self) -> None:
        """Cancel the attempt that runs, or the wait for the next one. See `CallTask.cancel`."""
        if self._state == PENDING:
            waiters, self._current._waiters = self._current._waiters, None
            try:
                self._current.cancel()
            except OrchestratorError:
                self._current._waiters = waiters  # a sub-orchestration continues, and so does this task
                raise
            self._fail(TaskCancelled(f"{self._describe()} was cancelled"))

    def _again_at(self, failure: Failure) -> int | None:
        """When to retry a failure: as in history; only a new failure follows the current policy."""
        rewound_at = (self._context._rewound or {}).get(self._last)
        if rewound_at is not None:  # the attempt that was rewound is the first of a new series
            self._before, self._first_at = self._attempt - 1, rewound_at
        recorded = self._context._recorded_retry(self._call)
        if recorded is not None:
            return recorded or None
        return next_attempt_at(
            self._policy,
            failure,
            attempt=self._attempt - self._before,
            first_at=self._first_at,
            now=self._context._now,
            randomness=self._context._randomness(self._call, self._attempt) if self._policy.jitter else 0.0,
        )

    def _failed_id(self) -> int:
        return self._last

    def _describe(self) -> str:
        return f"Activity function '{self.name}'"


class TimerTask(Task[None]):
    """A durable timer; cancel it with `cancel()` when it is no longer needed."""

    __slots__ = ("fire_at", "of", "purpose")

    def __init__(self, context: Owner, task_id: int, fire_at: int, purpose: str, of: int) -> None:
        super().__init__(context, task_id)
        self.fire_at = fire_at
        self.purpose = purpose
        self.of = of

    @property
    def is_cancelled(self) -> bool:
        return self._state == FAILED

    def cancel(self) -> None:
        """Cancel it; awaiting it afterwards raises OrchestratorError. Cancelling a fired timer does nothing."""
        if self._state == PENDING:
            self._context._cancel_timer(self)
            self._fail(OrchestratorError("this timer was cancelled"))

    def _describe(self) -> str:
        return "this timer"


class EventTask(Task[T_co]):
    """A wait for one external event. `event` is the event that it took, `seen` whether the code has seen it.
    `was_left` means that it had lost its task_any when it took the event, `gave_back` that the event moved to
    another wait. `saved` means that the wait has a row.
    """

    __slots__ = ("event", "expected", "gave_back", "name", "saved", "seen", "was_left")

    def __init__(self, context: Owner, task_id: int, name: str, expected: Any) -> None:
        super().__init__(context, task_id)
        self.name = name
        self.expected = expected
        self.event: tuple[int, EventRaised] | None = None
        self.seen = False
        self.was_left = False
        self.gave_back = False
        self.saved = False

    def cancel(self) -> None:
        """Stop waiting. An event that it took and the code never saw returns to the front of the queue."""
        if self._state == PENDING:
            self._context._cancel_wait(self)
            self._fail(OrchestratorError(f"this wait for the event '{self.name}' was cancelled"))
        elif self.event is not None and not self.seen:
            self._context._give_back(self)

    def _unqualified(self, event: EventRaised) -> str:
        """Why the sender's answer does not count for this wait, or ""."""
        return ""

    def _take(self, item: tuple[int, EventRaised], value: Any) -> None:
        waiters = self._waiters._waiters if isinstance(self._waiters, WaitTask) else self._waiters
        self.was_left = type(waiters) is Relay and waiters.race is None
        self.event = item
        self._complete(value)

    def _give_back(self) -> None:
        """Give its event to another wait; awaiting this one now raises an error."""
        self.gave_back = True
        self._state = FAILED
        self._outcome = OrchestratorError(
            f"this wait for the event '{self.name}' has no result: it was cancelled, or it lost its task_any "
            "and a later wait for the same name took the event"
        )

    def _observe(self) -> None:
        if not self.seen:
            self.seen = True
            self._context._taken.pop(self.id, None)

    def _describe(self) -> str:
        return f"the wait for the event '{self.name}'"


NO_DEFAULT: Any = object()


class WaitTask(Task[T_co]):
    """A wait for an event with a deadline: the first of event and timer wins, the other is cancelled."""

    __slots__ = ("_default", "_timer", "_wait")

    def __init__(self, wait: EventTask[T_co], timer: TimerTask, default: Any) -> None:
        super().__init__(wait._context, wait.id)
        self._wait = wait
        self._timer = timer
        self._default = default
        if wait._state != PENDING:
            self.on_done(wait)
        else:
            wait._add_waiter(self)
            timer._add_waiter(self)

    def on_done(self, task: Task[Any]) -> None:
        if self._state != PENDING:
            return
        if task is self._wait:
            if self._timer._state == PENDING:
                self._timer._waiters = None
                self._timer.cancel()
            self._adopt(task)
        elif self._wait._state == PENDING:
            self._wait._waiters = None
            self._wait.cancel()
            self._expire()

    def _adopt(self, task: Task[Any]) -> None:
        if task._state == DONE:
            self._complete(task._outcome)
        else:
            self._fail(task._outcome)

    def _expire(self) -> None:
        if self._default is NO_DEFAULT:
            self._fail(TimeoutError(f"the event '{self._wait.name}' did not come before its deadline"))
        else:
            self._complete(self._default)

    def cancel(self) -> None:
        """Stop waiting, and cancel the timer."""
        if self._state == PENDING:
            self._timer._waiters = None
            self._timer.cancel()
            self._wait._waiters = None
            self._wait.cancel()
            self._fail(OrchestratorError(f"this wait for the event '{self._wait.name}' was cancelled"))
        else:
            self._wait.cancel()

    def _observe(self) -> None:
        self._wait._observe()
        if self._wait.gave_back:
            self._state, self._outcome = FAILED, self._wait._outcome

    def _describe(self) -> str:
        return self._wait._describe()


class WhenAll(Task[T_co]):
    """All of several tasks: their results in argument order, or the first failure in history order."""

    __slots__ = ("_children", "_left", "_shape")

    def __init__(
        self,
        context: Owner,
        children: Sequence[Task[Any]],
        shape: Callable[[list[Any]], T_co],
    ) -> None:
        super().__init__(context)
        self._children = children
        self._shape = shape
        self._left = 0
        for child in children:
            if child._state == FAILED:
                self._fail_with(child)
                return
            self._left += child._state == PENDING
        if not self._left:
            self._gather()
            return
        for child in children:
            if child._state == PENDING:
                child._add_waiter(self)

    def on_done(self, task: Task[Any]) -> None:
        if self._state != PENDING:
            return
        if task._state == FAILED:
            for child in self._children:
                if child is not task:
                    child._drop_waiter(self)
            self._fail_with(task)
        else:
            self._left -= 1
            if not self._left:
                self._gather()

    def _fail_with(self, child: Task[Any]) -> None:
        self._children = ()
        child._observe()
        self._fail(child._error())

    def _gather(self) -> None:
        self._complete(self._shape([child._outcome for child in self._children]))

    def _observe(self) -> None:
        """A failure hides the results: an event that one of the tasks took was not seen."""
        if self._state == DONE:
            for child in self._children:
                child._observe()


class WhenAny(Task[Task[T]]):
    """The first of several tasks to finish; its value is that task, failed or not.

    When it is done, it removes itself from the others, which would otherwise keep it, and the winner, in
    memory.
    """

    __slots__ = ("_children",)

    def __init__(
        self,
        context: Owner,
        children: list[Task[T]],
        relay: Relay[Any] | None = None,
        strangers: Sequence[Task[T]] = (),
    ) -> None:
        """With the relay of an earlier task_any, `strangers` are the children that the relay does not have."""
        super().__init__(context)
        self._children: Sequence[Task[T]] = ()
        entering = children if relay is None else strangers
        done = next((child for child in entering if child._state != PENDING), None)
        if done is not None:
            self._complete(done)
        elif relay is None and len(children) < WIDE:
            self._children = children
            for child in children:
                child._add_waiter(self)
        else:
            relay = relay or Relay(children)
            for child in entering:
                _enter(child, relay)
            relay.members, relay.race = children, self

    def on_done(self, task: Task[Any]) -> None:
        if self._state == PENDING:
            children, self._children = self._children, ()
            for child in children:
                if child is not task:
                    child._drop_waiter(self)
            self._complete(task)

    def _observe(self) -> None:
        if self._state == DONE:
            self._outcome._observe()


def _enter(child: Task[Any], relay: Relay[Any]) -> None:
    waiters = child._waiters
    is_free = waiters is None or (type(waiters) is Relay and waiters.race is None and waiters is not relay)
    child._add_waiter(relay)
    if not is_free:
        relay.is_alone = False
