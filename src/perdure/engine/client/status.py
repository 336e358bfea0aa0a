"""Status from stored rows: status, input, output, and the open waits of the instance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Raw

from perdure.engine.client.searching import count, search
from perdure.engine.core.instance import scheduled_at
from perdure.errors import DecryptionFailed, IllegalTransition, PerdureError
from perdure.failure import Failure
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.damaged import LATEST, UNREADABLE, DamagedWait
from perdure.model.durations import moment
from perdure.model.encryption import Unreadable
from perdure.model.instances import InstanceCount, OrchestrationStatus, Page, RuntimeStatus, execution_id_of
from perdure.model.large_bodies import inline
from perdure.model.recorded import DAMAGED, damage_in
from perdure.model.records import InstanceFilter, InstanceRow, StoredInstance, WaitRow
from perdure.model.waiting import SHOWN, EventWait, OpenActivity, Pulse, Waiting
from perdure.replay.rewinding import Episode
from perdure.replay.state import fold
from perdure.store.port import SHORT, ClientStore

_UNNAMED = "waiting for running activities"
LISTED_EPISODES = 50  # the same, in a list
LISTED = 100  # instances of one page that are shown with their waits


@dataclass(frozen=True)
class Detail:
    """The parts of a status to return."""

    history: bool = False
    history_output: bool = False
    input: bool = False
    execution: int | None = None  # the execution whose history is shown; None for the current one


class Ward(Protocol):
    """The port that reports running activities and the time."""

    def pulses(self, executions: Mapping[str, str]) -> Mapping[tuple[str, int], Pulse]: ...

    def now(self) -> int: ...

    def output_of_failure(self, name: str, failure: Failure) -> str: ...


OutputOfFailure = Callable[[str, Failure], str]


def plainly(name: str, failure: Failure) -> str:
    """The output of a failed instance: the type and the message of the exception."""
    return str(failure)


def status_of(
    store: ClientStore, instance_id: str, detail: Detail, ward: Ward | None = None
) -> OrchestrationStatus | None:
    stored = store.get(instance_id, history=detail.history or "short")
    return status_in(store, stored, detail, ward) if stored is not None else None


def status_in(
    store: ClientStore, stored: StoredInstance, detail: Detail, ward: Ward | None = None
) -> OrchestrationStatus:
    """The status of an instance whose row is loaded."""
    instance_id = stored.row.instance_id
    row = _judged(stored.row, _damage_beside(stored.waits, stored.custom_status))
    finished = RuntimeStatus(row.status).is_finished
    wants_history = detail.history or (not finished and row.episodes <= SHORT)
    if wants_history and row.episodes and not stored.history:
        full = store.history_of(row.instance_no, row.execution_no)
        if full is not None:
            stored.history, stored.bodies = full.history, full.bodies
    unreadable = _unreadable([*(one.events for one in stored.history), *stored.bodies.values()])
    if unreadable is not None and detail.history:
        raise DecryptionFailed(f"the history of instance {instance_id!r} cannot be shown: {unreadable.why}")
    recorded: list[Episode] = []
    if stored.history and unreadable is None:
        row = _judged(row, damage_in(stored))
        recorded = recorded_events(stored, _readable)
        ends = [recorded[0][1], recorded[-1][1]]
        waiting = _with_schemas(fold(recorded).waiting(_parked(row)), stored.waits) if not finished else None
        waiting = _with_reasons(store, waiting) if waiting is not None else None
    else:
        raw = [] if wants_history and unreadable is None else store.ends([row]).get(row.instance_no, [])
        unreadable = unreadable or _unreadable(raw)
        ends = [_readable(one) for one in raw]
        waiting = None if finished else _roughly(row, stored.waits)
    if ward is not None and waiting is not None and (row.local_work or waiting.activities):
        execution_id = execution_id_of(row.salt, row.execution_no)
        pulses = ward.pulses({execution_id: instance_id})
        waiting = _with_pulses(waiting, execution_id, pulses, ward.now())
    return _status(
        row,
        ends,
        waiting,
        stored.custom_status,
        show_input=detail.input,
        instead=unreadable.shown if unreadable is not None else "",
        history=_shown(_of_execution(store, row, detail, recorded), detail) if detail.history else None,
        executions=store.executions(row.instance_no) if detail.history else [],
        told=plainly if ward is None else ward.output_of_failure,
    )


def _judged(row: InstanceRow, damage: str) -> InstanceRow:
    """The instance's row, whose reason reports damage that the engine has not met yet."""
    if not damage or row.reason.startswith(DAMAGED):
        return row
    return row._replace(reason=f"{DAMAGED}: {damage}")


