"""Handwritten histories, one event after the other, as an engine records them.

    history = (
        HistoryBuilder("claims")
        .started({"amount": 5})
        .scheduled("assess")
        .completed(0, {"risk": 0.2})
        .awaited("Decision")
    )

Decisions get the next event id. Each arrival is an episode of its own, at the builder's time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Raw

from perdure.failure import Failure
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.durations import Seconds, instant, micros
from perdure.model.entities import EntityId, entity_id_of
from perdure.testing.clock import START

Episode = tuple[int, list[ev.HistoryEvent]]


class HistoryBuilder:
    """Builds the history of one execution. Every method returns the builder."""

    def __init__(self, name: str = "orchestrator", *, start: datetime = START) -> None:
        self.name = name
        self.episodes: list[Episode] = []
        self._at = instant(start, "start")
        self._next_id = 0

    # ------------------------------------------------------------------------------------------------ time

    def later(self, duration: Seconds) -> HistoryBuilder:
        """Advance the builder's time for the following events."""
        self._at += micros(duration)
        return self

    # -------------------------------------------------------------------------------------------- arrivals

    def started(
        self,
        input_: Any = None,
        *,
        carried: tuple[tuple[str, Any], ...] = (),
        parent: ev.ParentLink | None = None,
        version: str = "",
        pairing: int = ev.OLDEST,
    ) -> HistoryBuilder:
        """The execution began; `carried` are (name, data) of events carried over from the previous execution.

        `pairing` is 1 in current histories: of several waits for one name, the oldest that the code still
        awaits takes the event (see `taken`). It is 0 in histories of earlier versions: the oldest wait takes
        it.
        """
        return self._arrival(
            ev.ExecutionStarted(
                name=self.name,
                version=version,
                input=_body(input_),
                parent=parent,
                carried=tuple(ev.EventRaised(name=name, input=_body(data)) for name, data in carried),
                pairing=pairing,
            )
        )

    def completed(self, task_id: int, result: Any = None) -> HistoryBuilder:
        """The activity scheduled by decision `task_id` completed."""
        return self._arrival(ev.TaskCompleted(task_id=task_id, result=_body(result)))

    def failed(
        self, task_id: int, failure: Failure | str = "ValueError", message: str = ""
    ) -> HistoryBuilder:
        """The activity failed; pass the failure, or its type and message."""
        return self._arrival(ev.TaskFailed(task_id=task_id, failure=_failure(failure, message)))

    def child_completed(self, task_id: int, result: Any = None) -> HistoryBuilder:
        """The sub-orchestration completed."""
        return self._arrival(ev.SubOrchestrationCompleted(task_id=task_id, result=_body(result)))

    def child_failed(
        self, task_id: int, failure: Failure | str = "ValueError", message: str = ""
    ) -> HistoryBuilder:
        """The sub-orchestration failed."""
        return self._arrival(ev.SubOrchestrationFailed(task_id=task_id, failure=_failure(failure, message)))

    def fired(self, timer_id: int) -> HistoryBuilder:
        """The timer fired; the builder's time moves to the due time if that is later."""
        for _, events in self.episodes:
            for event in events:
                if isinstance(event, ev.TimerCreated) and event.id == timer_id:
                    self._at = max(self._at, event.fire_at)
        return self._arrival(ev.TimerFired(timer_id=timer_id))

    def raised(self, name: str, data: Any = None) -> HistoryBuilder:
        """An external event came."""
        return self._arrival(ev.EventRaised(name=name, input=_body(data)))

    def entity_answered(self, task_id: int, result: Any = None) -> HistoryBuilder:
        """The entity called by decision `task_id` answered."""
        return self._arrival(ev.EntityOperationCompleted(task_id=task_id, result=_body(result)))

    def entity_failed(
        self, task_id: int, failure: Failure | str = "ValueError", message: str = ""
    ) -> HistoryBuilder:
        """The operation failed."""
        return self._arrival(ev.EntityOperationFailed(task_id=task_id, failure=_failure(failure, message)))

    def lock_granted(self, task_id: int, entity: EntityId | str) -> HistoryBuilder:
        """One entity of a critical section was locked."""
        return self._arrival(ev.LockGranted(task_id=task_id, entity=entity_id_of(entity)))

    # -------------------------------------------------------------------------------------------- decisions

    def scheduled(
        self,
        name: str,
        input_: Any = None,
        *,
        call: int = -1,
        attempt: int = 1,
        timeout: Seconds = 0,
    ) -> HistoryBuilder:
        """The code called an activity; `call` and `attempt` mark a retry."""
        return self._decision(
            ev.TaskScheduled(
                id=self._take_id(),
                name=name,
                input=_body(input_),
                call=call,
                attempt=attempt,
                timeout=micros(timeout),
            )
        )

    def child(
        self, name: str, input_: Any = None, *, instance_id: str = "", call: int = -1, attempt: int = 1
    ) -> HistoryBuilder:
        """The code called a sub-orchestration."""
        number = self._take_id()
        return self._decision(
            ev.SubOrchestrationCreated(
                id=number,
                name=name,
                instance_id=instance_id or f"child-{number}",
                input=_body(input_),
                call=call,
                attempt=attempt,
            )
        )

    def timer(self, after: Seconds | datetime, *, purpose: str = "", of: int = -1) -> HistoryBuilder:
        """The code created a timer, due after a duration or at a time."""
        at = instant(after) if isinstance(after, datetime) else self._at + micros(after)
        return self._decision(ev.TimerCreated(id=self._take_id(), fire_at=at, purpose=purpose, of=of))

    def task_cancelled(self, task_id: int) -> HistoryBuilder:
        """The code cancelled an activity."""
        return self._decision(ev.TaskCanceled(task_id=task_id))

    def entity_called(self, entity: EntityId | str, operation: str, input_: Any = None) -> HistoryBuilder:
        """The code called an entity."""
        return self._decision(
            ev.EntityCalled(
                id=self._take_id(), entity=entity_id_of(entity), operation=operation, input=_body(input_)
            )
        )

    def entity_signalled(self, entity: EntityId | str, operation: str, input_: Any = None) -> HistoryBuilder:
        """The code signalled an entity."""
        return self._decision(
            ev.EntitySignaled(
                id=self._take_id(), entity=entity_id_of(entity), operation=operation, input=_body(input_)
            )
        )

    def lock_requested(self, *entities: EntityId | str) -> HistoryBuilder:
        """The code requested a critical section over these entities."""
        wanted = tuple(sorted(map(entity_id_of, entities)))
        return self._decision(ev.LockRequested(id=self._take_id(), entities=wanted))

    def lock_released(self, lock_id: int) -> HistoryBuilder:
        """The code left the critical section."""
        return self._decision(ev.LockReleased(lock_id=lock_id))

    def timer_cancelled(self, timer_id: int) -> HistoryBuilder:
        """The code cancelled a timer."""
        return self._decision(ev.TimerCanceled(timer_id=timer_id))

    def awaited(self, name: str, *, timeout: Seconds | None = None) -> HistoryBuilder:
        """The code began to wait for an external event; a timeout adds its timer."""
        wait_id = self._take_id()
        deadline = self._at + micros(timeout) if timeout is not None else 0
        self._decision(ev.EventAwaited(id=wait_id, name=name, deadline=deadline))
        return self if timeout is None else self.timer(timeout, purpose="timeout", of=wait_id)

    def wait_cancelled(self, wait_id: int) -> HistoryBuilder:
        """The code stopped waiting for an event."""
        return self._decision(ev.WaitCanceled(wait_id=wait_id))

    def taken(self, wait_id: int, event: int) -> HistoryBuilder:
        """Of several waits this one took the event; events are counted from 0, carried ones included."""
        return self._decision(ev.EventTaken(wait_id=wait_id, event=event))

    def rejected(
        self, wait_id: int, name: str, reason: str = "does not fit", *, event: int = -1
    ) -> HistoryBuilder:
        """An event did not fit the type of its wait; pass its number if several waits were open."""
        return self._decision(ev.EventRejected(wait_id=wait_id, name=name, reason=reason, event=event))

    def patched(self, name: str, *, deprecated: bool = False) -> HistoryBuilder:
        """The code called `context.patched(name)` for the first time, and got True."""
        return self._decision(ev.PatchMarked(name=name, deprecated=deprecated))

    # ------------------------------------------------------------------------------------ endings and control

    def returned(self, output: Any = None) -> HistoryBuilder:
        """The orchestration completed."""
        return self._decision(ev.ExecutionCompleted(output=_body(output)))

    def raised_error(self, failure: Failure | str = "ValueError", message: str = "") -> HistoryBuilder:
        """The orchestration failed."""
        return self._decision(ev.ExecutionFailed(failure=_failure(failure, message)))

    def continued_as_new(self, input_: Any = None) -> HistoryBuilder:
        """The orchestration continued as new."""
        return self._decision(ev.ContinuedAsNew(input=_body(input_)))

    def terminated(self, reason: str = "") -> HistoryBuilder:
        """An operator terminated it."""
        return self._arrival(ev.ExecutionTerminated(reason=reason))

    def suspended(self, reason: str = "") -> HistoryBuilder:
        """An operator suspended it."""
        return self._arrival(ev.ExecutionSuspended(reason=reason))

    def resumed(self, reason: str = "") -> HistoryBuilder:
        """An operator resumed it."""
        return self._arrival(ev.ExecutionResumed(reason=reason))

    def held_loop(self, milliseconds: int, place: str = "") -> HistoryBuilder:
        """The code blocked the engine for this long."""
        return self._decision(ev.LoopHeld(milliseconds=milliseconds, place=place))

    def parked(self, kind: str, detail: str = "") -> HistoryBuilder:
        """The engine parked it."""
        return self._arrival(ev.ExecutionParked(kind=kind, detail=detail))

    # --------------------------------------------------------------------------------------------- inside

    @property
    def events(self) -> list[ev.HistoryEvent]:
        """All events, without their episodes."""
        return [event for _, events in self.episodes for event in events]

    def _take_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _arrival(self, event: ev.HistoryEvent) -> HistoryBuilder:
        self.episodes.append((self._at, [event]))
        return self

    def _decision(self, event: ev.HistoryEvent) -> HistoryBuilder:
        if not self.episodes:
            raise ValueError("a history begins with started(...): decisions answer an arrival")
        self.episodes[-1][1].append(event)
        return self


def _body(value: Any) -> Raw:
    return Raw(payload.encode(value))


def _failure(failure: Failure | str, message: str) -> Failure:
    return failure if isinstance(failure, Failure) else Failure(failure, message)
