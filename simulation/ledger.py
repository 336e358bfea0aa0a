"""The ledger: the expected state, derived from every committed batch, apart from engine and store.

It keeps everything: purged instances, executions deleted by continue-as-new, answered operations. Invariants of
a single commit are checked here at once; the others when the world is at rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.entities import decode_record
from perdure.model.instances import FINISHED, RuntimeStatus, execution_id_of
from perdure.model.large_bodies import inline
from perdure.model.messages import ActivityResult, NextGeneration, Request, decode_message
from perdure.model.records import (
    ANSWERED,
    Batch,
    DroppedRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    InstanceUpdate,
    TaskMove,
)
from perdure.replay.state import State, fold
from simulation.activity_pool import Ran
from simulation.ring_checks import RingLedger
from simulation.sometimes import Sometimes

ALL_WAITS = -1
ALL_TASKS = -1
Recorded = list[tuple[int, list[ev.HistoryEvent]]]
Key = tuple[str, int]  # execution id, task id


@dataclass
class Violation:
    """A violation: a short code that stays the same while a failure is shrunk, and a description."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"[{self.code}] {self.text}"


@dataclass
class Past:
    """One execution's history so far."""

    rows: list[HistoryRow] = field(default_factory=list)
    recorded: Recorded = field(default_factory=list)
    state: State = field(default_factory=State)
    fold_problems: int = 0


@dataclass
class RunRecord:
    """One life of an instance id: what bears one instance_no."""

    row: InstanceRow
    executions: dict[int, Past] = field(default_factory=dict)
    waits: set[int] = field(default_factory=set)
    custom_status: bytes | None = None
    entity_state: bytes | None = None
    purged: bool = False
    finished_in: int = 0  # the commit that ended it

    @property
    def is_finished(self) -> bool:
        return RuntimeStatus(self.row.status) in FINISHED

    @property
    def is_entity(self) -> bool:
        return self.row.kind == "entity"

    @property
    def past(self) -> Past:
        return self.executions.setdefault(self.row.execution_no, Past())

    def execution_id(self, execution_no: int) -> str:
        return execution_id_of(self.row.salt, execution_no)

    def first_started(self) -> ev.ExecutionStarted | None:
        """The earliest start that is known; the executions before it left no row."""
        known = [past.state.started for _, past in sorted(self.executions.items())]
        return next((started for started in known if started is not None), None)

    def __str__(self) -> str:
        return f"{self.row.instance_id!r} (no. {self.row.instance_no})"


@dataclass
class Placed:
    """An activity with a row, for any claimant."""

    instance_id: str
    name: str
    pool: str
    attempt: int
    claimant: int | None


@dataclass
class AskedRequest:
    """A request of one worker to another."""

    asker: int  # incarnation
    at: int
    carried: str  # the input of the message
    operation_id: str
    answers: int = 0