def _damage_beside(waits: Iterable[WaitRow], custom_status: bytes | None) -> str:
    """The damage in an instance's rows outside its history."""
    for wait in waits:
        if isinstance(wait, DamagedWait):
            return f"the row of its wait {wait.wait_id} is damaged: it does not match its digest"
    if custom_status is not None and _custom(custom_status) == UNREADABLE:
        return "its custom status is damaged"
    return ""


def _of_execution(
    store: ClientStore, row: InstanceRow, detail: Detail, present: list[Episode]
) -> list[Episode]:
    """The requested history; empty for an execution that is not kept."""
    if detail.execution in (None, row.execution_no):
        return present
    earlier = (
        detail.execution if detail.execution is not None and 0 < detail.execution < row.execution_no else 0
    )
    found = store.history_of(row.instance_no, earlier) if earlier else None
    return recorded_events(found, _readable) if found is not None else []


def finished_status(
    row: InstanceRow,
    ending: ev.Ending | None,
    custom_status: bytes | None,
    told: OutputOfFailure = plainly,
) -> OrchestrationStatus:
    """The status of an instance that has just finished, without a query."""
    ends: list[list[ev.HistoryEvent]] = [[ending]] if ending is not None else []
    return _status(row, ends, None, custom_status, show_input=False, told=told)


def page_of(
    store: ClientStore, wanted: InstanceFilter, ward: Ward | None = None, *, show_input: bool
) -> Page:
    sought = search(store, wanted)
    found = sought.rows
    numbers = [row.instance_no for row in found]
    waits: dict[int, list[WaitRow]] = {}
    for wait in store.waits([r.instance_no for r in found if r.completed_at is None]):
        waits.setdefault(wait.instance_no, []).append(wait)
    customs = store.custom_status(numbers)
    ends = store.ends(found)
    rows = [
        _judged(
            r,
            _damage_beside(waits.get(r.instance_no, ()), customs.get(r.instance_no)) or _damaged_end(r, ends),
        )
        for r in found
    ]
    working = {execution_id_of(r.salt, r.execution_no): r.instance_id for r in rows if r.completed_at is None}
    pulses = ward.pulses(working) if ward is not None and working else {}
    now = ward.now() if ward is not None else 0
    folded = _folded(store, rows, waits)
    instances = [
        _status(
            row,
            [_readable(one) for one in ends.get(row.instance_no, [])],
            None if row.completed_at is not None else _briefly(row, waits, folded, pulses, now),
            customs.get(row.instance_no),
            show_input=show_input,
            instead=locked.shown if (locked := _unreadable(ends.get(row.instance_no, []))) else "",
            told=plainly if ward is None else ward.output_of_failure,
        )
        for row in rows
    ]
    following = None if sought.continuation is None else str(sought.continuation)
    return Page(instances, following, _time_of(store, sought.searched_to))


def _time_of(store: ClientStore, number: int | None) -> datetime | None:
    """When the instance with this number was created, or the next older one."""
    if number is None:
        return None
    rows = store.query(InstanceFilter(kind="", before_no=number + 1, top=1))
    return moment(rows[0].created_at) if rows else None


