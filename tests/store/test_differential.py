"""Memory and SQLite accept, refuse and return the same, whatever is committed.

Batches are made of few numbers, ids and names, so that they meet: about half are refused for one reason or
another. After each one everything that can be asked is asked of both stores.
"""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.errors import PerdureError
from perdure.model.records import (
    AuditFilter,
    Batch,
    BodyRow,
    DroppedRow,
    InboxRow,
    InstanceFilter,
    SeenRow,
    WaitRow,
)
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import audit, episode, instance, key, update_of

NUMBERS = st.integers(1, 4)
MESSAGES = st.integers(1, 5)
IDS = st.sampled_from(["a", "b", "claim-1"])
SMALL = st.integers(0, 2)
WHEN = st.one_of(st.none(), st.integers(0, 9))
STATES = st.sampled_from(
    [
        ("Running", "", None),
        ("Pending", "no_worker", None),
        ("Suspended", "nondeterminism: x", None),
        ("Suspended", "operator", None),
        ("Completed", "", 4),
        ("Failed", "", 5),
        ("Terminated", "", 5),
    ]
)


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    status, reason, completed_at = draw(STATES)
    return {
        "status": status,
        "reason": reason,
        "completed_at": completed_at,
        "due_at": draw(WHEN),
        "local_work": draw(st.integers(0, 1)),
        "execution_no": draw(SMALL),
    }


TAGS = st.sampled_from([None, '{"k":"v"}', '{"k":"w","l":"v"}'])
INSTANCES = st.builds(
    lambda no, name, tags, what: instance(no, name, tags=tags, **what), NUMBERS, IDS, TAGS, changes()
)
UPDATES = st.builds(lambda no, what: update_of(instance(no), **what), NUMBERS, changes())
HISTORY = st.builds(lambda no, ep, ex: episode(no, ep, execution_no=ex), NUMBERS, SMALL, SMALL)
BODIES = st.builds(lambda no, ex, ep: BodyRow(no, ex, ep, 0, b"body"), NUMBERS, SMALL, SMALL)
WAITS = st.builds(lambda no, wait: WaitRow(no, wait, "XY"[wait % 2], wait, 0, None), NUMBERS, SMALL)
INBOX = st.builds(lambda no, name, at: InboxRow(no, name, at, b"{}"), MESSAGES, IDS, WHEN)
SEEN = st.builds(
    lambda op, name, at: SeenRow(op, name, b"1", at), st.sampled_from("pq"), IDS, st.integers(1, 20)
)
DROPPED = st.builds(
    lambda name, at: DroppedRow(name, at, "RaiseEvent", "X", "", "gone", b""), IDS, st.integers(0, 9)
)


def few(elements: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.one_of(st.just([]), st.lists(elements, max_size=3))


BATCHES = st.builds(
    Batch,
    at=st.integers(0, 20),
    new_instances=few(INSTANCES),
    updates=few(UPDATES),
    history=few(HISTORY),
    bodies=few(BODIES),
    custom_status=few(st.tuples(NUMBERS, st.sampled_from([b"1", b"2"]))),
    waits_opened=few(WAITS),
    waits_closed=few(st.tuples(NUMBERS, st.integers(-1, 2))),
    inbox_added=few(INBOX),
    inbox_removed=few(MESSAGES),
    inbox_held=few(MESSAGES),
    seen=few(SEEN),
    dropped=few(DROPPED),
    executions_removed=few(st.tuples(NUMBERS, SMALL)),
    purged=few(NUMBERS),
    keys=few(
        st.builds(lambda name, at, off: key(name, at, revoked_at=off), st.sampled_from("kl"), SMALL, WHEN)
    ),
    keys_used=few(st.tuples(st.sampled_from("klm"), SMALL)),
    audit=few(st.builds(audit, SMALL, st.sampled_from("ab"))),
)

FILTERS = [
    InstanceFilter(),
    InstanceFilter(status=("Failed",)),
    InstanceFilter(status=("Suspended", "Pending")),
    InstanceFilter(prefix="claim", tags=(("k", "v"),)),
    InstanceFilter(waiting_for="X", before_no=4),
    InstanceFilter(created_from=1_002, created_to=1_003, top=1),
]
AUDITS = [AuditFilter(), AuditFilter(who="a", top=2), AuditFilter(since=1, before_no=3)]


def outcome(store: Store, batch: Batch) -> str:
    try:
        store.commit(batch)
    except PerdureError as error:
        return type(error).__name__
    return "committed"


def everything(store: Store) -> dict[str, Any]:
    """All that the port can be asked."""
    ids, numbers = ["claim-1", "a", "b"], [1, 2, 3, 4]
    rows = store.query(InstanceFilter())
    return {
        "load": store.load(ids),
        "get": [store.get(name, history=True) for name in ids],
        "seen": store.seen(["p", "q"]),
        "poll": [store.poll(4, 5, limit) for limit in (1, 9)],
        "local_work": store.local_work(1, 2),
        "parked": store.parked(0, 3),
        "query": [store.query(wanted) for wanted in FILTERS],
        "ends": store.ends(rows),
        "waits": store.waits(numbers),
        "custom_status": store.custom_status(numbers),
        "counts": store.counts(),
        "dropped": [store.dropped(None, 4), store.dropped("a", 4)],
        "executions": [store.executions(number) for number in numbers],
        "keys": store.keys(),
        "audit": [store.audit(wanted) for wanted in AUDITS],
        "answered": [store.answered(name) for name in "pq"],
        "history_of": [store.history_of(number, 1) for number in numbers],
    }


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BATCHES, min_size=1, max_size=8))
def test_memory_and_sqlite_accept_refuse_and_return_the_same(batches: list[Batch]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        memory, sqlite = MemoryStore("claims"), SqliteStore(str(Path(directory) / "p.db"), "claims")
        assert memory.open() == sqlite.open()
        try:
            for batch in batches:
                assert outcome(memory, batch) == outcome(sqlite, batch)
                assert everything(memory) == everything(sqlite)
            assert memory.reopen() == sqlite.reopen()
            assert everything(memory) == everything(sqlite)
        finally:
            sqlite.close()
