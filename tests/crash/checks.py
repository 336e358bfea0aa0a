"""What must hold of a world at rest, whatever went wrong on the way: the invariants of `reliability.md` 2.

`verify` reads the store and the witness and raises AssertionError with the invariant's number.
`picture` is what the outside can tell of a run: two runs of one scenario must give equal pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from perdure.engine.client.status import Detail, recorded_events, status_of
from perdure.engine.interrupting import put_away
from perdure.engine.upkeep import verification
from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.instances import FINISHED, RuntimeStatus, execution_id_of
from perdure.model.messages import RaiseEvent, decode_message
from perdure.model.records import InstanceFilter, InstanceRow, StoredInstance
from perdure.replay.decide import Execution
from perdure.replay.environment import Identity
from perdure.replay.state import State, fold
from tests.crash.world import World, functions_of

Episodes = list[tuple[int, list[ev.HistoryEvent]]]


def picture(world: World) -> dict[str, Any]:
    """Instances with status and result, answers to clients, logical calls of activities, dropped messages."""
    store = world.inner
    instances = []
    for row in rows_of(world):
        status = status_of(store, row.instance_id, Detail(input=True))
        assert status is not None
        shown = status.output if status.failure is None else status.failure.message
        custom, state = status.custom_status, status.runtime_status.value
        instances.append(
            (plain(row.instance_id), row.name, state, plain(repr((shown, custom, status.input))))
        )
    logical = {ran.key: ran for ran in world.witness if ran.name != "idle"}
    calls = Counter((plain(ran.instance_id), ran.name) for ran in logical.values())
    dropped = [(plain(d.instance_id), d.kind, d.name, d.operation_id) for d in store.dropped(None, 1_000)]
    return {
        "instances": sorted(instances),
        "answers": sorted(world.answers),
        "logical calls": sorted(calls.items()),
        "dropped": sorted(dropped),
    }


def plain(text: str) -> str:
    """Without what differs from run to run: the execution id in the derived id of a child."""
    return re.sub(r"[0-9a-f]{8}-(\d+)", r"x-\1", text)


def rows_of(world: World) -> list[InstanceRow]:
    return world.inner.query(InstanceFilter(top=1_000))


def verify(world: World) -> None:
    """Everything below, for every instance and every execution that is kept."""
    raised: Counter[str] = Counter()
    keys: dict[tuple[str, str], set[str]] = {}
    for row in rows_of(world):
        for execution_no in world.inner.executions(row.instance_no):
            stored = world.inner.history_of(row.instance_no, execution_no)
            assert stored is not None
            episodes = recorded_events(stored)
            state = _verify_execution(world, row, execution_no, stored, episodes)
            raised.update(e.operation_id for e in _all(episodes) if isinstance(e, ev.EventRaised))
            if execution_no == row.execution_no:
                _verify_row(world, row, stored, state)
    if world.limits.keep_executions > 1:
        _verify_events(world, raised)
    _verify_inbox(world)
    assert not verification.verify(world.inner).problems
    for ran in world.witness:
        keys.setdefault((ran.instance_id, ran.key), set()).add(ran.name)
    assert all(len(names) == 1 for names in keys.values()), f"one key, several calls: {keys}"


def _verify_execution(
    world: World, row: InstanceRow, execution_no: int, stored: StoredInstance, episodes: Episodes
) -> State:
    name = f"{row.instance_id} execution {execution_no}"
    assert [r.episode for r in stored.history] == list(range(len(stored.history))), f"I1: gaps in {name}"
    head = hash_chain.base_of(row.salt, execution_no)
    for r in stored.history:
        assert r.digest == hash_chain.digest_of(row.salt, r.events), f"I2: {name} was changed"
        head = hash_chain.link(head, execution_no, r.episode, r.at, r.digest)
        assert r.hash == head, f"I2: the chain of {name} is broken"
    times = [r.at for r in stored.history]
    assert times == sorted(times), f"time went back in {name}"
    state = fold(episodes)
    assert not state.problems, f"{name}: {state.problems}"
    _verify_timers(name, episodes)
    _verify_results(world, row, execution_no, episodes)
    _replay(world, row, execution_no, episodes)
    return state


def _verify_timers(name: str, episodes: Episodes) -> None:
    fires = {e.id: e.fire_at for e in _all(episodes) if isinstance(e, ev.TimerCreated)}
    for at, events in episodes:
        for event in events:
            if isinstance(event, ev.TimerFired):
                assert at >= fires[event.timer_id], f"I24: a timer of {name} fired early"


def _verify_results(world: World, row: InstanceRow, execution_no: int, episodes: Episodes) -> None:
    """I19: every recorded result is one that a body returned for this very task."""
    execution_id = execution_id_of(row.salt, execution_no)
    returned: dict[tuple[str, int], set[bytes]] = {}
    for ran in world.witness:
        returned.setdefault(ran.task, set()).add(ran.result)
    for event in _all(episodes):
        if isinstance(event, ev.TaskCompleted):
            assert bytes(event.result) in returned.get((execution_id, event.task_id), ()), (
                f"I19: nobody returned the result of task {event.task_id} of {row.instance_id}"
            )


def _replay(world: World, row: InstanceRow, execution_no: int, episodes: Episodes) -> None:
    """I7: the code does again what history says, with the whole of it and with each beginning."""
    functions = functions_of(world.app)
    entry = functions.orchestrator(row.name)
    assert entry is not None
    for length in range(1, len(episodes) + 1):
        identity = Identity(
            row.instance_id, execution_id_of(row.salt, execution_no), row.parent_id, row.version
        )
        execution = Execution(entry.code, identity, functions.environment)
        execution.replay(episodes[:length])
        put_away(execution)


def _verify_row(world: World, row: InstanceRow, stored: StoredInstance, state: State) -> None:
    """I5: the row says what history says."""
    name = row.instance_id
    assert row.episodes == len(stored.history), (
        f"I1: {name} has {row.episodes} and {len(stored.history)} rows"
    )
    if stored.history:
        assert row.head == stored.history[-1].hash, f"I2: the row of {name} has another head"
    assert row.status == state.status.value, f"I5: {name} is {row.status}, its history says {state.status}"
    finished = RuntimeStatus(row.status) in FINISHED
    assert (row.completed_at is not None) == finished
    due = state.due_at() if row.status == "Running" else None
    assert row.due_at == due, f"I5: {name} is due at {row.due_at}, by its history at {due}"
    open_here = bool(state.activities) and not finished
    assert bool(row.local_work) == open_here, f"I5: {name} local_work {row.local_work}, open: {open_here}"
    waits = {(wait.wait_id, wait.name) for wait in world.inner.waits([row.instance_no])}
    expected = set() if finished else {(w.id, w.name) for w, _ in state.waits.values()}
    assert waits == expected, f"I5: {name} has wait rows {waits}, its history says {expected}"


def _verify_events(world: World, raised: Counter[str]) -> None:
    """I13, I14: an accepted event stands in history once, or waits, or was dropped with a reason."""
    there = {row.instance_id for row in rows_of(world)}
    dropped = Counter(d.operation_id for d in world.inner.dropped(None, 1_000) if d.kind == "event")
    waiting = Counter(_operation(row.message) for i in there for row in world.inner.load([i])[0].held)
    waiting.update(_operation(row.message) for row in world.inner.poll(2**62, 2**62, 1_000).messages)
    for operation, instance_id in world.events.items():
        if instance_id not in there or operation not in world.accepted:
            continue
        places = raised[operation], waiting[operation], dropped[operation]
        assert max(places) == 1, f"I13: {operation} is raised, waiting, dropped {places} times"
        assert raised[operation] + waiting[operation] <= 1, f"I14: {operation} {places}"


def _operation(message: bytes) -> str:
    decoded = decode_message(message)
    return decoded.operation_id if isinstance(decoded, RaiseEvent) else ""


def _verify_inbox(world: World) -> None:
    """At rest nothing is on its way, and what is held is held for somebody."""
    rows = {row.instance_id: row for row in rows_of(world)}
    for message in world.inner.poll(2**62, 2**62, 1_000).messages:
        row = rows.get(message.instance_id)
        assert row is not None and row.status == "Pending", f"left in the inbox: {message}"
    for instance_id, row in rows.items():
        held = world.inner.load([instance_id])[0].held
        assert not held or row.status in ("Suspended", "Pending"), f"held for {instance_id}: {held}"


def _all(episodes: Episodes) -> list[ev.HistoryEvent]:
    return [event for _, events in episodes for event in events]