def count_of(store: ClientStore, wanted: InstanceFilter) -> InstanceCount:
    """How many instances match, and from when on they were searched."""
    matched, reached = count(store, wanted)
    return InstanceCount(count=matched, searched_from=_time_of(store, reached))


def _damaged_end(row: InstanceRow, ends: Mapping[int, list[bytes]]) -> str:
    """The damage of a finished instance that is visible without reading its whole history."""
    of_row = ends.get(row.instance_no, [])
    if row.episodes and not of_row:
        return f"its row counts {row.episodes} rows of history, and the table has none"
    return next((one.why for one in of_row if isinstance(one, Unreadable) and one.shown == UNREADABLE), "")


def recorded_events(
    stored: StoredInstance, decode: Callable[[bytes], list[ev.HistoryEvent]] = ev.decode_events
) -> list[tuple[int, list[ev.HistoryEvent]]]:
    """A stored history as (time, events) per episode, with its bodies restored."""
    bodies: dict[int, dict[int, bytes]] = {}
    for (episode, no), body in stored.bodies.items():
        bodies.setdefault(episode, {})[no] = body
    return [(row.at, inline(decode(row.events), bodies.get(row.episode, {}))) for row in stored.history]


def _readable(events: bytes) -> list[ev.HistoryEvent]:
    """The events of a row; none when they cannot be read, so that the rest of the instance is still shown."""
    try:
        return ev.decode_events(events)
    except msgspec.MsgspecError:
        return []


def start_of(store: ClientStore, instance_id: str) -> tuple[StoredInstance, Raw] | None:
    """An instance and the input its current execution began with, for a restart."""
    stored = store.get(instance_id)
    if stored is None:
        return None
    ends = store.ends([stored.row]).get(stored.row.instance_no, [])
    unreadable = _unreadable(ends)
    if unreadable is not None and unreadable.shown == UNREADABLE:
        raise IllegalTransition(
            f"cannot restart instance {instance_id!r}, which is {DAMAGED}: {unreadable.why}. `perdure export --raw` "
            "keeps its rows as they are. Start it with an input of your own, or restore a backup made before"
        )
    if unreadable is not None:
        raise DecryptionFailed(f"the input of instance {instance_id!r} cannot be read: {unreadable.why}")
    events = ev.decode_events(ends[0]) if ends else []
    started = next((e for e in events if isinstance(e, ev.ExecutionStarted)), None)
    return stored, started.input if started is not None else ev.ABSENT


def _status(
    row: InstanceRow,
    ends: list[list[ev.HistoryEvent]],
    waiting: Waiting | None,
    custom_status: bytes | None,
    *,
    show_input: bool,
    instead: str = "",
    history: list[dict[str, Any]] | None = None,
    executions: list[int] | None = None,
    told: OutputOfFailure,
) -> OrchestrationStatus:
    output, failure = _result(ends[-1][-1] if ends and ends[-1] else None)
    if failure is not None:
        output = told(row.name, failure)
    if instead and row.completed_at is not None and failure is None:
        output = instead
    return OrchestrationStatus(
        instance_id=row.instance_id,
        name=row.name,
        runtime_status=RuntimeStatus(row.status),
        created_time=moment(row.created_at),
        last_updated_time=moment(row.updated_at),
        input=_input(ends, instead) if show_input else None,
        output=output,
        custom_status=_custom(custom_status),
        failure=failure,
        reason=_parked(row) if row.reason else "",
        waiting_for=waiting.sentence() if waiting is not None else "",
        waiting=waiting,
        version=row.version,
        execution_id="" if isinstance(row.salt, Unreadable) else execution_id_of(row.salt, row.execution_no),
        parent_instance_id=row.parent_id,
        tags=payload.decode(row.tags.encode()) if row.tags else {},
        completed_time=moment(row.completed_at) if row.completed_at is not None else None,
        history=history,
        executions=executions or [],
        replays=row.replays,
        replay_reason=row.replay_reason,
    )


