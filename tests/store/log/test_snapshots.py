"""Snapshots, trimming, the way back in time, and changes of rows outside of batches."""

import zlib
from contextlib import suppress

import pytest

from perdure.errors import StoreError, StoreUnusable
from perdure.model.records import Batch
from perdure.store.encryption import Encryption
from perdure.store.log.copying import write_copy
from perdure.store.log.port import Trimmed
from perdure.store.log.store import LogStore
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import episode, instance
from tests.store.log.rig import Rig, contents, numbers, start, step, unlucky

HOUR = 3_600


def filled(rig: Rig, store: LogStore, first: int, last: int) -> None:
    """One commit a second."""
    for number in range(first, last + 1):
        rig.seconds += 1
        store.commit(start(number))


def upkeep(rig: Rig, store: LogStore) -> None:
    store.maintain(round(rig.seconds * 1e6))


def listed(store: LogStore) -> list[int]:
    return [snapshot.position for snapshot in store._shelf.read()[0].snapshots]


def first_record(rig: Rig) -> int:
    return min(rig.service._records, default=-1)


def test_a_snapshot_is_made_when_the_log_has_grown(rig: Rig) -> None:
    store = rig.engine(snapshot_above=2_000)
    store.open()
    upkeep(rig, store)
    assert listed(store) == []
    for round_ in range(5):
        filled(rig, store, round_ * 60 + 1, round_ * 60 + 60)
        upkeep(rig, store)
    assert len(listed(store)) == 2  # the newest, and one for readers that have begun
    assert first_record(rig) == listed(store)[0]
    assert sorted(rig.service._blobs) == [f"snapshots/{at:016x}.db.z" for at in listed(store)]