class Ledger:
    """Everything that was ever committed."""

    def __init__(self, met: Sometimes, *, shared: bool = False) -> None:
        self._met = met
        self.ring = RingLedger(met)
        self.shared = shared  # whether several workers commit
        self.placed: dict[Key, Placed] = {}  # activities that have rows of their own
        self.asked: dict[str, AskedRequest] = {}  # requests between workers, by id
        self.requested: set[str] = set()  # operation ids of those
        self.named: dict[str, str] = {}  # operation ids, by what their answers are kept under
        self.begins: Counter[Key] = Counter()
        self.late_results = 0
        self.refused_late: set[str] = set()  # the messages of requests that were rejected after their timeout
        self.problems: list[Violation] = []
        self.runs: dict[int, RunRecord] = {}
        self.current: dict[str, int] = {}
        self.inbox: dict[int, InboxRow] = {}
        self.given_up: set[str] = set()  # ids of which a message could not even be kept for later
        self.seen: set[str] = set()
        self.dropped: list[DroppedRow] = []
        self.held_by: dict[tuple[int, int], str] = {}  # who has claimed a task, by instance and wait
        self.holders: list[tuple[RunRecord, str]] = []  # everyone who has, and where
        self.dropped_in: list[int] = []  # the commit that brought each
        self.scheduled: dict[Key, ev.TaskScheduled] = {}
        self.called: dict[Key, tuple[str, int]] = {}  # the child's id, and the commit that called it
        self.cancelled: set[Key] = set()
        self.rewound: set[str] = set()
        self.completed: dict[Key, ev.TaskCompleted | ev.TaskFailed] = {}
        self.started: set[Key] = set()
        self.bodies: list[Ran] = []
        self.commits = 0
        self._purged_alive: list[RunRecord] = []
        self.refused_several = False  # the newest refusal was of a batch for several instances
        self._held: set[int] = set()

    def problem(self, code: str, text: str) -> None:
        self.problems.append(Violation(code, text))

    def numbers_of(self, instance_id: str, batch: Batch) -> set[int]:
        """The numbers that this id has, or gets in this batch."""
        known = self.current.get(instance_id)
        fresh = {row.instance_no for row in batch.new_instances if row.instance_id == instance_id}
        return fresh | ({known} if known is not None else set())

    def run_of(self, instance_id: str) -> RunRecord | None:
        number = self.current.get(instance_id)
        return self.runs[number] if number is not None else None

    def runs_of(self, instance_id: str) -> list[RunRecord]:
        """All lives of an id, in order."""
        lives = [run for run in self.runs.values() if run.row.instance_id == instance_id]
        return sorted(lives, key=lambda run: run.row.created_at)

    def note_given_up(self, message_numbers: Iterable[int]) -> None:
        """Record messages that the engine sets aside until a restart: later messages overtake them."""
        self.given_up.update(self.inbox[n].instance_id for n in message_numbers if n in self.inbox)

    def living(self) -> Iterator[RunRecord]:
        """Every run that has neither finished nor been purged."""
        return (run for run in self.orchestrations() if not run.purged and not run.is_finished)

    def orchestrations(self) -> Iterator[RunRecord]:
        """Every run of an orchestration."""
        return (run for run in self.runs.values() if not run.is_entity)

    def entities(self) -> Iterator[RunRecord]:
        """Every entity that is there."""
        return (run for run in self.runs.values() if run.is_entity and not run.purged)

    # ---------------------------------------------------------------------------------------- a commit

    def applied(self, batch: Batch, by: int = 0) -> list[RunRecord]:
        """Record a committed batch of an incarnation. Returns purged runs that had not ended before."""
        self.commits += 1
        self._purged_alive = []
        touched: set[int] = set()
        self._messages_leave(batch)
        for number in batch.purged:
            self._purge(number)
        self._messages_come(batch)
        for row in batch.new_instances:
            self._born(row)
            touched.add(row.instance_no)
        rewound = {row.instance_no for row in batch.history if b'"ExecutionRewound"' in row.events}
        for update in batch.updates:
            if update.instance_no not in batch.purged:
                self._update(update, update.instance_no in rewound)
                touched.add(update.instance_no)
        self._history(batch)
        self._side_rows(batch)
        self._activities(batch, by)
        for number in sorted(touched):
            self._agree(self.runs[number])
        living = (run.row for run in self.runs.values() if not run.purged)
        for what in self.ring.applied(batch, living):
            self.problem("I29", what)
        return self._purged_alive

    def _messages_leave(self, batch: Batch) -> None:
        for number in batch.inbox_held:
            self.inbox[number] = self.inbox[number]._replace(visible_at=None)
            self._held.add(number)
        for number in batch.inbox_removed:
            row = self.inbox.pop(number)
            if number in self._held:
                self._met("messages held and delivered on resume")
                if b'"ActivityResult"' in row.message:
                    self._met("an activity's result held while suspended")

    def _messages_come(self, batch: Batch) -> None:
        for row in batch.inbox_added:
            self.inbox[row.message_no] = row
            if row.visible_at is None:
                self._held.add(row.message_no)
                if b'"EntityOperation"' in row.message:
                    self._met("an operation that waited for its entity")
                elif b'"LockRequest"' in row.message:
                    self._met("a lock that was waited for")
            elif b'"EntityOperation"' in row.message and b'"visible_at"' in row.message:
                self._met("a delayed signal")
            if b'"Result"' in row.message or b'"ChildResult"' in row.message or b'"parent"' in row.message:
                if row.visible_at is not None:
                    self._met("a batch cut in a cascade, leaving inbox rows")
            if b'"Request"' in row.message:
                self._request(row)
            if b'"NextGeneration"' in row.message and isinstance(decode_message(row.message), NextGeneration):
                self._met("a next generation deferred")
        for seen in batch.seen:
            self.seen.add(self.named.get(seen.operation_id, seen.operation_id))
            if seen.operation_id in self.asked:
                self.asked[seen.operation_id].answers += 1
        self.dropped.extend(batch.dropped)
        self.dropped_in.extend([self.commits] * len(batch.dropped))
        if batch.dropped:
            self._met("an event dropped, with a record")

    def _request(self, row: InboxRow) -> None:
        request = decode_message(row.message)
        if isinstance(request, Request):
            message = decode_message(request.body)
            carried = bytes(getattr(message, "input", b"")).decode().strip('"')
            operation_id = getattr(message, "operation_id", "")
            self.asked[request.request_id] = AskedRequest(
                request.asker, request.asked_at, carried, operation_id
            )
            self.requested.add(operation_id)

    def _purge(self, number: int) -> None:
        run = self.runs.get(number)
        if run is None:
            return  # born and purged in one batch
        run.purged = True
        run.waits.clear()
        self.placed = {key: row for key, row in self.placed.items() if row.instance_id != run.row.instance_id}
        if self.current.get(run.row.instance_id) == number:
            del self.current[run.row.instance_id]
        if not run.is_finished and not run.is_entity:
            self._purged_alive.append(run)

    def _born(self, row: InstanceRow) -> None:
        if row.instance_id in self.current:
            self.problem("I12", f"a second instance {row.instance_id!r} was created beside the first")
        if self.runs_of(row.instance_id):
            before = self.runs_of(row.instance_id)[-1]
            if before.is_finished:
                self._met("a finished instance replaced")
            if before.is_finished and row.parent_id is not None:
                self._met("a finished instance replaced by a child")
        if row.instance_no in self.runs:  # purged, and the number was free again when the store was opened
            self.runs[-len(self.runs)] = self.runs.pop(row.instance_no)
        self.runs[row.instance_no] = run = RunRecord(row)
        self.ring.born(row)
        if run.is_finished:
            run.finished_in = self.commits
        self.current[row.instance_id] = row.instance_no

    def _update(self, update: InstanceUpdate, was_rewound: bool) -> None:
        run = self.runs[update.instance_no]
        before = run.row
        if run.is_finished and not (was_rewound and before.status == "Failed"):
            self.problem("I4", f"{run} was changed after it had {before.status.lower()}: {update}")
        if update.execution_no < before.execution_no:
            self.problem("I1", f"{run} went back from execution {before.execution_no}")
        if update.replays < before.replays:
            self.problem("I1", f"{run} went back from {before.replays} replays to {update.replays}")
        if update.updated_at < before.updated_at:
            self.problem("time", f"{run}: its time went back by {before.updated_at - update.updated_at} us")
        if update.due_at is not None and update.local_work:
            self._met("a timer behind a local activity")
        if update.status == "Terminated" and before.status == "Suspended":
            self._met("an instance terminated while suspended")
        if update.reason.startswith("poison: the store rejected") and self.refused_several:
            self._met("a culprit isolated by halves")
        run.row = before._replace(**update._asdict())
        self.ring.moved(before, run.row)
        if run.is_finished:
            run.finished_in = self.commits

    # ---------------------------------------------------------------------------------------- histories

    def _history(self, batch: Batch) -> None:
        bodies: dict[tuple[int, int, int], dict[int, bytes]] = {}
        for number, execution_no, episode, no, body in batch.bodies:
            bodies.setdefault((number, execution_no, episode), {})[no] = body
        if bodies:
            self._met("a large body out of line")
        for row in batch.history:
            if row.instance_no in self.runs:
                self._append(self.runs[row.instance_no], row, bodies.get(row[:3], {}))

    def _append(self, run: RunRecord, row: HistoryRow, bodies: dict[int, bytes]) -> None:
        past = run.executions.setdefault(row.execution_no, Past())
        if row.episode != len(past.rows):
            self.problem("I1", f"{run}: episode {row.episode} where {len(past.rows)} was due")
        before = past.rows[-1].hash if past.rows else hash_chain.base_of(run.row.salt, row.execution_no)
        digest = hash_chain.digest_of(run.row.salt, row.events)
        if row.digest != digest or row.hash != hash_chain.link(
            before, row.execution_no, row.episode, row.at, digest
        ):
            self.problem("I2", f"{run}: the chain is broken at episode {row.episode}")
        if past.rows and row.at < past.rows[-1].at:
            self.problem("time", f"{run}: episode {row.episode} is earlier than the one before")
        events = inline(ev.decode_events(row.events), bodies)
        past.rows.append(row)
        past.recorded.append((row.at, events))
        execution_id = run.execution_id(row.execution_no)
        rewound = any(isinstance(event, ev.ExecutionRewound) for event in events)
        for event in events:
            self._event(run, past, execution_id, event, row.at, folds=not rewound)
        if rewound:  # events folded one by one may be void now
            past.state = fold(past.recorded)
            past.fold_problems = 0
            self._new_problems(run, past)

    def _event(
        self, run: RunRecord, past: Past, execution_id: str, event: ev.HistoryEvent, at: int, *, folds: bool
    ) -> None:
        match event:
            case ev.ExecutionRewound():
                self._met("a failed instance rewound")
                self.rewound.add(run.row.instance_id)
                for task_id in event.voided:
                    self.completed.pop((execution_id, task_id), None)
            case ev.TaskScheduled():
                self.scheduled[execution_id, event.id] = event
            case ev.TaskCompleted() | ev.TaskFailed():
                self.completed[execution_id, event.task_id] = event
            case ev.TaskCanceled():
                self.cancelled.add((execution_id, event.task_id))
            case ev.SubOrchestrationCreated():
                self.called[execution_id, event.id] = event.instance_id, self.commits
            case ev.SubOrchestrationFailed() if event.failure.type.endswith("InstanceExists"):
                self._taken(run, *self.called[execution_id, event.task_id])
            case ev.TimerFired():
                timer = past.state.timers.get(event.timer_id)
                if timer is not None and at < timer.fire_at:
                    self.problem("I24", f"{run}: timer {event.timer_id} fired {timer.fire_at - at} us early")
            case ev.WaitCanceled() if event.wait_id in past.state.taken:
                self._met("an event taken back from a cancelled wait")
            case ev.ExecutionStarted() if event.carried:
                self._met("an event carried across continue-as-new")
            case ev.ExecutionFailed():
                self._met("an orchestration that failed")
            case ev.EntityOperated() if event.failed:
                self._met("an operation undone because it failed")
        if folds:
            past.state.apply(event, at)
            self._new_problems(run, past)

    def _taken(self, run: RunRecord, child_id: str, since: int) -> None:
        """A child's id was refused: some instance has had it, unfinished, since the call was made (I3)."""
        lives = self.runs_of(child_id)
        if not any(not life.is_finished or life.finished_in >= since for life in lives):
            self.problem(
                "I3", f"{run}: its child {child_id!r} was refused, and whoever had that id had finished"
            )

    def _new_problems(self, run: RunRecord, past: Past) -> None:
        for told in past.state.problems[past.fold_problems :]:
            self.problem("fold", f"{run}, execution {run.row.execution_no}: {told}")
        past.fold_problems = len(past.state.problems)

    # ------------------------------------------------------------------------------------- beside history

    def _side_rows(self, batch: Batch) -> None:
        for number, wait_id in batch.waits_closed:
            waits = self.runs[number].waits if number in self.runs else set()
            if wait_id == ALL_WAITS:
                waits.clear()
            else:
                waits.discard(wait_id)
        for wait in batch.waits_opened:
            if wait.instance_no in self.runs:
                self.runs[wait.instance_no].waits.add(wait.wait_id)
        for move in batch.task_moves:
            self._hold(move)
        for number, status in batch.custom_status:
            if number in self.runs:
                self.runs[number].custom_status = status
        for number, state in batch.entity_states:
            if number in self.runs:
                self._entity(self.runs[number], state)
        for number, below in batch.executions_removed:
            if number in self.runs and below > 1:
                first = min(self.runs[number].executions, default=below)
                if first < below - 1:
                    self._met("several generations in one batch")

    def _hold(self, move: TaskMove) -> None:
        """No task goes from one person to another without being released or assigned in between (P4)."""
        run = self.runs[move.instance_no]
        before = self.held_by.get((move.instance_no, move.wait_id), "")
        if before and move.holder and before != move.holder:
            self.problem("P4", f"{run}: {move.holder} holds a task that {before} has claimed")
        self.held_by[move.instance_no, move.wait_id] = move.holder
        if move.holder:
            self.holders.append((run, move.holder))
            self._met("a task claimed")

    def _entity(self, run: RunRecord, state: bytes) -> None:
        before, after = decode_record(run.entity_state), decode_record(state)
        if before.lock is not None and after.lock is None:
            holder = self.run_of(before.lock.instance_id)
            if holder is None or holder.row.status in ("Terminated", "Failed"):
                self._met("a holder that ended badly left nothing locked")
        if after.applied > before.applied:
            self._met("an operation that ran outside the loop counted")
        run.entity_state = state

    def _agree(self, run: RunRecord) -> None:
        """The row says what history implies (I5)."""
        if run.purged:
            return
        row, past = run.row, run.past
        state = past.state
        if row.episodes != len(past.rows):
            self.problem("I5", f"{run}: the row counts {row.episodes} episodes, there are {len(past.rows)}")
        head = past.rows[-1].hash if past.rows else hash_chain.base_of(row.salt, row.execution_no)
        if row.head != head:
            self.problem("I2", f"{run}: its head is not the hash of its newest row")
        if run.is_entity:
            return
        between = isinstance(state.ending, ev.ContinuedAsNew)
        if not between and row.status != state.status:
            self.problem("I5", f"{run}: the row says {row.status} ({row.reason}), history {state.status}")
        if between and row.status not in ("Running", "Suspended", "Terminated"):
            self.problem("I5", f"{run}: between two generations and {row.status}")
        if between and row.status == "Suspended":
            self._met("suspended between two generations")
        due = state.due_at() if row.status == "Running" and state.ending is None else None
        if row.due_at != due:
            self.problem("I5", f"{run}: the row is due at {row.due_at}, history says {due} ({row.status})")
        open_ones = state.activities if state.ending is None else ()
        if self.shared:
            self._agree_on_work(run, set(open_ones))
        elif bool(row.local_work) != bool(open_ones):
            self.problem("I5", f"{run}: local_work is {row.local_work}, open: {sorted(state.activities)}")
        waits = set(state.waits) if state.ending is None else set()
        if run.waits != waits:
            self.problem("I5", f"{run}: rows of waits {sorted(run.waits)}, history says {sorted(waits)}")

    def _agree_on_work(self, run: RunRecord, open_ones: set[int]) -> None:
        """An open activity without a row runs at its owner."""
        execution_id = run.execution_id(run.row.execution_no)
        local = {task_id for task_id in open_ones if (execution_id, task_id) not in self.placed}
        if (local and not run.row.local_work) or (run.row.local_work and not open_ones):
            self.problem(
                "I5", f"{run}: local_work is {run.row.local_work}, open: {open_ones}, of those here: {local}"
            )

    def results_under_way(self, instance_id: str, execution_id: str) -> set[int]:
        """Activities of an execution whose results are in the inbox."""
        messages = (
            decode_message(row.message)
            for row in self.inbox.values()
            if row.instance_id == instance_id and b'"ActivityResult"' in row.message
        )
        return {
            message.task_id
            for message in messages
            if isinstance(message, ActivityResult) and message.execution_id == execution_id
        }

    # ------------------------------------------------------------------------ activities among several workers

    def _activities(self, batch: Batch, by: int) -> None:
        for instance_id, execution_id, task_id in batch.activities_removed:
            for key in [key for key, row in self.placed.items() if row.instance_id == instance_id]:
                if key[0] == execution_id and task_id in (key[1], ALL_TASKS):
                    del self.placed[key]
        for row in batch.activities_placed:
            key = row.execution_id, row.task_id
            if key in self.placed:
                self.problem("I19", f"activity {key} of {row.instance_id} was placed twice")
            self.placed[key] = Placed(row.instance_id, row.name, row.pool, row.attempt, row.incarnation)
        for result in batch.results:
            key = result.execution_id, result.task_id
            found = self.placed.get(key)
            if found is None or (found.attempt, found.claimant) != (result.attempt, by):
                self.late_results += 1
                self._met("a late result dropped")
                continue
            found.claimant = ANSWERED
            self.inbox[result.message_no] = InboxRow(
                result.message_no, result.instance_id, batch.at, result.message
            )
            self._met("a result handed in from another worker")

    def claimed(self, key: Key, attempt: int, by: int) -> None:
        """Record a claim (I20): the activity must be unclaimed, and each claim is counted."""
        found = self.placed.get(key)
        if found is None:
            self.problem("I20", f"activity {key} was claimed and has no row")
            return
        if found.claimant is not None:
            self.problem("I20", f"activity {key} was claimed by {by} while {found.claimant} had it")
        if attempt <= found.attempt:
            self.problem("I20", f"activity {key} was claimed as attempt {attempt}, after {found.attempt}")
        if found.attempt:
            self._met("a claim lost with its worker, and claimed again")
        if found.pool:
            self._met("an activity of a named pool claimed")
        elif not found.attempt:
            self._met("a spilled activity claimed")
        found.attempt, found.claimant = attempt, by

    def unclaimed(self, key: Key, by: int) -> None:
        found = self.placed.get(key)
        if found is not None and found.claimant == by:
            found.claimant = None

    def passed_on(self, incarnation: int, successor: int | None) -> None:
        """An incarnation is void: its claims are its successor's, or free."""
        for row in self.placed.values():
            if row.claimant == incarnation:
                row.claimant = successor

    # ---------------------------------------------------------------------------------------- effects

    def begun(self, instance_id: str, execution_id: str, task_id: int, *, stale: bool = False) -> None:
        """An activity was started: only after the commit that scheduled it, and not when it is done (I17).

        A worker that is void and does not know it yet may do so all the same.
        """
        key = (execution_id, task_id)
        self.started.add(key)
        if stale and (key in self.completed or key in self.cancelled):
            self._met("a body of a stale worker ran for nothing")
        elif key in self.completed:
            self.problem("I19", f"activity {task_id} of {instance_id} was started after its completion")
        elif key in self.cancelled:
            self.problem("I19", f"activity {task_id} of {instance_id} was started after it was cancelled")
        elif not stale and self.shared and task_id in self.results_under_way(instance_id, execution_id):
            self.problem(
                "I19", f"activity {task_id} of {instance_id} was started with its result in the inbox"
            )
        if key not in self.scheduled and not self._was_erased(instance_id, execution_id):
            self.problem("I17", f"activity {task_id} of {instance_id} ({execution_id}) has left no history")

    def _was_erased(self, instance_id: str, execution_id: str) -> bool:
        """Continued as new, or replaced, in the very batch that scheduled something."""
        salt, _, number = execution_id.rpartition("-")
        run = self.run_of(instance_id)
        if run is None:
            return any(other.purged for other in self.runs_of(instance_id))
        return run.row.salt[:4].hex() != salt or run.row.execution_no > int(number)

    def ran(self, body: Ran) -> None:
        self.bodies.append(body)
