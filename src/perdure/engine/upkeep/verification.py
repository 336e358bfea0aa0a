"""The verifier: checks that the store contains what a correct engine writes.

It reads every instance and every kept execution, folds each history without running user code, and compares. It
checks the invariants I1 to I6 (contiguous episodes and event ids, an intact chain, one start, one end that is
last, rows that agree with their history, at most one completion for each call), the open waits, and the digests
of bodies in the payloads table. A missing body is reported as redacted, not as damage, because the chain covers
its digest. For rows encrypted with a missing key, only order and chain are checked. Of a hub in a log, it first
walks the chain of records. Run it on an idle hub: on a busy hub an instance may change between two reads and be
reported wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from perdure.engine.client.instance_counts import true_counts
from perdure.engine.client.status import recorded_events
from perdure.errors import StoreError
from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.damaged import DamagedRow, why_damaged
from perdure.model.encryption import DAMAGED, Unreadable
from perdure.model.instances import RuntimeStatus, execution_id_of, partition_of
from perdure.model.recorded import references
from perdure.model.records import HistoryRow, InstanceFilter, InstanceRow, StoredInstance
from perdure.model.ring import HEAD, InstanceCounts, counts_of, is_certain
from perdure.replay.state import State, fold
from perdure.store.port import ClientStore, Examinable, SharedStore, Walkable, Walked, shared

PAGE = 500


@dataclass
class Report:
    """The result of a verification. `problems` are sentences; an empty list means no damage."""

    instances: int = 0
    rows: int = 0
    events: int = 0
    redacted: int = 0
    encrypted: int = 0  # rows whose content was not checked, because their key is missing
    problems: list[str] = field(default_factory=list)
    walked: Walked | None = None  # of a hub in a log: what was seen of its records

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(store: ClientStore, progress: Callable[[int], None] = lambda done: None) -> Report:
    """Check every instance of the hub. `progress` is called with the number of checked instances.

    Damage never raises: an unreadable instance becomes a problem in the report.
    """
    report = Report()
    if isinstance(store, Walkable):
        report.walked = store.walk()
        report.problems += report.walked.problems
    try:
        _check_rows(store, progress, report)
    except StoreError as error:
        if not report.problems:
            raise
        report.problems.append(f"the instances cannot be read, and were not checked: {error}")
    return report


def _check_rows(store: ClientStore, progress: Callable[[int], None], report: Report) -> None:
    """Check every instance, and what other tables have."""
    several = shared(store)
    partitions = len(several.census().partitions) if several is not None else 1
    names: dict[int, str] = {}
    for row in _instances(store):
        names[row.instance_no] = row.instance_id
        report.problems += [f"{row.instance_id}: {what}" for what in _cell_problems(row, partitions)]
        try:
            _check_instance(store, several, row, report)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError, KeyError) as error:
            report.problems.append(f"{row.instance_id}: its history cannot be read: {error}")
        report.instances += 1
        progress(report.instances)
    if not report.problems:  # damaged rows are counted otherwise
        report.problems += _ring_problems(store)
    if isinstance(store, Examinable):
        for number, flaw in store.flaws():
            report.problems.append(f"{names[number]}: {flaw}" if number in names else flaw)


def _ring_problems(store: ClientStore) -> Iterator[str]:
    """Whether the ring counts the instances that are there. A hub without heads has not been counted yet."""
    heads = store.ring(HEAD)
    if not heads:
        return
    try:
        if not is_certain(heads):
            return  # the next engine that has the hub to itself counts again
        found = counts_of(heads)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return  # `flaws` tells which row
    true = true_counts(store)
    if found != true:
        yield (
            f"the ring counts {_shown_counts(found)}, the hub has {_shown_counts(true)}: a row was changed, or a "
            "worker of an earlier version has served the hub. Stop all workers and delete the rows of the table "
            "ring whose resolution is 0: the next worker that starts counts the instances again"
        )


def _shown_counts(counts: InstanceCounts) -> str:
    shown = ", ".join(f"{count} {status}" for status, count in sorted(counts.by_status.items()))
    return f"{shown or 'no instances'} ({counts.parked} parked)"


_MOST_PARTITIONS: Final = 2**15


def _cell_problems(row: InstanceRow, partitions: int) -> Iterator[str]:
    """The problems of an instance's row alone."""
    if isinstance(row, DamagedRow):
        yield why_damaged(row)
        return
    # A store for a single engine keeps the partition numbers of a copied hub.
    fits = range(_MOST_PARTITIONS) if partitions == 1 else (partition_of(row.instance_id, partitions),)
    if row.partition not in fits:
        yield f"its row is in partition {row.partition}, where its id does not belong (I5)"
    if row.parent_id is None and (row.parent_execution, row.parent_task) != (None, None):
        yield "its row names an execution or a task of its parent, and no parent (I5)"


def _started_otherwise(row: InstanceRow, state: State) -> bool:
    """Whether history has a different orchestrator, version or parent than the row."""
    begun = state.started
    return begun is not None and (begun.name, begun.version, begun.parent) != (
        row.name,
        row.version,
        row.parent,
    )


def _instances(store: ClientStore) -> Iterator[InstanceRow]:
    before: int | None = None
    while True:
        rows = store.query(InstanceFilter(kind="", top=PAGE, before_no=before))
        yield from rows
        if len(rows) < PAGE:
            return
        before = rows[-1].instance_no