def _input(ends: list[list[ev.HistoryEvent]], instead: str) -> Any:
    started = next((e for e in ends[0] if isinstance(e, ev.ExecutionStarted)), None) if ends else None
    return _decoded(started.input) if started is not None else instead or None


def _custom(stored: bytes | None) -> Any:
    if isinstance(stored, Unreadable):
        return stored.shown
    return _shown_of(stored) if stored is not None else None


def _shown_of(body: bytes | Raw) -> Any:
    """A body for display; a placeholder when it is damaged."""
    try:
        return payload.decode(body)
    except PerdureError:
        return UNREADABLE


def _unreadable(found: Iterable[bytes]) -> Unreadable | None:
    """The first of these that could not be decrypted."""
    return next((one for one in found if isinstance(one, Unreadable)), None)


def _result(last: ev.HistoryEvent | None) -> tuple[Any, Failure | None]:
    match last:
        case ev.ExecutionCompleted():
            return _decoded(last.output), None
        case ev.ExecutionFailed():
            return None, last.failure
        case ev.ExecutionTerminated():
            return last.reason, None
        case _:
            return None, None


def _decoded(body: Raw) -> Any:
    return _shown_of(body) if bytes(body) else None


def _parked(row: InstanceRow) -> str:
    return "" if scheduled_at(row.reason) else row.reason


def _roughly(row: InstanceRow, waits: list[WaitRow]) -> Waiting:
    """The open waits from the row and the wait rows alone."""
    known_deadlines = {wait.deadline for wait in waits}
    timed = row.due_at is not None and row.due_at not in known_deadlines and row.due_at <= LATEST
    timers = (row.due_at,) if timed and row.due_at is not None else ()
    start_at = scheduled_at(row.reason)
    rough = Waiting(
        events=tuple(_event_wait(wait) for wait in waits),
        timers=timers,
        start_at=start_at,
        reason=_parked(row),
    )
    if row.local_work and not rough.sentence():
        return Waiting(reason=_UNNAMED)
    return rough


def _folded(
    store: ClientStore, rows: list[InstanceRow], waits: Mapping[int, list[WaitRow]]
) -> dict[int, Waiting]:
    """The waits from history, by instance_no, for instances whose rows are not enough: rows do not record
    sub-orchestrations, entities and retries. To keep lists fast, long histories and instances beyond the first
    hundred are skipped.
    """
    found: dict[int, Waiting] = {}
    for row in [row for row in rows if _says_too_little(row, waits.get(row.instance_no, []))][:LISTED]:
        stored = store.history_of(row.instance_no, row.execution_no)
        if stored is not None and _unreadable(one.events for one in stored.history) is None:
            waiting = fold(recorded_events(stored, _readable)).waiting()
            found[row.instance_no] = _with_schemas(waiting, waits.get(row.instance_no, []))
    return found


def _says_too_little(row: InstanceRow, waits: list[WaitRow]) -> bool:
    """Whether the instance may wait for more than events, which have wait rows."""
    if row.status != RuntimeStatus.Running or row.reason or not 0 < row.episodes <= LISTED_EPISODES:
        return False
    return not waits or (row.due_at is not None and row.due_at not in {wait.deadline for wait in waits})


def _briefly(
    row: InstanceRow,
    waits: Mapping[int, list[WaitRow]],
    folded: Mapping[int, Waiting],
    pulses: Mapping[tuple[str, int], Pulse],
    now: int,
) -> Waiting:
    waiting = folded.get(row.instance_no) or _roughly(row, waits.get(row.instance_no, []))
    if not pulses:
        return waiting
    return _with_pulses(waiting, execution_id_of(row.salt, row.execution_no), pulses, now)


