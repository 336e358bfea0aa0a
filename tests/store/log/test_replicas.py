"""Replicas: when one is used again, when the log is read anew, and when a person has to decide."""

import os
import random

import pytest

from perdure.errors import StoreError, StoreInUse, StoreTooNew, StoreUnusable
from perdure.model.records import Batch
from perdure.store.log import records as format_of
from perdure.store.log.copying import write_copy
from perdure.store.log.memory import MemoryService
from perdure.store.log.port import LARGEST
from perdure.testing.conformance import episode, instance
from tests.store.log.rig import Rig, contents, numbers, start, step


def test_a_replica_of_this_boot_is_used_again(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    for number in range(1, 10):
        store.commit(start(number))
    rig.kill(store)
    rig.service.requests.clear()
    again = rig.engine()
    again.open()
    assert numbers(again) == list(range(1, 10))
    assert rig.service.requests["read"] <= 2  # the last record that it has, and those behind it: none


def test_a_replica_of_an_earlier_boot_is_not_trusted(rig: Rig) -> None:
    """A power cut may have left any mixture of its pages."""
    store = rig.engine()
    store.open()
    store.commit(start(1))
    store.close()
    store.close_reader()
    with open(store.location, "r+b") as file:
        file.write(b"\0" * 4096)
    again = rig.engine(boot="another boot")
    again.open()
    assert numbers(again) == [1]
    assert not os.path.exists(store.location)  # nothing needs it any more


def test_a_deleted_replica_is_made_again_from_the_log(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    store.commit(start(1))
    store.commit(step(1))
    store.close()
    again = rig.engine("b")
    again.open()
    again.commit(start(2))
    copy = str(rig.path / "copy.db")
    write_copy(rig.service, "claims", copy)
    assert contents(again.location) == contents(copy)


def test_a_replica_behind_the_log_catches_up(rig: Rig) -> None:
    first = rig.engine("a")
    first.open()
    first.commit(start(1))
    rig.kill(first)
    rig.seconds += 60
    second = rig.engine("b")
    second.open()
    second.commit(start(2))
    second.close()
    again = rig.engine("a")
    again.open()
    assert numbers(again) == [1, 2]


def test_a_process_that_dies_between_log_and_replica_has_committed(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    real = store._appender.append

    def dies(at: int, record: bytes) -> None:
        real(at, record)
        raise KeyboardInterrupt

    store._appender.append = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        store.commit(start(1))
    rig.kill(store)
    again = rig.engine()
    again.open()
    assert numbers(again) == [1]


@pytest.mark.parametrize("is_shorter", [True, False])
def test_a_log_that_lacks_a_commit_of_the_replica_is_refused(rig: Rig, is_shorter: bool) -> None:
    store = rig.engine()
    store.open()
    store.commit(start(1))
    store.commit(start(2))
    store.close()
    rig.service = MemoryService(
        now=lambda: round(rig.seconds * 1e6)
    )  # as it was before, and gone on differently
    other = rig.engine("b")
    other.open()
    for number in range(11, 12 if is_shorter else 20):
        other.commit(start(number))
    other.close()
    with pytest.raises(StoreUnusable, match=r"restored to an earlier time.*delete the folder.*perdure copy"):
        rig.engine().open()


def test_a_log_of_a_newer_format_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    store = rig.engine()
    store.open()
    monkeypatch.setattr(format_of, "FORMAT", 2)
    store.commit(start(1))
    monkeypatch.undo()
    store.close()
    with pytest.raises(StoreTooNew, match="format 2"):
        rig.engine("b").open()


def test_a_log_with_another_hub_is_refused(rig: Rig) -> None:
    rig.engine().open()
    with pytest.raises(StoreUnusable, match="contains the hub 'claims', not 'other'"):
        write_copy(rig.service, "other", str(rig.path / "copy.db"))


def test_a_changed_record_is_found(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    for number in range(1, 4):
        store.commit(start(number))
    store.close()
    found = rig.service._records
    found[2] = found[2]._replace(content=found[1].content)
    with pytest.raises(StoreUnusable, match="record 2 of the log does not follow"):
        rig.engine("b").open()


@pytest.mark.parametrize("size", [0, 1, 4_000, 64 * 1024 - 1, 64 * 1024 + 1, LARGEST, 5_000_000])
def test_batches_of_all_sizes(rig: Rig, size: int) -> None:
    store = rig.engine()
    store.open()
    noise = random.Random(size).randbytes(size)
    store.commit(Batch(1, new_instances=[instance(1, "claim-1")], history=[episode(1, events=noise)]))
    store.commit(start(2))
    store.close()
    assert len(rig.service._blobs) == (size >= LARGEST)
    again = rig.engine("b")
    again.open()
    [found] = again.load(["claim-1"])
    assert [row.events for row in found.history] == [noise]
    assert numbers(again) == [1, 2]


def test_two_engines_of_one_machine_do_not_share_a_replica(rig: Rig) -> None:
    rig.engine().open()
    with pytest.raises(StoreInUse, match="this process already has"):
        rig.engine().open()


def test_a_full_disk_before_the_log_refuses_and_after_it_does_not(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    replica = store._replica
    assert replica is not None

    def full(record: bytes) -> None:
        import apsw

        raise apsw.FullError("disk full")

    replica.advance = full  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="after the log had the commit") as raised:
        store.commit(start(1))
    assert type(raised.value) is StoreError  # not StoreFull: that would say that nothing was stored
    store.reopen()
    assert numbers(store) == [1]