def _check_instance(
    store: ClientStore, several: SharedStore | None, row: InstanceRow, report: Report
) -> None:
    kept = store.executions(row.instance_no)
    for execution_no in kept:
        stored = store.history_of(row.instance_no, execution_no)
        if stored is None:
            continue
        current = execution_no == row.execution_no
        locked, damaged = _unreadable(row, stored)
        if locked or damaged:
            report.rows += len(stored.history)
            report.encrypted += locked
            found = [*damaged, *_chain_problems(row, execution_no, stored.history)]
            report.problems += [f"{row.instance_id} execution {execution_no}: {what}" for what in found]
            continue
        complaints = [
            *_chain_problems(row, execution_no, stored.history),
            *_body_problems(row, stored, report),
        ]
        recorded = recorded_events(stored)
        state = fold(recorded)
        complaints += state.problems
        if current and row.kind != "entity":
            stored.waits = store.waits([row.instance_no])
            if several is not None and state.activities:
                stored.placed = frozenset(one[1:3] for one in several.placed([row.instance_id]))
            complaints += _row_problems(row, stored, state)
        report.rows += len(stored.history)
        report.events += sum(len(events) for _, events in recorded)
        report.problems += [f"{row.instance_id} execution {execution_no}: {what}" for what in complaints]
    if row.episodes and row.execution_no not in kept:
        report.problems.append(f"{row.instance_id}: the history of its current execution is missing (I1)")


def _unreadable(row: InstanceRow, stored: StoredInstance) -> tuple[int, list[str]]:
    """The number of history rows encrypted with a missing key, and the rows that cannot be decrypted."""
    cells = [row.salt, *(one.events for one in stored.history), *stored.bodies.values()]
    found = [cell for cell in cells if isinstance(cell, Unreadable)]
    damaged = [cell.why for cell in found if cell.shown == DAMAGED]
    locked = sum(isinstance(one.events, Unreadable) and one.events.shown != DAMAGED for one in stored.history)
    return max(locked, int(len(found) > len(damaged))), damaged


def _chain_problems(row: InstanceRow, execution_no: int, history: list[HistoryRow]) -> Iterator[str]:
    if isinstance(row.salt, Unreadable):  # the first link cannot be checked, the others can
        previous = b""
    else:
        previous = hash_chain.base_of(row.salt, execution_no)
    for expected, one in enumerate(history):
        if one.episode != expected:
            yield f"episode {one.episode} instead of {expected} (I1)"
            return
        if isinstance(one.events, Unreadable) or isinstance(row.salt, Unreadable):
            pass  # its content cannot be compared; `_unreadable` reports it
        elif hash_chain.digest_of(row.salt, one.events) != one.digest:
            yield f"episode {one.episode} does not match its digest (I2)"
        if previous and hash_chain.link(previous, execution_no, one.episode, one.at, one.digest) != one.hash:
            yield f"the chain breaks at episode {one.episode} (I2)"
        previous = one.hash
    if execution_no == row.execution_no and (row.episodes != len(history) or row.head != previous):
        yield f"the row says {row.episodes} episodes, history has {len(history)}, or its newest hash differs (I2)"


def _body_problems(row: InstanceRow, stored: StoredInstance, report: Report) -> Iterator[str]:
    unasked = set(stored.bodies)
    for one in stored.history:
        for ref in references(ev.decode_events(one.events)):
            body = stored.bodies.get((one.episode, ref.no))
            unasked.discard((one.episode, ref.no))
            if body is None:
                report.redacted += 1
            elif hash_chain.digest_of(row.salt, body).hex() != ref.digest:
                yield f"body {ref.no} of episode {one.episode} does not match its digest (I2)"
    for episode, no in sorted(unasked, key=str):
        yield f"there is a body {no} of episode {episode} that no event refers to (I2)"


def _agree_on_work(row: InstanceRow, stored: StoredInstance, state: State) -> bool:
    """An open activity without a row runs at its owner, and the instance's row must count it."""
    if row.local_work:
        return bool(state.activities)
    execution_id = execution_id_of(row.salt, row.execution_no)
    return all((execution_id, task_id) in stored.placed for task_id in state.activities)


def _row_problems(row: InstanceRow, stored: StoredInstance, state: State) -> Iterator[str]:
    expected = state.status
    if expected is RuntimeStatus.ContinuedAsNew:
        expected = RuntimeStatus.Running  # its next execution is a message in the inbox
    if state.started is None and expected is RuntimeStatus.Running:
        expected = RuntimeStatus.Pending
    if _started_otherwise(row, state):
        yield "its row and its history disagree about its name, its version or its parent (I5)"
    if row.status != expected and stored.history:
        yield f"its row says {row.status}, its history {expected} (I5)"
    if (row.completed_at is not None) != RuntimeStatus(row.status).is_finished:
        yield "its row has a completion time and an unfinished status, or the reverse (I5)"
    running = row.status == RuntimeStatus.Running
    if running and state.ending is None and row.due_at != state.due_at():
        yield f"its row is due at {row.due_at}, its history at {state.due_at()} (I5)"
    if running and state.ending is None and not _agree_on_work(row, stored, state):
        yield "its row and its history disagree about open activities (I5)"
    waits = {(wait.wait_id, wait.name) for wait in stored.waits}
    folded = (
        {(wait_id, wait.name) for wait_id, (wait, _) in state.waits.items()}
        if state.ending is None
        else set()
    )
    if waits != folded:
        yield f"its open waits are {sorted(waits)}, its history says {sorted(folded)} (I5)"
