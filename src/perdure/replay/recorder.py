"""The recorder: the actions and open tasks of an execution, behind an orchestration's context.

The recorder only records the actions and the open tasks; it executes nothing. During replay it compares each
action with the recorded one (`_script`). The parts of the context that call activities, sub-orchestrations and
entities derive from it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import datetime
from heapq import heappop, heappush
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from msgspec import Raw

from perdure.errors import (
    EngineSignal,
    ForeignAwaitError,
    FunctionMissing,
    FunctionNotFound,
    OrchestratorError,
    PayloadError,
)
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.durations import EARLIEST, LATEST, Seconds, in_range, micros, moment
from perdure.model.instances import child_id_of
from perdure.model.names import is_name, not_a_name
from perdure.model.readings import Reading
from perdure.replay import pairing
from perdure.replay.determinism import Mismatch, agree, misfit, mismatch
from perdure.replay.environment import CallTarget, Environment, Identity, RunApart
from perdure.replay.fiber import Fiber
from perdure.replay.inputs import NO_INPUT, input_body
from perdure.replay.pairing import same
from perdure.replay.task import PENDING, CallTask, EventTask, Task, TimerTask

SPREAD_FROM: Final = 100
"""Open calls from which on a sub-orchestration is no longer placed beside its caller."""
REFUSALS: Final = 3
"""How often the recorder raises in code that swallows the signal to end."""
PAUSE_AFTER: Final = 0x3FF
"""A pause follows each id that ends in these bits: each thousand that an execution takes."""
MANY: Final = 500
"""Actions of one step that takes long."""
IDLE: list[act.Action] = []
"""The actions of code that is not running: one shared empty list, because thousands sleep."""
NOTHING_TAKEN: dict[int, EventTask[Any]] = {}
"""The same for events that were taken but not seen."""
NOTHING_READ: dict[int, Reading] = {}
"""The same for events that were decoded before a wait took them."""


class Recorder:
    """Records the actions of one execution, and compares them with its history."""

    __slots__ = (
        "_buffered",
        "_calls",
        "_closed_waits",
        "_doom",
        "_door",
        "_due",
        "_env",
        "_fibers",
        "_gaps",
        "_generation",
        "_identity",
        "_kept",
        "_next_event",
        "_next_id",
        "_now",
        "_open_ended",
        "_opened_waits",
        "_pairing",
        "_parks_misfits",
        "_patches",
        "_read_ahead",
        "_readings",
        "_refusals",
        "_replaying",
        "_rewound",
        "_script",
        "_script_at",
        "_taken",
        "_timers",
        "_unfit",
        "_waits",
        "actions",
    )

    def __init__(self, identity: Identity, environment: Environment) -> None:
        self._identity = identity
        self._env = environment
        self._now = 0
        self._replaying = False
        self._doom: EngineSignal | None = None  # why the code's actions no longer count
        self._refusals = 0
        self._next_id = 0
        self._next_event = 0
        self._generation: act.ContinueAsNew | None = None
        self._script: list[Any] | None = None
        self._script_at = 0
        self._open_ended = False
        self._patches: dict[str, bool] | None = None
        self._rewound: dict[int, int] | None = None
        self._parks_misfits = False
        self._unfit: tuple[PayloadError, Mismatch] | None = None  # the last misfit raised in the code
        self._kept = 0  # events below this number were accepted before the current code was deployed
        self.actions = IDLE
        self._calls: dict[int, CallTask[Any]] = {}
        self._door: Callable[[str], str] | None = None
        self._timers: dict[int, TimerTask] = {}
        self._due: list[tuple[int, int]] = []
        self._waits: dict[int, EventTask[Any]] = {}
        self._gaps = 0  # places of closed waits
        self._pairing = ev.OLDEST
        # Empty ones are shared: thousands of instances have none of these.
        self._opened_waits: Sequence[EventTask[Any]] = ()
        self._closed_waits: Sequence[EventTask[Any]] = ()
        self._taken: dict[int, EventTask[Any]] = NOTHING_TAKEN  # events that the code has not seen
        self._buffered: list[tuple[int, ev.EventRaised]] = []  # a deque would take 700 bytes per instance
        self._read_ahead: tuple[ev.EventRaised, Reading] | None = None
        self._readings: dict[int, Reading] = NOTHING_READ  # of buffered events that are already decoded
        self._fibers: dict[Fiber[Any], None] | None = None  # branches, without those that ended successfully

    @property
    def instance_id(self) -> str:
        """The id of this instance."""
        return self._identity.instance_id

    @property
    def execution_id(self) -> str:
        """The id of this execution; a new one after each continue-as-new."""
        return self._identity.execution_id

    @property
    def current_utc_datetime(self) -> datetime:
        """The time of the current episode, aware, in UTC; the same in replay, and never decreasing."""
        return moment(self._now)

    @property
    def will_continue_as_new(self) -> bool:
        """Whether `continue_as_new` has been called."""
        return self._generation is not None

    # ------------------------------------------------------------------- inside: for tasks and for Execution

    def _is_live(self) -> bool:
        """Whether the code runs beyond its history."""
        return not self._replaying and self._doom is None

    def _randomness(self, call: int, attempt: int) -> float:
        return random.Random(f"{self.instance_id}\0{self.execution_id}\0{call}\0{attempt}").random()

    def _is_recorded(self, field: str, is_odd: Callable[[Any], bool]) -> bool:
        """Whether history has an equally odd value in this place: it was accepted once, so it is accepted
        again.
        """
        found = getattr(self._recorded(), field, None)
        return found is not None and is_odd(found)

    def _after(self, duration: Seconds, what: str, recorded_in: str = "fire_at") -> int:
        """The time after a duration. Raises ValueError if a datetime cannot represent it."""
        at = self._now + micros(duration)
        if EARLIEST <= at <= LATEST or self._is_recorded(recorded_in, lambda kept: kept > LATEST):
            return at
        return in_range(at, what)

    def _limit(self, timeout: Seconds, what: str, recorded_in: str) -> int:
        """A limit of an activity in microseconds; 0 for none."""
        limit = micros(timeout)
        if limit < 0 and not self._is_recorded(recorded_in, lambda kept: kept < 0):
            raise ValueError(f"{what} must not be negative, not {timeout!r}")
        return limit

    def _target(self, resolve: Callable[[Any], CallTarget], function: Any) -> CallTarget:
        """Resolve the target of a call. An unknown name is no error: the instance waits for a worker that has
        the function.
        """
        if not isinstance(function, str) and not callable(function):
            raise OrchestratorError(
                f"a call takes a function or its registered name, not {type(function).__name__}"
            )
        if self._doom is not None:
            return CallTarget("")
        try:
            return resolve(function)
        except FunctionNotFound as error:
            if isinstance(function, str) and not is_name(function):
                raise OrchestratorError(not_a_name(function, "the name of a function")) from None
            self._doom = FunctionMissing(str(error))
            raise self._doom from None

    def _check_wait(self, name: str, expected_type: Any) -> None:
        """Raise OrchestratorError or PayloadError for a wait that could never end."""
        self._alive()
        if not is_name(name) and not self._is_recorded("name", lambda kept: kept == name):
            raise OrchestratorError(not_a_name(name, "the name of an event"))
        if expected_type is not None:
            self._check_readable(expected_type, ev.EventAwaited)
        if self._door is not None:
            self._check_door(name, self._door(name))

    def _check_door(self, name: str, refusal: str) -> None:
        """Reject a wait for an event that is not admitted, unless history has the wait or the event came
        earlier.
        """
        if not refusal or any(same(event.name, name) for _, event in self._buffered):
            return
        script, at = self._script, self._script_at
        recorded = script[at] if script is not None and at < len(script) else None
        if not isinstance(recorded, ev.EventAwaited) or recorded.name != name:
            raise OrchestratorError(
                f"waiting for the event {name!r} would never end: {refusal}. Declare the event in events=... "
                "of the orchestrator, or correct the name"
            )

    def _known_entity(self, entity_id: str) -> None:
        """Stop the code before a new call of an unknown entity: the instance waits for a worker that has it."""
        if self._script is None and self._doom is None:
            try:
                self._env.entity(entity_id[1:].partition("@")[0])
            except FunctionNotFound as error:
                self._doom = FunctionMissing(str(error))
                raise self._doom from None

    def _alive(self) -> None:
        if self._doom is not None:
            self._refuse(self._doom)

    def _refuse(self, doom: EngineSignal) -> None:
        """Make the code unwind. A bare `except:` may swallow the signal repeatedly; then the code continues,
        its actions have no effect, and it blocks at its next wait.
        """
        self._refusals += 1
        if self._refusals <= REFUSALS:
            raise doom

    def _check_readable(self, expected_type: Any, recorded: type) -> None:
        """Raise PayloadError for an expected type that JSON cannot represent.

        A history in which the code passed this check replays unchanged.
        """
        flaw = payload.why_unreadable(expected_type)
        if flaw is not None and not self._has_recorded(recorded):
            raise PayloadError(f"expected_type is {payload.title(expected_type)}. {flaw}")

    def _guarded_body(self, guard: payload.Guard | None, input_: Any, recorded: type) -> Raw:
        """The body of an input. Raises PayloadError for an input that would lose data, unless history has it."""
        if guard is not None:
            self._hold(guard, input_, recorded)
        return input_body(input_)

    def _hold(self, guard: payload.Guard, input_: Any, recorded: type) -> None:
        if input_ is not NO_INPUT and not self._has_recorded(recorded):
            guard((), input_)

    def _has_recorded(self, recorded: type) -> bool:
        script, at = self._script, self._script_at
        return script is not None and at < len(script) and isinstance(script[at], recorded)

    def _take_id(self) -> int:
        taken = self._next_id
        self._next_id = following = taken + 1
        if not following & PAUSE_AFTER and self._doom is None:
            if self._replaying or len(self.actions) > MANY:  # else it is only the thousandth of a long life
                self._pause()
        return taken

    def _pause(self) -> None:
        if self._env.pause(self.instance_id) and not self._replaying:
            self._doom = RunApart(self.instance_id)
            raise self._doom

    def _emit(self, action: act.Action) -> Any | None:
        """Record an action; in replay, compare it with history and return its event."""
        if self._script is None and self._generation is None and self._doom is None:
            self.actions.append(action)
            return None
        if self._doom is not None:
            self._refuse(self._doom)
            return None
        if self._generation is not None and not isinstance(action, act.ContinueAsNew | act.FailOrchestration):
            return None  # actions after continue_as_new belong to no execution
        script = self._script
        if script is None:
            self.actions.append(action)
            return None
        recorded = self._recorded()
        if recorded is None or not self._agree(action, recorded):
            raise self._differs(recorded, action)
        self._script_at += 1
        self._pass_rewinds()
        return recorded

    def _recorded(self) -> Any | None:
        """In replay: the next decision of history."""
        script, at = self._script, self._script_at
        return script[at] if script is not None and at < len(script) else None

    def _differs(self, recorded: Any | None, action: act.Action | None) -> Mismatch:
        """The error for code that differs from history; a payload that did not fit is the likelier cause."""
        found = mismatch(recorded, action) if self._unfit is None else self._unfit[1]
        return self._park(found)

    def _park(self, found: Mismatch) -> Mismatch:
        self._doom = found
        return found

    def _agree(self, action: act.Action, recorded: Any) -> bool:
        """Whether an action matches, also under another name of its function."""
        return agree(action, recorded) or self._env.is_renamed(action, recorded)

    def _pass_rewinds(self) -> None:
        """In replay, after the last valid decision: apply the values that a rewind set.

        If history ends there, the code continues from here.
        """
        script = self._script
        assert script is not None
        while self._script_at < len(script) and isinstance(
            rewound := script[self._script_at], ev.ExecutionRewound
        ):
            self._script_at += 1
            self._next_id = max(self._next_id, rewound.next_id)
            self._now = max(self._now, rewound.at)
            self._rewound = {**(self._rewound or {}), **dict.fromkeys(rewound.voided, rewound.at)}
            if self._open_ended and self._script_at == len(script):
                self._script = None
                self._replaying = False
                return

    def _recorded_retry(self, call: int) -> int | None:
        """In replay: when history retried this call, 0 if it did not; None beyond history."""
        if self._script is None:
            return None
        recorded = self._recorded()
        if isinstance(recorded, ev.TimerCreated) and recorded.purpose == "retry" and recorded.of == call:
            return recorded.fire_at
        return 0

    def _schedule(
        self, name: str, body: Raw, timeout: int, silence: int, expected: Any, call: int, attempt: int
    ) -> CallTask[Any]:
        task: CallTask[Any] = CallTask(self, self._take_id(), "Activity", name, expected)
        first = task.id if call < 0 else call
        self._emit(act.ScheduleTask(task.id, name, body, first, attempt, timeout, silence))
        self._calls[task.id] = task
        return task

    def _cancel_call(self, call: CallTask[Any]) -> None:
        self._emit(act.CancelTask(call.id))
        self._calls.pop(call.id, None)

    def _create_child(
        self,
        name: str,
        body: Raw,
        instance_id: str | None,
        version: str,
        expected: Any,
        call: int,
        attempt: int,
    ) -> CallTask[Any]:
        task: CallTask[Any] = CallTask(self, self._take_id(), "Orchestrator", name, expected)
        identity = self._identity
        child = instance_id or child_id_of(
            identity.instance_id, identity.execution_id, task.id, spread=len(self._calls) >= SPREAD_FROM
        )
        self._emit(
            act.CreateSubOrchestration(
                task.id, name, child, version, body, task.id if call < 0 else call, attempt
            )
        )
        self._calls[task.id] = task
        return task

    def _timer(self, fire_at: int, purpose: str, of: int) -> TimerTask:
        task = TimerTask(self, self._take_id(), fire_at, purpose, of)
        recorded = self._emit(act.CreateTimer(task.id, fire_at, purpose, of))
        if recorded is not None:
            task.fire_at = recorded.fire_at
        self._timers[task.id] = task
        heappush(self._due, (task.fire_at, task.id))
        return task

    def _cancel_timer(self, timer: TimerTask) -> None:
        self._emit(act.CancelTimer(timer.id))
        self._timers.pop(timer.id, None)

    def _open_wait(self, wait: EventTask[Any]) -> None:
        """Open a wait, which takes a matching earlier event, if any."""
        self._waits[wait.id] = wait
        self._opened_waits = _with(self._opened_waits, wait)
        self._serve(wait)
        if self._taken and wait._state == PENDING and self._pairing == ev.AWAITED:
            pairing.pass_on(self, wait)

    def _wait_changed(self, wait: EventTask[Any]) -> None:
        """Write the row of an open wait once more."""
        if wait.saved:
            self._opened_waits = _with(self._opened_waits, wait)

    def _cancel_wait(self, wait: EventTask[Any]) -> None:
        self._emit(act.CancelWait(wait.id))
        self._close_wait(wait)

    def _close_wait(self, wait: EventTask[Any]) -> None:
        if self._waits.pop(wait.id, None) is not None:
            self._gaps += 1
            if self._gaps > len(self._waits) + 8:  # otherwise the search for the first would skip all of them
                self._waits, self._gaps = dict(self._waits), 0
        self._closed_waits = _with(self._closed_waits, wait)

    def _give_back(self, wait: EventTask[Any]) -> None:
        """Return the event of a wait that the code cancelled without seeing the event."""
        assert wait.event is not None
        self._emit(act.CancelWait(wait.id))
        number, event = wait.event
        wait.event = None
        self._taken.pop(wait.id, None)
        if self._pairing == ev.AWAITED:
            wait._give_back()
        behind = sum(1 for other, _ in self._buffered if other < number)
        self._buffered.insert(behind, (number, event))
        self._deliver_buffered()

    def _serve(self, wait: EventTask[Any]) -> None:
        """Give a new wait the oldest buffered event of its name that fits."""
        if self._generation is not None:
            return  # a wait after continue_as_new takes nothing: the next execution gets the event
        at = 0
        while wait._state == PENDING and at < len(self._buffered):
            kept = self._buffered[at]
            if same(kept[1].name, wait.name):
                del self._buffered[at]
                self._offer(wait, kept)
            else:
                at += 1

    def _deliver_buffered(self) -> None:
        if self._pairing == ev.AWAITED:
            kept, self._buffered = self._buffered, []
            for item in kept:
                self._arrived(item)
            return
        for wait in list(self._waits.values()):
            self._serve(wait)

    def _awaits(self, name: str) -> bool:
        """Whether a wait would take an event of this name at once."""
        return any(same(wait.name, name) for wait in self._waits.values())

    def _awaiting(self, name: str) -> EventTask[Any] | None:
        """The wait that would take an event of this name next."""
        return next((wait for wait in self._waits.values() if same(wait.name, name)), None)

    def _raised(self, event: ev.EventRaised) -> None:
        """An event arrived: a wait for its name takes it, or it is kept."""
        item = (self._next_event, event)
        self._next_event += 1
        ahead, self._read_ahead = self._read_ahead, None
        if ahead is not None and ahead[0] is event:
            self._keep_reading(item[0], ahead[1])
        self._arrived(item)

    def _keep_reading(self, number: int, reading: Reading) -> None:
        if self._readings is NOTHING_READ:
            self._readings = {}
        self._readings[number] = reading

    def _read(self, item: pairing.Item, expected: Any) -> Any:
        """The value of an event, decoded unless it already is. Raises PayloadError."""
        reading = self._readings.get(item[0]) if self._readings else None
        if reading is not None and reading.is_as(expected):
            return reading.value
        return payload.decode(pairing.body_of(item[1]), expected)

    def _forget_reading(self, number: int) -> None:
        """Drop the decoded value of an event that was taken or rejected."""
        if self._readings:
            self._readings.pop(number, None)

    def _arrived(self, item: pairing.Item) -> None:
        waits = (wait for wait in self._waits.values() if same(wait.name, item[1].name))
        oldest = next(waits, None)
        if oldest is None or self._generation is not None:
            self._buffered.append(item)
            return
        second = next(waits, None) if self._pairing != ev.OLDEST else None
        if second is None:
            self._offer(oldest, item)
        else:
            pairing.choose(self, item, chain((oldest, second), waits))

    def _offer(self, wait: EventTask[Any], item: tuple[int, ev.EventRaised]) -> None:
        event, recorded = item[1], self._recorded()
        if isinstance(recorded, ev.EventRejected) and recorded.wait_id == wait.id:
            self._reject(wait, event, recorded.reason)  # whichever event today's type would accept
            return
        unqualified = wait._unqualified(event)
        if unqualified:
            self._forget_reading(item[0])
            self._reject(wait, event, unqualified)
            return
        try:
            value = self._read(item, wait.expected)
        except PayloadError as error:
            if self._script is not None or item[0] < self._kept:
                raise self._park(misfit(f"the event '{event.name}'", wait.expected, error)) from None
            self._forget_reading(item[0])
            self._reject(wait, event, f"does not fit: {error}")
            return
        self._take(wait, item, value)

    def _take(self, wait: EventTask[Any], item: pairing.Item, value: Any) -> None:
        if self._taken is NOTHING_TAKEN:
            self._taken = {}
        self._taken[wait.id] = wait
        self._forget_reading(item[0])
        self._close_wait(wait)
        wait._take(item, value)

    def _reject(self, wait: EventTask[Any], event: ev.EventRaised, reason: str) -> None:
        self._emit(act.RejectEvent(wait.id, event.name, event.operation_id, event.input, reason))

    def _unconsumed_kept(self) -> int:
        """How many of the unconsumed events, from the start, were accepted before the current code was
        deployed.
        """
        unseen = [wait.event for wait in self._taken.values() if wait.event is not None]
        return sum(number < self._kept for number, _ in [*self._buffered, *unseen])

    def _unconsumed(self) -> tuple[ev.EventRaised, ...]:
        """The events that the code has not seen, in the order of their arrival: buffered, or taken."""
        if not self._buffered and not self._taken:
            return ()
        unseen = [wait.event for wait in self._taken.values() if wait.event is not None]
        return tuple(event for _, event in sorted([*self._buffered, *unseen], key=itemgetter(0)))

    def _earliest_timer(self) -> int | None:
        due = self._due
        while due and due[0][1] not in self._timers:
            heappop(due)
        return due[0][0] if due else None

    def _branch_ended(self, fiber: Fiber[Any]) -> None:
        """Forget a branch that has ended."""
        if self._fibers is not None:
            self._fibers.pop(fiber, None)

    def _check_own(self, children: Sequence[Any], verb: str) -> None:
        for child in children:
            if not isinstance(child, Task) or child._context is not self:
                raise ForeignAwaitError(
                    f"{verb} takes tasks of this context, not {type(child).__name__}: "
                    "wrap generators and coroutines in context.spawn(...)"
                )


def _with(waits: Sequence[EventTask[Any]], wait: EventTask[Any]) -> Sequence[EventTask[Any]]:
    if isinstance(waits, list):
        waits.append(wait)
        return waits
    return [*waits, wait]
