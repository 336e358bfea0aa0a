"""decide: tell an orchestrator what has arrived, and collect what its code asks for in answer.

`Execution` holds one orchestration's suspended code. `arrive` tells it one thing and returns the actions;
`replay` tells it everything its history holds and demands that it answers as it did then.
An execution is a cache: it may be closed at any moment and made again from history.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final, assert_never

from msgspec import Raw

from perdure.errors import EngineSignal, Evicted, MisfitError, NonDeterminismError, PayloadError
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.failures import failure_of
from perdure.model.readings import Reading
from perdure.replay.context import OrchestrationContext
from perdure.replay.determinism import Mismatch, misfit
from perdure.replay.environment import Environment, Identity
from perdure.replay.fiber import Body, Fiber
from perdure.replay.inputs import Input
from perdure.replay.pairing import NULL
from perdure.replay.recorder import IDLE
from perdure.replay.rewinding import (
    ARRIVALS,
    NOT_REPLAYED,
    Episode,
    counting,
    failed_calls,
    is_rewound,
)
from perdure.replay.task import PENDING, EventTask

_NO_WAITS: Final[tuple[tuple[()], tuple[()]]] = ((), ())


@dataclass(frozen=True)
class Code:
    """An orchestrator function as an execution needs it."""

    name: str
    function: Callable[..., Any]
    parameter: Input | None = None
    """The one that takes the input; None for a function that takes its context alone."""
    input_type: Any = Any
    door: Callable[[str], str] | None = None  # why no event of this name can come; "" when one can
    guard: payload.Guard | None = None
    """What the output has to pass to be read whole as what the function says it returns."""


class Execution:
    """One execution of one orchestration, alive."""

    __slots__ = ("_code", "_finished", "_main", "_variables", "context")

    def __init__(self, code: Code, identity: Identity, environment: Environment) -> None:
        self._code = code
        self._main: Fiber[Any] | None = None
        self._finished = False
        self._variables = (
            Context()
        )  # what the code puts into context variables is seen by this execution only
        self.context = OrchestrationContext(identity, environment)

    @property
    def is_finished(self) -> bool:
        return self._finished

    def begin_episode(self, now: int) -> None:
        """Set the time of the episode; it never goes back."""
        context = self.context
        if now > context._now:
            context._now = now

    def arrive(self, event: ev.Arrival) -> list[act.Action]:
        """Tell it one thing, run its code until it blocks or ends, and return what it asked for.

        An arrival that nothing waits for any more changes nothing. Raises only engine signals.
        """
        context = self.context
        actions: list[act.Action] = []
        context.actions = actions
        if not self._finished:
            try:
                self._variables.run(self._tell, event)
            except EngineSignal:
                raise
            except BaseException as error:  # of what runs for the code, such as a type's own `__init__`
                self._finish(act.FailOrchestration(failure_of(error)))
            if context._doom is not None:
                raise context._doom  # a bare `except:` has swallowed it
        context.actions = IDLE
        return actions

    def accepted_before(self, event: ev.Arrival) -> None:
        """This arrival, which comes next, was accepted before the present code was there.

        Should its payload not fit, the code was changed: raises a misfit instead of calling the payload bad.
        """
        context = self.context
        if isinstance(event, ev.ExecutionStarted):
            context._old_input = True
            context._kept = len(event.carried)
        elif isinstance(event, ev.EventRaised):
            context._kept = context._next_event + 1

    def was_read(self, event: ev.EventRaised, reading: Reading) -> None:
        """This event, which comes next, has been decoded already."""
        self.context._read_ahead = event, reading

    def replay(self, episodes: Iterable[Episode], before: int = 0) -> list[act.Action]:
        """Live through recorded episodes (time, events) again. Raises NonDeterminismError at a disagreement.

        What was recorded until `before` (microseconds) was accepted by other code, perhaps. Returns what the code
        asks for beyond its history: nothing, unless the last that counts is a rewind.
        """
        context = self.context
        asked: list[act.Action] = []
        context._replaying = True
        try:
            for now, arrival, decisions, is_last in self._prepared(episodes):
                self.begin_episode(now)
                asked = self._relive(arrival, decisions, is_last)
                if now <= before:
                    context._old_input, context._kept = True, context._next_event
        except Mismatch as found:
            raise found.error from None
        finally:
            context._script = None
            context._replaying = False
        return asked

    def differs_after(self, episodes: Iterable[Episode]) -> tuple[ev.Arrival, int] | None:
        """Like `replay`, for a trial: the arrival and how many decisions behind it the code repeats, or None."""
        self.context._replaying = True
        for now, arrival, decisions, is_last in self._prepared(episodes):
            self.begin_episode(now)
            try:
                self._relive(arrival, decisions, is_last)
            except Mismatch as found:
                if isinstance(found.error, MisfitError):
                    return None  # it says nothing about the calls
                return arrival, self.context._script_at
        return None

    def _prepared(self, episodes: Iterable[Episode]) -> list[tuple[int, ev.Arrival, list[Any], bool]]:
        """Time, arrival, decisions behind it, and whether it is the last, of what counts of a history.

        Patch markers are noted before anything is replayed: the code may ask for them in other places.
        """
        whole = list(episodes)
        if is_rewound(whole):
            whole = counting(whole)
        marked = {e.name: True for _, events in whole for e in events if type(e) is ev.PatchMarked}
        self.context._patches = marked or None
        exchanges = [(now, *exchange) for now, events in whole for exchange in _exchanges(events)]
        return [(*exchange, number == len(exchanges)) for number, exchange in enumerate(exchanges, 1)]

    @property
    def is_spent(self) -> bool:
        """Whether no code of it is suspended: closing it runs nothing."""
        fibers = self.context._fibers or ()
        return (self._main is None or self._main._body is None) and all(f._body is None for f in fibers)

    def close(self) -> list[Body]:
        """Put the code away. Its `finally:` blocks run, but nothing they do reaches anything.

        Returns the bodies that would not close: code that swallows it whenever it is closed.
        """
        context = self.context
        context._doom = Evicted()
        context._refusals = 0
        self._finished = True
        return self._variables.run(self._close_fibers)

    # -------------------------------------------------------------- what the engine asks between arrivals

    def is_open(self, task_id: int) -> bool:
        """Whether an activity, a sub-orchestration or an entity's operation of this id has not been answered."""
        return task_id in self.context._calls

    def awaits(self, name: str) -> bool:
        """Whether a wait takes an event of this name at once."""
        return self.context._awaits(name)

    def wait_for(self, name: str) -> EventTask[Any] | None:
        """The wait that takes the next event of this name."""
        return self.context._awaiting(name)

    @property
    def buffered(self) -> int:
        """How many events no wait has taken."""
        return len(self.context._buffered)

    def unconsumed(self) -> tuple[ev.EventRaised, ...]:
        """The events that the code has not looked at, in the order of their arrival."""
        return self.context._unconsumed()

    def unconsumed_kept(self) -> int:
        """How many of `unconsumed`, the first of them, were accepted before the present code was there."""
        return self.context._unconsumed_kept()

    def carries_kept(self, count: int) -> None:
        """The first `count` events that it begins with were accepted before the present code was there."""
        self.context._kept = count

    def due_at(self) -> int | None:
        """When the earliest open timer fires."""
        return self.context._earliest_timer() if self.context._due else None

    def next_timer(self) -> tuple[int, int] | None:
        """When the earliest open timer fires, and its id."""
        return None if self.context._earliest_timer() is None else self.context._due[0]

    def deadline_of(self, wait: EventTask[Any]) -> int:
        """When a wait expires; 0 for never. Its timer is created right behind it and has the next id."""
        timer = self.context._timers.get(wait.id + 1)
        return timer.fire_at if timer is not None and timer.of == wait.id else 0

    @property
    def status(self) -> bytes | None:
        """The custom status that this execution set last, as JSON."""
        return self.context._custom_status

    def take_status(self) -> bytes | None:
        """The custom status to write, as JSON; None when it is written already."""
        context = self.context
        if not context._status_changed:
            return None
        context._status_changed = False
        return context._custom_status or b"null"

    def take_waits(self) -> tuple[Sequence[EventTask[Any]], Sequence[EventTask[Any]]]:
        """The waits that were opened since the last time and are open, and those that were closed."""
        context = self.context
        if not context._opened_waits and not context._closed_waits:
            return _NO_WAITS
        opened = [wait for wait in context._opened_waits if wait.id in context._waits]
        closed = context._closed_waits
        context._opened_waits = context._closed_waits = ()
        return opened, closed

    def waits_are_saved(self) -> int:
        """After a replay: all that is open, and the status, is in rows. Returns the number of open waits."""
        context = self.context
        context._status_changed = False
        context._opened_waits = context._closed_waits = ()
        for wait in context._waits.values():
            wait.saved = True
        return len(context._waits)

    def reopen_waits(self) -> None:
        """The rows of all open waits are gone: `take_waits` returns them as opened."""
        context = self.context
        for wait in context._waits.values():
            wait.saved = False
        context._opened_waits = tuple(context._waits.values())

    def held_locks(self) -> dict[int, tuple[str, ...]]:
        """By the id of the critical section, the entities that were asked for it: granted ones, and the next."""
        lock = self.context._lock
        return {lock.id: lock._asked()} if lock is not None else {}

    def next_entity(self, lock_id: int) -> str | None:
        """The entity whose grant this critical section awaits; None once all are granted, or it was left."""
        lock = self.context._lock
        return lock._next() if lock is not None and lock.id == lock_id else None

    # -------------------------------------------------------------------------------------------- inside

    def _tell(self, event: ev.Arrival) -> None:
        if type(event) is ev.TaskCompleted:  # the most frequent first: this runs for every arrival
            _complete(self.context, event)
        else:
            self._dispatch(event)
        self._conclude()

    def _close_fibers(self) -> list[Body]:
        fibers = [*(self.context._fibers or ()), *([self._main] if self._main is not None else [])]
        return [body for fiber in fibers for body in fiber.close()]

    def _relive(self, arrival: ev.Arrival, decisions: list[Any], is_last: bool) -> list[act.Action]:
        context = self.context
        context._script, context._script_at = decisions, 0
        context._open_ended = is_last
        context._pass_rewinds()
        actions = self.arrive(arrival)
        if context._script_at < len(decisions):
            raise context._differs(decisions[context._script_at], None)
        return actions

    def _dispatch(self, event: ev.Arrival) -> None:
        context = self.context
        match event:
            case ev.ExecutionStarted():
                self._start(event)
            case ev.EventRaised():
                context._raised(event)
            case ev.TimerFired():
                timer = context._timers.pop(event.timer_id, None)
                if timer is not None:
                    timer._complete(None)
            case ev.TaskCompleted() | ev.SubOrchestrationCompleted() | ev.EntityOperationCompleted():
                _complete(context, event)
            case ev.LockGranted():
                lock = context._lock
                if lock is not None and lock.id == event.task_id:
                    lock._grant(event.entity)
            case ev.TaskFailed() | ev.SubOrchestrationFailed() | ev.EntityOperationFailed():
                call = context._calls.pop(event.task_id, None)
                if call is not None:
                    call._fail(event.failure)
            case _:
                assert_never(event)

    def _start(self, event: ev.ExecutionStarted) -> None:
        context = self.context
        context._input = event.input if bytes(event.input) else NULL
        context._pairing = event.pairing
        for carried in event.carried:
            context._raised(carried)
        context._input_type = self._code.input_type
        context._parks_misfits = event.parks_misfits
        context._door = self._code.door
        body = self._code.function(*self._arguments(event))
        if inspect.isgenerator(body) or inspect.iscoroutine(body):
            self._main = Fiber(context, body)
            self._main.advance(None)
        else:
            self._main = _returned(context, body)

    def _arguments(self, event: ev.ExecutionStarted) -> tuple[Any, ...]:
        parameter = self._code.parameter
        if parameter is None:
            return (self.context,)
        try:
            return self.context, parameter.read(event.input)
        except PayloadError as error:
            context = self.context
            is_known = context._old_input or context._script is not None
            if is_known and not isinstance(context._recorded(), ev.ExecutionFailed):
                raise context._park(misfit("the input", parameter.type, error)) from None
            raise PayloadError(
                f"the input does not fit {self._code.name!r}, parameter {parameter.name!r}: {error}. "
                "It is not tried again (PDR-010)",
                error.pointer,
            ) from None

    def _conclude(self) -> None:
        """After the code has blocked or ended: has the execution ended?"""
        context, main = self.context, self._main
        if main is None:
            return
        error = (
            main._outcome if main.is_faulted else self._unobserved_failure() if main.is_completed else None
        )
        if error is not None:
            if context._script is None and context._old_input and self._is_of_misfit(error):
                assert context._unfit is not None
                raise context._park(context._unfit[1])
            of, *others = failed_calls(error) or (-1,)
            self._finish(act.FailOrchestration(failure_of(error), of, tuple(others)))
        elif context._generation is not None:
            self._finish(context._generation)
        elif main._state != PENDING:
            self._finish(self._completion(main._outcome))

    def _is_of_misfit(self, error: BaseException) -> bool:
        """Whether the code fails because it was told that its input does not fit."""
        unfit = self.context._unfit
        seen: set[int] = set()
        cause: BaseException | None = error if unfit is not None else None
        while cause is not None and id(cause) not in seen:
            if unfit is not None and cause is unfit[0]:
                return True
            seen.add(id(cause))
            cause = cause.__cause__ or cause.__context__
        return False

    def _completion(self, output: Any) -> act.Finish:
        guard = self._code.guard
        try:
            if guard is not None and not self.context._has_recorded(ev.ExecutionCompleted):
                guard((), output)
            return act.CompleteOrchestration(Raw(payload.encode(output)))
        except PayloadError as error:
            refused = PayloadError(
                f"the orchestrator {self._code.name!r} has come to its end, but its output, a "
                f"{type(output).__qualname__}, cannot be recorded: {error}. It is not tried again: return what "
                "JSON can carry (PDR-010)",
                error.pointer,
            )
            return act.FailOrchestration(failure_of(refused, with_stack=False))

    def _unobserved_failure(self) -> BaseException | None:
        for fiber in self.context._fibers or ():
            if fiber.is_faulted and not fiber.observed:
                outcome: BaseException = fiber._error()
                return outcome
        return None

    def _finish(self, action: act.Finish) -> None:
        if self._finished:
            return
        self.context._emit(action)
        self._finished = True


def _complete(
    context: OrchestrationContext,
    event: ev.TaskCompleted | ev.SubOrchestrationCompleted | ev.EntityOperationCompleted,
) -> None:
    call = context._calls.pop(event.task_id, None)
    if call is not None:
        call._complete_with(event.result)


def _returned(context: OrchestrationContext, value: Any) -> Fiber[Any]:
    """A plain function that returned at once is a fiber that is done."""
    fiber: Fiber[Any] = Fiber(context, iter(()))  # type: ignore[arg-type]
    fiber._body = None
    fiber._complete(value)
    return fiber


def _exchanges(events: list[ev.HistoryEvent]) -> Iterable[tuple[ev.Arrival, list[Any]]]:
    """An episode's events as arrivals, each with the decisions behind it. Control events are not replayed."""
    arrival: Any = None
    decisions: list[Any] = []
    for event in events:
        if isinstance(event, ARRIVALS):
            if arrival is not None:
                yield arrival, decisions
            arrival, decisions = event, []
        elif not isinstance(event, NOT_REPLAYED):
            decisions.append(event)
    if arrival is not None:
        yield arrival, decisions


__all__ = ["ARRIVALS", "Code", "Execution", "NonDeterminismError"]
