"""Memory, SQLite, PostgreSQL and a log accept, refuse and return the same, whatever is committed.

Batches are made of few numbers, ids and names, so that they meet: about half are refused for one reason or
another. After each one everything that can be asked is asked of both stores.
The second half does the same with two workers of one hub.
"""

import tempfile
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from perdure.errors import PerdureError
from perdure.model.records import (
    ANSWERED,
    ActivityRow,
    AuditFilter,
    Batch,
    BodyRow,
    DroppedRow,
    InboxRow,
    InstanceFilter,
    ResultRow,
    SeenRow,
    WaitRow,
)
from perdure.store.log.appending import Patience
from perdure.store.log.copying import write_copy
from perdure.store.log.memory import MemoryService
from perdure.store.log.store import LogStore
from perdure.store.memory import MemoryStore
from perdure.store.port import Opening, Store
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import audit, episode, instance, key, update_of
from perdure.testing.shared_store_suite import HOUR, MOMENT, profile
from tests.store.conftest import Place
from tests.store.log.rig import contents, unlucky

NUMBERS = st.integers(1, 4)
MESSAGES = st.integers(1, 5)
IDS = st.sampled_from(["a", "b", "claim-1"])
SMALL = st.integers(0, 2)
LATER = 30  # than any batch
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
        "replays": draw(SMALL),
        "replay_reason": draw(st.sampled_from(["", "restart", "evicted"])),
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
    lambda op, name, at: SeenRow(op, name, b"1", at),
    st.sampled_from("pq"),
    IDS,
    st.one_of(st.integers(1, 20), st.just(LATER)),
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
AUDITS = [AuditFilter(), AuditFilter(who="a", top=2), AuditFilter(since=1)]


def as_time_goes_on(batches: Sequence[Batch]) -> list[Batch]:
    """No batch before the one before it: what had expired then may be forgotten."""
    latest = accumulate((batch.at for batch in batches), max)
    return [replace(batch, at=at) for batch, at in zip(batches, latest, strict=True)]


def outcome(store: Store, batch: Batch) -> str:
    try:
        store.commit(batch)
    except PerdureError as error:
        return type(error).__name__
    return "committed"


def everything(store: Store) -> dict[str, Any]:
    """All that the port can be asked. When what has expired is forgotten is each store's own affair."""
    ids, numbers = ["claim-1", "a", "b"], [1, 2, 3, 4]
    rows = store.query(InstanceFilter())
    return {
        "load": store.load(ids),
        "get": [store.get(name, history=True) for name in ids],
        "seen": [row for row in store.seen(["p", "q"]) if row.expires_at == LATER],
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
        "audit": [[row for _, row in store.audit(wanted)] for wanted in AUDITS],
        "answered": [row for name in "pq" if (row := store.answered(name)) and row.expires_at == LATER],
        "history_of": [store.history_of(number, 1) for number in numbers],
    }


def same(memory: Store, other: Store, batches: list[Batch]) -> None:
    assert memory.open() == other.open()
    try:
        for batch in as_time_goes_on(batches):
            assert outcome(memory, batch) == outcome(other, batch)
            assert everything(memory) == everything(other)
        assert memory.reopen() == other.reopen()
        assert everything(memory) == everything(other)
    finally:
        other.close_reader()
        other.close()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BATCHES, min_size=1, max_size=8))
def test_memory_and_sqlite_accept_refuse_and_return_the_same(batches: list[Batch]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        same(MemoryStore("claims"), SqliteStore(str(Path(directory) / "p.db"), "claims"), batches)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BATCHES, min_size=1, max_size=8), st.integers(0, 9))
def test_memory_and_a_log_accept_refuse_and_return_the_same(batches: list[Batch], seed: int) -> None:
    """Also where a third of the requests to the log goes astray; and a copy from the log has the same rows."""
    with tempfile.TemporaryDirectory() as directory:
        service = MemoryService(faults=unlucky(seed))
        patience = Patience(60.0, lambda: 0.0, lambda _: None)
        store = LogStore(service, "claims", directory=directory, patience=patience)
        same(MemoryStore("claims"), store, batches)
        copy = str(Path(directory) / "copy.db")
        write_copy(service, "claims", copy, patience=patience)
        assert contents(store.location) == contents(copy)


@settings(
    max_examples=50,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.lists(BATCHES, min_size=1, max_size=8))
def test_memory_and_postgres_accept_refuse_and_return_the_same(
    newest_place: Place, batches: list[Batch]
) -> None:
    same(MemoryStore("claims"), newest_place.another().store(), batches)


# ------------------------------------------------------------------------------------------ two workers of a hub