def _with_pulses(
    waiting: Waiting, execution_id: str, pulses: Mapping[tuple[str, int], Pulse], now: int
) -> Waiting:
    """The heartbeats of activities in this process; for other workers' activities, the facts of history."""
    known = {task_id: pulse for (of, task_id), pulse in pulses.items() if of == execution_id}
    if not known:
        return waiting
    recorded = waiting.activities or tuple(
        OpenActivity(pulse.name, pulse.begun_at or now, pulse.attempt, task_id)
        for task_id, pulse in known.items()
    )
    activities = tuple(_alive(one, known.get(one.task_id)) for one in recorded)
    reason = "" if waiting.reason == _UNNAMED else waiting.reason
    return msgspec.structs.replace(waiting, activities=activities, reason=reason, at=now)


def _alive(activity: OpenActivity, pulse: Pulse | None) -> OpenActivity:
    if pulse is None:
        return activity
    return msgspec.structs.replace(
        activity,
        where=pulse.where,
        begun_at=pulse.begun_at,
        heard_at=pulse.heard_at,
        progress=_shown_of(pulse.progress) if pulse.progress is not None else None,
    )


def _event_wait(wait: WaitRow) -> EventWait:
    schema = _shown_of(wait.schema) if wait.schema is not None else None
    return EventWait(wait.name, wait.since, wait.deadline, schema)


def _with_schemas(waiting: Waiting, rows: list[WaitRow]) -> Waiting:
    schemas = {row.name: _shown_of(row.schema) for row in rows if row.schema is not None}
    if not schemas:
        return waiting
    events = tuple(msgspec.structs.replace(e, schema=schemas.get(e.name)) for e in waiting.events)
    return msgspec.structs.replace(waiting, events=events)


def _with_reasons(store: ClientStore, waiting: Waiting) -> Waiting:
    """Add the reasons why awaited instances are on hold, for those shown by name."""
    if waiting.reason or not (waiting.children or waiting.operations or waiting.locks):
        return waiting
    replace = msgspec.structs.replace
    return replace(
        waiting,
        children=tuple(
            replace(one, reason=_aside(store, one.instance_id)) for one in waiting.children[:SHOWN]
        )
        + waiting.children[SHOWN:],
        operations=tuple(replace(one, reason=_aside(store, one.entity)) for one in waiting.operations[:SHOWN])
        + waiting.operations[SHOWN:],
        locks=tuple(replace(one, reason=_aside(store, one.entity)) for one in waiting.locks),
    )


def _aside(store: ClientStore, instance_id: str) -> str:
    """Why an instance is on hold; "" when it is not, or does not exist."""
    found = store.get(instance_id)
    return _parked(found.row) if found is not None else ""


def _as_data(event: ev.HistoryEvent) -> dict[str, Any]:
    """An event as a dictionary; a damaged body becomes a placeholder."""
    try:
        whole: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        whole = msgspec.json.decode(msgspec.json.encode(_readable_event(event)))
    return whole


def _readable_event(event: ev.HistoryEvent) -> ev.HistoryEvent:
    """The event with placeholders for damaged bodies, and without the events that it carried over."""
    bodies = {name: Raw(payload.encode(_shown_of(body))) for name, body in _bodies_in(event)}
    return msgspec.structs.replace(event, **bodies, **_no_carried(event))


def _bodies_in(event: ev.HistoryEvent) -> list[tuple[str, Raw]]:
    found = ((name, getattr(event, name)) for name in event.__struct_fields__)
    return [(name, body) for name, body in found if isinstance(body, Raw) and body is not ev.ABSENT]


def _no_carried(event: ev.HistoryEvent) -> dict[str, Any]:
    return {"carried": ()} if isinstance(event, ev.ExecutionStarted) else {}


def _shown(recorded: list[tuple[int, list[ev.HistoryEvent]]], detail: Detail) -> list[dict[str, Any]]:
    """History as JSON-ready dictionaries, each with its episode's time."""
    shown = []
    for at, events in recorded:
        for event in events:
            one = _as_data(event)
            if not detail.history_output:
                one.pop("result", None)
                one.pop("output", None)
            if not detail.input:
                one.pop("input", None)
            shown.append({"timestamp": moment(at).isoformat(), **one})
    return shown
