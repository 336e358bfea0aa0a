"""The format of records stays readable, and an earlier version refuses what it would leave out."""

import typing
from contextlib import closing

import apsw
import pytest

from perdure.errors import StoreTooNew, StoreUnusable
from perdure.model.records import Batch
from perdure.store.log.records import (
    _FIELDS,
    BEGINNING,
    FORMAT,
    Kind,
    blob_of,
    content_of,
    header_of,
    in_blob,
    packed_batch,
    record_of,
)
from perdure.store.log.replica import Replica
from perdure.store.sqlite.connection import SCHEMA_VERSION
from perdure.testing.conformance import instance, update_of
from tests.store.log.rig import Rig, start

COLUMNS_OF_FORMAT_1 = {
    "at": 0,
    "new_instances": 23,
    "updates": 12,
    "moved": 0,
    "history": 7,
    "bodies": 5,
    "versions": 0,
    "custom_status": 0,
    "entity_states": 0,
    "waits_opened": 11,
    "waits_closed": 0,
    "task_updates": 4,
    "task_moves": 5,
    "inbox_added": 4,
    "inbox_removed": 0,
    "inbox_held": 0,
    "seen": 4,
    "dropped": 7,
    "executions_removed": 0,
    "purged": 0,
    "forgotten": 0,
    "keys": 10,
    "keys_used": 0,
    "audit": 8,
    "activities_placed": 9,
    "activities_removed": 0,
    "results": 6,
    "partitions_released": 0,
    "ring": 5,
    "heads_removed": 0,
}


def columns(hint: object) -> int:
    """The number of columns of the rows in a field; 0 for a field without rows."""
    return next((len(one._fields) for one in typing.get_args(hint) if hasattr(one, "_fields")), 0)


def test_a_field_or_column_is_added_with_a_new_format() -> None:
    """After an addition: raise FORMAT, and add a table beside the one above."""
    hints = typing.get_type_hints(Batch)
    assert FORMAT == 1
    assert {name: columns(hints[name]) for name in _FIELDS} == COLUMNS_OF_FORMAT_1


@pytest.mark.parametrize("moved", [None, set(), {3, 1}])
def test_a_batch_comes_back_as_it_was(moved: set[int] | None) -> None:
    batch = Batch(7, updates=[update_of(instance(1))], moved=moved, purged=[4], heads_removed=["w"])
    record = record_of(Kind.BATCH, 3, BEGINNING, packed_batch(batch))
    assert content_of(record) == batch
    assert header_of(record)[1:5] == (Kind.BATCH, 1, 0, 3)


def test_equal_batches_have_different_records() -> None:
    content = packed_batch(start(1))
    assert record_of(Kind.BATCH, 0, BEGINNING, content) != record_of(Kind.BATCH, 0, BEGINNING, content)


def test_a_large_content_is_deflated_and_may_be_in_a_blob() -> None:
    batch = Batch(1, new_instances=[instance(no, f"claim-{no}") for no in range(200)])
    record = record_of(Kind.BATCH, 0, BEGINNING, packed_batch(batch))
    assert len(record) < len(packed_batch(batch)) / 2
    named, body = in_blob(record, "bodies/x")
    found = blob_of(named)
    assert found is not None
    assert found.blob == "bodies/x"
    assert content_of(named, body) == batch
    assert blob_of(record) is None


@pytest.mark.parametrize("content", [b"", b"x", b"pl", b"{}" * 100])
def test_other_bytes_are_no_record(content: bytes) -> None:
    with pytest.raises(StoreUnusable, match="did not write"):
        header_of(content)


def test_damaged_content_says_so() -> None:
    record = record_of(Kind.BATCH, 0, BEGINNING, packed_batch(start(1)))
    with pytest.raises(StoreUnusable, match="cannot be read"):
        content_of(record[:-3])


def test_a_snapshot_of_a_newer_version_is_refused(rig: Rig) -> None:
    store = rig.engine()
    store.open()
    store.commit(start(1))
    store.close()
    with closing(apsw.Connection(store.location)) as connection:
        connection.pragma("user_version", SCHEMA_VERSION + 1)
    replica = Replica(str(rig.path / "other.db"), "claims")
    with closing(replica), pytest.raises(StoreTooNew, match="made by a newer version"):
        replica.replace(store.location, replica.place)
