"""Requests without an answer, requests that arrive twice or late: each commit is in the log exactly once."""

from collections.abc import Iterator

import pytest

from perdure.errors import StoreError
from perdure.store.log.copying import write_copy
from perdure.store.log.memory import Fate
from perdure.store.log.port import Moved, Unknown
from perdure.store.log.records import Kind, header_of
from tests.store.log.rig import Rig, contents, numbers, start, step, unlucky


@pytest.mark.parametrize("seed", range(5))
def test_each_commit_is_in_the_log_once_and_in_order(rig: Rig, seed: int) -> None:
    rig.service.faults = unlucky(seed)
    store = rig.engine()
    store.open()
    for number in range(1, 41):
        store.commit(start(number))
        store.commit(step(number))
    rig.service.deliver_late()
    rig.service.faults = lambda verb: "done"
    records, end = rig.service.log().read(0)
    kinds = [header_of(record.content).kind for record in records]
    assert kinds == [Kind.EPOCH] + [Kind.BATCH] * 80
    assert end == 81
    assert numbers(store) == list(range(1, 41))
    copy = str(rig.path / "copy.db")
    assert write_copy(rig.service, "claims", copy, patience=rig.patience()) == 81
    assert contents(store.location) == contents(copy)


@pytest.mark.parametrize("fate", ["cut", "unanswered", "doubled", "late"])
def test_one_fault_costs_no_commit_and_doubles_none(rig: Rig, fate: Fate) -> None:
    store = rig.engine()
    store.open()
    fates = iter([fate])
    rig.service.faults = lambda verb: next(fates, "done") if verb == "append" else "done"
    store.commit(start(1))
    rig.service.deliver_late()
    store.commit(step(1))
    assert rig.service.log().head().end == 3
    assert store.load(["claim-1"])[0].row.episodes == 2


def test_a_commit_without_any_answer_ends_after_the_lease_and_reopening_finds_out(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    fates: Iterator[Fate] = iter(["unanswered"])
    rig.service.faults = lambda verb: next(fates, "cut")
    with pytest.raises(StoreError, match="does not answer"):
        store.commit(start(1))
    rig.service.faults = lambda verb: "done"
    with pytest.raises(StoreError):
        store.poll(1, 1, 1)
    store.reopen()
    assert numbers(store) == [1]
    store.commit(step(1))


def test_a_request_that_arrives_after_the_own_epoch_changes_nothing(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    rig.service.faults = lambda verb: "cut" if verb == "append" else "done"
    held = rig.service.held("append")
    with pytest.raises(StoreError):
        store.commit(start(1))
    rig.service.faults = lambda verb: "done"
    store.reopen()
    with pytest.raises(Moved):
        held[0]()
    assert numbers(store) == []


def test_a_renewal_without_an_answer_does_not_fence_its_own_engine(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    rig.seconds += 5
    rig.service.faults = lambda verb: "unanswered" if verb == "touch" else "done"
    store.maintain(0)
    store.commit(start(1))
    rig.seconds += 5
    store.maintain(0)
    store.maintain(0)
    store.commit(step(1))
    assert rig.service.log().head().end == 3


def test_the_service_may_ask_for_a_pause(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    busy = iter([3.0, 0.0])

    def append(at: int, record: bytes, holder: bytes | None = None) -> int:
        for seconds in busy:
            raise Unknown("503 server busy", seconds)
        return real(at, record, holder)

    log = store._appender.log
    real, log.append = log.append, append  # type: ignore[method-assign]
    before = rig.seconds
    store.commit(start(1))
    assert rig.seconds - before >= 3.0
    assert numbers(store) == [1]