def test_a_snapshot_is_made_after_an_hour_with_changes(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    upkeep(rig, store)
    filled(rig, store, 1, 3)
    upkeep(rig, store)
    assert listed(store) == []
    rig.seconds += HOUR
    upkeep(rig, store)
    assert listed(store) == [4]
    rig.seconds += 2 * HOUR
    upkeep(rig, store)
    assert listed(store) == [4]  # nothing has changed


def test_an_engine_begins_with_the_newest_snapshot(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    for last in (10, 20, 30):
        filled(rig, store, last - 9, last)
        store.save()
    filled(rig, store, 31, 35)
    assert first_record(rig) == 21
    store.close()
    rig.service.requests.clear()
    again = rig.engine("b")
    again.open()
    assert numbers(again) == list(range(1, 36))
    assert rig.service.requests["get"] == 1
    again.commit(step(1))
    copy = str(rig.path / "copy.db")
    write_copy(rig.service, "claims", copy)
    assert contents(again.location) == contents(copy)


def test_a_replica_that_fell_behind_the_log_begins_with_a_snapshot(rig: Rig) -> None:
    first = rig.engine("a")
    first.open()
    filled(rig, first, 1, 5)
    rig.kill(first)
    rig.seconds += 60
    second = rig.engine("b")
    second.open()
    for last in (15, 25, 35):
        filled(rig, second, last - 9, last)
        second.save()
    second.close()
    again = rig.engine("a")
    again.open()
    assert numbers(again) == list(range(1, 36))


def test_a_sleeper_cannot_append_where_the_log_was_trimmed(rig: Rig) -> None:
    """Insert-if-absent would accept this: the key is free again, and no reader ever looks there."""
    sleeper = rig.engine("a")
    sleeper.open()
    filled(rig, sleeper, 1, 3)
    under_way = rig.service.held("append")
    rig.service.faults = lambda verb: "cut"
    with pytest.raises(StoreError):
        sleeper.commit(start(4))
    rig.service.faults = lambda verb: "done"
    sent = list(under_way)
    rig.seconds += 60
    second = rig.engine("b")
    second.open()
    for last in (19, 29, 39):
        filled(rig, second, last - 9, last)
        second.save()
    with pytest.raises(Trimmed):
        rig.service.log().read(4)
    kept = dict(rig.service._records)
    for request in sent:
        with pytest.raises(Exception, match=r"^$"):
            request()
    assert rig.service._records == kept


def test_a_fenced_engine_lists_no_snapshot_and_deletes_nothing(rig: Rig) -> None:
    first, second = rig.engine("a"), rig.engine("b")
    first.open()
    filled(rig, first, 1, 5)
    rig.seconds += 60
    second.open()
    filled(rig, second, 6, 9)
    second.save()
    before = listed(second), first_record(rig)
    first.save()
    assert (listed(second), first_record(rig)) == before


@pytest.mark.parametrize("seed", range(4))
def test_snapshots_over_a_bad_network(rig: Rig, seed: int) -> None:
    store = rig.engine(snapshot_above=1_500)
    rig.service.faults = unlucky(seed, 0.2)
    store.open()
    for round_ in range(10):
        filled(rig, store, round_ * 10 + 1, round_ * 10 + 10)
        upkeep(rig, store)
    store.close()
    again = rig.engine("b", standby=True)
    again.open()
    assert numbers(again) == list(range(1, 101))


def test_the_hub_as_it_was_at_a_moment(rig: Rig) -> None:
    store = rig.engine(keep_log=7 * 24 * HOUR)
    store.open()
    for last in (10, 20, 30):
        filled(rig, store, last - 9, last)
        store.save()
    begin = rig.seconds - 30
    for count in (0, 1, 9, 10, 11, 25, 30):
        copy = str(rig.path / f"{count}.db")
        write_copy(rig.service, "claims", copy, at=round((begin + count) * 1e6))
        restored = SqliteStore(copy, "claims")
        restored.open()
        assert len(restored.rows([f"claim-{no}" for no in range(1, 40)])) == count
        restored.close()


def test_the_log_does_not_reach_back_for_ever(rig: Rig) -> None:
    store = rig.engine(keep_log=15)
    store.open()
    begin = rig.seconds
    for last in range(10, 110, 10):
        filled(rig, store, last - 9, last)
        store.save()
    with pytest.raises(StoreUnusable, match="does not reach back to 2027-.*, but to 2027-.*--keep-log"):
        write_copy(rig.service, "claims", str(rig.path / "copy.db"), at=round((begin + 5) * 1e6))
    assert not (rig.path / "copy.db").exists()
    write_copy(rig.service, "claims", str(rig.path / "copy.db"), at=round((rig.seconds - 15) * 1e6))


def test_a_damaged_snapshot_is_found(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    filled(rig, store, 1, 3)
    store.save()
    store.close()
    [name] = rig.service._blobs
    rig.service._blobs[name] = b"?" + rig.service._blobs[name][1:]
    with pytest.raises(StoreUnusable, match="is damaged"):
        rig.engine("b").open()


def test_a_new_key_leaves_nothing_under_the_old_one(rig: Rig) -> None:
    first, second = (
        Encryption({"k1": bytes(range(32))}),
        Encryption({"k2": bytes(32), "k1": bytes(range(32))}),
    )
    store = rig.engine("a", cipher=first)
    store.open()
    filled(rig, store, 1, 3)
    store.save()
    store.close()
    again = rig.engine("b", cipher=second)
    again.open()
    again.rekey()
    assert rig.service._records == {}
    assert len(rig.service._blobs) == 1
    again.commit(start(4))
    again.close()
    last = rig.engine("c", cipher=Encryption({"k2": bytes(32)}))
    last.open()
    assert numbers(last) == [1, 2, 3, 4]


def test_vacuum_is_a_snapshot_and_commits_go_on(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    filled(rig, store, 1, 3)
    store.vacuum()
    filled(rig, store, 4, 5)
    store.close()
    again = rig.engine("b")
    again.open()
    assert numbers(again) == [1, 2, 3, 4, 5]


def test_a_crash_in_the_middle_of_an_import_leaves_the_hub_as_it_was(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    store.begin_import()
    rig.kill(store)
    again = rig.engine()
    again.open()
    assert numbers(again) == []
    again.commit(start(1))
    copy = str(rig.path / "copy.db")
    write_copy(rig.service, "claims", copy)
    assert contents(again.location) == contents(copy)


def test_nothing_of_a_payload_is_readable_in_log_and_snapshots(rig: Rig) -> None:
    store = rig.engine(cipher=Encryption({"k1": bytes(range(32))}))
    store.open()
    canary = b"canary-7f3a" * 10
    events = [episode(1, events=canary), episode(1, 1, events=canary * 600_000)]
    store.commit(Batch(1, new_instances=[instance(1, "claim-1")], history=events))
    store.save()
    kept = [record.content for record in rig.service._records.values()]
    kept += [
        zlib.decompress(blob) if name.startswith("snapshots/") else blob
        for name, blob in rig.service._blobs.items()
    ]
    assert len(kept) == 4  # an epoch, a record, its body, a snapshot
    assert not any(canary in inflated(content) for content in kept)


def inflated(content: bytes) -> bytes:
    """Whatever of it is deflated, too."""
    found = content
    for at in range(min(len(content), 100)):
        with suppress(zlib.error):
            found += zlib.decompress(content[at:])
    return found
