"""The conformance suite for authors of stores: tests each guarantee of `perdure.store.port`.

Derive a class from `StoreConformance`, implement `make_store`, and let pytest collect it. The module itself
needs only perdure. Each test checks one guarantee and uses one store, opened for it and closed afterwards; no
test sleeps, and times are small invented numbers.

    class TestMyStore(StoreConformance):
        def make_store(self):
            return MyStore("mydb:///conformance", hub="claims")
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from perdure.errors import CommitRefused, FenceLost, StoreError
from perdure.model.events import (
    BodyRef,
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    TaskCompleted,
    encode_events,
)
from perdure.model.hash_chain import digest_of
from perdure.model.human_tasks import role_text
from perdure.model.instances import PARTITIONS, partition_of
from perdure.model.records import (
    AuditFilter,
    AuditRow,
    Batch,
    BodyRow,
    DroppedRow,
    HistoryRow,
    InboxRow,
    InstanceFilter,
    InstanceRow,
    InstanceUpdate,
    KeyRow,
    SeenRow,
    TaskFilter,
    TaskMove,
    TaskUpdate,
    WaitRow,
)
from perdure.store.port import Opening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.store.port import Store

ABOUT_DROPS = (("claim-1", "before"), ("claim-1", "now"), ("claim-2", "another's"))
DAY = 24 * 3600 * 1_000_000


def instance(number: int, instance_id: str = "", **changes: Any) -> InstanceRow:
    """A running orchestration; its id is `claim-<number>` if none is given."""
    instance_id = instance_id or f"claim-{number}"
    row = InstanceRow(
        instance_no=number,
        instance_id=instance_id,
        partition=partition_of(instance_id, PARTITIONS),
        kind="orchestration",
        name="process_claim",
        version="1",
        status="Running",
        reason="",
        execution_no=0,
        episodes=1,
        created_at=1_000 + number,
        updated_at=1_000 + number,
        completed_at=None,
        due_at=None,
        local_work=0,
        parent_id=None,
        parent_execution=None,
        parent_task=None,
        tags=None,
        salt=b"salt%d" % number,
        head=b"head%d" % number,
    )
    return row._replace(**changes)


def update_of(row: InstanceRow, **changes: Any) -> InstanceUpdate:
    """An update with these changes; the other columns stay the same."""
    return InstanceUpdate(**{name: getattr(row, name) for name in InstanceUpdate._fields})._replace(**changes)


def updated(row: InstanceRow, update: InstanceUpdate) -> InstanceRow:
    """The row after an update."""
    return row._replace(**update._asdict())


def episode(number: int, no: int = 0, *, execution_no: int = 0, events: bytes = b"[]") -> HistoryRow:
    """A history row."""
    digest = digest_of(b"salt%d" % number, events)
    return HistoryRow(number, execution_no, no, 2_000 + no, events, digest, b"hash%d" % no)


def message(number: int, instance_id: str, visible_at: int | None = 0) -> InboxRow:
    """An inbox row."""
    return InboxRow(number, instance_id, visible_at, b'{"n":%d}' % number)


def wait(number: int, wait_id: int, name: str = "ApproverDecision") -> WaitRow:
    """An open wait."""
    return WaitRow(number, wait_id, name, 3_000 + wait_id, 0, b'{"type":"object"}')


def task(
    number: int, wait_id: int, deadline: int, *, roles: tuple[str, ...] = (), assignee: str = ""
) -> WaitRow:
    """An open human task."""
    row = WaitRow(number, wait_id, "ApproverDecision", 3_000 + wait_id, deadline, None)
    return row._replace(task=b'{"details":{"title":"Pay?"}}', roles=role_text(roles), assignee=assignee)


def key(key_id: str, created_at: int = 1, **changes: Any) -> KeyRow:
    """A valid key."""
    row = KeyRow(key_id, "access", "deploy", "read operate", b"digest", created_at, "ops", None, None, None)
    return row._replace(**changes)


def audit(at: int, who: str = "a", operation: str = "start", instance_id: str = "claim-1") -> AuditRow:
    """A row of the audit log."""
    return AuditRow(at, who, "127.0.0.1", operation, instance_id, "", "ok", 1)


@contextmanager
def raises(error: type[Exception]) -> Iterator[None]:
    """Require that the block raises exactly this error of the port."""
    try:
        yield
    except error as raised:
        if type(raised) is not error or not str(raised):
            raise AssertionError(f"{raised!r} instead of a {error.__name__} that says why") from raised
    else:
        raise AssertionError(f"{error.__name__} was not raised")


class StoreConformance:
    """Override `make_store`."""

    def make_store(self) -> Store:
        """Return an empty store, not open yet."""
        raise NotImplementedError("say how to make an empty store")

    @contextmanager
    def opened(self, *batches: Batch) -> Iterator[Store]:
        """An open store with these committed batches."""
        store = self.make_store()
        store.open()
        try:
            for batch in batches:
                store.commit(batch)
            yield store
        finally:
            store.close_reader()
            store.close()

    # -------------------------------------------------------------------------------------- open and close

    def test_a_new_hub_begins_at_one(self) -> None:
        store = self.make_store()
        assert store.open() == Opening(1, 1)
        store.close()

    def test_opening_tells_the_next_free_numbers(self) -> None:
        batch = Batch(1, new_instances=[instance(7)], inbox_added=[message(40, "claim-7")])
        with self.opened(batch) as store:
            assert store.reopen() == Opening(8, 41)
            assert store.open() == Opening(8, 41)

    def test_a_store_serves_again_after_being_closed(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)])) as store:
            store.close()
            assert store.open().next_instance_no == 2
            assert [found.row for found in store.load(["claim-1"])] == [instance(1)]

    def test_a_closed_store_says_so(self) -> None:
        with self.opened() as store:
            store.close()
            with raises(StoreError):
                store.commit(Batch(1, new_instances=[instance(1)]))
            with raises(StoreError):
                store.poll(1, 1, 1)

    def test_closing_twice_is_harmless(self) -> None:
        with self.opened() as store:
            store.close()
            store.close()

    def test_what_is_committed_is_there_after_reopening(self) -> None:
        batch = Batch(
            1,
            new_instances=[instance(1)],
            history=[episode(1)],
            waits_opened=[wait(1, 3)],
            custom_status=[(1, b'"half"')],
        )
        with self.opened(batch) as store:
            before = store.get("claim-1", history=True)
            store.reopen()
            assert store.get("claim-1", history=True) == before

    def test_maintenance_changes_nothing_that_a_client_sees(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)], history=[episode(1)])) as store:
            before = store.get("claim-1", history=True)
            store.maintain(10 * DAY)
            assert store.get("claim-1", history=True) == before

    # ------------------------------------------------------------------------------------------------ load

    def test_load_gives_those_that_exist_by_ascending_number(self) -> None:
        rows = [instance(number) for number in (1, 2, 3)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            loaded = store.load(["claim-3", "nobody", "claim-1", "claim-3"])
            assert [found.row for found in loaded] == [rows[0], rows[2]]
            assert store.load([]) == []

    def test_load_gives_history_and_bodies_of_the_current_execution_in_order(self) -> None:
        batch = Batch(
            1,
            new_instances=[instance(1, execution_no=2)],
            history=[episode(1, no, execution_no=execution) for execution in (1, 2) for no in (1, 0, 2)],
            bodies=[BodyRow(1, 1, 0, 0, b"old"), BodyRow(1, 2, 0, 0, b"new"), BodyRow(1, 2, 2, 1, b"last")],
        )
        with self.opened(batch) as store:
            [found] = store.load(["claim-1"])
            assert found.history == [episode(1, no, execution_no=2) for no in (0, 1, 2)]
            assert found.bodies == {(0, 0): b"new", (2, 1): b"last"}

    def test_load_leaves_out_the_history_of_finished_instances(self) -> None:
        done = instance(1, status="Completed", completed_at=9)
        batch = Batch(1, new_instances=[done], history=[episode(1)], bodies=[BodyRow(1, 0, 0, 0, b"x")])
        with self.opened(batch) as store:
            [found] = store.load(["claim-1"])
            assert (found.row, found.history, found.bodies) == (done, [], {})

    def test_load_gives_held_messages_oldest_first_and_no_others(self) -> None:
        added = [
            message(5, "claim-1", None),
            message(2, "claim-1", None),
            message(3, "claim-1", 7),
            message(4, "x", None),
        ]
        with self.opened(Batch(1, new_instances=[instance(1)], inbox_added=added)) as store:
            [found] = store.load(["claim-1"])
            assert found.held == [added[1], added[0]]

    def test_load_takes_many_at_once(self) -> None:
        numbers = range(1, 700)
        batch = Batch(
            1,
            new_instances=[instance(number) for number in numbers],
            history=[episode(number, no) for number in numbers for no in (0, 1)],
        )
        with self.opened(batch) as store:
            loaded = store.load([f"claim-{number}" for number in reversed(numbers)])
            assert [found.row.instance_no for found in loaded] == list(numbers)
            assert all(
                found.history == [episode(found.row.instance_no, no) for no in (0, 1)] for found in loaded
            )

    # ---------------------------------------------------------------------------------- keys and the audit log

    def test_keys_come_back_in_the_order_of_their_making(self) -> None:
        keys = [key("b", 1), key("a", 2, expires_at=9, kind="link"), key("c", 2, revoked_at=5)]
        with self.opened(Batch(1, keys=keys)) as store:
            assert store.keys() == keys
            store.reopen()
            assert store.keys() == keys

    def test_a_key_keeps_its_secret_and_its_birth_whatever_is_put_in_its_place(self) -> None:
        revoked = key("a", 7, name="other", scopes="read", secret=b"other", created_by="other", revoked_at=8)
        with self.opened(Batch(1, keys=[key("a", 2)]), Batch(8, keys=[revoked])) as store:
            assert store.keys() == [key("a", 2, name="other", scopes="read", revoked_at=8)]

    def test_the_use_of_a_key_touches_nothing_else(self) -> None:
        revoked = key("a", 1, revoked_at=3)
        used = Batch(5, keys_used=[("a", 5), ("unknown", 5)])
        with self.opened(Batch(1, keys=[revoked]), used) as store:
            assert store.keys() == [revoked._replace(last_used_at=5)]

    def test_the_audit_log_is_read_from_its_newest_end(self) -> None:
        rows = [audit(at, who) for at, who in enumerate("abab")]
        with self.opened(Batch(1, audit=rows[:3]), Batch(1, audit=rows[3:])) as store:
            found = store.audit(AuditFilter())
            assert [row for _, row in found] == rows[::-1]
            numbers = [number for number, _ in found]
            assert numbers == sorted(numbers, reverse=True)
            assert [row for _, row in store.audit(AuditFilter(top=1))] == rows[3:]
            assert store.audit(AuditFilter(before_no=numbers[1])) == found[2:]

    def test_the_audit_log_is_filtered_by_everything_at_once(self) -> None:
        rows = [audit(1), audit(2, "b"), audit(3, operation="purge"), audit(4, instance_id="y")]
        with self.opened(Batch(1, audit=rows)) as store:

            def found(**wanted: Any) -> list[int]:
                return [row.at for _, row in store.audit(AuditFilter(**wanted))]

            assert found(who="b") == [2]
            assert found(operation="purge") == [3]
            assert found(instance_id="y") == [4]
            assert found(since=3) == [4, 3]
            assert found(who="a", operation="start", instance_id="claim-1", since=1, top=5) == [1]
            assert found(who="a", instance_id="z") == []

    def test_a_batch_of_nothing_but_keys_and_notes_is_not_empty(self) -> None:
        for batch in (Batch(1, keys=[key("a")]), Batch(1, keys_used=[("a", 1)]), Batch(1, audit=[audit(1)])):
            assert not batch.is_empty()

    def test_an_operation_is_answered_while_it_is_remembered(self) -> None:
        row = SeenRow("op", "claim-1", b"1", DAY)
        with self.opened(Batch(1, seen=[row])) as store:
            assert store.answered("op") == row
            assert store.answered("other") is None

    # ------------------------------------------------------------------------------------------------ seen

    def test_seen_gives_the_first_answer_back(self) -> None:
        rows = [SeenRow(f"op-{no}", "claim-1", b"{}", DAY) for no in range(3)]
        with self.opened(Batch(1, seen=rows)) as store:
            assert store.seen(["op-2", "op-9", "op-0", "op-2"]) == [rows[0], rows[2]]
            assert store.seen([]) == []

    def test_an_operation_that_still_counts_is_refused(self) -> None:
        with self.opened(Batch(1, seen=[SeenRow("op", "claim-1", b"1", DAY)])) as store:
            with raises(CommitRefused):
                store.commit(
                    Batch(2, new_instances=[instance(1)], seen=[SeenRow("op", "claim-2", b"2", DAY)])
                )
            assert store.seen(["op"]) == [SeenRow("op", "claim-1", b"1", DAY)]
            assert store.get("claim-1") is None

    def test_an_operation_may_be_repeated_when_its_answer_has_expired(self) -> None:
        again = SeenRow("op", "claim-2", b"2", 3 * DAY)
        with self.opened(
            Batch(1, seen=[SeenRow("op", "claim-1", b"1", DAY)]), Batch(DAY, seen=[again])
        ) as store:
            assert store.seen(["op"]) == [again]

    def test_answers_are_forgotten_some_time_after_they_expire(self) -> None:
        rows = [SeenRow(f"op-{no}", "claim-1", b"1", DAY) for no in range(600)]
        with self.opened(Batch(1, seen=rows), Batch(2 * DAY)) as store:
            for _ in range(10):
                store.commit(Batch(3 * DAY, custom_status=[(1, b"1")]))
                store.maintain(3 * DAY)
            assert store.seen([row.operation_id for row in rows]) == []

    # ------------------------------------------------------------------------------------------------ poll

    def test_poll_gives_visible_messages_oldest_first(self) -> None:
        added = [
            message(1, "a", 30),
            message(2, "b", 10),
            message(3, "a", None),
            message(4, "c", 31),
            message(5, "d", 10),
        ]
        with self.opened(Batch(1, inbox_added=added)) as store:
            found = store.poll(30, 0, 100)
            assert found.messages == [added[1], added[4], added[0]]
            assert found.next_visible_at == 31

    def test_poll_gives_instances_with_a_timer_before_the_horizon(self) -> None:
        rows = [instance(1, due_at=50), instance(2, due_at=40), instance(3), instance(4, due_at=60)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert store.poll(0, 60, 100).due == [(40, "claim-2"), (50, "claim-1")]

    def test_poll_stops_at_its_limit(self) -> None:
        batch = Batch(
            1,
            new_instances=[instance(number, due_at=number) for number in range(1, 6)],
            inbox_added=[message(number, "a", number) for number in range(1, 6)],
        )
        with self.opened(batch) as store:
            found = store.poll(9, 9, 2)
            assert [row.message_no for row in found.messages] == [1, 2]
            assert found.due == [(1, "claim-1"), (2, "claim-2")]

    def test_poll_of_a_quiet_hub_is_empty(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)])) as store:
            found = store.poll(1, 1, 10)
            assert (found.messages, found.due, found.next_visible_at) == ([], [], None)

    def test_polling_consumes_nothing(self) -> None:
        with self.opened(Batch(1, inbox_added=[message(1, "a")])) as store:
            assert store.poll(1, 1, 10) == store.poll(1, 1, 10)

    # ---------------------------------------------------------------------------------- local_work, parked

    def test_local_work_pages_by_number(self) -> None:
        rows = [instance(number, local_work=number % 2) for number in range(1, 8)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert store.local_work(0, 2) == [(1, "claim-1"), (3, "claim-3")]
            assert store.local_work(3, 9) == [(5, "claim-5"), (7, "claim-7")]

    def test_local_work_ends_with_the_update_that_says_so(self) -> None:
        row = instance(1, local_work=1)
        with self.opened(Batch(1, new_instances=[row])) as store:
            store.commit(Batch(2, updates=[update_of(row, local_work=0, due_at=77)]))
            assert store.local_work(0, 9) == []
            assert store.poll(0, 78, 9).due == [(77, "claim-1")]

    def test_parked_gives_only_those_that_a_deployment_may_help(self) -> None:
        states = [
            ("Suspended", "nondeterminism: line 12"),
            ("Suspended", "operator"),
            ("Suspended", "no_worker: pool gpu"),
            ("Pending", "no_worker"),
            ("Pending", "nondeterminism"),
            ("Suspended", "poison"),
            ("Running", "no_worker"),
            ("Pending", ""),
        ]
        rows = [instance(no, status=status, reason=reason) for no, (status, reason) in enumerate(states, 1)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert store.parked(0, 9) == [(1, "claim-1"), (3, "claim-3"), (4, "claim-4")]
            assert store.parked(1, 1) == [(3, "claim-3")]

    # ---------------------------------------------------------------------------------------------- commit

    def test_every_column_comes_back_as_it_went_in(self) -> None:
        row = instance(
            1,
            "kl\u00e4ger-\U0001f600-\u4e2d",
            kind="entity",
            reason="operator: \u201cwait\u201d",
            due_at=2**62,
            local_work=1,
            parent_id="root",
            parent_execution="aabb-0",
            parent_task=4,
            tags='{"region":"north"}',
            salt=bytes(range(16)),
            head=b"\x00\xff" * 16,
            replays=3,
            replay_reason="evicted",
        )
        with self.opened(Batch(1, new_instances=[row])) as store:
            found = store.get(row.instance_id)
            assert found is not None
            assert found.row == row
            assert found.row.parent == row.parent

    def test_an_update_changes_its_columns_and_no_others(self) -> None:
        row = instance(1, local_work=1, tags='{"a":"b"}')
        change = InstanceUpdate(1, "Completed", "done", 3, 9, 8_000, 8_000, None, 0, b"new head", 7, "rewind")
        with self.opened(Batch(1, new_instances=[row, instance(2)]), Batch(2, updates=[change])) as store:
            assert [found.row for found in store.load(["claim-1", "claim-2"])] == [
                updated(row, change),
                instance(2),
            ]

    def test_an_instance_may_be_created_and_updated_in_one_batch(self) -> None:
        row = instance(1)
        change = update_of(row, episodes=5, status="Suspended", reason="operator")
        with self.opened(Batch(1, new_instances=[row], updates=[change])) as store:
            [found] = store.load(["claim-1"])
            assert found.row == updated(row, change)

    def test_the_last_of_several_updates_wins(self) -> None:
        row = instance(1)
        first, last = update_of(row, episodes=2, due_at=5), update_of(row, episodes=3)
        with self.opened(Batch(1, new_instances=[row], updates=[first, last])) as store:
            [found] = store.load(["claim-1"])
            assert found.row == updated(row, last)
            assert store.poll(0, 100, 9).due == []

    def test_an_update_may_say_that_no_indexed_column_changes(self) -> None:
        rows = [instance(number, local_work=1) for number in (1, 2)]
        changes = [update_of(rows[0], episodes=7, head=b"new"), update_of(rows[1], local_work=0, due_at=5)]
        with self.opened(Batch(1, new_instances=rows), Batch(2, updates=changes, moved={2})) as store:
            expected = [updated(row, change) for row, change in zip(rows, changes, strict=True)]
            assert [found.row for found in store.load(["claim-1", "claim-2"])] == expected
            assert store.local_work(0, 9) == [(1, "claim-1")]

    def test_an_update_of_nobody_loses_the_fence(self) -> None:
        with self.opened() as store:
            with raises(FenceLost):
                store.commit(Batch(1, new_instances=[instance(1)], updates=[update_of(instance(2))]))
            assert store.get("claim-1") is None

    def test_a_batch_of_hundreds_of_rows_is_one_commit(self) -> None:
        rows = [instance(number) for number in range(1, 612)]
        with self.opened(
            Batch(1, new_instances=rows, history=[episode(row.instance_no) for row in rows])
        ) as store:
            changes = [update_of(row, episodes=row.instance_no, head=b"%d" % row.instance_no) for row in rows]
            more = [episode(row.instance_no, 1) for row in rows]
            store.commit(Batch(2, updates=changes, history=more))
            expected = [updated(row, change) for row, change in zip(rows, changes, strict=True)]
            assert store.query(InstanceFilter(top=1_000)) == expected[::-1]
            assert store.history_of(611, 0) is not None

    def test_a_refused_batch_leaves_no_trace(self) -> None:
        first = Batch(
            1, new_instances=[instance(1)], history=[episode(1)], inbox_added=[message(1, "claim-1")]
        )
        with self.opened(first) as store:
            before = store.get("claim-1", history=True), store.poll(9, 9, 9), store.counts()
            with raises(CommitRefused):
                store.commit(
                    Batch(
                        2,
                        new_instances=[instance(2)],
                        updates=[update_of(instance(1), status="Failed")],
                        history=[episode(1, 1), episode(1, 0)],
                        inbox_removed=[1],
                        inbox_held=[1],
                        waits_opened=[wait(1, 1)],
                        custom_status=[(1, b"1")],
                        purged=[],
                    )
                )
            assert (store.get("claim-1", history=True), store.poll(9, 9, 9), store.counts()) == before
            assert store.get("claim-2") is None

    def test_a_store_goes_on_after_a_refusal(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)])) as store:
            with raises(CommitRefused):
                store.commit(Batch(2, new_instances=[instance(1)]))
            store.commit(Batch(3, new_instances=[instance(2)]))
            assert [found.row.instance_no for found in store.load(["claim-1", "claim-2"])] == [1, 2]

    def test_an_instance_id_is_taken_once(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1, "a")])) as store, raises(CommitRefused):
            store.commit(Batch(2, new_instances=[instance(2, "a")]))

    def test_an_instance_id_is_taken_once_within_a_batch(self) -> None:
        with self.opened() as store, raises(CommitRefused):
            store.commit(Batch(2, new_instances=[instance(1, "a"), instance(2, "a")]))

    def test_ids_differ_by_case(self) -> None:
        rows = [instance(1, "a"), instance(2, "A")]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert [found.row for found in store.load(["A", "a"])] == rows

    def test_an_episode_is_written_once(self) -> None:
        with self.opened(Batch(1, history=[episode(1, 0)])) as store, raises(CommitRefused):
            store.commit(Batch(2, history=[episode(1, 0)]))

    def test_a_body_is_written_once(self) -> None:
        with self.opened(Batch(1, bodies=[BodyRow(1, 0, 0, 0, b"x")])) as store, raises(CommitRefused):
            store.commit(Batch(2, bodies=[BodyRow(1, 0, 0, 0, b"y")]))

    # --------------------------------------------------------------------------------------------- inbox

    def test_consumed_messages_leave(self) -> None:
        added = [message(number, "a") for number in (1, 2, 3)]
        with self.opened(Batch(1, inbox_added=added), Batch(2, inbox_removed=[1, 3])) as store:
            assert store.poll(9, 9, 9).messages == [added[1]]

    def test_a_message_consumed_twice_loses_the_fence(self) -> None:
        with self.opened(Batch(1, inbox_added=[message(1, "a"), message(2, "a")])) as store:
            store.commit(Batch(2, inbox_removed=[1]))
            with raises(FenceLost):
                store.commit(Batch(3, new_instances=[instance(1)], inbox_removed=[1, 2]))
            assert [row.message_no for row in store.poll(9, 9, 9).messages] == [2]
            assert store.get("claim-1") is None

    def test_held_messages_are_out_of_sight_until_consumed(self) -> None:
        added = [message(1, "claim-1"), message(2, "claim-1")]
        with self.opened(Batch(1, new_instances=[instance(1)], inbox_added=added)) as store:
            store.commit(Batch(2, inbox_held=[2]))
            assert store.poll(9, 9, 9).messages == [added[0]]
            assert store.load(["claim-1"])[0].held == [message(2, "claim-1", None)]
            store.commit(Batch(3, inbox_removed=[2]))
            assert store.load(["claim-1"])[0].held == []

    def test_a_held_message_is_stored_again_under_its_number(self) -> None:
        """A resume does this in one batch, so that the message keeps its place before later ones."""
        added = [message(1, "claim-1"), message(2, "claim-1")]
        with self.opened(Batch(1, new_instances=[instance(1)], inbox_added=added)) as store:
            store.commit(Batch(2, inbox_held=[1]))
            store.commit(Batch(3, inbox_removed=[1], inbox_added=[message(1, "claim-1")]))
            assert store.poll(9, 9, 9).messages == added
            assert store.load(["claim-1"])[0].held == []

    def test_holding_what_is_gone_loses_the_fence(self) -> None:
        with self.opened() as store, raises(FenceLost):
            store.commit(Batch(2, inbox_held=[1]))

    def test_a_message_number_is_used_once(self) -> None:
        with self.opened(Batch(1, inbox_added=[message(1, "a")])) as store, raises(CommitRefused):
            store.commit(Batch(2, inbox_added=[message(1, "b")]))

    # ------------------------------------------------------------------------------------- waits and state

    def test_waits_open_and_close(self) -> None:
        opened = Batch(
            1, new_instances=[instance(1), instance(2)], waits_opened=[wait(1, 1), wait(1, 2), wait(2, 1)]
        )
        with self.opened(opened, Batch(2, waits_closed=[(1, 1)])) as store:
            assert store.waits([2, 1, 1]) == [wait(1, 2), wait(2, 1)]
            found = store.get("claim-1")
            assert found is not None
            assert found.waits == [wait(1, 2)]

    def test_all_waits_of_an_instance_close_at_once_and_before_others_open(self) -> None:
        opened = Batch(1, waits_opened=[wait(1, 1), wait(1, 2), wait(2, 1)])
        with self.opened(opened) as store:
            store.commit(Batch(2, waits_closed=[(1, -1)], waits_opened=[wait(1, 1, "Again")]))
            assert store.waits([1, 2]) == [wait(1, 1, "Again"), wait(2, 1)]

    def test_closing_a_wait_that_is_not_open_is_harmless(self) -> None:
        with self.opened(Batch(1, waits_closed=[(1, 4), (2, -1)])) as store:
            assert store.waits([1, 2]) == []

    def test_a_wait_is_open_once(self) -> None:
        with self.opened(Batch(1, waits_opened=[wait(1, 1)])) as store, raises(CommitRefused):
            store.commit(Batch(2, waits_opened=[wait(1, 1)]))

    def test_tasks_are_listed_by_deadline_and_filtered(self) -> None:
        waits = [
            task(1, 1, 500, roles=("adjuster",)),
            task(1, 2, 0, roles=("adjuster", "supervisor")),
            task(2, 1, 300, assignee="ada"),
            wait(3, 1, "Photo"),
        ]
        rows = [instance(1), instance(2, name="Other"), instance(3)]
        with self.opened(Batch(1, new_instances=rows, waits_opened=waits)) as store:
            store.commit(Batch(2, task_moves=[TaskMove(1, 1, "ben", 7, ""), TaskMove(3, 9, "ben", 7, "")]))

            def listed(**wanted: Any) -> list[tuple[int, int]]:
                return [row.wait[:2] for row in store.tasks(TaskFilter(**wanted))]

            assert listed() == [(2, 1), (1, 1), (1, 2), (3, 1)]
            assert listed(top=2) == [(2, 1), (1, 1)]
            assert listed(after=(500, 1, 1)) == [(1, 2), (3, 1)]
            assert listed(role="adjuster") == [(1, 1), (1, 2)]
            assert listed(role="supervisor") == [(1, 2)]
            assert listed(role="adjust") == []
            assert (listed(person="ben"), listed(person="ada")) == ([(1, 1)], [(2, 1)])
            assert listed(name="Other") == [(2, 1)]
            assert listed(event="Photo") == [(3, 1)]
            assert listed(due_before=500) == [(2, 1)]
            assert listed(instance_no=1) == [(1, 1), (1, 2)]
            [held] = store.tasks(TaskFilter(person="ben"))
            assert held.wait == waits[0]._replace(holder="ben", held_since=7)
            assert held.instance_id == "claim-1"

    def test_a_task_changes_while_it_is_open(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)], waits_opened=[task(1, 1, 500)])) as store:
            later = b'{"details":{},"escalated":1}'
            update = TaskUpdate(1, 1, later, role_text(("supervisor",)))
            moves = [TaskMove(1, 1, "ada", 5, ""), TaskMove(1, 1, "", 0, "ben")]
            store.commit(Batch(2, task_updates=[update], task_moves=moves))
            [row] = store.waits([1])
            assert (row.task, row.roles) == (later, role_text(("supervisor",)))
            assert (row.holder, row.held_since, row.assignee) == ("", 0, "ben")
            store.commit(Batch(3, waits_closed=[(1, 1)], task_updates=[update], task_moves=moves))
            assert store.tasks(TaskFilter()) == []

    def test_an_instance_can_be_pinned_to_another_version(self) -> None:
        first = Batch(1, new_instances=[instance(1), instance(2)])
        with self.opened(first) as store:
            store.commit(Batch(2, versions=[(1, "2.0")]))
            store.commit(Batch(3, versions=[(2, "3.0")], purged=[2]))
            assert [row.version for row in store.query(InstanceFilter())] == ["2.0"]

    def test_the_last_custom_status_stands(self) -> None:
        first = Batch(1, new_instances=[instance(1)], custom_status=[(1, b"1"), (2, b"x"), (1, b"2")])
        with self.opened(first) as store:
            assert store.custom_status([1, 2, 3]) == {1: b"2", 2: b"x"}
            store.commit(Batch(2, custom_status=[(1, b'{"step":3}')]))
            found = store.get("claim-1")
            assert found is not None
            assert found.custom_status == b'{"step":3}'

    # ------------------------------------------------------------------------------------------- entities

    def test_an_entitys_record_is_kept_and_comes_with_it(self) -> None:
        entity = instance(2, "@counter@a", kind="entity")
        first = Batch(1, new_instances=[instance(1), entity], entity_states=[(2, b'{"state":1}')])
        with self.opened(first) as store:
            store.commit(Batch(2, entity_states=[(2, b'{"state":2}')], custom_status=[(2, b"1")]))
            loaded = {found.row.instance_no: found for found in store.load(["claim-1", "@counter@a"])}
            found = store.get("@counter@a")
            assert found is not None
            assert found.entity_state == loaded[2].entity_state == b'{"state":2}'
            assert loaded[1].entity_state is None
            assert store.entity_states([1, 2, 3]) == {2: b'{"state":2}'}

    def test_entities_and_orchestrations_are_asked_for_apart(self) -> None:
        rows = [
            instance(1),
            instance(2, "@counter@a", kind="entity"),
            instance(3, "@counter@b", kind="entity"),
        ]
        with self.opened(Batch(1, new_instances=rows)) as store:

            def numbers(**wanted: Any) -> list[int]:
                return [row.instance_no for row in store.query(InstanceFilter(**wanted))]

            assert numbers() == [1]
            assert numbers(kind="entity") == [3, 2]
            assert numbers(kind="entity", prefix="@counter@b") == [3]
            assert numbers(kind="") == [3, 2, 1]
            assert sum(store.counts().values()) == 1

    def test_what_waits_for_instances_is_shown_to_clients(self) -> None:
        waiting = [message(2, "claim-1", None), message(3, "claim-2", None), message(4, "claim-1", None)]
        with self.opened(
            Batch(1, new_instances=[instance(1), instance(2)], inbox_added=[message(1, "claim-1"), *waiting])
        ) as store:
            assert [row.message_no for row in store.held(["claim-1", "claim-3"])] == [2, 4]
            assert store.held(["claim-2"]) == [waiting[1]]
            assert store.held([]) == []
            store.commit(Batch(2, inbox_held=[1], inbox_removed=[2]))
            assert [row.message_no for row in store.held(["claim-1"])] == [1, 4]

    def test_what_is_on_its_way_to_an_entity_outlives_it(self) -> None:
        entity = instance(1, "@counter@a", kind="entity")
        later = message(1, "@counter@a", 10**15)
        with self.opened(
            Batch(1, new_instances=[entity], entity_states=[(1, b"{}")], inbox_added=[later])
        ) as store:
            store.commit(Batch(2, purged=[1]))
            assert store.get("@counter@a") is None
            assert store.entity_states([1]) == {}
            assert [row.message_no for row in store.poll(10**15, 0, 10).messages] == [1]

    # ---------------------------------------------------------------------------- executions and purging

    def test_older_executions_go(self) -> None:
        batch = Batch(
            1,
            new_instances=[instance(1, execution_no=3), instance(2)],
            history=[episode(1, 0, execution_no=no) for no in range(4)] + [episode(2)],
            bodies=[BodyRow(1, no, 0, 0, b"%d" % no) for no in range(4)],
        )
        with self.opened(batch) as store:
            assert store.executions(1) == [0, 1, 2, 3]
            store.commit(Batch(2, history=[episode(1, 1, execution_no=3)], executions_removed=[(1, 2)]))
            assert store.executions(1) == [2, 3]
            assert store.executions(2) == [0]
            kept = store.history_of(1, 2)
            assert kept is not None
            assert kept.history == [episode(1, 0, execution_no=2)]
            assert kept.bodies == {(0, 0): b"2"}
            assert kept.row == batch.new_instances[0]
            gone = store.history_of(1, 1)
            assert gone is not None
            assert (gone.history, gone.bodies) == ([], {})

    def test_purging_leaves_nothing(self) -> None:
        batch = Batch(
            1,
            new_instances=[instance(1, due_at=5, local_work=1), instance(2)],
            history=[episode(1), episode(1, 0, execution_no=1), episode(2)],
            bodies=[BodyRow(1, 0, 0, 0, b"x")],
            custom_status=[(1, b"1"), (2, b"2")],
            waits_opened=[wait(1, 1), wait(2, 1)],
            inbox_added=[message(1, "claim-1"), message(2, "claim-1", None), message(3, "claim-2")],
        )
        with self.opened(batch) as store:
            store.commit(Batch(2, purged=[1]))
            assert [found.row for found in store.load(["claim-1", "claim-2"])] == [instance(2)]
            assert store.get("claim-1") is None
            assert (store.history_of(1, 0), store.executions(1)) == (None, [])
            assert store.ends([instance(1)]) == {1: []}
            assert store.waits([1, 2]) == [wait(2, 1)]
            assert store.custom_status([1, 2]) == {2: b"2"}
            assert store.local_work(0, 9) == []
            found = store.poll(9, 9, 9)
            assert (found.messages, found.due) == ([message(1, "claim-1"), message(3, "claim-2")], [])

    def test_a_purged_id_may_be_used_again_in_the_same_batch(self) -> None:
        old = Batch(1, new_instances=[instance(1, "a")], inbox_added=[message(1, "a")], history=[episode(1)])
        with self.opened(old) as store:
            new = Batch(2, new_instances=[instance(2, "a")], inbox_added=[message(2, "a")], purged=[1])
            store.commit(new)
            [found] = store.load(["a"])
            assert (found.row.instance_no, found.history) == (2, [])
            # Messages are addressed to an id: the next instance with that id, if any, gets them.
            assert store.poll(9, 9, 9).messages == [message(1, "a"), message(2, "a")]

    def test_a_message_of_a_purged_instance_may_be_consumed_in_the_same_batch(self) -> None:
        old = Batch(
            1, new_instances=[instance(1)], inbox_added=[message(1, "claim-1"), message(2, "claim-1")]
        )
        with self.opened(old) as store:
            store.commit(Batch(2, inbox_removed=[1], purged=[1]))
            assert store.poll(9, 9, 9).messages == [message(2, "claim-1")]

    def test_what_a_batch_writes_for_an_instance_that_it_purges_is_not_written(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)], history=[episode(1)])) as store:
            store.commit(
                Batch(
                    2,
                    updates=[update_of(instance(1), status="Terminated")],
                    history=[episode(1, 1)],
                    bodies=[BodyRow(1, 0, 1, 0, b"x")],
                    waits_opened=[wait(1, 1)],
                    custom_status=[(1, b"1")],
                    purged=[1],
                )
            )
            assert store.executions(1) == []
            assert (store.waits([1]), store.custom_status([1])) == ([], {})

    def test_what_was_dropped_for_a_forgotten_id_goes_and_what_is_dropped_now_stays(self) -> None:
        old, new, other = (DroppedRow(i, 1, "event", "E", "", why, b"1") for i, why in ABOUT_DROPS)
        with self.opened(Batch(1, new_instances=[instance(1)], dropped=[old, other])) as store:
            store.commit(Batch(2, purged=[1], forgotten=["claim-1"], dropped=[new]))
            assert store.dropped(None, 9) == [new, other]

    def test_finished_gives_the_longest_finished_first_a_page_at_a_time(self) -> None:
        ends = [
            (1, "Completed", 50),
            (2, "Completed", 40),
            (3, "Failed", 10),
            (4, "Completed", 50),
            (5, "Running", None),
        ]
        rows = [instance(number, status=status, completed_at=at) for number, status, at in ends]
        rows.append(instance(6, kind="entity", status="Completed", completed_at=1))
        with self.opened(Batch(1, new_instances=rows)) as store:

            def found(before: int, after: tuple[int, int] = (0, 0), limit: int = 9) -> list[int]:
                return [row.instance_no for row in store.finished("Completed", before, after, limit)]

            assert found(51) == [2, 1, 4]
            assert found(50) == [2]
            assert found(51, limit=2) == [2, 1]
            assert found(51, (50, 1)) == [4]
            assert found(51, (50, 4)) == []
            assert store.finished("Failed", 99, (0, 0), 9) == [rows[2]]
            store.commit(
                Batch(2, updates=[update_of(rows[4], status="Completed", completed_at=30)], purged=[2])
            )
            assert found(51) == [5, 1, 4]

    def test_rows_gives_the_rows_of_those_that_exist(self) -> None:
        rows = [instance(1, "b"), instance(2, "a", status="Completed", completed_at=5)]
        with self.opened(Batch(1, new_instances=rows, history=[episode(1)])) as store:
            assert store.rows(["a", "b", "c", "a"]) == rows
            assert store.rows([]) == []

    def test_purging_nobody_is_harmless(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)])) as store:
            store.commit(Batch(2, purged=[99]))
            assert store.counts() == {"Running": 1}

    # -------------------------------------------------------------------------------------- what clients ask

    def test_get_without_history_reads_none(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)], history=[episode(1)])) as store:
            found = store.get("claim-1")
            assert found is not None
            assert (found.row, found.history, found.custom_status) == (instance(1), [], None)
            assert store.get("nobody") is None

    def test_get_gives_the_history_of_finished_instances_too(self) -> None:
        done = instance(1, status="Completed", completed_at=5)
        batch = Batch(
            1, new_instances=[done], history=[episode(1, 1), episode(1)], bodies=[BodyRow(1, 0, 1, 0, b"x")]
        )
        with self.opened(batch) as store:
            found = store.get("claim-1", history=True)
            assert found is not None
            assert found.history == [episode(1), episode(1, 1)]
            assert found.bodies == {(1, 0): b"x"}

    def test_ends_are_the_first_and_the_last_row(self) -> None:
        rows = [instance(1), instance(2), instance(3)]
        history = [episode(1, no, events=b"[%d]" % no) for no in range(4)] + [episode(2, events=b"[7]")]
        with self.opened(Batch(1, new_instances=rows, history=history)) as store:
            assert store.ends(rows) == {1: [b"[0]", b"[3]"], 2: [b"[7]"], 3: []}
            assert store.ends([]) == {}

    def test_ends_put_bodies_back(self) -> None:
        def reference(no: int, body: bytes) -> BodyRef:
            return BodyRef(no, len(body), digest_of(instance(1).salt, body).hex())

        carried = EventRaised(name="Photo", body=reference(1, b"[1]"))
        first = ExecutionStarted(name="process_claim", body=reference(0, b'"claim 7"'), carried=(carried,))
        paid = ExecutionCompleted(body=reference(0, b'"paid"'))
        last = [TaskCompleted(task_id=0, result=Raw(b"1")), paid]
        batch = Batch(
            1,
            new_instances=[instance(1)],
            history=[episode(1, 0, events=encode_events([first])), episode(1, 1, events=encode_events(last))],
            bodies=[
                BodyRow(1, 0, 0, 0, b'"claim 7"'),
                BodyRow(1, 0, 0, 1, b"[1]"),
                BodyRow(1, 0, 1, 0, b'"paid"'),
            ],
        )
        plain = EventRaised(name="Photo", input=Raw(b"[1]"))
        with self.opened(batch) as store:
            assert store.ends([instance(1)]) == {
                1: [
                    encode_events(
                        [ExecutionStarted(name="process_claim", input=Raw(b'"claim 7"'), carried=(plain,))]
                    ),
                    encode_events([last[0], ExecutionCompleted(output=Raw(b'"paid"'))]),
                ]
            }

    def test_ends_leave_a_reference_to_an_erased_body(self) -> None:
        events = encode_events([ExecutionCompleted(body=BodyRef(0, 9, "abc"))])
        batch = Batch(1, new_instances=[instance(1)], history=[episode(1, events=events)])
        with self.opened(batch) as store:
            assert store.ends([instance(1)]) == {1: [events]}

    def test_counts_by_status(self) -> None:
        states = {"Pending": 1, "Running": 2, "Suspended": 1, "Completed": 3, "Failed": 2, "Terminated": 1}
        rows = [
            instance(
                no, status=status, completed_at=5 if status in ("Completed", "Failed", "Terminated") else None
            )
            for no, status in enumerate((s for s, count in states.items() for _ in range(count)), 1)
        ]
        with self.opened() as store:
            assert store.counts() == {}
            store.commit(Batch(1, new_instances=rows))
            assert store.counts() == states

    def test_dropped_messages_newest_first(self) -> None:
        rows = [
            DroppedRow("ab"[no % 2], 100 + no, "RaiseEvent", "X", f"op{no}", "finished", b"1")
            for no in range(5)
        ]
        with self.opened(Batch(1, dropped=rows[:3]), Batch(2, dropped=rows[3:])) as store:
            assert store.dropped(None, 3) == [rows[4], rows[3], rows[2]]
            assert store.dropped("b", 9) == [rows[3], rows[1]]
            assert store.dropped("nobody", 9) == []

    def test_dropped_messages_are_kept_for_thirty_days(self) -> None:
        old, new = (DroppedRow("a", at, "RaiseEvent", "X", "", "finished", b"") for at in (DAY, 20 * DAY))
        with self.opened(Batch(1, dropped=[old, new]), Batch(40 * DAY, custom_status=[(1, b"1")])) as store:
            store.maintain(40 * DAY)
            assert store.dropped(None, 9) == [new]

    # ----------------------------------------------------------------------------------------------- query

    def queried(self, store: Store, **wanted: Any) -> list[int]:
        return [row.instance_no for row in store.query(InstanceFilter(**wanted))]

    def test_query_pages_from_the_newest_by_number(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(number) for number in range(1, 8)])) as store:
            assert store.query(InstanceFilter(top=2)) == [instance(7), instance(6)]
            assert self.queried(store, top=3, before_no=6) == [5, 4, 3]
            assert self.queried(store, before_no=1) == []

    def test_query_by_status(self) -> None:
        states = [("Running", None), ("Failed", 5), ("Suspended", None), ("Completed", 5), ("Terminated", 5)]
        rows = [instance(no, status=status, completed_at=at) for no, (status, at) in enumerate(states, 1)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, status=("Failed",)) == [2]
            assert self.queried(store, status=("Suspended", "Running")) == [3, 1]
            assert self.queried(store, status=("Completed", "Failed")) == [4, 2]
            assert self.queried(store, status=("Failed", "Terminated"), before_no=5) == [2]

    def test_query_by_name_and_time(self) -> None:
        rows = [instance(no, name="ab"[no % 2], created_at=no * 10) for no in range(1, 6)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, name="b") == [5, 3, 1]
            assert self.queried(store, created_from=20, created_to=40) == [4, 3, 2]
            assert self.queried(store, name="b", created_from=20, created_to=40) == [3]

    def test_query_by_end(self) -> None:
        ends: list[int | None] = [50, None, 30, 40]
        rows = [
            instance(no, status="Completed" if end else "Running", completed_at=end)
            for no, end in enumerate(ends, 1)
        ]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, ended_from=40) == [4, 1]
            assert self.queried(store, ended_to=40) == [4, 3]
            assert self.queried(store, status=("Completed",), ended_from=31, ended_to=49) == [4]
            assert self.queried(store, status=("Running",), ended_from=1) == []
            assert self.queried(store, status=("Completed",), ended_to=99, order="ended") == [1, 4, 3]
            assert store.count(InstanceFilter(ended_from=40)) == 2

    def test_query_of_the_oldest_first_and_of_numbers_in_between(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(number) for number in range(1, 8)])) as store:
            assert self.queried(store, oldest_first=True, top=3) == [1, 2, 3]
            assert self.queried(store, oldest_first=True, after_no=5) == [6, 7]
            assert self.queried(store, within=(3, 5)) == [5, 4, 3]
            assert store.count(InstanceFilter(within=(3, 5), after_no=4, before_no=4)) == 3

    def test_query_of_the_applications_own_orchestrators(self) -> None:
        names = ["claim", "BuiltIn::Schedule", "BuiltIn", "builtin::x"]
        rows = [instance(no, name=name) for no, name in enumerate(names, 1)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, name_is_own=True) == [4, 3, 1]
            assert store.count(InstanceFilter(name_is_own=True)) == 3

    def test_query_by_prefix_means_what_it_says(self) -> None:
        ids = ["a%b-1", "axb-1", "a_c", "abc", "A%b-2", "a\U0010ffff", "a\U0010ffffz", "b", "a\ud7ff1"]
        rows = [instance(no, instance_id) for no, instance_id in enumerate(ids, 1)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, prefix="a%b") == [1]
            assert self.queried(store, prefix="a_") == [3]
            assert self.queried(store, prefix="a") == [9, 7, 6, 4, 3, 2, 1]
            assert self.queried(store, prefix="a\U0010ffff") == [7, 6]
            assert self.queried(store, prefix="a\ud7ff") == [9]
            assert self.queried(store, prefix="") == [9, 8, 7, 6, 5, 4, 3, 2, 1]

    def test_query_by_tags_compares_whole_values(self) -> None:
        tags = [
            '{"region":"north","a.b":"x"}',
            '{"region":"northeast"}',
            '{"a":{"b":"x"}}',
            None,
            '{"q\\"":"1"}',
        ]
        rows = [instance(no, tags=tag) for no, tag in enumerate(tags, 1)]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, tags=(("region", "north"),)) == [1]
            assert self.queried(store, tags=(("region", "north"), ("a.b", "x"))) == [1]
            assert self.queried(store, tags=(("region", "north"), ("a.b", "y"))) == []
            assert self.queried(store, tags=(('q"', "1"),)) == [5]

    def test_count_counts_what_a_query_without_pages_finds(self) -> None:
        rows = [
            instance(1, status="Completed", completed_at=9),
            instance(2),
            instance(3, name="other"),
            instance(4, status="Failed", completed_at=9, tags='{"a":"1"}'),
        ]
        with self.opened(Batch(1, new_instances=rows, waits_opened=[wait(2, 1)])) as store:
            for wanted, found in (
                (InstanceFilter(), 4),
                (InstanceFilter(top=1, before_no=2), 4),
                (InstanceFilter(status=("Running",)), 2),
                (InstanceFilter(status=("Failed", "Completed")), 2),
                (InstanceFilter(name="other"), 1),
                (InstanceFilter(tags=(("a", "1"),)), 1),
                (InstanceFilter(created_from=1_003), 2),
                (InstanceFilter(waiting_for="ApproverDecision"), 1),
                (InstanceFilter(prefix="nobody"), 0),
            ):
                assert store.count(wanted) == found, wanted

    def test_query_by_what_is_waited_for(self) -> None:
        rows = [instance(number) for number in (1, 2, 3)]
        waits = [wait(1, 1, "Approval"), wait(3, 1, "Approval"), wait(3, 2, "Approval"), wait(2, 1, "Photo")]
        with self.opened(Batch(1, new_instances=rows, waits_opened=waits)) as store:
            assert self.queried(store, waiting_for="Approval") == [3, 1]
            assert self.queried(store, waiting_for="Approval", before_no=3) == [1]
            assert self.queried(store, waiting_for="Appro") == []

    def test_query_by_being_parked(self) -> None:
        """Parked by the engine, started or not; not suspended by an operator, and not a delayed start."""
        rows = [
            instance(1, status="Suspended", reason="operator"),
            instance(2, status="Suspended", reason="operator: a look"),
            instance(3, status="Pending", reason="scheduled:17"),
            instance(4, status="Pending", reason="no_worker: none"),
            instance(5, status="Suspended", reason="nondeterminism: line 12"),
            instance(6, status="Suspended", reason="of a later version: whatever"),
            instance(7),
            instance(8, status="Completed", completed_at=9),
            instance(9, kind="entity", status="Suspended", reason="poison: again"),
        ]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, parked=True) == [6, 5, 4]
            assert self.queried(store, parked=True, kind="entity") == [9]
            assert self.queried(store, parked=True, status=("Pending",), before_no=6) == [4]
            assert store.count(InstanceFilter(parked=True)) == 3

    def test_gauges_are_the_oldest_unfinished_ones_the_open_waits_and_the_size(self) -> None:
        rows = [
            instance(1, name="BuiltIn::Schedule", created_at=1),
            instance(2, kind="entity", created_at=2),
            instance(3, status="Pending", reason="scheduled:99", created_at=3),
            instance(4, created_at=4),
            instance(5, created_at=5),
            instance(6, status="Pending", created_at=6),
            instance(7, status="Completed", completed_at=8, created_at=7),
        ]
        opened = [WaitRow(4, 1, "Decision", 4, 0, None), WaitRow(5, 1, "Decision", 5, 0, None)]
        opened += [WaitRow(5, 2, "Documents", 5, 0, None)]
        with self.opened(Batch(9, new_instances=rows, waits_opened=opened)) as store:
            found = store.gauges()
            assert found.oldest == {"Running": 4, "Pending": 6}
            assert found.waits == {"Decision": 2, "Documents": 1}
            assert found.size >= 0
            store.commit(Batch(10, waits_closed=[(5, -1)]))
            assert store.gauges().waits == {"Decision": 1}

    def test_query_by_the_parent(self) -> None:
        rows = [
            instance(1),
            *(instance(no, parent_id="a", parent_execution="1", parent_task=no) for no in (2, 3)),
            instance(4, parent_id="A", parent_execution="1", parent_task=4),
        ]
        with self.opened(Batch(1, new_instances=rows)) as store:
            assert self.queried(store, parent="a") == [3, 2]
            assert self.queried(store, parent="a", before_no=3) == [2]
            assert self.queried(store, parent="b") == []
            assert store.count(InstanceFilter(parent="a")) == 2

    # --------------------------------------------------------------------------------------------- threads

    def test_clients_read_from_any_thread_what_is_committed(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)])) as store:
            found: list[object] = []

            def ask() -> None:
                found.append(store.get("claim-1"))
                found.append(store.counts())
                store.close_reader()

            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
            assert found == [store.get("claim-1"), {"Running": 1}]

    def test_a_client_sees_a_commit_as_soon_as_it_returns(self) -> None:
        with self.opened() as store:
            assert store.get("claim-1") is None
            store.commit(Batch(1, new_instances=[instance(1)]))
            assert store.get("claim-1") is not None

    def test_a_client_never_sees_half_a_commit(self) -> None:
        with self.opened(Batch(1, new_instances=[instance(1)], history=[episode(1)])) as store:
            broken: list[object] = []
            stop = threading.Event()

            def watch() -> None:
                while not stop.is_set():
                    found = store.get("claim-1", history=True)
                    if found is None or found.row.episodes != len(found.history):
                        broken.append(found)
                store.close_reader()

            thread = threading.Thread(target=watch)
            thread.start()
            for no in range(1, 60):
                store.commit(
                    Batch(no, updates=[update_of(instance(1), episodes=no + 1)], history=[episode(1, no)])
                )
            stop.set()
            thread.join()
            assert broken == []
