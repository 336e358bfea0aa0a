"""The conformance suite for stores whose hub several workers may serve (`perdure.store.port.SharedStore`).

    class TestMyStoreShared(SharedStoreConformance):
        def make_stores(self):
            place = new_empty_place()
            return lambda: MyStore(place, hub="claims")      # another door to the same empty hub at each call

Leases of a moment represent expired ones and leases of an hour valid ones, so no test waits or changes a clock.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from perdure.errors import CommitConflict, CommitRefused, FenceLost, StoreError, StoreInUse
from perdure.model.instances import PARTITIONS, execution_id_of, partition_of
from perdure.model.records import ANSWERED, ActivityRow, Batch, InboxRow, ResultRow, SeenRow
from perdure.store.port import Opening, Profile, SharedStore
from perdure.testing.conformance import DAY, episode, instance, message, raises, update_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR = 3_600_000_000
MOMENT = 1
ALL = range(PARTITIONS)
NAMES = ["resize", "charge"]


def profile(worker: str = "one", lease: int = HOUR, **changes: Any) -> Profile:
    """A worker with a lease that does not expire during a test; a lease of `MOMENT` expires at once."""
    wanted: dict[str, Any] = {"role": "worker", "pools": ("gpu",), "functions": "{}", **changes}
    return Profile(worker=worker, lease=lease, **wanted)


def activity(task_id: int, instance_id: str = "claim-1", **changes: Any) -> ActivityRow:
    """An unclaimed activity."""
    row = ActivityRow(
        instance_id, "aa-0", task_id, "", "resize", 100 + task_id, 0, None, b'{"n":%d}' % task_id
    )
    return row._replace(**changes)


def result(of: ActivityRow, message_no: int, **changes: Any) -> ResultRow:
    """The result of a claimed activity."""
    row = ResultRow(*of[:3], of.attempt, message_no, b'{"done":%d}' % of.task_id)
    return row._replace(**changes)


class SharedStoreConformance:
    """Override `make_stores`."""

    def make_stores(self) -> Callable[[], SharedStore]:
        """A function that returns a store over the same empty hub, not open yet, at each call."""
        raise NotImplementedError("say how to make stores over one empty hub")

    @contextmanager
    def stores(self) -> Iterator[Callable[[], SharedStore]]:
        """Creates stores over one hub and closes them all at the end."""
        make, made = self.make_stores(), []

        def another() -> SharedStore:
            made.append(make())
            return made[-1]

        try:
            yield another
        finally:
            for store in made:
                store.close_reader()
                store.close()

    @contextmanager
    def workers(self, *leases: int) -> Iterator[list[tuple[SharedStore, Opening]]]:
        """Workers with these leases, opened one after the other."""
        with self.stores() as another:
            found = []
            for no, lease in enumerate(leases):
                store = another()
                store.register(profile(f"worker-{no}", lease))
                found.append((store, store.open()))
            yield found

    # -------------------------------------------------------------------------------------- alone or together

    def test_it_is_shared(self) -> None:
        with self.stores() as another:
            assert isinstance(another(), SharedStore)

    def test_a_hub_that_is_not_shared_belongs_to_one(self) -> None:
        with self.stores() as another:
            first, second, worker = another(), another(), another()
            assert first.open() == Opening(1, 1)
            with raises(StoreInUse):
                second.open()
            worker.register(profile())
            with raises(StoreInUse):
                worker.open()
            first.close()
            assert second.open() == Opening(1, 1)

    def test_a_hub_that_workers_serve_is_not_opened_alone(self) -> None:
        with self.stores() as another:
            worker, tool = another(), another()
            worker.register(profile())
            worker.open()
            with raises(StoreInUse):
                tool.open()
            worker.close()
            assert tool.open().incarnation == 0

    def test_who_opens_alone_finds_what_workers_left(self) -> None:
        with self.stores() as another:
            worker, tool = another(), another()
            worker.register(profile())
            no = worker.open().next_instance_no
            worker.commit(Batch(1, new_instances=[instance(no, "a")], inbox_added=[message(no + 1, "a")]))
            worker.close()
            opening = tool.open()
            assert (opening.next_instance_no, opening.next_message_no) == (no + 1, no + 2)
            assert [row.message_no for row in tool.poll(9, 9, 9).messages] == [no + 1]
            tool.commit(Batch(2, inbox_removed=[no + 1]))

    def test_each_incarnation_has_numbers_of_its_own(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, second)]:
            third = two.reopen()
            openings = [first, second, third]
            assert len({opening.incarnation for opening in openings}) == 3
            for store, opening in ((one, first), (two, third)):
                store.commit(
                    Batch(
                        1,
                        new_instances=[instance(opening.next_instance_no, f"of-{opening.incarnation}")],
                        inbox_added=[message(opening.next_message_no, "x")],
                    )
                )
            for opening in openings:
                assert min(opening.next_instance_no, opening.next_message_no) > 0
                assert opening.partitions == PARTITIONS
                assert opening.now > 0
            gaps = sorted(opening.next_instance_no for opening in openings)
            assert gaps[1] - gaps[0] > 1_000_000_000 and gaps[2] - gaps[1] > 1_000_000_000

    def test_workers_number_behind_all_that_is_there(self) -> None:
        """A copied hub may have had many more workers."""
        far = 70 * 2**40
        with self.stores() as another:
            tool, one = another(), another()
            tool.open()
            tool.commit(Batch(1, new_instances=[instance(far + 3, "a")], inbox_added=[message(2 * far, "a")]))
            tool.close()
            one.register(profile("one"))
            for opening in (one.open(), one.reopen()):
                assert min(opening.next_instance_no, opening.next_message_no) > 2 * far
                no = opening.next_message_no
                one.commit(Batch(2, inbox_added=[message(no, "a")], new_instances=[instance(no, f"b-{no}")]))

    # --------------------------------------------------------------------------------------------- the census

    def test_the_census_tells_who_is_there(self) -> None:
        with self.stores() as another:
            store = another()
            store.register(
                profile("one", HOUR, pools=("gpu", "eu"), functions='{"activities":["a"]}', role="api")
            )
            opening = store.open()
            census = store.census()
            [worker] = census.workers
            assert worker.incarnation == opening.incarnation
            assert (worker.worker, worker.role, worker.pools) == ("one", "api", "gpu eu")
            assert (worker.functions, worker.state) == ('{"activities":["a"]}', "living")
            assert worker.lease_until == worker.started_at + HOUR
            assert worker.started_at <= census.now
            assert [row.partition for row in census.partitions] == list(ALL)
            assert {(row.incarnation, row.epoch) for row in census.partitions} == {(None, 0)}

    def test_who_has_left_is_not_there_any_more(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, _), (two, second)]:
            assert one.take([1, 2]) == [1, 2]
            one.close()
            census = two.census()
            assert [row.incarnation for row in census.workers] == [second.incarnation]
            assert all(row.incarnation is None for row in census.partitions)
            assert two.take([2, 3]) == [2, 3]

    def test_who_drains_gets_no_partitions(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, _)]:
            assert one.take([1]) == [1]
            one.drain()
            states = {row.incarnation: row.state for row in two.census().workers}
            assert states[first.incarnation] == "draining"
            assert one.take([2]) == []
            again = one.reopen()
            assert again.owned == frozenset({1})
            assert one.take([2]) == []
            one.commit(Batch(1, partitions_released=[1]))

    def test_renewing_prolongs_the_lease(self) -> None:
        with self.workers(MOMENT) as [(store, _)]:
            [before] = store.census().workers
            assert store.renew()
            [after] = store.census().workers
            assert after.lease_until >= before.lease_until

    # ------------------------------------------------------------------------------------------- partitions

    def test_a_partition_has_one_owner(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, second)]:
            assert one.take([0, 5, 31, 5]) == [0, 5, 31]
            assert two.take([5, 6, 999]) == [6]
            assert one.take([5]) == []
            owners = {row.partition: row.incarnation for row in two.census().partitions}
            assert {number for number, owner in owners.items() if owner == first.incarnation} == {0, 5, 31}
            assert owners[6] == second.incarnation
            assert {row.epoch for row in two.census().partitions if row.incarnation is not None} == {1}

    def test_a_partition_is_handed_over_by_its_owners_commit(self) -> None:
        row = instance(1, "a", local_work=1)
        other = instance(
            2,
            next(f"i{n}" for n in range(99) if partition_of(f"i{n}", PARTITIONS) != row.partition),
            local_work=1,
        )
        with self.workers(HOUR, HOUR) as [(one, _), (two, _)]:
            one.take(ALL)
            one.commit(Batch(1, new_instances=[row, other], inbox_added=[message(1, "a")]))
            assert two.take([row.partition]) == []
            one.commit(Batch(2, partitions_released=[row.partition]))
            assert one.poll(9, 9, 9).messages == []
            assert one.local_work(0, 9) == [(2, other.instance_id)]
            assert two.take([row.partition]) == [row.partition]
            assert two.poll(9, 9, 9).messages == [message(1, "a")]
            assert two.local_work(0, 9) == [(1, "a")]
            two.commit(Batch(3, inbox_removed=[1]))

    def test_who_releases_may_update_the_same_instances_in_that_commit(self) -> None:
        row = instance(1, "a", local_work=1)
        with self.workers(HOUR) as [(store, _)]:
            store.take(ALL)
            store.commit(Batch(1, new_instances=[row]))
            store.commit(Batch(2, updates=[update_of(row, episodes=7)], partitions_released=[row.partition]))
            [found] = store.load(["a"])
            assert (found.row.episodes, found.row.local_work) == (7, 1)

    def test_only_owned_partitions_are_polled(self) -> None:
        rows = [
            instance(number, due_at=number, local_work=1, status="Suspended", reason="no_worker")
            for number in range(1, 40)
        ]
        added = [message(number, f"claim-{number}", number) for number in range(1, 40)]
        with self.workers(HOUR, HOUR) as [(one, _), (two, _)]:
            one.commit(Batch(1, new_instances=rows, inbox_added=added))
            mine = one.take(range(0, PARTITIONS, 2))
            two.take(ALL)
            for store, is_mine in ((one, True), (two, False)):
                wanted = [row for row in rows if (row.partition in mine) == is_mine]
                named = [(row.instance_no, row.instance_id) for row in wanted]
                found = store.poll(20, 30, 100)
                assert [row.message_no for row in found.messages] == [
                    row.instance_no for row in wanted if row.instance_no <= 20
                ]
                assert found.due == [(row.due_at, row.instance_id) for row in wanted if row.instance_no < 30]
                assert found.next_visible_at == min(row.instance_no for row in wanted if row.instance_no > 20)
                assert store.local_work(0, 99) == named
                assert store.parked(0, 99) == named
                assert len(store.poll(99, 99, 3).messages) == len(store.poll(99, 99, 3).due) == 3
            assert len(one.load([row.instance_id for row in rows])) == len(rows)
            assert len(two.rows([row.instance_id for row in rows])) == len(rows)

    def test_who_owns_nothing_polls_nothing(self) -> None:
        with self.workers(HOUR) as [(store, _)]:
            store.commit(Batch(1, new_instances=[instance(1, due_at=1)], inbox_added=[message(1, "claim-1")]))
            found = store.poll(9, 9, 9)
            assert (found.messages, found.due, found.next_visible_at) == ([], [], None)

    # ---------------------------------------------------------------------------------------------- fences

    def test_who_is_void_cannot_commit(self) -> None:
        with self.workers(MOMENT, HOUR) as [(one, first), (two, _)]:
            one.take(ALL)
            one.commit(Batch(1, new_instances=[instance(1)], inbox_added=[message(1, "claim-1")]))
            assert two.void(first.incarnation)
            with raises(FenceLost):
                one.commit(Batch(2, updates=[update_of(instance(1), status="Failed")], inbox_removed=[1]))
            with raises(FenceLost):
                one.commit(Batch(2))
            assert two.take(ALL) == list(ALL)
            assert [found.row for found in two.load(["claim-1"])] == [instance(1)]
            assert len(two.poll(9, 9, 9).messages) == 1

    def test_who_is_void_does_not_become_an_owner(self) -> None:
        with self.workers(MOMENT, HOUR) as [(one, first), (two, _)]:
            two.commit(Batch(1, activities_placed=[activity(1)]))
            assert two.void(first.incarnation)
            assert not one.renew()
            with raises(FenceLost):
                one.take([1])
            with raises(FenceLost):
                one.claim([""], NAMES, 9)
            assert two.claim([""], NAMES, 9) != []

    def test_who_is_void_comes_back_with_empty_hands(self) -> None:
        with self.workers(MOMENT, HOUR) as [(one, first), (two, _)]:
            one.take([1, 2])
            two.void(first.incarnation)
            again = one.reopen()
            assert again.incarnation > first.incarnation
            assert again.owned == frozenset()
            one.commit(Batch(2, new_instances=[instance(1)]))
            assert one.take([1]) == [1]

    def test_who_lives_is_not_taken_over(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, _)]:
            one.take([3])
            assert not two.void(first.incarnation)
            assert not two.void(12_345)
            one.commit(Batch(1, new_instances=[instance(1)]))
            assert two.take([3]) == []

    def test_who_is_known_to_be_dead_is_taken_over_at_once(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, second)]:
            one.take([3])
            two.expire([first.incarnation, 12_345])
            assert two.void(first.incarnation)
            assert two.take([3]) == [3]
            assert not one.renew()
            assert two.renew() and not two.void(second.incarnation)

    def test_who_was_taken_for_dead_and_lives_goes_on(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, _)]:
            two.expire([first.incarnation])
            assert one.renew()
            assert not two.void(first.incarnation)

    def test_nobody_is_taken_over_twice(self) -> None:
        with self.workers(MOMENT, HOUR, HOUR) as [(_, first), (two, _), (three, _)]:
            assert two.void(first.incarnation)
            assert not three.void(first.incarnation)
            assert not two.void(first.incarnation)

    def test_who_came_back_keeps_what_it_had(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, _)]:
            one.take([1, 2])
            one.commit(Batch(1, activities_placed=[activity(1)]))
            [claimed] = one.claim([""], NAMES, 9)
            again = one.reopen()
            assert again.owned == frozenset({1, 2})
            assert again.incarnation > first.incarnation
            assert [row.incarnation for row in two.census().workers if row.worker == "worker-0"] == [
                again.incarnation
            ]
            assert two.take([1, 2]) == []
            assert two.claim([""], NAMES, 9) == []
            one.commit(Batch(2, results=[result(claimed, 5)]))
            assert one.late_results == 0

    def test_opening_again_is_coming_back(self) -> None:
        with self.workers(HOUR) as [(store, first)]:
            store.take([4])
            again = store.open()
            assert again.owned == frozenset({4})
            assert again.incarnation > first.incarnation

    def test_a_lease_that_was_renewed_holds(self) -> None:
        with self.stores() as another:
            one, two = another(), another()
            one.register(profile("one", MOMENT))
            first = one.open()
            one.register(profile("one", HOUR))
            assert one.renew()
            two.register(profile("two"))
            two.open()
            assert not two.void(first.incarnation)

    # ------------------------------------------------------------------------------------------- conflicts

    def test_an_id_that_another_took_meanwhile_is_a_conflict(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, _), (two, _)]:
            one.commit(Batch(1, new_instances=[instance(1, "a")]))
            with raises(CommitConflict):
                two.commit(Batch(1, new_instances=[instance(2, "a")], history=[episode(2)]))
            two.commit(Batch(2, new_instances=[instance(3, "b")]))
            assert two.get("a") == one.get("a")

    def test_an_operation_that_another_accepted_meanwhile_is_a_conflict(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, _), (two, _)]:
            first = SeenRow("op", "a", b"1", DAY)
            one.commit(Batch(1, seen=[first]))
            with raises(CommitConflict):
                two.commit(Batch(2, seen=[SeenRow("op", "b", b"2", DAY)], new_instances=[instance(1, "b")]))
            assert two.answered("op") == first
            assert two.get("b") is None
            two.commit(Batch(2 * DAY, seen=[SeenRow("op", "b", b"2", 3 * DAY)]))

    def test_what_collides_within_a_batch_is_refused(self) -> None:
        with self.workers(HOUR) as [(store, _)]:
            with raises(CommitRefused):
                store.commit(Batch(1, new_instances=[instance(1, "a"), instance(2, "a")]))
            with raises(CommitRefused):
                store.commit(Batch(1, seen=[SeenRow("op", "a", b"1", DAY), SeenRow("op", "b", b"2", DAY)]))
            store.commit(Batch(1, new_instances=[instance(1, "a")]))
            with raises(CommitRefused):
                store.commit(Batch(1, history=[episode(1), episode(1)]))

    def test_messages_for_any_partition_may_be_added(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, _), (two, _)]:
            two.take(ALL)
            one.commit(Batch(1, inbox_added=[message(n, f"claim-{n}") for n in range(1, 9)]))
            assert [row.message_no for row in two.poll(9, 9, 9).messages] == list(range(1, 9))

    # ------------------------------------------------------------------------------------------ activities

    def test_activities_are_claimed_once_and_the_oldest_first(self) -> None:
        rows = [
            activity(3),
            activity(1),
            activity(2, "claim-2"),
            activity(4, pool="gpu"),
            activity(5, name="other"),
        ]
        with self.workers(HOUR, HOUR) as [(one, first), (two, second)]:
            one.commit(Batch(1, activities_placed=rows))
            mine = one.claim([""], NAMES, 2)
            assert mine == [
                rows[1]._replace(attempt=1, incarnation=first.incarnation),
                rows[2]._replace(attempt=1, incarnation=first.incarnation),
            ]
            rest = two.claim(["gpu", ""], NAMES, 9)
            assert rest == [
                row._replace(attempt=1, incarnation=second.incarnation) for row in (rows[0], rows[3])
            ]
            assert one.claim(["gpu", ""], NAMES, 9) == []
            assert one.claim(["gpu", ""], [], 9) == one.claim([], NAMES, 9) == []
            assert [row.task_id for row in one.claim([""], ["other"], 9)] == [5]

    def test_claims_are_told_and_given_back(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, _)]:
            one.commit(Batch(1, activities_placed=[activity(n) for n in (1, 2, 3)]))
            mine = one.claim([""], NAMES, 2)
            assert one.claims() == [row._replace(invocation=b"") for row in mine]
            assert two.claims() == []
            two.unclaim([row[:3] for row in mine])  # not their claims
            assert two.claim([""], NAMES, 9)[0].task_id == 3
            one.unclaim([mine[1][:3], ("nobody", "aa-0", 1)])
            one.unclaim([])
            assert [row.task_id for row in one.claims()] == [1]
            [again] = two.claim([""], NAMES, 9)
            assert (again.task_id, again.attempt) == (2, 2)
            one.commit(Batch(2, results=[result(mine[1], first.next_message_no)]))
            assert one.late_results == 1

    def test_placed_activities_are_told_to_anybody(self) -> None:
        rows = [activity(2), activity(1), activity(1, "claim-2")]
        with self.workers(HOUR) as [(one, first)]:
            one.commit(Batch(1, activities_placed=rows))
            one.claim([""], NAMES, 1)
            found = one.placed(["claim-1", "nobody", "claim-1"])
            bare = [row._replace(invocation=b"") for row in (rows[1], rows[0])]
            assert found == [bare[0]._replace(attempt=1, incarnation=first.incarnation), bare[1]]

    def test_a_result_is_put_into_the_inbox(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, _), (two, _)]:
            one.take(ALL)
            one.commit(Batch(1, activities_placed=[activity(1), activity(2)]))
            [claimed] = two.claim([""], NAMES, 1)
            two.commit(Batch(7, results=[result(claimed, 41)]))
            assert two.late_results == 0
            assert one.poll(7, 0, 9).messages == [InboxRow(41, "claim-1", 7, b'{"done":1}')]
            two.commit(Batch(8, results=[result(claimed, 42)]))
            assert two.late_results == 1
            assert len(one.poll(9, 0, 9).messages) == 1
            assert [row.task_id for row in one.claim([""], NAMES, 9)] == [2]

    def test_an_activity_is_there_until_its_result_is_taken_up(self) -> None:
        row = instance(1)
        placed = activity(1, execution_id=execution_id_of(row.salt, row.execution_no))
        answered = {placed[1:3]}
        with self.workers(MOMENT, HOUR, HOUR) as [(one, first), (two, _), (three, _)]:
            one.take(ALL)
            one.commit(Batch(1, new_instances=[row], activities_placed=[placed]))
            [claimed] = two.claim([""], NAMES, 1)
            two.commit(Batch(2, results=[result(claimed, 41)]))
            assert [found.incarnation for found in one.placed([row.instance_id])] == [ANSWERED]
            assert [found.placed for found in one.load([row.instance_id])] == [answered]
            assert two.claims() == three.claim([""], NAMES, 9) == []
            two.unclaim([claimed[:3]])
            assert three.void(first.incarnation)
            two.close()
            assert three.take(ALL) == list(ALL)
            assert three.claim([""], NAMES, 9) == []
            assert [found.placed for found in three.load([row.instance_id])] == [answered]
            three.commit(Batch(3, inbox_removed=[41], activities_removed=[placed[:3]]))
            assert three.placed([row.instance_id]) == []

    def test_who_has_a_hub_alone_frees_claims_and_no_answered_activity(self) -> None:
        with self.stores() as another:
            worker, tool = another(), another()
            worker.register(profile())
            worker.open()
            worker.commit(Batch(1, activities_placed=[activity(1), activity(2)]))
            [claimed, _] = worker.claim([""], NAMES, 2)
            worker.commit(Batch(2, results=[result(claimed, 41)]))
            worker.close()
            tool.open()
            found = {row.task_id: row.incarnation for row in tool.placed(["claim-1"])}
            assert found == {1: ANSWERED, 2: None}

    def test_a_result_counts_once_in_a_batch_too(self) -> None:
        with self.workers(HOUR) as [(store, _)]:
            store.take(ALL)
            store.commit(Batch(1, activities_placed=[activity(1)]))
            [claimed] = store.claim([""], NAMES, 1)
            stale = result(claimed, 43, attempt=0)
            store.commit(Batch(2, results=[stale, result(claimed, 41), result(claimed, 42)]))
            assert store.late_results == 2
            assert [row.message_no for row in store.poll(9, 0, 9).messages] == [41]

    def test_a_result_of_an_earlier_claim_of_the_same_worker_is_late(self) -> None:
        with self.workers(HOUR) as [(store, opening)]:
            store.take(ALL)
            store.commit(Batch(1, activities_placed=[activity(1)]))
            [old] = store.claim([""], NAMES, 1)
            store.unclaim([old[:3]])
            [new] = store.claim([""], NAMES, 1)
            assert (old.attempt, new.attempt) == (1, 2)
            assert old.incarnation == new.incarnation == opening.incarnation
            store.commit(Batch(2, results=[result(old, 41)]))
            assert store.late_results == 1
            assert store.poll(9, 0, 9).messages == []
            store.commit(Batch(3, results=[result(new, 42)]))
            assert store.late_results == 1
            assert [row.message_no for row in store.poll(9, 0, 9).messages] == [42]

    def test_a_result_of_an_earlier_claim_is_late(self) -> None:
        with self.workers(MOMENT, HOUR) as [(one, first), (two, second)]:
            one.commit(Batch(1, activities_placed=[activity(1)]))
            [old] = one.claim([""], NAMES, 9)
            assert two.void(first.incarnation)
            again = one.reopen()
            one.commit(Batch(2, results=[result(old, again.next_message_no)]))
            assert one.late_results == 1
            [new] = two.claim([""], NAMES, 9)
            assert (new.attempt, new.incarnation) == (2, second.incarnation)
            one.commit(Batch(3, results=[result(old, again.next_message_no)]))
            assert one.late_results == 2
            two.commit(Batch(4, results=[result(new, second.next_message_no)]))
            assert two.late_results == 0

    def test_activities_are_removed_one_by_one_or_with_their_execution(self) -> None:
        rows = [activity(n) for n in (1, 2)] + [activity(3, execution_id="bb-1"), activity(1, "claim-2")]
        with self.workers(HOUR) as [(store, _)]:
            store.commit(Batch(1, activities_placed=rows))
            store.commit(Batch(2, activities_removed=[("claim-2", "aa-0", 1), ("claim-1", "aa-0", 77)]))
            assert [row.task_id for row in store.claim([""], NAMES, 1)] == [1]
            store.commit(Batch(3, activities_removed=[("claim-1", "aa-0", -1)]))
            assert [row.execution_id for row in store.claim([""], NAMES, 9)] == ["bb-1"]

    def test_what_is_placed_and_removed_in_one_batch_is_not_there(self) -> None:
        with self.workers(HOUR) as [(store, _)]:
            removed = [("claim-1", "aa-0", 1), ("claim-2", "aa-0", -1)]
            placed = [activity(1), activity(2), activity(1, "claim-2")]
            store.commit(Batch(1, activities_placed=placed, activities_removed=removed))
            assert [row.task_id for row in store.claim([""], NAMES, 9)] == [2]

    def test_an_activity_is_placed_once(self) -> None:
        with self.workers(HOUR) as [(store, _)]:
            store.commit(Batch(1, activities_placed=[activity(1)]))
            with raises(CommitRefused):
                store.commit(Batch(2, new_instances=[instance(1)], activities_placed=[activity(1)]))
            assert store.get("claim-1") is None

    def test_purging_takes_placed_activities_along(self) -> None:
        with self.workers(HOUR) as [(store, _)]:
            rows = [instance(1), instance(2)]
            placed = [activity(1), activity(1, "claim-2")]
            store.commit(Batch(1, new_instances=rows, activities_placed=placed))
            store.commit(Batch(2, purged=[1]))
            assert [row.instance_id for row in store.claim([""], NAMES, 9)] == ["claim-2"]

    def test_load_tells_what_is_placed_for_the_current_execution(self) -> None:
        row, done = instance(1, execution_no=2), instance(2, status="Completed", completed_at=5)
        now, before = execution_id_of(row.salt, 2), execution_id_of(row.salt, 1)
        placed = [
            activity(4, execution_id=now),
            activity(6, execution_id=now),
            activity(5, execution_id=before),
            activity(7, "claim-2", execution_id=execution_id_of(done.salt, 0)),
        ]
        with self.workers(HOUR) as [(store, _)]:
            store.commit(Batch(1, new_instances=[row, done], activities_placed=placed))
            store.claim([""], NAMES, 1)
            loaded = store.load(["claim-1", "claim-2"])
            assert [found.placed for found in loaded] == [frozenset({(now, 4), (now, 6)}), frozenset()]

    # ----------------------------------------------------------------------------------------------- hints

    def test_a_hint_reaches_whom_it_is_for(self) -> None:
        with self.workers(HOUR, HOUR) as [(one, first), (two, second)]:
            heard = threading.Event()
            one.listen(heard.set)
            two.notify([first.incarnation, 4_711])
            assert heard.wait(20)
            heard.clear()
            again = one.reopen()
            for _ in range(200):  # a hint may be lost, especially while the listener reconnects
                one_more = [again.incarnation, second.incarnation]
                two.notify(one_more)
                if heard.wait(0.1):
                    break
            assert heard.is_set()

    def test_hints_never_raise(self) -> None:
        with self.workers(HOUR) as [(store, opening)]:
            store.notify([])
            store.close()
            store.notify([opening.incarnation])

    # -------------------------------------------------------------------------------------------- closing

    def test_a_closed_worker_says_so(self) -> None:
        with self.workers(HOUR) as [(store, _)]:
            store.close()
            store.close()
            assert not store.renew()
            for refused in (
                lambda: store.take([1]),
                lambda: store.claim([""], NAMES, 1),
                lambda: store.commit(Batch(1, new_instances=[instance(1)])),
                lambda: store.poll(1, 1, 1),
            ):
                with raises(StoreError):
                    refused()
            assert store.open().owned == frozenset()


__all__ = ["HOUR", "MOMENT", "SharedStoreConformance", "activity", "profile", "result"]
