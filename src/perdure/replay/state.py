"""The state of an execution from history alone, and the statuses in which each verb applies.

`fold` reads events in order and derives the open calls, the ending and the waits. Status pages, the verifier
and recovery use it, without the orchestrator's code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import Any, Final, assert_never

from perdure.failure import Failure, chain_of
from perdure.model import events as ev
from perdure.model.instances import RuntimeStatus
from perdure.model.waiting import (
    EventWait,
    OpenActivity,
    OpenChild,
    OpenLock,
    OpenOperation,
    OpenRetry,
    Waiting,
    shortened,
)
from perdure.replay.pairing import Item, same
from perdure.replay.rewinding import Episode, counting, is_rewound

S = RuntimeStatus

LEGAL: Final[dict[str, frozenset[RuntimeStatus]]] = {
    "raise_event": frozenset({S.Pending, S.Running, S.Suspended}),
    "suspend": frozenset({S.Pending, S.Running, S.Suspended}),
    "resume": frozenset({S.Pending, S.Running, S.Suspended}),
    "terminate": frozenset({S.Pending, S.Running, S.Suspended}),
    "rewind": frozenset({S.Failed}),
    "restart": frozenset({S.Completed, S.Failed, S.Terminated, S.Canceled}),
    "purge": frozenset({S.Completed, S.Failed, S.Terminated, S.Canceled}),
}
"""The statuses in which each verb is accepted. Suspending a suspended instance and resuming a running one
change nothing.
"""

ENDED_AS: Final[dict[type, RuntimeStatus]] = {
    ev.ExecutionCompleted: S.Completed,
    ev.ExecutionFailed: S.Failed,
    ev.ExecutionTerminated: S.Terminated,
    ev.ContinuedAsNew: S.ContinuedAsNew,
}


class State:
    """The state of an execution from its history. `problems` lists events that a correct engine never writes
    (I3, I4, I6).
    """

    __slots__ = (
        "_ids",
        "activities",
        "buffered",
        "children",
        "decisions",
        "ending",
        "failed_calls",
        "locks",
        "operations",
        "pairing",
        "problems",
        "raised",
        "rejected",
        "started",
        "suspended",
        "taken",
        "timers",
        "waits",
    )

    def __init__(self) -> None:
        self.started: ev.ExecutionStarted | None = None
        self.ending: Any = None
        self.suspended = ""
        self.decisions = 0
        self.activities: dict[int, tuple[ev.TaskScheduled, int]] = {}
        self.children: dict[int, tuple[ev.SubOrchestrationCreated, int]] = {}
        self.timers: dict[int, ev.TimerCreated] = {}
        self.waits: dict[int, tuple[ev.EventAwaited, int]] = {}
        self.buffered: list[tuple[int, ev.EventRaised]] = []
        self.taken: dict[int, tuple[Any, int, Any]] = {}
        self.failed_calls: dict[int, tuple[str, int, Failure]] = {}  # name, attempt, the last failure
        self.operations: dict[int, tuple[ev.EntityCalled, int]] = {}
        self.locks: dict[int, tuple[ev.LockRequested, int, int]] = {}  # with how many are granted
        self.raised = 0
        self.rejected: dict[str, tuple[str, int]] = {}  # the last rejection of each name
        self.pairing = ev.OLDEST
        self.problems: list[str] = []
        self._ids: dict[str, list[int]] = {}  # ids of open waits, and some closed ones, by name: heaps

    @property
    def status(self) -> RuntimeStatus:
        """The status that history implies."""
        if self.ending is not None:
            return ENDED_AS[type(self.ending)]
        if self.suspended:
            return S.Suspended
        return S.Running if self.started is not None else S.Pending

    @property
    def failure(self) -> Failure | None:
        return self.ending.failure if isinstance(self.ending, ev.ExecutionFailed) else None

    def due_at(self) -> int | None:
        """The earliest open timer."""
        return min((timer.fire_at for timer in self.timers.values()), default=None)

    def waiting(self, reason: str = "") -> Waiting:
        """The open waits. A failed call that is retried appears as a retry, not as its timer."""
        if self.ending is not None:
            return Waiting()
        retries = [t for t in self.timers.values() if t.purpose == "retry"]
        deadlines = {t.of: t.fire_at for t in self.timers.values() if t.purpose == "timeout"}
        return Waiting(
            events=tuple(
                EventWait(
                    wait.name,
                    since,
                    deadlines.get(wait.id, wait.deadline),
                    None,
                    *self.rejected.get(wait.name.casefold(), ()),
                )
                for wait, since in self.waits.values()
            ),
            kept=tuple([event.name for _, event in self.buffered]),
            activities=tuple(
                [OpenActivity(t.name, at, t.attempt, t.id) for t, at in self.activities.values()]
            ),
            retries=tuple([self._retry(timer) for timer in retries]),
            children=tuple([OpenChild(c.name, c.instance_id, at) for c, at in self.children.values()]),
            operations=tuple(
                [OpenOperation(o.entity, o.operation, at) for o, at in self.operations.values()]
            ),
            locks=tuple(
                [
                    OpenLock(lock.entities[granted], lock.entities, at)
                    for lock, at, granted in self.locks.values()
                    if granted < len(lock.entities)
                ]
            ),
            timers=tuple([t.fire_at for t in self.timers.values() if not t.purpose]),
            reason=reason,
        )

    def asked_locks(self) -> dict[int, tuple[str, ...]]:
        """The requested entities by lock, unless released: granted ones, and the next."""
        return {no: lock.entities[: granted + 1] for no, (lock, _, granted) in self.locks.items()}

    def _retry(self, timer: ev.TimerCreated) -> OpenRetry:
        if timer.of not in self.failed_calls:
            return OpenRetry(f"call {timer.of}", 1, timer.fire_at)
        name, attempt, failure = self.failed_calls[timer.of]
        # The exception of the body; the outer one only reports that its call failed.
        return OpenRetry(name, attempt + 1, timer.fire_at, shortened(str(chain_of(failure)[-1])))

    # --------------------------------------------------------------------------------------------- folding

    def apply(self, event: ev.HistoryEvent, at: int) -> None:
        """Apply one more event."""
        if self.ending is not None and not self._is_between(event):
            self.problems.append(f"{type(event).__name__} after the execution had ended (I4)")
        if isinstance(event, ev.EntityOperated):
            return  # an entity's own history: it has no start, and is for people only
        if self.started is None and not isinstance(event, (ev.ExecutionStarted, *_BEFORE_START)):
            self.problems.append(f"{type(event).__name__} before ExecutionStarted (I3)")
        match event:
            case ev.ExecutionStarted():
                self._start(event)
            case ev.TaskScheduled():
                self._decided(event.id)
                self.activities[event.id] = (event, at)
            case ev.SubOrchestrationCreated():
                self._decided(event.id)
                self.children[event.id] = (event, at)
            case ev.TimerCreated():
                self._decided(event.id)
                self.timers[event.id] = event
            case ev.EventAwaited():
                self._decided(event.id)
                self._await(event, at)
            case ev.EntityCalled():
                self._decided(event.id)
                self.operations[event.id] = (event, at)
            case ev.EntitySignaled():
                self._decided(event.id)
            case ev.LockRequested():
                self._decided(event.id)
                self.locks[event.id] = (event, at, 0)
            case ev.EntityOperationCompleted() | ev.EntityOperationFailed():
                self._close(self.operations, event.task_id, event)
            case ev.LockGranted():
                self._grant(event)
            case ev.LockReleased():
                self._close(self.locks, event.lock_id, event)
            case ev.TaskCompleted():
                self._close(self.activities, event.task_id, event)
            case ev.TaskCanceled():
                self._close(self.activities, event.task_id, event)
            case ev.TaskFailed():
                self._failed(self.activities, event)
            case ev.SubOrchestrationCompleted():
                self._close(self.children, event.task_id, event)
            case ev.SubOrchestrationFailed():
                self._failed(self.children, event)
            case ev.TimerFired() | ev.TimerCanceled():
                self._close(self.timers, event.timer_id, event)
            case ev.WaitCanceled():
                self._cancel_wait(event)
            case ev.EventRaised():
                self._raise(event)
            case ev.EventTaken():
                self._choose(event)
            case ev.EventRejected():
                self._reject(event, at)
            case ev.ExecutionSuspended():
                self.suspended = "operator"
            case ev.ExecutionParked():
                self.suspended = event.kind
            case ev.ExecutionResumed():
                self.suspended = ""
            case ev.ExecutionRewound():
                self._rewind(event)
            case ev.PatchMarked() | ev.LoopHeld():
                pass
            case (
                ev.ExecutionCompleted()
                | ev.ExecutionFailed()
                | ev.ExecutionTerminated()
                | ev.ContinuedAsNew()
            ):
                self.ending = event
            case _:
                assert_never(event)

    def _is_between(self, event: ev.HistoryEvent) -> bool:
        """Whether an operator's event came before the next execution began: the previous one records it."""
        return isinstance(self.ending, ev.ContinuedAsNew) and isinstance(event, _BEFORE_START)

    def _start(self, event: ev.ExecutionStarted) -> None:
        if self.started is not None:
            self.problems.append("a second ExecutionStarted (I3)")
        self.started = event
        self.pairing = event.pairing
        for carried in event.carried:
            self._raise(carried)

    def _decided(self, event_id: int) -> None:
        if event_id != self.decisions:
            self.problems.append(f"event id {event_id} where {self.decisions} was due (I1)")
        self.decisions = event_id + 1

    def _close(self, table: dict[int, Any], key: int, event: ev.HistoryEvent) -> Any:
        found = table.pop(key, None)
        if found is None:
            self.problems.append(f"{type(event).__name__} of {key}, which is not open (I6)")
        return found

    def _grant(self, event: ev.LockGranted) -> None:
        lock, since, granted = self.locks.get(event.task_id, (None, 0, 0))
        if lock is None or granted == len(lock.entities) or lock.entities[granted] != event.entity:
            self.problems.append(
                f"LockGranted of {event.entity}, which lock {event.task_id} did not await (I6)"
            )
        else:
            self.locks[event.task_id] = (lock, since, granted + 1)

    def _failed(self, table: dict[int, Any], event: ev.TaskFailed | ev.SubOrchestrationFailed) -> None:
        found = self._close(table, event.task_id, event)
        if found is not None:
            call = found[0].id if found[0].call < 0 else found[0].call
            self.failed_calls[call] = (found[0].name, found[0].attempt, event.failure)

    def _rewind(self, event: ev.ExecutionRewound) -> None:
        if event.next_id < self.decisions:
            self.problems.append(f"rewound to id {event.next_id}, which is in use (I1)")
        self.decisions = event.next_id
        self.suspended = ""

    def _await(self, event: ev.EventAwaited, at: int) -> None:
        self._open(event, at)
        self._take_buffered(event)

    def _open(self, wait: ev.EventAwaited, since: int) -> None:
        self.waits[wait.id] = (wait, since)
        heappush(self._ids.setdefault(wait.name.casefold(), []), wait.id)

    def _take_buffered(self, wait: ev.EventAwaited) -> None:
        kept = next((item for item in self.buffered if same(item[1].name, wait.name)), None)
        if kept is not None:
            self.buffered.remove(kept)
            self._take(wait.id, kept)

    def _take(self, wait_id: int, item: Item) -> None:
        wait, since = self.waits.pop(wait_id)
        self.rejected.pop(wait.name.casefold(), None)
        self.taken[wait_id] = (wait, since, item)

    def _raise(self, event: ev.EventRaised) -> None:
        item = (self.raised, event)
        self.raised += 1
        if not self._taken_at_once(item):
            self.buffered.append(item)

    def _taken_at_once(self, item: Item) -> bool:
        """Whether it is certain which wait takes the event; if not, the next event is the decision."""
        oldest = self._first_open(item[1].name)
        if oldest is None:
            return False
        if self.pairing == ev.AWAITED and not self._is_alone(oldest, item[1].name):
            return False
        self._take(oldest, item)
        return True

    def _is_alone(self, wait_id: int, name: str) -> bool:
        """Whether the oldest wait for this name is the only open one."""
        ids = self._ids[name.casefold()]
        while ids and (ids[0] == wait_id or ids[0] not in self.waits):
            heappop(ids)
        is_alone = not ids
        heappush(ids, wait_id)
        return is_alone

    def _first_open(self, name: str) -> int | None:
        """The oldest open wait for a name. Closed waits are removed, so each is skipped once."""
        ids = self._ids.get(name.casefold(), [])
        while ids and ids[0] not in self.waits:
            heappop(ids)
        return ids[0] if ids else None

    def _choose(self, event: ev.EventTaken) -> None:
        item = self._found(event.event)
        if item is None or event.wait_id not in self.waits:
            self.problems.append(f"EventTaken by wait {event.wait_id}, which could not take it (I6)")
        else:
            self._take(event.wait_id, item)

    def _found(self, number: int) -> Item | None:
        """Remove and return the kept event with this number."""
        item = next((kept for kept in self.buffered if kept[0] == number), None)
        if item is not None:
            self.buffered.remove(item)
        return item

    def _reject(self, event: ev.EventRejected, at: int) -> None:
        """Reopen a wait whose event did not fit; it may take the next one."""
        self.rejected[event.name.casefold()] = (event.reason, at)
        if event.event >= 0:
            if self._found(event.event) is None:
                self.problems.append(f"EventRejected of event {event.event}, which is not there (I6)")
            return
        wait, since, _ = self.taken.pop(event.wait_id, (None, 0, None))
        if wait is None:
            self.problems.append(f"EventRejected of wait {event.wait_id}, which had taken none (I6)")
            return
        self._open(wait, since)
        self._take_buffered(wait)

    def _cancel_wait(self, event: ev.WaitCanceled) -> None:
        """Apply the cancellation of a wait. An event that it took and the code never saw returns."""
        _, _, item = self.taken.pop(event.wait_id, (None, 0, None))
        if item is None:
            self._close(self.waits, event.wait_id, event)
            return
        if self.pairing == ev.AWAITED and self._taken_at_once(item):
            return
        self.buffered.append(item)
        self.buffered.sort(key=lambda kept: kept[0])
        if self.pairing == ev.AWAITED:
            return
        for wait_id in sorted(self.waits):
            self._take_buffered(self.waits[wait_id][0])


