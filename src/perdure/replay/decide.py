"""Decide: pass an arrival to an orchestrator, and collect the actions of its code.

`Execution` holds the suspended code of one orchestration. `arrive` passes one arrival and returns the actions;
`replay` passes all recorded arrivals and checks that the actions match history. An execution is a cache: it may
be closed at any moment and recreated from history.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass
from types import CoroutineType, GeneratorType
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
from perdure.replay.human_tasks import DecisionTask
from perdure.replay.inputs import Input
from perdure.replay.pairing import NULL, in_order_of_wish, same
from perdure.replay.recorder import IDLE
from perdure.replay.rewinding import (
    ARRIVALS,
    NOT_REPLAYED,
    Episode,
    counting,
    failed_calls,
    is_rewound,
)
from perdure.replay.task import DONE, FAILED, PENDING, EventTask

_NO_WAITS: Final[tuple[tuple[()], tuple[()]]] = ((), ())


@dataclass(frozen=True)
class Code:
    """An orchestrator function, as an execution uses it."""

    name: str
    function: Callable[..., Any]
    parameter: Input | None = None
    """The parameter for the input; None for a function with the context alone."""
    input_type: Any = Any
    door: Callable[[str], str] | None = None  # why an event of this name is rejected; "" if it is admitted
    guard: payload.Guard | None = None
    """The check that the output, read as the annotated return type, loses nothing."""


class Execution:
    """One execution of one orchestration, with its code."""

    __slots__ = ("_code", "_finished", "_main", "_variables", "context")

    def __init__(
        self, code: Code, identity: Identity, environment: Environment, variables: Context | None = None
    ) -> None:
        self._code = code
        self._main: Fiber[Any] | None = None
        self._finished = False
        # Context variables of the code are visible to this execution only.
        self._variables = Context() if variables is None else variables.copy()
        self.context = OrchestrationContext(identity, environment)

    @property
    def is_finished(self) -> bool:
        return self._finished

    def begin_episode(self, now: int) -> None:
        """Set the time of the episode; it never decreases."""
        context = self.context
        if now > context._now:
            context._now = now

    def arrive(self, event: ev.Arrival) -> list[act.Action]:
        """Pass one arrival, run the code until it blocks or ends, and return its actions.

        An arrival that nothing awaits changes nothing. Raises only engine signals.
        """
        context = self.context
        actions: list[act.Action] = []
        context.actions = actions
        if not self._finished:
            try:
                self._variables.run(self._tell, event)
            except EngineSignal:
                raise
            except (
                BaseException
            ) as error:  # from code that runs on its behalf, such as a type's own `__init__`
                self._finish(act.FailOrchestration(failure_of(error)))
            if context._doom is not None:
                raise context._doom  # a bare `except:` swallowed it
        context.actions = IDLE
        return actions

    def accepted_before(self, event: ev.Arrival) -> None:
        """Declare that the next arrival was accepted before the current code was deployed.

        If its payload does not fit, the code has changed: the error is a misfit, not a bad payload.
        """
        context = self.context
        if isinstance(event, ev.ExecutionStarted):
            context._old_input = True
            context._kept = len(event.carried)
        elif isinstance(event, ev.EventRaised):
            context._kept = context._next_event + 1

    def was_read(self, event: ev.EventRaised, reading: Reading) -> None:
        """Declare that the next event is already decoded."""
        self.context._read_ahead = event, reading

    def replay(self, episodes: Iterable[Episode], before: int = 0) -> list[act.Action]:
        """Replay recorded episodes (time, events). Raises NonDeterminismError on a mismatch.

        Arrivals recorded until `before` (microseconds) may have been accepted by other code. Returns the
        actions beyond history: none, unless history ends with a rewind.
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
        """Like `replay`, for a trial: the arrival after which the code differs and the number of matching
        decisions behind it, or None.
        """
        self.context._replaying = True
        for now, arrival, decisions, is_last in self._prepared(episodes):
            self.begin_episode(now)
            try:
                self._relive(arrival, decisions, is_last)
            except Mismatch as found:
                if isinstance(found.error, MisfitError):
                    return None  # it does not concern the calls
                return arrival, self.context._script_at
        return None

    def _prepared(self, episodes: Iterable[Episode]) -> list[tuple[int, ev.Arrival, list[Any], bool]]:
        """The valid part of a history: time, arrival, the decisions behind it, and whether it is the last.

        Patch markers are read before replay: the code may query them in other places.
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
        """Whether no code is suspended, so that closing runs nothing."""
        main, branches = self._main, self.context._fibers
        if main is not None and main._body is not None:
            return False
        return not branches or all(branch._body is None for branch in branches)

    def close(self) -> list[Body]:
        """Close the code. Its `finally:` blocks run, but their actions have no effect.

        Returns the bodies that did not close, because their code swallows the exception every time.
        """
        context = self.context
        context._doom = Evicted()
        context._refusals = 0
        self._finished = True
        return [] if self.is_spent else self._variables.run(self._close_fibers)

    # -------------------------------------------------------------- what the engine asks between arrivals

    def is_open(self, task_id: int) -> bool:
        """Whether the activity, sub-orchestration or entity operation with this id is still open."""
        return task_id in self.context._calls

    def awaits(self, name: str) -> bool:
        """Whether a wait takes an event of this name at once."""
        return self.context._awaits(name)

    def wait_for(self, name: str) -> EventTask[Any] | None:
        """The wait that takes the next event of this name."""
        return self.context._awaiting(name)

    def open_wait(self, wait_id: int) -> EventTask[Any] | None:
        """The open wait with this id."""
        return self.context._waits.get(wait_id)

    def takers(self, name: str) -> Iterable[EventTask[Any]]:
        """The open waits for this name, in the order in which they would take its next event."""
        waits = [wait for wait in self.context._waits.values() if same(wait.name, name)]
        return waits[:1] if self.context._pairing == ev.OLDEST else in_order_of_wish(waits)

    def unqualified(self, name: str, person: str, roles: tuple[str, ...]) -> str:
        """Why no open task for this event can count the person's answer, or ""."""
        first = self.context._awaiting(name)
        if not isinstance(first, DecisionTask):
            return ""
        waits = [wait for wait in self.context._waits.values() if same(wait.name, name)]
        reasons = [wait.why_unqualified(person, roles) for wait in waits if isinstance(wait, DecisionTask)]
        return reasons[0] if len(reasons) == len(waits) and all(reasons) else ""

    @property
    def buffered(self) -> int:
        """The number of events that no wait has taken."""
        return len(self.context._buffered)

    def unconsumed(self) -> tuple[ev.EventRaised, ...]:
        """The events that the code has not seen, in the order of their arrival."""
        return self.context._unconsumed()

    def unconsumed_kept(self) -> int:
        """How many of `unconsumed`, from the start, were accepted before the current code was deployed."""
        return self.context._unconsumed_kept()

    def carries_kept(self, count: int) -> None:
        """Declare that the first `count` carried events were accepted before the current code was deployed."""
        self.context._kept = count

    def due_at(self) -> int | None:
        """When the earliest open timer fires."""
        return self.context._earliest_timer() if self.context._due else None

    def next_timer(self) -> tuple[int, int] | None:
        """When the earliest open timer fires, and its id."""
        return None if self.context._earliest_timer() is None else self.context._due[0]

    def deadline_of(self, wait: EventTask[Any]) -> int:
        """When a wait expires; 0 for never. Its timer is created right after it and has the next id."""
        if isinstance(wait, DecisionTask):
            return wait.deadline
        timer = self.context._timers.get(wait.id + 1)
        return timer.fire_at if timer is not None and timer.of == wait.id else 0

    @property
    def status(self) -> bytes | None:
        """The custom status that this execution set last, as JSON."""
        return self.context._custom_status

    def take_status(self) -> bytes | None:
        """The custom status to write, as JSON; None if it is already written."""
        context = self.context
        if not context._status_changed:
            return None
        context._status_changed = False
        return context._custom_status or b"null"

    def open_waits(self) -> Collection[EventTask[Any]]:
        """Every open wait, in the order in which the code began them."""
        return self.context._waits.values()

    def take_waits(self) -> tuple[Sequence[EventTask[Any]], Sequence[EventTask[Any]]]:
        """The open waits that were opened since the last call, and those that were closed."""
        context = self.context
        if not context._opened_waits and not context._closed_waits:
            return _NO_WAITS
        opened = [wait for wait in context._opened_waits if wait.id in context._waits]
        closed = context._closed_waits
        context._opened_waits = context._closed_waits = ()
        return opened, closed

    def waits_are_saved(self) -> int:
        """Declare, after a replay, that the open waits and the status are in rows. Returns the number of open
        waits.
        """
        context = self.context
        context._status_changed = False
        context._opened_waits = context._closed_waits = ()
        for wait in context._waits.values():
            wait.saved = True
        return len(context._waits)

    def reopen_waits(self) -> None:
        """Declare that all wait rows are deleted: `take_waits` returns the open waits as opened."""
        context = self.context
        for wait in context._waits.values():
            wait.saved = False
        context._opened_waits = tuple(context._waits.values())

    def held_locks(self) -> dict[int, tuple[str, ...]]:
        """The requested entities by the id of the critical section: granted ones, and the next."""
        lock = self.context._lock
        return {lock.id: lock._asked()} if lock is not None else {}

    def next_entity(self, lock_id: int) -> str | None:
        """The entity whose grant this critical section awaits; None once all are granted, or the section has
        ended.
        """
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
        if isinstance(body, GeneratorType | CoroutineType):
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
                f"the input does not fit {self._code.name!r}, parameter {parameter.name!r}: {error}. It is "
                "not retried (PDR-010)",
                error.pointer,
            ) from None

    def _conclude(self) -> None:
        """Finish the execution if its code has ended."""
        context, main = self.context, self._main
        if main is None:
            return
        state = main._state
        if state == PENDING and context._generation is None:
            return
        error = main._outcome if state == FAILED else self._unobserved_failure() if state == DONE else None
        if error is not None:
            if context._script is None and context._old_input and self._is_of_misfit(error):
                assert context._unfit is not None
                raise context._park(context._unfit[1])
            of, *others = failed_calls(error) or (-1,)
            self._finish(act.FailOrchestration(failure_of(error), of, tuple(others)))
        elif context._generation is not None:
            self._finish(context._generation)
        else:
            self._finish(self._completion(main._outcome))

    def _is_of_misfit(self, error: BaseException) -> bool:
        """Whether the code fails because of the error for its input."""
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
                f"the orchestrator {self._code.name!r} has finished, but its output, a "
                f"{type(output).__qualname__}, cannot be recorded: {error}. It is not retried: return a value "
                "that JSON can represent (PDR-010)",
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
    """A finished fiber for a plain function that returned at once."""
    fiber: Fiber[Any] = Fiber(context, iter(()))  # type: ignore[arg-type]
    fiber._body = None
    fiber._complete(value)
    return fiber


def _exchanges(events: list[ev.HistoryEvent]) -> Iterable[tuple[ev.Arrival, list[Any]]]:
    """The events of an episode as arrivals, each with the decisions after it. Control events are not replayed."""
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
