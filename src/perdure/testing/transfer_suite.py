"""The conformance suite for stores whose hubs can be transferred (`perdure.store.transfer.Movable`).

    class TestMyStoreMoves(MovingConformance):
        def make_store(self, hub="claims"):
            return MyStore("mydb:///conformance", hub=hub)     # another empty store at each call

Each test transfers a hub with a row of every kind, to or from the store in memory, which is the specification.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perdure.errors import StoreUnusable
from perdure.model.records import Batch, BodyRow, DroppedRow, SeenRow
from perdure.model.ring import HEAD, MINUTE, RingRow
from perdure.store.memory import MemoryStore
from perdure.store.transfer import TABLES, Movable, transfer
from perdure.testing.conformance import audit, episode, instance, key, message, raises, task, wait

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERYTHING = Batch(
    1,
    new_instances=[
        instance(1, parent_id="claim-2", parent_execution="ab-1", parent_task=3, tags='{"a":"1"}'),
        instance(2, status="Suspended", reason="operator", due_at=None),
        instance(4, status="Completed", completed_at=77, version="2", execution_no=3),
        instance(7, due_at=99, local_work=1),
        instance(9, "@counter@x", kind="entity"),
    ],
    history=[episode(1), episode(1, 1, events=b'[{"x":1}]'), episode(4, 0, execution_no=3), episode(7)],
    bodies=[BodyRow(4, 3, 0, 0, b"x" * 70_000), BodyRow(4, 3, 0, 1, b"")],
    custom_status=[(1, b'"busy"'), (4, b"null")],
    entity_states=[(9, b'{"n":1}')],
    waits_opened=[
        wait(1, 4),
        wait(1, 5, "Other"),
        task(7, 1, 300, roles=("adjuster",))._replace(holder="ada", held_since=9),
    ],
    inbox_added=[message(3, "claim-1"), message(5, "claim-2", None), message(6, "nobody", 10**15)],
    seen=[SeenRow("op-1", "claim-1", b'"claim-1"', 10**15), SeenRow("op-2", "claim-4", b"1", 10**15)],
    dropped=[DroppedRow("claim-4", n, "event", "E", "", "it has finished", b"1") for n in (5, 6)],
    keys=[key("k1"), key("k2", revoked_at=5)],
    audit=[audit(1), audit(2)],
    ring=[
        RingRow("", MINUTE, 60_000_000, 0, b"{}"),
        RingRow("host:1#3.77", MINUTE, 60_000_000, 3, b"{}"),
        RingRow("", HEAD, 0, 0, b'{"statuses":{"Running":2,"Suspended":1,"Completed":1}}'),
    ],
)


def everything_of(store: Any) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a hub by table, read in pages of two."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table in TABLES:
        rows: list[tuple[Any, ...]] = []
        after: tuple[Any, ...] = ()
        while True:
            page, after = store.export(table, after, 2)
            rows += map(tuple, page)
            if len(page) < 2:
                break
        found[table] = rows
    return found


class MovingConformance:
    """Override `make_store`."""

    def make_store(self, hub: str = "claims") -> Any:
        """Return an empty store, not open yet; a new one at each call, in a place that may have other hubs."""
        raise NotImplementedError("say how to make an empty store")

    @contextmanager
    def opened(self, store: Any, *batches: Batch) -> Iterator[Any]:
        """The store, opened, with these batches committed."""
        store.open()
        try:
            for batch in batches:
                store.commit(batch)
            yield store
        finally:
            store.close_reader()
            store.close()

    def test_it_is_movable(self) -> None:
        assert isinstance(self.make_store(), Movable)

    def test_sizes_count_the_rows_of_every_table(self) -> None:
        with self.opened(self.make_store(), EVERYTHING) as store:
            assert store.sizes() == {
                "instances": 5,
                "history": 4,
                "payloads": 2,
                "state": 3,
                "waits": 3,
                "inbox": 3,
                "seen": 2,
                "dropped": 2,
                "keys": 2,
                "audit": 2,
                "ring": 3,
            }

    def test_everything_comes_over_and_comes_back(self) -> None:
        with (
            self.opened(self.make_store(), EVERYTHING) as store,
            self.opened(MemoryStore("claims")) as memory,
            self.opened(self.make_store()) as again,
        ):
            rows = everything_of(store)
            assert all(rows.values())
            transfer(store, memory)
            assert everything_of(memory) == rows
            transfer(memory, again)
            back = everything_of(again)
            assert [row[1:] for row in back["instances"]] == [row[1:] for row in rows["instances"]]
            assert {name: len(found) for name, found in back.items()} == store.sizes()

    def test_what_came_over_is_found_as_if_it_had_been_written_there(self) -> None:
        with (
            self.opened(MemoryStore("claims"), EVERYTHING) as memory,
            self.opened(self.make_store()) as store,
        ):
            transfer(memory, store)
            found = {one.row.instance_id: one for one in store.load(["claim-1", "claim-2", "claim-7"])}
            assert [len(one.history) for one in found.values()] == [2, 0, 1]
            assert [held.message for held in found["claim-2"].held] == [b'{"n":5}']
            assert [row.message for row in store.poll(9, 1_000, 9).messages] == [b'{"n":3}']
            assert [name for _, name in store.poll(9, 1_000, 9).due] == ["claim-7"]
            assert [name for _, name in store.local_work(0, 9)] == ["claim-7"]
            assert store.seen(["op-1"])[0].instance_id == "claim-1"
            assert len(store.keys()) == 2
            assert sorted(map(len, store.get("claim-4", history=True).bodies.values())) == [0, 70_000]
            assert store.counts() == memory.counts()

    def test_new_rows_do_not_collide_with_what_came_over(self) -> None:
        with (
            self.opened(MemoryStore("claims"), EVERYTHING) as memory,
            self.opened(self.make_store()) as store,
        ):
            transfer(memory, store)
            numbers = store.reopen()
            first, second = numbers.next_instance_no, numbers.next_message_no
            store.commit(
                Batch(
                    2,
                    new_instances=[instance(first, "new")],
                    history=[episode(first)],
                    inbox_added=[message(second, "new")],
                    inbox_removed=[],
                )
            )
            assert len(store.get("new", history=True).history) == 1

    def test_a_hub_that_has_rows_is_left_alone(self) -> None:
        for batch in (Batch(1, new_instances=[instance(1)]), Batch(1, keys=[key("k")])):
            with (
                self.opened(MemoryStore("claims"), EVERYTHING) as memory,
                self.opened(self.make_store(), batch) as store,
            ):
                before = everything_of(store)
                with raises(StoreUnusable):
                    transfer(memory, store)
                assert everything_of(store) == before

    def test_an_import_that_is_cut_off_shows_nothing_and_is_done_again(self) -> None:
        with self.opened(MemoryStore("claims"), EVERYTHING) as memory:
            rows = everything_of(memory)
            with self.opened(self.make_store()) as store:
                store.begin_import()
                store.import_rows("instances", rows["instances"])
                store.import_rows("history", rows["history"])
                assert set(store.sizes().values()) == {0}
                assert (store.get("claim-1"), store.counts()) == (None, {})
                store.reopen()
                assert set(store.sizes().values()) == {0}
                transfer(memory, store)
                assert store.sizes() == memory.sizes()

    def test_a_source_that_changes_meanwhile_is_noticed(self) -> None:
        with (
            self.opened(self.make_store(), EVERYTHING) as store,
            self.opened(MemoryStore("claims")) as memory,
        ):

            def meddle(table: str, done: int, total: int) -> None:
                if table == "instances":
                    store.commit(Batch(2, history=[episode(7, 1)]))

            with raises(StoreUnusable):
                transfer(store, memory, meddle)
            assert set(memory.sizes().values()) == {0}


__all__ = ["MovingConformance"]
