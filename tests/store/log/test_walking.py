"""`verify` walks the chain of a log: an intact one has no problems, and planted damage is found."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import msgspec
import pytest

from perdure.engine.upkeep.verification import verify
from perdure.errors import StoreUnusable
from perdure.model.records import Batch
from perdure.store.log.memory import MemoryService
from perdure.store.log.records import Kind, digest_of, packed_batch, record_of
from perdure.store.log.snapshots import SNAPSHOTS, Document, Listed
from perdure.store.log.store import LogStore
from perdure.store.port import Walked
from perdure.testing.conformance import message
from tests.store.log.rig import Rig, start, step

RECORDS = 12


def filled(rig: Rig, *, snapshots: int = 0, large: bool = False) -> LogStore:
    """An engine with some records, the last of them behind the snapshots."""
    store = rig.engine()
    store.open()
    for no in range(1, RECORDS // 2):
        store.commit(start(no))
        store.commit(step(no))
        rig.seconds += 1
        if no <= snapshots:
            store.save()
    if large:
        store.commit(Batch(1, inbox_added=[message(99, "other")._replace(message=_large())]))
    return store


def _large() -> bytes:
    """Bytes that do not get smaller."""
    return b"".join(hashlib.sha256(b"%d" % no).digest() for no in range(100_000))


def walked(store: LogStore) -> Walked:
    return store.walk()


def test_an_intact_log_has_no_problems(rig: Rig) -> None:
    found = walked(filled(rig, large=True))
    assert (found.first, found.end, found.bodies, found.snapshots) == (0, RECORDS, 1, 0)
    assert found.problems == []


def test_after_a_trim_the_walk_begins_at_the_oldest_snapshot(rig: Rig) -> None:
    found = walked(filled(rig, snapshots=4))
    assert (found.first, found.end, found.snapshots) == (7, RECORDS - 1, 2)
    assert found.problems == []


def test_a_walk_crosses_what_was_changed_outside_of_batches(rig: Rig) -> None:
    store = filled(rig, snapshots=1)
    store.vacuum()
    store.commit(start(50))
    found = walked(store)
    assert (found.snapshots, found.problems) == (1, [])


def test_a_takeover_is_no_damage(rig: Rig) -> None:
    first = filled(rig, snapshots=2)
    rig.kill(first)
    second = rig.engine("b")
    rig.seconds += 60
    second.open()
    second.commit(start(50))
    assert walked(second).problems == []


def test_verify_says_what_it_walked(rig: Rig) -> None:
    store = filled(rig, snapshots=3)
    store.close()
    reader = rig.engine("reader")
    report = verify(reader)
    assert report.walked is not None
    assert (report.walked.first, report.walked.end) == (5, RECORDS - 1)
    assert not [problem for problem in report.problems if "log" in problem or "snapshot" in problem]


def test_a_hub_that_is_not_there_is_said(rig: Rig) -> None:
    with pytest.raises(StoreUnusable, match="does not have the hub"):
        rig.engine().walk()


# -------------------------------------------------------------------------------------------- planted damage


def changed(service: MemoryService) -> None:
    record = service._records[8]
    service._records[8] = record._replace(content=record.content[:-1] + bytes([record.content[-1] ^ 1]))


def lost(service: MemoryService) -> None:
    del service._records[8]


def exchanged(service: MemoryService) -> None:
    records = service._records
    records[8], records[9] = records[9], records[8]


def cut_short(service: MemoryService) -> None:
    service._records[8] = service._records[8]._replace(content=b"pl")


def replaced(service: MemoryService) -> None:
    """By a record that perdure could have written in this place."""
    before = digest_of(service._records[7].content)
    content = record_of(Kind.BATCH, 0, before, packed_batch(start(77)))
    service._records[8] = service._records[8]._replace(content=content)


def fenced(service: MemoryService) -> None:
    """A batch of an engine that no longer holds the hub, at the end of the log."""
    end = service._end
    record = record_of(Kind.BATCH, 3, digest_of(service._records[end - 1].content), packed_batch(start(77)))
    service._records[end] = service._records[end - 1]._replace(content=record)
    service._end += 1


def trimmed_too_far(service: MemoryService) -> None:
    for position in [position for position in service._records if position < 8]:
        del service._records[position]


def body_changed(service: MemoryService) -> None:
    [name] = [name for name in service._blobs if name.startswith("bodies/")]
    service._blobs[name] += b"x"


def body_lost(service: MemoryService) -> None:
    [name] = [name for name in service._blobs if name.startswith("bodies/")]
    del service._blobs[name]


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (changed, "record 9 of the log does not follow record 8"),
        (lost, "record 8 of the log is missing"),
        (exchanged, "record 8 of the log does not follow record 7"),
        (cut_short, "record 8 of the log cannot be read"),
        (replaced, "record 9 of the log does not follow record 8"),
        (fenced, "of the epoch 3, after the epoch 0"),
        (trimmed_too_far, "record 0 of the log is missing"),
        (body_changed, "was changed: its hash"),
        (body_lost, "is missing"),
    ],
)
def test_planted_damage_of_records_is_found(
    plant: Callable[[MemoryService], None], said: str, rig: Rig
) -> None:
    store = filled(rig, large=True)
    plant(rig.service)
    assert any(said in problem for problem in walked(store).problems)
    store.close()
    report = verify(rig.engine("reader"))
    assert any(said in problem for problem in report.problems)


def relisted(rig: Rig, change: Callable[[Listed], Listed]) -> None:
    """The list says something else about the newest snapshot."""
    about = rig.service.about()
    content, tag = about.read() or (b"", "")
    document = msgspec.json.decode(content, type=Document)
    document.snapshots[-1] = change(document.snapshots[-1])
    about.write(msgspec.json.encode(document), tag)


def newest_blob(rig: Rig) -> str:
    return rig.service.blobs().names(SNAPSHOTS)[-1]


def snapshot_lost(rig: Rig) -> None:
    del rig.service._blobs[newest_blob(rig)]


def snapshot_changed(rig: Rig) -> None:
    rig.service._blobs[newest_blob(rig)] += b"x"


def snapshot_misplaced(rig: Rig) -> None:
    relisted(rig, lambda listed: msgspec.structs.replace(listed, position=listed.position + 1))


def snapshot_beyond_the_end(rig: Rig) -> None:
    relisted(rig, lambda listed: msgspec.structs.replace(listed, position=listed.position + 100))


def snapshot_of_another_chain(rig: Rig) -> None:
    relisted(rig, lambda listed: msgspec.structs.replace(listed, digest=bytes(32)))


def snapshot_with_other_rows(rig: Rig) -> None:
    """Its hash is right, but a row is not what the records make of it."""
    path = rig.path / "tampered.db"
    blob = newest_blob(rig)
    content = zlib.compress(_tampered(path, zlib.decompress(rig.service._blobs[blob])))
    rig.service._blobs[blob] = content
    relisted(rig, lambda listed: msgspec.structs.replace(listed, content=hashlib.sha256(content).digest()))


def _tampered(path: Path, file: bytes) -> bytes:
    path.write_bytes(file)
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("update instances set name = 'other' where instance_no = 1")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (snapshot_lost, "is missing"),
        (snapshot_changed, "is damaged"),
        (snapshot_misplaced, "and listed for"),
        (snapshot_beyond_the_end, "before a snapshot of it"),
        (snapshot_of_another_chain, "does not follow record"),
        (snapshot_with_other_rows, "has other rows than the records before it: instances"),
    ],
)
def test_planted_damage_of_snapshots_is_found(plant: Callable[[Rig], None], said: str, rig: Rig) -> None:
    store = filled(rig, snapshots=3)
    plant(rig)
    assert any(said in problem for problem in walked(store).problems)


def test_a_snapshot_that_is_made_during_the_walk_is_no_damage(rig: Rig) -> None:
    """It deletes records that the walk still needs: the walk begins again."""
    store = filled(rig, snapshots=2)
    reads = 0

    def save(verb: str) -> str:
        nonlocal reads
        reads += verb == "read"
        if verb == "read" and reads == 2:
            store.save()
        return "done"

    rig.service.faults = save  # type: ignore[assignment]
    assert walked(store).problems == []
    assert reads > 2