EXECUTIONS = st.sampled_from(["aa-0", "bb-1"])
KEYS = st.tuples(IDS, EXECUTIONS, SMALL)
KEYS_IN_ORDER = [(i, e, t) for t in range(3) for e in ("aa-0", "bb-1") for i in ("a", "b", "claim-1")]
PLACED = st.builds(  # no two at one moment: which of equals is claimed first is each store's own affair
    lambda key, pool, name: ActivityRow(*key, pool, name, KEYS_IN_ORDER.index(key), 0, None, b"{}"),
    KEYS,
    st.sampled_from(["", "gpu"]),
    st.sampled_from("fg"),
)
REMOVED = st.builds(lambda key, whole: (*key[:2], -1) if whole else key, KEYS, st.booleans())
RESULTS = st.builds(lambda key, attempt, no: ResultRow(*key, attempt, no, b"1"), KEYS, SMALL, MESSAGES)
SHARED_BATCHES = st.builds(
    Batch,
    at=st.integers(0, 20),
    new_instances=few(INSTANCES),
    updates=few(UPDATES),
    inbox_added=few(INBOX),
    inbox_removed=few(MESSAGES),
    seen=few(SEEN),
    purged=few(NUMBERS),
    activities_placed=few(PLACED),
    activities_removed=few(REMOVED),
    results=few(RESULTS),
    partitions_released=few(st.integers(0, 31)),
)
PARTS = st.lists(st.integers(0, 33), max_size=20)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(
            st.tuples(st.just("commit"), SHARED_BATCHES),
            st.tuples(st.just("take"), PARTS),
            st.tuples(st.just("claim"), st.integers(1, 3)),
            st.tuples(st.sampled_from(["void", "reopen", "renew", "drain"]), st.none()),
        ),
    ),
    min_size=2,
    max_size=12,
)


class Pair:
    """Two workers of a hub, one of which has a lease that is over at once. Incarnations count from 1."""

    def __init__(self, *stores: Any) -> None:
        self.stores = stores
        self.known: dict[int | None, int | None] = {None: None, ANSWERED: ANSWERED}
        self.now: list[int] = []
        for store, lease in zip(stores, (MOMENT, HOUR), strict=True):
            store.register(profile("w", lease))
            self.now.append(0)
            self.opened(store.open())

    def opened(self, opening: Opening) -> Any:
        self.known[opening.incarnation] = len(self.known) - 1
        self.now[(len(self.known) - 3) if len(self.known) < 5 else self.who] = opening.incarnation
        return sorted(opening.owned)

    def done(self, who: int, step: str, given: Any) -> Any:
        """What comes of a step, in words that are the same for all stores."""
        store, self.who = self.stores[who], who
        try:
            match step:
                case "commit":
                    store.commit(given)
                    return store.late_results
                case "take":
                    return store.take(given)
                case "claim":
                    return [
                        (*row[:7], self.known[row.incarnation])
                        for row in store.claim(["", "gpu"], ["f"], given)
                    ]
                case "void":
                    return store.void(self.now[1 - who])
                case "reopen":
                    return self.opened(store.reopen())
                case _:
                    return getattr(store, step)()
        except PerdureError as error:
            return type(error).__name__

    def state(self) -> Any:
        ids, numbers = ["claim-1", "a", "b"], [1, 2, 3, 4]
        one = self.stores[0]
        return {
            "census": [
                *((row.state, self.known[row.incarnation]) for row in one.census().workers),
                *((row.partition, row.epoch, self.known[row.incarnation]) for row in one.census().partitions),
            ],
            "placed": [(*row[:7], self.known[row.incarnation]) for row in one.placed(ids)],
            "rows": one.query(InstanceFilter()),
            "polled": [store.poll(4, 5, 9) for store in self.stores if self.lives(store)],
            "local": [store.local_work(0, 9) for store in self.stores if self.lives(store)],
            "load": one.load(ids),
            "waits": one.waits(numbers),
        }

    def lives(self, store: Any) -> bool:
        mine = self.now[self.stores.index(store)]
        return any(row.incarnation == mine for row in store.census().workers)


@settings(
    max_examples=60,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(STEPS)
def test_workers_in_memory_and_in_postgres_fare_the_same(
    newest_place: Place, steps: list[tuple[int, Any]]
) -> None:
    memory, there = MemoryStore("claims"), newest_place.another()
    stores = there.store(), there.store()
    try:
        one, other = Pair(memory, memory.beside()), Pair(*stores)
        batches = iter(as_time_goes_on([given_ for _, (step, given_) in steps if step == "commit"]))
        for who, (step, given_) in steps:
            what = next(batches) if step == "commit" else given_
            assert one.done(who, step, what) == other.done(who, step, what)
            assert one.state() == other.state()
    finally:
        for store in stores:
            store.close()
