"""`FaultyStore` itself: transparent where nothing is planned, and true to the plan where something is."""

from __future__ import annotations

import pytest

from perdure.errors import CommitRefused, StoreError, StoreFull
from perdure.model.records import Batch
from perdure.store.memory import MemoryStore
from perdure.store.port import Opening, Store
from perdure.testing.conformance import StoreConformance, episode, instance, message
from perdure.testing.faults import Crash, Fault, FaultPlan, FaultyStore


class TestWithoutAPlanItIsTheStoreItWraps(StoreConformance):
    def make_store(self) -> Store:
        return FaultyStore(MemoryStore("conformance"))


def opened(*plan: Fault, **more: object) -> FaultyStore:
    """A store whose second call and those behind it meet these faults."""
    faults = dict(enumerate(plan, start=2))
    store = FaultyStore(MemoryStore("faults"), FaultPlan(faults, **more))  # type: ignore[arg-type]
    store.open()
    return store


def batch(number: int = 1) -> Batch:
    return Batch(1, new_instances=[instance(number)], history=[episode(number)])


def test_a_failed_call_had_no_effect() -> None:
    store = opened(Fault.FAIL)
    with pytest.raises(StoreError):
        store.commit(batch())
    assert store.get("claim-1") is None
    store.commit(batch())
    assert store.get("claim-1") is not None
    assert store.calls == ["open", "commit", "commit"]
    assert store.fired == [(2, "commit", Fault.FAIL)]


def test_a_lost_answer_had_its_effect() -> None:
    store = opened(Fault.LOSE_ANSWER)
    with pytest.raises(StoreError):
        store.commit(batch())
    assert store.get("claim-1") is not None


@pytest.mark.parametrize(("fault", "there"), [(Fault.CRASH_BEFORE, False), (Fault.CRASH_AFTER, True)])
def test_a_dead_process_has_no_store_and_the_next_one_has(fault: Fault, there: bool) -> None:
    store = opened(fault)
    with pytest.raises(Crash):
        store.commit(batch())
    with pytest.raises(Crash):
        store.poll(0, 0, 1)
    store.close()  # changes nothing: the dead close nothing
    following = store.restarted()
    assert following.open() == Opening(2 if there else 1, 1)
    assert (following.get("claim-1") is not None) == there


def test_a_full_store_takes_nothing_until_there_is_room() -> None:
    store = opened(full=True)
    with pytest.raises(StoreFull):
        store.commit(batch())
    assert store.poll(0, 0, 1).messages == []
    store.plan.full = False
    store.commit(batch())


def test_a_refused_instance_may_be_parked_and_an_unwritable_one_may_not() -> None:
    store = opened(refused={"claim-1"}, unwritable={"claim-2"})
    for number in (1, 2):
        with pytest.raises(CommitRefused, match=f"claim-{number}"):
            store.commit(Batch(1, new_instances=[instance(number)], history=[worked(number)]))
    parked = episode(1, events=b'[{"type":"ExecutionParked","kind":"poison","detail":"x"}]')
    store.commit(Batch(1, new_instances=[instance(1)], history=[parked]))
    store.commit(Batch(2, history=[worked(3)], inbox_added=[message(1, "claim-1")]))
    with pytest.raises(CommitRefused):
        store.commit(Batch(3, history=[worked(1, 1)]))
    with pytest.raises(CommitRefused):
        store.commit(Batch(3, inbox_added=[message(2, "claim-2")]))


def worked(number: int, no: int = 0) -> object:
    return episode(number, no, events=b'[{"type":"TimerFired","timer_id":1}]')