def endings_of(episodes: Iterable[Episode]) -> dict[int, int]:
    """How often each activity ended in the runs that rewinds continued. An activity that is open again ends again."""
    endings: dict[int, int] = {}
    still_open: set[int] = set()
    read: list[Episode] = []
    for at, events in episodes:
        read.append((at, []))
        for event in events:
            read[-1][1].append(event)
            ended: set[int] = set()
            match event:
                case ev.TaskScheduled():
                    still_open.add(event.id)
                case ev.TaskCompleted() | ev.TaskFailed() | ev.TaskCanceled():
                    ended = still_open & {event.task_id}
                case ev.ExecutionRewound():
                    still_open = set(fold(read).activities)
                case _ if isinstance(event, ev.Ending):
                    ended = still_open
            for task_id in ended:
                endings[task_id] = endings.get(task_id, 0) + 1
            still_open = still_open - ended
    return endings


def fold(episodes: Iterable[tuple[int, list[ev.HistoryEvent]]]) -> State:
    """The state after recorded episodes (time in microseconds, events), as far as they count."""
    recorded = list(episodes)
    if is_rewound(recorded):
        return _fold_rewound(recorded)
    return _fold(recorded)


def _fold_rewound(recorded: list[Episode]) -> State:
    """Fold a rewound history. The void events must be well formed too, and the execution failed before the
    rewind.
    """
    problems: list[str] = []
    for before in _before_rewinds(recorded):
        state = _fold(counting(before))
        problems += state.problems
        if state.status is not S.Failed:
            problems.append(f"rewound while it was {state.status} (I4)")
    state = _fold(counting(recorded))
    state.problems = list(dict.fromkeys([*problems, *state.problems]))
    return state


def _before_rewinds(recorded: list[Episode]) -> Iterator[list[Episode]]:
    for number, (at, events) in enumerate(recorded):
        for place, event in enumerate(events):
            if isinstance(event, ev.ExecutionRewound):
                yield [*recorded[:number], (at, events[:place])]


def _fold(episodes: Iterable[Episode]) -> State:
    state = State()
    for at, events in episodes:
        for event in events:
            state.apply(event, at)
    return state


_BEFORE_START = (
    ev.ExecutionSuspended,
    ev.ExecutionResumed,
    ev.ExecutionParked,
    ev.ExecutionTerminated,
)
