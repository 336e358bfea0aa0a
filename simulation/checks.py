"""The final checks: clients' answers, results and remaining rows against the ledger."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from perdure.model import events as ev
from perdure.model.failures import MESSAGE_LIMIT
from simulation.entity_checks import Registers
from simulation.history_checks import check_history
from simulation.interpreter import AGAIN
from simulation.ledger import RunRecord
from simulation.log import LogBackend
from simulation.people_checks import check_people
from simulation.program import Body, Every, Monitor, steps_of, waits_of
from simulation.reference import Reference, Unexpected, last_status
from simulation.replay_checks import check_replays
from simulation.span_checks import check_spans

if TYPE_CHECKING:
    from simulation.clients import Dealing
    from simulation.world import World

DROPS = (
    "the instance ended before its next execution began",
    "without taking it",
    "without its events",
    "was terminated",
    "the instance has",
    "accepts no more events",
    "no instance ",
)
TOPS = frozenset({"i0", "i1", "i2"})  # ids of other instances: a child with one may be rejected
OVERFLOW = "already keeps"  # accepted while no owner was there, and no room when there was
NOT_DONE = ("StoreFull", "CommitRefused")
IN_DOUBT = ("OutcomeUnknown", "EngineStopped", "CommitConflict")
CREATED = frozenset({"start", "restart"})


class FinalChecks:
    """Checks a world at rest. Every finding goes to the ledger's problems."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger = world.ledger
        self._met = world.met
        verbs = {order.verb for client in world.plan.clients for order in client.orders}
        self._ended = {d.target for d in world.dealings if d.order.verb.startswith("terminate")}
        self._reference = Reference(
            world.plan.program,
            children_may_end=bool(verbs & {"terminate", "terminate-child"}),
            operations_may=world.may_interrupt,
        )
        self._consumed: dict[str, list[tuple[RunRecord, list[tuple[str, int]]]]] = {}

    def reach(self) -> None:
        """All checks, cheap and telling ones first."""
        for run in self._ledger.orchestrations():
            self._outcome(run)
            check_history(self._world, run)
        self._starts()
        self._events()
        check_people(self._world)
        self._activities()
        self._children()
        self._remains()
        Registers(self._world).judge()
        if self._world.database is not None:
            self._world.database.ownership.rest()
        if not self._ledger.problems:
            for run in self._ledger.orchestrations():
                check_replays(self._world, run)
        if not self._ledger.problems:
            check_spans(self._world)

    def _bad(self, code: str, text: str) -> None:
        self._ledger.problem(code, text)

    # ------------------------------------------------------------------------------------------- outcomes

    def _outcome(self, run: RunRecord) -> None:
        """The answer is one that the program may give (the generator knows which)."""
        ending = run.past.state.ending
        number = int(run.row.name.removeprefix("body"))
        events: list[tuple[str, int]] = []
        try:
            if isinstance(ending, ev.ExecutionCompleted):
                events = self._reference.judge(number, json.loads(bytes(ending.output)), failed=False)
            elif isinstance(ending, ev.ExecutionFailed):
                if ending.failure.type != "RuntimeError":
                    raise Unexpected(f"it failed with {ending.failure}\n{ending.failure.stack}")
                if ending.failure.cause is not None:
                    raise Unexpected(f"its failure is said to have a cause: {ending.failure.cause}")
                if len(ending.failure.message) < MESSAGE_LIMIT:  # longer ones are cut
                    log = json.loads(ending.failure.message)
                    events = self._reference.judge(number, log, failed=True)
            elif isinstance(ending, ev.ExecutionTerminated):
                self._terminated(run)
            elif not run.purged:
                raise Unexpected(f"its history ends with {ending}")
        except Unexpected as wrong:
            self._bad("outcome", f"{run}, {run.row.name}: {wrong}")
        self._consumed.setdefault(run.row.instance_id, []).append((run, events))
        self._status(run, number, ending)

    def _terminated(self, run: RunRecord) -> None:
        parents = run.row.parent_id
        while parents is not None and parents not in self._ended:
            above = self._ledger.runs_of(parents)
            parents = above[-1].row.parent_id if above else None
        if run.row.instance_id not in self._ended and parents is None:
            raise Unexpected("it was terminated and nobody wanted that")
        if run.row.parent_id is not None and run.row.instance_id not in self._ended:
            self._met("a recursive terminate that reached a child")

    def _status(self, run: RunRecord, number: int, ending: Any) -> None:
        if not isinstance(ending, ev.ExecutionCompleted | ev.ExecutionFailed):
            return
        expected = last_status(self._world.plan.program.bodies[number], None)
        found = None if run.custom_status is None else json.loads(run.custom_status)
        if found != expected:
            self._bad("status", f"{run}: custom status {found}, expected {expected}")

    # ------------------------------------------------------------------------------------ starts and runs

    def _starts(self) -> None:
        """I10 to I12: acknowledged starts exist, refused ones do not, and no operation created two runs."""
        by_operation: Counter[str] = Counter()
        for run in self._ledger.orchestrations():
            started = run.executions[1].state.started if 1 in run.executions else None
            if started is not None and started.operation_id:
                by_operation[started.operation_id] += 1
        for dealing in self._world.dealings:
            self._answers(dealing)
            made = by_operation[dealing.operation_id] if dealing.operation_id else 0
            if made > 1:
                self._bad("I11", f"{dealing.operation_id} created {made} runs")
            if made and self._was_surely_refused(dealing):
                self._bad("I11", f"{dealing.operation_id} was refused and created a run")
        for instance_id in {run.row.instance_id for run in self._ledger.orchestrations()}:
            self._lives(instance_id)

    def _answers(self, dealing: Dealing) -> None:
        """Every answer that an operation with an id got after its first success is the same.

        Among several workers two attempts may be under way at once, and the refusal of one be heard after the success
        of the other; an attempt that was sent after a success was heard is answered with it. Over a log,
        that an attempt is in doubt may be heard then: the log may not answer for as long as the engine insists.
        """
        good = [answer for answer in dealing.told if answer.startswith("ok")]
        if dealing.operation_id and len(set(good)) > 1:
            self._bad("I12", f"{dealing.operation_id} was answered {sorted(set(good))}")
        if good and dealing.operation_id and dealing.told.index(good[0]) + len(good) != len(dealing.told):
            first = dealing.told.index(good[0])
            after = zip(dealing.told[first:], dealing.told_to[first:], strict=True)
            sent_after = first if self._ledger.shared else -1
            is_away_for_long = self._ledger.shared or isinstance(self._world.backend, LogBackend)
            passed = (*NOT_DONE, *IN_DOUBT) if is_away_for_long else NOT_DONE
            told_of = self._ledger.shared and self._left_a_record(dealing)
            refused = any(
                not answer.startswith(("ok", *passed)) and dealing.told_before[to - 1] > sent_after
                for answer, to in after
            )
            if refused and not told_of:
                self._bad("I12", f"{dealing.operation_id} was answered {dealing.told}")

    def _was_surely_refused(self, dealing: Dealing) -> bool:
        """Whether a rejection is certain: an abandoned attempt at one worker may take effect after a rejection
        elsewhere.
        """
        surely = dealing.attempts == 1 or not self._ledger.shared
        return surely and dealing.outcome == "refused" and not dealing.was_accepted

    def _left_a_record(self, dealing: Dealing) -> bool:
        """Accepted while no owner was there, and refused by it afterwards, for all to see."""
        on_record = any(row.operation_id == dealing.operation_id for row in self._ledger.dropped)
        return on_record or dealing.operation_id in self._ledger.refused_late

    def _lives(self, instance_id: str) -> None:
        """An id had no more instances than clients may have started."""
        runs = self._ledger.runs_of(instance_id)
        tops = [run for run in runs if run.row.parent_id is None]
        wanted = [
            d
            for d in self._world.dealings
            if d.order.verb in CREATED and d.attempts and self._aims(d, instance_id)
        ]
        most = sum(1 if d.operation_id else d.attempts for d in wanted)
        if len(tops) > most:
            self._bad("I12", f"{instance_id!r} lived {len(tops)} times, and was started {most} times")
        if len(runs) > 1 and runs[0].purged:
            self._met("an instance purged, and its id used again")

    def _aims(self, dealing: Dealing, instance_id: str) -> bool:
        if dealing.order.verb == "restart" and dealing.order.new_id:
            return instance_id.startswith(f"{dealing.order.target}+{dealing.order.key}.")
        return dealing.order.target == instance_id

    # ---------------------------------------------------------------------------------------------- events

    def _events(self) -> None:
        """I13 to I15: each accepted event is in exactly one place, and they were taken in order."""
        dropped: Counter[int] = Counter()
        # A failed instance records its untaken events; rewound and failed again, it records them again.
        noted: set[tuple[str, int]] = set()
        for row in self._ledger.dropped:
            if row.kind == "event" and row.instance_id in self._ledger.rewound:
                if (row.instance_id, int(row.body)) in noted:
                    continue
                noted.add((row.instance_id, int(row.body)))
            if row.kind != "event":
                continue
            dropped[int(row.body)] += 1
            if row.name == "panel":
                continue  # an answer that does not count is on record, with many reasons
            drops = (*DROPS, OVERFLOW) if self._ledger.shared else DROPS
            if not any(why in row.reason for why in drops):
                self._bad("I13", f"event {int(row.body)} to {row.instance_id!r} was dropped: {row.reason}")
        taken: Counter[int] = Counter()
        for lives in self._consumed.values():
            for _, events in lives:
                taken.update(n for _, n in events)
        for dealing in self._world.dealings:
            if dealing.order.verb == "raise":
                self._event(dealing, taken[dealing.order.key], dropped[dealing.order.key])
        for lives in self._consumed.values():
            for run, events in lives:
                self._order(run, events)

    def _event(self, dealing: Dealing, taken: int, dropped: int) -> None:
        key, target = dealing.order.key, dealing.target
        shared = self._ledger.shared  # each request for it may have left a record of its own
        if taken > 1 or (taken + dropped > 1 and not shared):
            self._bad("I14", f"event {key} to {target!r} was taken {taken} times and dropped {dropped} times")
        if not dealing.was_accepted:
            if self._was_surely_refused(dealing) and (taken or (dropped and not shared)):
                self._bad("I13", f"event {key} to {target!r} was refused, and yet it is there")
            return
        if taken + dropped or self._is_excused(dealing):
            return
        self._bad("I13", f"event {key} ({dealing.order.event}) to {target!r} was accepted and is nowhere")

    def _is_excused(self, dealing: Dealing) -> bool:
        """Where an event may be besides a log and the table of dropped ones."""
        if str(dealing.order.key) in self._ledger.refused_late:
            return True
        for run in self._ledger.runs_of(dealing.target):
            if run.row.status == "Terminated" and dealing.order.key in _known_to(run, self._reference):
                return True
            state = run.past.state
            if run.purged and not isinstance(state.ending, ev.ExecutionCompleted | ev.ExecutionFailed):
                return True  # it ended and was purged in one batch
        return False

    def _order(self, run: RunRecord, events: list[tuple[str, int]]) -> None:
        """One sender, one name: first sent, first taken (senders wait for their answers), and none passed over."""
        if run.row.instance_id in self._ledger.given_up:
            return
        last: dict[str, int] = {}
        overlapping = self._overlapping() if self._ledger.shared else set()
        events = [(name, key) for name, key in events if key not in overlapping]
        given_up = _given_up(self._world.plan.program.bodies[int(run.row.name.removeprefix("body"))])
        for name, key in events:
            if key < last.get(name, -1) and name not in given_up:
                self._bad("I15", f"{run} took event {key} ({name}) after event {last[name]}")
            last[name] = key
        for row, commit in zip(self._ledger.dropped, self._ledger.dropped_in, strict=True):
            if row.kind != "event" or int(row.body) in overlapping:
                continue
            passed = int(row.body) < last.get(row.name, -1) and row.name not in given_up
            if passed and "without taking it" in row.reason and commit == run.finished_in:
                if row.instance_id == run.row.instance_id:
                    self._bad("I15", f"{run} took event {last[row.name]} and never {int(row.body)} before it")

    def _overlapping(self) -> set[int]:
        """Events that were not yet committed when the next one was sent, perhaps to another worker."""
        return {dealing.order.key for dealing in self._world.dealings if dealing.outcome != "ok"}

    # ------------------------------------------------------------------------------------------ activities

    def _activities(self) -> None:
        """I19, I20: a body ran before its completion, and its result was applied."""
        answers: dict[tuple[str, int], set[bytes | None]] = {}
        for body in self._ledger.bodies:
            answers.setdefault((body.execution_id, body.task_id), set()).add(body.answer)
            if body.idempotency_key not in self._keys_of(body.execution_id, body.task_id, body.instance_id):
                self._bad("A5", f"{body} bears another key than its logical call")
        for key, event in self._ledger.completed.items():
            result = bytes(event.result) if isinstance(event, ev.TaskCompleted) else None
            if result not in answers.get(key, ()):
                self._bad("I19", f"activity {key} completed with {result!r}; bodies gave {answers.get(key)}")

    def _keys_of(self, execution_id: str, task_id: int, instance_id: str) -> tuple[str, ...]:
        """The key it must bear; any, when continue-as-new deleted its history in the batch that scheduled it."""
        scheduled = self._ledger.scheduled.get((execution_id, task_id))
        if scheduled is None:
            return tuple(f"{instance_id}:{execution_id}:{n}" for n in range(task_id + 1))
        return (f"{instance_id}:{execution_id}:{task_id if scheduled.call < 0 else scheduled.call}",)

    # -------------------------------------------------------------------------------------------- children

    def _children(self) -> None:
        """I25: one child for each call, unless its id was taken; and no child without its call."""
        made: Counter[tuple[str, int]] = Counter()
        for run in self._ledger.orchestrations():
            if run.row.parent_execution is not None:
                made[run.row.parent_execution, run.row.parent_task or 0] += 1
        asked: set[tuple[str, int]] = set()
        for run in self._ledger.orchestrations():
            for number, past in run.executions.items():
                for _, events in past.recorded:
                    asked.update(
                        (run.execution_id(number), event.id)
                        for event in events
                        if isinstance(event, ev.SubOrchestrationCreated)
                        and not _may_be_taken(event.instance_id)
                    )
        for key, count in made.items():
            if count > 1:
                self._bad("I25", f"call {key} has {count} children")
        for key in asked - made.keys():
            self._bad("I25", f"call {key} has no child")

    # --------------------------------------------------------------------------------------------- remains

    def _remains(self) -> None:
        """The store matches the ledger, and has nothing left of finished instances."""
        backend = self._world.backend
        store = backend.store
        if isinstance(backend, LogBackend) and (flaw := backend.flaw()):
            self._bad("log", flaw)
        for number, run in self._ledger.runs.items():
            if run.purged:
                continue
            stored = store.get(run.row.instance_id, history=True)
            if stored is None or stored.row.instance_no != number:
                self._bad("store", f"{run} is not in the store")
                continue
            if stored.row != run.row:
                self._bad("store", f"{run}: the store has {stored.row}, the ledger {run.row}")
            if stored.history != run.past.rows:
                self._bad("store", f"{run}: the store has {len(stored.history)} rows of its history")
            if stored.waits or stored.custom_status != run.custom_status:
                self._bad("store", f"{run}: waits {stored.waits}, custom status {stored.custom_status!r}")
            if stored.entity_state != run.entity_state:
                self._bad("store", f"{run}: the store has its state {stored.entity_state!r}")
            kept = 2 if run.is_entity else self._world.plan.knobs.keep_executions
            if min(store.executions(number), default=1) <= run.row.execution_no - kept:
                self._bad("store", f"{run}: keeps {store.executions(number)}, {kept} should be")


def _known_to(run: RunRecord, reference: Reference) -> set[int]:
    """Events that a terminated run had taken, from its last generation's input and its history."""
    state = run.past.state
    known = {int(bytes(event.input)) for _, _, (_, event) in state.taken.values()}
    started = run.first_started() if state.started is None else state.started
    if started is not None:
        number = int(run.row.name.removeprefix("body"))
        known.update(n for _, n in reference.partial(number, json.loads(bytes(started.input))["log"]))
    return known


def _given_up(body: Body) -> set[str]:
    """Names of events for which a wait stays open that is not looked at: task_all that failed, a monitor."""
    left = (step for step in steps_of(body) if isinstance(step, Every | Monitor))
    return {wait.event for step in left for wait in waits_of(step)}


def _may_be_taken(child_id: str) -> bool:
    """Whether another call or a client may have the id, so that a call is rejected, perhaps after its caller's
    end.
    """
    return child_id in TOPS or AGAIN in child_id
